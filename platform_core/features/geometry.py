"""The grid that the scanner chose."""

from collections.abc import Mapping

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices


def measure_geometry(slices: Slices) -> Mapping[str, float | None]:
    """Spacing and extent of the whole volume along its columns (x) and slices (z).

    Definition: extent is voxels times spacing. Positive mm; spacing grows with coarser sampling. All None
    for plain images; those along z None for a single slice, whose spacing says nothing.
    """
    if slices.geometry is None:
        return {}
    (n_x, _, n_z), (x_mm, _, z_mm) = slices.size, slices.geometry.spacing_mm
    return {
        "spacing_x_mm": x_mm,
        "spacing_z_mm": z_mm if n_z > 1 else None,
        "extent_x_mm": n_x * x_mm,
        "extent_z_mm": n_z * z_mm if n_z > 1 else None,
    }


GEOMETRY = Family(
    name="geometry",
    features=(
        Feature(name="spacing_x_mm", unit="mm", bank="acquisition", meaning="distance of neighbours in a row"),
        Feature(name="spacing_z_mm", unit="mm", bank="acquisition", meaning="distance of neighbouring slices"),
        Feature(name="extent_x_mm", unit="mm", bank="acquisition", meaning="width of the field of view"),
        Feature(name="extent_z_mm", unit="mm", bank="acquisition", meaning="length of the stack"),
    ),
    measure=measure_geometry,
)
