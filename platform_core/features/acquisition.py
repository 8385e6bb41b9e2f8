"""What the header states of how the scan was made."""

from collections.abc import Mapping

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices

STATED = {
    "slice_thickness_mm": ("mm", "thickness of a slice, (0018,0050)"),
    "kvp": ("kV", "tube voltage, (0018,0060)"),
    "exposure_mas": ("mAs", "tube current times time of the first slice, (0018,1152)"),
    "repetition_time_ms": ("ms", "(0018,0080)"),
    "echo_time_ms": ("ms", "(0018,0081)"),
    "flip_angle_deg": ("degrees", "(0018,1314)"),
    "field_strength_t": ("T", "(0018,0087)"),
    "pixel_bandwidth_hz": ("Hz", "per pixel, (0018,0095)"),
}


def measure_acquisition(slices: Slices) -> Mapping[str, float | None]:
    """Numbers of the header, as `core__series` has them.

    Positive; None where the header states none, or zero, which is how some scanners write that they do not know.
    They say what was asked for, name a cause, and are free of the grid. The kernel is text: it stays in
    `core__series` and in the stratum. Reconstruction diameter and tube current are left out: `extent_x_mm` and
    `exposure_mas` tell them.

    Source:
        DICOM PS3.3 sections C.8.2.1 (CT), C.8.3.1 (MR) and C.7.6.16 (enhanced).
    """
    stated = {name: slices.header.get(name) for name in STATED}
    return {name: float(value) if value is not None and value > 0 else None for name, value in stated.items()}


ACQUISITION = Family(
    name="acquisition",
    features=tuple(
        Feature(name=name, unit=unit, bank="acquisition", meaning=meaning) for name, (unit, meaning) in STATED.items()
    ),
    measure=measure_acquisition,
)
