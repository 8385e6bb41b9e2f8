"""How much of the field of view the patient fills."""

from collections.abc import Mapping

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices


def measure_foreground(slices: Slices) -> Mapping[str, float | None]:
    """Share of pixels that are foreground.

    Definition: foreground pixels over all pixels of the measured slices; CT above -500 HU, others above
    Otsu's threshold. Range [0, 1]. It falls with a larger field of view, and with more lung in CT.
    None where there is no foreground at all.
    """
    return {"foreground_fraction": float(slices.foreground.mean()) if slices.foreground.any() else None}


FOREGROUND = Family(
    name="foreground",
    features=(Feature(name="foreground_fraction", unit="1", bank="content", meaning="share of pixels with patient"),),
    measure=measure_foreground,
)
