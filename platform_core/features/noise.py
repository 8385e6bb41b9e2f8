"""How much pixels scatter that should be equal."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from platform_core.features.contract import Family, Feature, in_both_units
from platform_core.features.slices import MIN_VOXELS, Mask, Slices

NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal variable."""
AIR_HU = (-1200.0, -800.0)
"""Air with its noise: below lie padding values (-2000, -3024), above skin and clothes."""
MIN_AIR = 500


def measure_noise(slices: Slices) -> Mapping[str, float | None]:
    """Three estimates of the noise SD; each is non-negative and grows with noise.

    immerkaer: sqrt(pi/2)/6 times the mean of |I * N| over pixels whose eight neighbours are foreground too,
        N = [1 -2 1; -2 4 -2; 1 -2 1]; the median over slices.
    haar: median of |HH1| over 0.6745, HH1 the diagonal band of one Haar step over blocks that lie in the
        foreground; edges move it less.
    air (CT): 1.4826 times the median absolute deviation of air outside the body. None where the scanner
        cuts air off or fills it in, or shows too little of it.

    Both of the first assume white noise: a sharper or softer kernel moves them as dose does.
    HU for CT, others as a ratio to the foreground's median.

    Source:
        Immerkaer 1996, Comput. Vis. Image Underst. 64(2):300-302, doi:10.1006/cviu.1996.0060;
        Donoho & Johnstone 1994, Biometrika 81(3):425-455, doi:10.1093/biomet/81.3.425.
    """
    if not slices.has_foreground or slices.scale is None:
        return {}
    estimates = {
        f"noise_immerkaer_{slices.unit}": _immerkaer(slices),
        f"noise_haar_{slices.unit}": _haar(slices),
    }
    told = {name: None if sd is None else sd / slices.scale for name, sd in estimates.items()}
    return told | {"noise_air_hu": _air(slices)} if slices.modality == "CT" else told


def _immerkaer(slices: Slices) -> float | None:
    rows = slices.voxels[:, :, 2:] - 2 * slices.voxels[:, :, 1:-1] + slices.voxels[:, :, :-2]
    response = np.abs(rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2])
    means = [
        float(response[n][inside].mean(dtype=np.float64))
        for n, inside in enumerate(slices.interior)
        if np.count_nonzero(inside) >= MIN_VOXELS
    ]
    return math.sqrt(math.pi / 2) / 6 * float(np.median(means)) if means else None


def _haar(slices: Slices) -> float | None:
    """Blocks of 2 x 2 pixels; an odd last row or column is left out."""
    whole = slices.foreground.shape[1] // 2 * 2, slices.foreground.shape[2] // 2 * 2
    image, mask = slices.voxels[:, : whole[0], : whole[1]], slices.foreground[:, : whole[0], : whole[1]]
    rows = image[:, :, 0::2] - image[:, :, 1::2]
    diagonal = (rows[:, 0::2] - rows[:, 1::2]) / 2
    sides = mask[:, :, 0::2] & mask[:, :, 1::2]
    inside = sides[:, 0::2] & sides[:, 1::2]
    if np.count_nonzero(inside) < MIN_VOXELS:
        return None
    return float(np.median(np.abs(diagonal[inside]))) / NORMAL_MAD


def _air(slices: Slices) -> float | None:
    air = slices.voxels[_outside(slices.foreground)]
    air = air[(air > AIR_HU[0]) & (air < AIR_HU[1])]
    air = air[air > air.min(initial=math.inf)]
    if air.size < MIN_AIR:
        return None
    median = float(np.median(air))
    sd = float(np.median(np.abs(air - median))) / NORMAL_MAD
    # Air that is cut off at the lowest number of the format (-1024) has lost its lower half.
    is_cut = median - float(air.min()) < 2 * sd
    return None if is_cut or sd == 0 else sd


def _outside(foreground: Mask) -> npt.NDArray[np.bool_]:
    """Pixels that an edge of the slice sees along a row or column, so that lungs and bowel gas are left out."""
    seen = np.zeros_like(foreground)
    for axis in (1, 2):
        ahead = np.logical_or.accumulate(foreground, axis=axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(foreground, axis), axis=axis), axis)
        seen |= ~ahead | ~behind
    return seen


NOISE = Family(
    name="noise",
    features=(
        *in_both_units("noise_immerkaer", "acquisition", "noise SD by Immerkaer's mask"),
        *in_both_units("noise_haar", "acquisition", "noise SD by the diagonal Haar band"),
        Feature(name="noise_air_hu", unit="HU", bank="acquisition", meaning="noise SD in air outside the body; CT"),
    ),
    measure=measure_noise,
)
