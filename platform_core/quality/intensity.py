"""Rules about what the voxels hold."""

from platform_core.quality.contract import Rule

PATIENT_VISIBLE = Rule(
    name="patient_visible",
    severity="error",
    expectation={"type": "expect_column_values_to_not_be_null", "column": "foreground_fraction"},
    because="A scan in which nothing stands out from the background is blank: there is nothing to harmonize or read.",
)


def _contrast(unit: str) -> Rule:
    return Rule(
        name=f"contrast_{unit}",
        severity="error",
        expectation={
            "type": "expect_column_pair_values_a_to_be_greater_than_b",
            "column_A": f"q99_{unit}",
            "column_B": f"q01_{unit}",
            "ignore_row_if": "either_value_is_missing",
        },
        because="A constant image has no histogram to match and nothing to read.",
    )


CONTRAST_HU, CONTRAST_RELATIVE = _contrast("hu"), _contrast("relative")

HOUNSFIELD_SCALE = Rule(
    name="hounsfield_scale",
    severity="warn",
    modality="CT",
    expectation={
        "type": "expect_column_values_to_be_between",
        "column": "q50_hu",
        "min_value": -300.0,
        "max_value": 400.0,
    },
    because="The middle of a body lies between fat (-100 HU) and bone; elsewhere the rescale slope or intercept was "
    "lost, and every measure in HU is wrong.",
)

PATIENT_FILLS_VIEW = Rule(
    name="patient_fills_view",
    severity="warn",
    expectation={"type": "expect_column_values_to_be_between", "column": "foreground_fraction", "min_value": 0.02},
    because="With under 2 % of the pixels in the patient, the scan shows a table, a phantom or a corner, and its "
    "measures rest on few pixels.",
)
