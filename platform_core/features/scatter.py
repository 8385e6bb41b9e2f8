"""How much pixels scatter that should be equal, in the numbers of the image; for several families."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal variable."""
MIN_BLOCKS = 64
AIR_HU = (-1200.0, -800.0)
"""Air with its noise: below lie padding values (-2000, -3024), above skin and clothes."""
MIN_AIR = 500
RAYLEIGH = math.sqrt(2 / (4 - math.pi))
"""1.53: SD of the noise in each of two channels over the SD of their magnitude. Dietrich et al. 2007."""
FAR_OUT = 3.0
"""Medians beyond which air holds a ghost or skin; one Rayleigh value in 500 lies there."""


def haar_sd(image: Floats, mask: Mask) -> float | None:
    """Median of |HH1| over 0.6745, HH1 the diagonal band of one Haar step over blocks that lie in the mask.

    Blocks are 2 x 2 pixels; an odd last row or column is left out. None with fewer than 64 blocks.
    """
    whole = mask.shape[1] // 2 * 2, mask.shape[2] // 2 * 2
    image, mask = image[:, : whole[0], : whole[1]], mask[:, : whole[0], : whole[1]]
    rows = image[:, :, 0::2] - image[:, :, 1::2]
    diagonal = (rows[:, 0::2] - rows[:, 1::2]) / 2
    sides = mask[:, :, 0::2] & mask[:, :, 1::2]
    inside = sides[:, 0::2] & sides[:, 1::2]
    if np.count_nonzero(inside) < MIN_BLOCKS:
        return None
    return float(np.median(np.abs(diagonal[inside]))) / NORMAL_MAD


def air_sd(image: Floats, foreground: Mask, modality: str) -> float | None:
    """Noise SD by the air outside the patient; None where it was cut off or filled in, or where there is too little.

    CT: 1.4826 times the median absolute deviation. Others: 1.53 times the SD, as the magnitude of noise is
    Rayleigh distributed; values above three medians are left out (ghosts, skin).
    """
    air = image[_outside(foreground)]
    return _air_of_ct(air) if modality == "CT" else _air_of_magnitude(air)


def _air_of_ct(air: Floats) -> float | None:
    air = air[(air > AIR_HU[0]) & (air < AIR_HU[1])]
    air = air[air > air.min(initial=math.inf)]
    if air.size < MIN_AIR:
        return None
    median = float(np.median(air))
    sd = float(np.median(np.abs(air - median))) / NORMAL_MAD
    # Air that is cut off at the lowest number of the format (-1024) has lost its lower half.
    is_cut = median - float(air.min()) < 2 * sd
    return None if is_cut or sd == 0 else sd


def _air_of_magnitude(air: Floats) -> float | None:
    """Zeros are what was filled in; where they are the larger part, the rest is no longer all of the air."""
    noisy = air[air > 0]
    if noisy.size < max(MIN_AIR, air.size / 2):
        return None
    noisy = noisy[noisy <= FAR_OUT * np.median(noisy)]
    sd = RAYLEIGH * float(noisy.std(dtype=np.float64))
    return sd if sd > 0 else None


def _outside(foreground: Mask) -> Mask:
    """Pixels that an edge of the slice sees along a row or column, so that lungs and bowel gas are left out."""
    seen = np.zeros_like(foreground)
    for axis in (1, 2):
        n = foreground.shape[axis]
        first = np.argmax(foreground, axis=axis, keepdims=True).astype(np.int32)
        last = n - 1 - np.argmax(np.flip(foreground, axis), axis=axis, keepdims=True).astype(np.int32)
        place = np.arange(n, dtype=np.int32).reshape((1, n, 1) if axis == 1 else (1, 1, n))
        seen |= (place < first) | (place > last) | ~foreground.any(axis=axis, keepdims=True)
    return seen
