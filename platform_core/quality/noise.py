"""Rules about how much pixels scatter."""

from platform_core.quality.contract import Rule

PLAUSIBLE_NOISE = Rule(
    name="plausible_noise",
    severity="warn",
    modality="CT",
    expectation={
        "type": "expect_column_values_to_be_between",
        "column": "noise_immerkaer_hu",
        "min_value": 0.0,
        "strict_min": True,
        "max_value": 200.0,
    },
    because="No scanner is free of noise, so zero is a map or a drawing; above 200 HU soft tissue cannot be read.",
)
