"""Rules, the run that checks them, and what becomes of a scan that fails."""

import logging
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from platform_core import layout
from platform_core.manifest.schemas import FEATURE, SERIES
from platform_core.manifest.stages import Verdict, pending, record_stage
from platform_core.manifest.workspace import Workspace
from platform_core.quality import RULES
from platform_core.quality.contract import Rule
from platform_core.quality.run import check_frame
from platform_core.quality.stage import check_quality
from platform_core.storage.tables import rows_of

MEASURES = (
    "foreground_fraction", "q01_hu", "q50_hu", "q99_hu", "q01_relative", "q99_relative", "noise_immerkaer_hu",
    "spacing_x_mm",
)  # fmt: skip
WIDE = pa.schema([*FEATURE, *(pa.field(name, pa.float64()) for name in MEASURES)])

CLEAN_SCAN: dict[str, Any] = {
    "modality": "CT",
    "patient_known": True,
    "manufacturer": "Maker",
    "kernel": "B30f",
    "geometry": "regular",
    "n_x": 64,
    "n_z": 20,
    "spacing_x_mm": 0.8,
    "spacing_y_mm": 0.8,
    "spacing_z_mm": 2.5,
}
CLEAN_MEASURES: dict[str, Any] = {
    "foreground_fraction": 0.6,
    "q01_hu": -120.0,
    "q50_hu": 40.0,
    "q99_hu": 300.0,
    "noise_immerkaer_hu": 12.0,
    "spacing_x_mm": 0.8,
}
FAULTS: dict[str, dict[str, Any]] = {
    "spacing_x_in_range": {"spacing_x_mm": 0.0},
    "spacing_y_in_range": {"spacing_y_mm": -0.8},
    "spacing_z_in_range": {"spacing_z_mm": 25.0},
    "several_slices": {"n_z": 1},
    "enough_pixels": {"n_x": 16},
    "regular_geometry": {"geometry": "gap"},
    "patient_known": {"patient_known": False},
    "acquisition_day_stated": {"acquired_on": None},
    "manufacturer_stated": {"manufacturer": None},
    "kernel_stated": {"kernel": None},
    "seen_once": {"volume_sha256": "same"},
    "patient_visible": {"foreground_fraction": None},
    "contrast_hu": {"q01_hu": 40.0, "q99_hu": 40.0},
    "contrast_relative": {"q01_relative": 1.0, "q99_relative": 1.0},
    "hounsfield_scale": {"q50_hu": 1064.0},
    "patient_fills_view": {"foreground_fraction": 0.001},
    "plausible_noise": {"noise_immerkaer_hu": 0.0},
}


def frame(*faults: dict[str, Any]) -> pa.Table:
    """Clean scans `s0`, `s1`, ... with the given faults."""
    from datetime import date

    rows = [
        {"series_key": f"s{n}", "volume_sha256": f"h{n}", "acquired_on": date(2026, 1, 5), "q01_relative": None,
         "q99_relative": None, **CLEAN_SCAN, **CLEAN_MEASURES, **fault}
        for n, fault in enumerate(faults)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    return table.cast(
        pa.schema(f if not pa.types.is_null(f.type) else pa.field(f.name, pa.float64()) for f in table.schema)
    )


def land(workspace: Workspace, **faults: dict[str, Any]) -> None:
    """Scans that have passed ingest and native features; `faults` by series key."""
    scans, measures, verdicts = [], [], []
    for n, (key, fault) in enumerate(faults.items()):
        identity = {"site": "north", "series_key": key, "revision": 1, "run": "r0"}
        facts = {**CLEAN_SCAN, **CLEAN_MEASURES, **fault}
        own = {name: facts[name] for name in CLEAN_SCAN}
        measured = {name: facts[name] for name in CLEAN_MEASURES if name != "spacing_x_mm"}
        scans.append({**identity, **own, "patient_key": key, "volume_uri": "v", "volume_sha256": str(n)})
        measures.append({**identity, **measured, "spacing_x_mm": 0.8, "recipe": layout.NATIVE})
        verdicts.append(Verdict(series_key=key, revision=1))
    name = "/".join(faults)
    workspace.lake.append(layout.SERIES, rows_of(SERIES, scans), transaction=f"s/{name}")
    workspace.lake.append(layout.FEATURE, rows_of(WIDE, measures), transaction=f"f/{name}")
    record_stage(workspace, "north", "feature", verdicts, run="r0")


def failing(table: pa.Table) -> dict[str, set[str]]:
    return {result.rule.name: set(result.failures) for result in check_frame(table, RULES.values()) if result.failures}


def test_every_rule_has_a_planted_fault_below() -> None:
    assert set(FAULTS) == set(RULES)


def test_clean_scans_pass_every_rule() -> None:
    results = check_frame(frame({}, {}), RULES.values())
    assert [result.rule.name for result in results if result.failures] == []
    assert {result.rule.name for result in results if result.passed is None} == {"contrast_relative"}


def test_each_planted_fault_is_found_by_its_rule_at_its_scan() -> None:
    """All in one batch, as the stage does it: one faulty scan per rule, and one clean one."""
    names = list(FAULTS)
    table = frame({}, *FAULTS.values(), {"volume_sha256": "same"})
    found = failing(table)
    expected = {name: {f"s{n}"} for n, name in enumerate(names, start=1)}
    expected["seen_once"].add(f"s{len(names) + 1}")
    expected["patient_fills_view"] = {f"s{names.index('patient_fills_view') + 1}"}
    assert found == expected


def test_a_rule_about_one_modality_leaves_the_others_alone() -> None:
    assert failing(frame({"modality": "MR", "n_z": 1, "kernel": None})) == {}


def test_plain_images_without_spacing_break_no_rule_about_spacing() -> None:
    plain = {f"spacing_{axis}_mm": None for axis in "xyz"}
    assert failing(frame({"modality": "DX", "geometry": "plain", **plain}, {})) == {}


def test_a_rule_about_a_column_that_was_never_measured_says_so() -> None:
    (result,) = check_frame(frame({}).drop(["noise_immerkaer_hu"]), [RULES["plausible_noise"]])
    assert (result.passed, result.observed) == (None, "not measured in this batch")


def test_a_distribution_can_be_a_rule_too() -> None:
    """Quantile expectations fail in a checkpoint of this library; they must not here."""
    quantiles = {"quantiles": [0.5], "value_ranges": [[100.0, 200.0]]}
    rule = Rule(
        name="typical_noise",
        severity="warn",
        expectation={
            "type": "expect_column_quantile_values_to_be_between",
            "column": "noise_immerkaer_hu",
            "quantile_ranges": quantiles,
        },
        because="a test",
    )
    (result,) = check_frame(frame({}, {}), [rule])
    assert result.passed is False


def test_checking_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_frame(frame({}, {"spacing_z_mm": 0.0}), RULES.values())
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_bad_scan_is_refused_with_its_reason_and_the_good_ones_go_on(workspace: Workspace) -> None:
    land(workspace, good={}, thick={"spacing_z_mm": 30.0}, unknown={"patient_known": False})
    count = check_quality(workspace, "north", run="r1")
    assert (count.n_in, count.n_done, count.n_refused) == (3, 2, 1)
    stages = {
        row["series_key"]: row for row in workspace.lake.read(layout.STAGE).to_pylist() if row["stage"] == "quality"
    }
    assert (stages["thick"]["outcome"], stages["thick"]["reason"]) == ("refused", "spacing_z_in_range")
    assert stages["unknown"]["outcome"] == "done"
    onward = pending(workspace, "north", "harmonize", recipe="r", after=("quality", layout.NATIVE))
    assert onward == ["good", "unknown"]


def test_the_report_has_one_row_per_rule_and_one_per_failing_scan(workspace: Workspace) -> None:
    land(workspace, good={}, thick={"spacing_z_mm": 30.0})
    check_quality(workspace, "north", run="r1")
    rows = workspace.lake.read(layout.QUALITY).to_pylist()
    batch = {row["rule"]: row for row in rows if row["series_key"] is None}
    assert set(batch) == set(RULES)
    assert batch["spacing_z_in_range"]["observed"] == "1 of 2 scans fail"
    (scan,) = [row for row in rows if row["series_key"] == "thick" and row["rule"] == "spacing_z_in_range"]
    assert (scan["passed"], scan["observed"], scan["severity"]) == (False, "spacing_z_mm 30", "error")


def test_checking_again_writes_nothing_and_later_scans_are_a_batch_of_their_own(workspace: Workspace) -> None:
    land(workspace, first={})
    check_quality(workspace, "north", run="r1")
    before = workspace.lake.version(layout.QUALITY)
    assert check_quality(workspace, "north", run="r2").n_in == 0
    assert workspace.lake.version(layout.QUALITY) == before
    land(workspace, second={})
    assert check_quality(workspace, "north", run="r3").n_in == 1


def test_great_expectations_is_not_imported_when_nothing_is_pending(workspace: Workspace) -> None:
    code = (
        "import sys; from platform_core.manifest.workspace import open_workspace; "
        "from platform_core.quality.stage import check_quality; "
        f"assert check_quality(open_workspace({workspace.uri!r}), 'north', run='r').n_in == 0; "
        "assert 'great_expectations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_rule_is_about_a_column_that_exists() -> None:
    """A renamed feature would silently turn its rules off."""
    from platform_core.features.measure import FEATURES
    from platform_core.quality.run import columns

    known = {*SERIES.names, *FEATURES}
    assert {name: columns(rule) - known for name, rule in RULES.items() if columns(rule) - known} == {}
