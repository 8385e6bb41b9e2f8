"""How evenly the field of view is lit: a cheap stand-in for a fitted bias field."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from platform_core.features.boxes import box_means
from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices

Doubles = npt.NDArray[np.float64]

SMOOTH_MM = 25.0
"""SD of the Gaussian: anatomy is finer, the fall-off of a coil coarser."""
BOX_MM = 6.0
MIN_BOXES = 20
FILLED = 0.5
"""Share of a box that the foreground must fill for the field to be looked at there."""


def measure_bias_field(slices: Slices) -> Mapping[str, float | None]:
    """Range of the smoothed foreground.

    Definition: 95 % less 5 % quantile, over the foreground, of the slices after a Gaussian of 25 mm within each slice;
    the Gaussian sees the foreground alone (smoothed image over smoothed mask), in boxes of 6 mm. HU for CT, others as
    a ratio to the foreground's median. Not negative; grows with the inhomogeneity of the coil in MR, and with
    cupping in CT, where it is mostly the mix of tissues and therefore content. White noise hardly moves it, the
    grid not at all. None for plain images, and with fewer than 20 boxes.

    Source:
        The range of the fitted field is a measure of quality in MRIQC: Esteban et al. 2017,
        doi:10.1371/journal.pone.0184661; here without a fit.
    """
    if slices.geometry is None or slices.image is None:
        return {}
    x_mm, y_mm, _ = slices.geometry.spacing_mm
    steps = max(BOX_MM / y_mm, 1.0), max(BOX_MM / x_mm, 1.0)
    mask = box_means(slices.foreground, *steps)
    filled = mask >= FILLED
    if np.count_nonzero(filled) < MIN_BOXES:
        return {}
    lit = box_means(slices.image * slices.foreground, *steps)
    across = _gaussian(mask.shape[1], steps[0] * y_mm), _gaussian(mask.shape[2], steps[1] * x_mm)
    field = _smooth(lit.astype(np.float64), *across)[filled] / _smooth(mask.astype(np.float64), *across)[filled]
    low, high = np.quantile(field, [0.05, 0.95])
    return {f"bias_field_range_{slices.unit}": float(high - low)}


def _smooth(boxes: Doubles, along_y: Doubles, along_x: Doubles) -> Doubles:
    smooth: Doubles = along_y @ boxes @ along_x
    return smooth


def _gaussian(n: int, box_mm: float) -> Doubles:
    """(n, n): what each box gives to each other; symmetric."""
    apart = np.subtract.outer(np.arange(n), np.arange(n)) * box_mm
    weights: Doubles = np.exp(-0.5 * (apart / SMOOTH_MM) ** 2)
    return weights


BIAS_FIELD = Family(
    name="bias_field",
    features=(
        Feature(
            name="bias_field_range_hu",
            unit="HU",
            bank="content",
            meaning="range of the foreground smoothed by 25 mm; CT",
        ),
        Feature(
            name="bias_field_range_relative",
            unit="foreground median",
            bank="acquisition",
            meaning="range of the foreground smoothed by 25 mm; not CT",
        ),
    ),
    measure=measure_bias_field,
)
