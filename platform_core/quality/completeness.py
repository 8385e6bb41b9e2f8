"""Rules about what a scan says of itself."""

from platform_core.quality.contract import Rule

PATIENT_KNOWN = Rule(
    name="patient_known",
    severity="warn",
    expectation={"type": "expect_column_values_to_be_in_set", "column": "patient_known", "value_set": [True]},
    because="Without a patient, several scans of one person pass for several people; such scans are no evidence at a "
    "gate.",
)

ACQUISITION_DAY_STATED = Rule(
    name="acquisition_day_stated",
    severity="info",
    expectation={"type": "expect_column_values_to_not_be_null", "column": "acquired_on"},
    because="Without it the day of arrival decides which period a scan belongs to, and a late batch looks like a new "
    "period.",
)

MANUFACTURER_STATED = Rule(
    name="manufacturer_stated",
    severity="info",
    expectation={"type": "expect_column_values_to_not_be_null", "column": "manufacturer"},
    because="The vendor names the cause of a shift of acquisition; without it only the pixels can.",
)

KERNEL_STATED = Rule(
    name="kernel_stated",
    severity="info",
    modality="CT",
    expectation={"type": "expect_column_values_to_not_be_null", "column": "kernel"},
    because="The reconstruction kernel decides sharpness and noise of a CT, and separates its strata.",
)

SEEN_ONCE = Rule(
    name="seen_once",
    severity="warn",
    expectation={"type": "expect_column_values_to_be_unique", "column": "volume_sha256"},
    because="The same voxels under two series are a re-send with new identifiers, and would count twice.",
)
