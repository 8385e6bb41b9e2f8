"""How bright the patient is."""

from collections.abc import Mapping

import numpy as np

from platform_core.features.contract import Family, in_both_units
from platform_core.features.slices import Slices

QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}


def measure_intensity(slices: Slices) -> Mapping[str, float | None]:
    """Quantiles of the foreground's intensities.

    Definition: order statistics with linear interpolation, of at most 200 000 foreground pixels at even
    steps. HU for CT, all real numbers; others as a ratio to the foreground's median, so that `q50` is
    not told there. They grow with brightness; the spread of the ratios grows with contrast. None
    with fewer than 64 foreground pixels.
    """
    if slices.sample is None:
        return {}
    found = np.quantile(slices.sample, list(QUANTILES.values()))
    told = {f"{name}_{slices.unit}": float(value) for name, value in zip(QUANTILES, found, strict=True)}
    told.pop("q50_relative", None)
    return told


INTENSITY = Family(
    name="intensity",
    features=tuple(
        feature
        for name, level in QUANTILES.items()
        for feature in in_both_units(name, "content", f"{level:.0%} quantile of the foreground")
        if feature.name != "q50_relative"
    ),
    measure=measure_intensity,
)
