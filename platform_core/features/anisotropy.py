"""How much less a scan resolves through its slices than within them."""

import math
from collections.abc import Mapping

import numpy as np

from platform_core.features.boxes import box_means
from platform_core.features.contract import Family, Feature
from platform_core.features.slices import MIN_VOXELS, Floats, Mask, Slices

FULL = 0.999
"""Share of a cube that must be foreground; less than 1 by the rounding of the mean."""
ROUNDING = 0.01
"""Parts of a pixel that are no part of a cube."""


def measure_anisotropy(slices: Slices) -> Mapping[str, float | None]:
    """Energy of differences along z over that along x, between cubes of one size.

    Definition: voxels are averaged into cubes as long as one slice is apart from the next (or as the fewest slices
    that are no thinner than a pixel is wide); mean square of the difference of two cubes that follow one another
    along z, over the same along x. Cubes, and their neighbours in the plane, lie in the foreground. Both differences
    see the same frequencies in cycles/mm. A cube of a broken number of pixels lies between two whole ones, on a
    line of the logarithms: shared pixels would smooth the noise. Not negative; 1 for an object and noise without a
    preferred direction whose slices are as thick as they are apart; it falls where slices are thicker than that or
    overlap, and rises where they are thinner. The spacing of slices sets the size of the cubes; that of pixels moves
    nothing. None for plain images, too few slices, or slices finer than an eighth of a pixel.
    """
    if slices.geometry is None or slices.threshold is None or not slices.blocks.size:
        return {}
    x_mm, y_mm, z_mm = slices.geometry.spacing_mm
    n_blocks, length, n_y, n_x = slices.blocks.shape
    halves = slices.blocks.reshape(n_blocks, 2, length // 2, n_y, n_x)
    image, mask = halves.mean(axis=2, dtype=np.float32), np.all(halves > slices.threshold, axis=2)
    wide = max(z_mm * length / 2 / x_mm, 1.0)
    smaller, larger = math.floor(wide + ROUNDING), math.ceil(wide - ROUNDING)
    ratios = {n: _log_ratio(image, mask, max(1, round(n * x_mm / y_mm)), n) for n in {smaller, larger}}
    low, high = ratios[smaller], ratios[larger]
    if low is None or high is None:
        return {}
    between = math.log(wide / smaller) / math.log(larger / smaller) if larger > smaller else 0.0
    return {"z_anisotropy_ratio": math.exp(low + between * (high - low))}


def _log_ratio(image: Floats, mask: Mask, n_y: int, n_x: int) -> float | None:
    """Logarithm of the ratio for cubes of (n_y, n_x) pixels; `image` and `mask` are (block, 2, y, x)."""
    cubes = box_means(image, n_y, n_x)
    inner = _inner(box_means(mask, n_y, n_x) >= FULL)
    along_z = np.square(cubes[:, 1] - cubes[:, 0])[inner[:, 0] & inner[:, 1]]
    along_x = np.square(np.diff(cubes, axis=3))[inner[..., 1:] & inner[..., :-1]]
    if min(along_z.size, along_x.size) < MIN_VOXELS:
        return None
    energy_z, energy_x = (float(energy.mean(dtype=np.float64)) for energy in (along_z, along_x))
    return math.log(energy_z / energy_x) if min(energy_z, energy_x) > 0 else None


def _inner(full: Mask) -> Mask:
    """Cubes whose four neighbours in the plane are full too: the blurred skin is no structure along x."""
    inner = np.zeros_like(full)
    beside = full[..., 1:-1, :-2] & full[..., 1:-1, 2:]
    inner[..., 1:-1, 1:-1] = full[..., 1:-1, 1:-1] & beside & full[..., :-2, 1:-1] & full[..., 2:, 1:-1]
    return inner


ANISOTROPY = Family(
    name="anisotropy",
    features=(
        Feature(
            name="z_anisotropy_ratio",
            unit="1",
            bank="acquisition",
            meaning="energy of differences along z over that along x at equal mm",
        ),
    ),
    measure=measure_anisotropy,
)
