"""Rules about the grid that a scan lies on."""

from platform_core.quality.contract import Rule

MAX_SPACING_MM = 20.0
_SPACING = (
    "Resampling divides by the spacing: zero means that no position was written; more than 20 mm between voxels is a "
    "scout, a wrong unit, or missing slices."
)


def _spacing(axis: str) -> Rule:
    return Rule(
        name=f"spacing_{axis}_in_range",
        severity="error",
        expectation={
            "type": "expect_column_values_to_be_between",
            "column": f"spacing_{axis}_mm",
            "min_value": 0.0,
            "strict_min": True,
            "max_value": MAX_SPACING_MM,
        },
        because=_SPACING,
    )


SPACING_X, SPACING_Y, SPACING_Z = _spacing("x"), _spacing("y"), _spacing("z")

SEVERAL_SLICES = Rule(
    name="several_slices",
    severity="info",
    modality="CT",
    expectation={"type": "expect_column_values_to_be_between", "column": "n_z", "min_value": 2},
    because="A CT of one slice is a scout or a single reconstruction; it can be used, but measures through the slices "
    "mean nothing.",
)

ENOUGH_PIXELS = Rule(
    name="enough_pixels",
    severity="warn",
    expectation={"type": "expect_column_values_to_be_between", "column": "n_x", "min_value": 32},
    because="Fewer than 32 pixels across is a thumbnail or a localizer; noise and sharpness cannot be told.",
)

REGULAR_GEOMETRY = Rule(
    name="regular_geometry",
    severity="warn",
    expectation={"type": "expect_column_values_to_be_in_set", "column": "geometry", "value_set": ["regular", "plain"]},
    because="Distances and volumes are only right on a grid of equal steps.",
)
