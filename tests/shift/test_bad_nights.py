"""What no hospital should send and every hospital does: each case ends in words, in no NaN, and in no alarm.

Every case goes through the stages of a night: the reference is frozen, days are sketched and compared, the watch is
kept, and the latest period is measured.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.shift.sketch.patient_days import Basis
from platform_core.shift.sketch.references import freeze_reference, read_reference
from platform_core.shift.sketch.sketches import restate_days, sum_sketches
from platform_core.shift.sketch.statistics import SketchComparison, compare_sketches
from platform_core.shift.stage import Finding, measure_shift
from platform_core.shift.watch.kept import Kept
from platform_core.shift.watch.vigil import keep_watch
from tests.shift.planted import AT, MODEL, MONDAY, RECIPE, Month, fill, keys_of, prepare

BASIS = Basis(reference=MODEL, recipe=RECIPE, target="lesion", model=MODEL)
SOURCE = Month(site="a", n=300)
QUIET = Month(site="b")
NOISE = "noise_immerkaer_hu"
KINDS = {"none", "undetermined"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Night:
    """What one night left of one site."""

    findings: list[Finding]
    watches: list[Kept]
    compared: SketchComparison

    @property
    def finding(self) -> Finding:
        (found,) = self.findings
        return found


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    """A source site with its frozen reference, and site b that runs its model."""
    ready = prepare(workspace, "a", "b")
    fill(ready, SOURCE)
    freeze_reference(ready, "a", basis=BASIS, run="r")
    return ready


def night(workspace: Workspace, site: str = "b") -> Night:
    """Every stage of the shift engine, and no NaN anywhere after it."""
    days = workspace.lake.read(layout.SERIES, pc.field("site") == site, ["observed_on"]).column("observed_on")
    restate_days(workspace, site, [day for day in days.to_pylist() if day], basis=BASIS, run="r")
    frozen = read_reference(workspace, BASIS)
    totals = sum_sketches(workspace, BASIS, sites=[site])
    every = pa.concat_tables([frozen.totals().cast(totals.schema), totals])
    compared = compare_sketches(every, frozen, [(MODEL, site)])
    watches = keep_watch(workspace, site, "lesion", run="r")
    found = measure_shift(workspace, site, target="lesion", run="r", at=AT)
    assert_no_nan(workspace, compared)
    return Night(found, watches, compared)


def assert_no_nan(workspace: Workspace, compared: SketchComparison) -> None:
    """No number that the engine has written or says is NaN or infinite."""
    tables = {name: workspace.lake.read(name) for name in (layout.SHIFT, layout.FINDING, layout.SKETCH, layout.RANK)}
    tables |= {"reference": workspace.lake.read(layout.REFERENCE), "compared": compared.rows}
    for name, table in tables.items():
        for column in table.column_names:
            assert all(map(math.isfinite, numbers(table.column(column)))), f"{name}.{column}"
    for path in workspace.objects.list("watches"):
        json.loads(workspace.objects.get(path), parse_constant=_refuse)


def _refuse(constant: str) -> float:
    raise AssertionError(constant)


def numbers(column: pa.ChunkedArray) -> Iterator[float]:
    """Floats of a column, those in lists too."""
    kind = column.type
    flat = pc.list_flatten(column) if pa.types.is_list(kind) else column
    if pa.types.is_floating(flat.type):
        yield from (value for value in flat.to_pylist() if value is not None)


def is_silent(found: Night) -> bool:
    """No finding but none or undetermined, and no alarm."""
    return {f.kind for f in found.findings} <= KINDS and not any(kept.verdict.is_alarm for kept in found.watches)


def overwrite(
    workspace: Workspace, table: str, change: Callable[[Row], Row], *, site: str = "b", number: int | None = None
) -> None:
    """Change rows of a site, of one month or of all, as a broken machine would have written them."""
    rows = workspace.lake.read(table)
    chosen = site if number is None else f"{site}{number}"
    changed = [change(row) if row["series_key"].startswith(chosen) else row for row in rows.to_pylist()]
    uri = f"{workspace.uri}/{layout.LAKE}/{table}"
    write_deltalake(uri, pa.Table.from_pylist(changed, schema=rows.schema), mode="overwrite")


def two_months(workspace: Workspace, **facts: Any) -> None:
    """The accepted month of site b and one like it."""
    fill(workspace, replace(QUIET, **facts), replace(QUIET, number=1, **facts))


def now_and_then(*values: float) -> Callable[[], float]:
    """One of some values at random, the same ones every time."""
    rng = np.random.default_rng(0)
    return lambda: float(values[rng.integers(len(values))])


def dated(day: date, *places: int) -> Callable[[Row], Row]:
    """Moves the scans of some places of a month to another day."""
    ends = tuple(f"{place:04d}" for place in places)
    return lambda row: row | {"observed_on": day} if row["series_key"].endswith(ends) else row


def no_scans(_: Workspace) -> None:
    pass


def one_scan(workspace: Workspace) -> None:
    fill(workspace, replace(QUIET, n=1))


def one_scan_in_the_present_month(workspace: Workspace) -> None:
    fill(workspace, QUIET, Month(site="b", number=1, n=1))


def a_constant_feature(workspace: Workspace) -> None:
    two_months(workspace)
    overwrite(workspace, layout.FEATURE, lambda row: row | {NOISE: 10.0})


def a_feature_that_the_site_never_has(workspace: Workspace) -> None:
    two_months(workspace, missing=("q50_hu",))


def features_that_stop(workspace: Workspace) -> None:
    fill(workspace, QUIET, Month(site="b", number=1, missing=("q50_hu", NOISE, "spacing_z_mm")))


def no_labels(workspace: Workspace) -> None:
    two_months(workspace, is_labelled=False)


def labels_of_a_class_that_nobody_knows(workspace: Workspace) -> None:
    two_months(workspace)
    overwrite(workspace, layout.LABEL, lambda row: row | {"value": "2"})


def a_reference_without_labels(workspace: Workspace) -> None:
    two_months(workspace)
    overwrite(workspace, layout.LABEL, lambda row: row | {"value": "not read"}, site="a")


def features_that_are_no_numbers(workspace: Workspace) -> None:
    two_months(workspace)
    bad = now_and_then(math.nan, math.inf, -math.inf, 1e308)
    overwrite(workspace, layout.FEATURE, lambda row: row | {NOISE: bad()})


def scores_that_are_no_numbers(workspace: Workspace) -> None:
    two_months(workspace)
    bad = now_and_then(math.nan, math.inf, -math.inf)
    overwrite(workspace, layout.PREDICTION, lambda row: row | {"score": bad()})


def embeddings_that_are_no_numbers(workspace: Workspace) -> None:
    two_months(workspace)
    overwrite(workspace, layout.PREDICTION, lambda row: row | {"embedding": [math.nan] * 4})


def one_embedding_that_is_no_number(workspace: Workspace) -> None:
    two_months(workspace)
    spoilt = keys_of(replace(QUIET, number=1))[7]
    overwrite(
        workspace,
        layout.PREDICTION,
        lambda row: row | {"embedding": [math.inf] * 4} if row["series_key"] == spoilt else row,
    )


def a_clock_that_was_reset(workspace: Workspace) -> None:
    two_months(workspace)
    night(workspace)
    fill(workspace, Month(site="b", number=2, n=120))
    for table in (layout.SERIES, layout.FEATURE):
        overwrite(workspace, table, dated(date(1970, 1, 1), 3, 4), number=2)


def months_in_the_wrong_order(workspace: Workspace) -> None:
    for number in (2, 3, 1):
        fill(workspace, Month(site="b", number=number))
        night(workspace)


CASES = (
    no_scans,
    one_scan,
    one_scan_in_the_present_month,
    a_constant_feature,
    a_feature_that_the_site_never_has,
    features_that_stop,
    no_labels,
    labels_of_a_class_that_nobody_knows,
    a_reference_without_labels,
    features_that_are_no_numbers,
    scores_that_are_no_numbers,
    embeddings_that_are_no_numbers,
    one_embedding_that_is_no_number,
    a_clock_that_was_reset,
    months_in_the_wrong_order,
)


@pytest.mark.parametrize("plant", CASES, ids=lambda plant: plant.__name__)
def test_nothing_is_nan_and_nothing_alarms(plant: Callable[[Workspace], None], ready: Workspace) -> None:
    plant(ready)
    found = night(ready)
    assert is_silent(found)
    assert all(len(finding.explained_by) > 20 for finding in found.findings)
    again = night(ready)
    assert (again.findings, again.watches) == (found.findings, found.watches), "and a second night says the same"


def test_a_real_shift_still_alarms_among_it_all(ready: Workspace) -> None:
    """Or silence would be no merit."""
    features_that_are_no_numbers(ready)
    overwrite(ready, layout.FEATURE, lambda row: row | {"q50_hu": 40.0 + (row["q50_hu"] or 40.0) % 5}, number=0)
    fill(ready, Month(site="b", number=2, noise_hu=10.0, median_hu=80.0, spread=3.0))
    found = night(ready)
    assert not is_silent(found)
    assert found.finding.kind in ("covariate_case_mix", "covariate_acquisition")


def test_an_empty_window_has_no_finding_and_says_what_is_missing(ready: Workspace) -> None:
    found = night(ready)
    assert (found.findings, found.watches) == ([], [])
    assert set(found.compared.skipped.column("reason").to_pylist()) == {"no_values"}
    assert len(found.compared.rows) == 0
    assert len(sum_sketches(ready, BASIS, days=(date(1999, 1, 1), date(1999, 2, 1)))) == 0


@pytest.mark.parametrize("plant", [one_scan, one_scan_in_the_present_month], ids=lambda plant: plant.__name__)
def test_one_scan_says_how_many_are_missing(plant: Callable[[Workspace], None], ready: Workspace) -> None:
    plant(ready)
    finding = night(ready).finding
    assert (finding.kind, finding.n_needed) == ("undetermined", 59)
    assert finding.explained_by == "the period has 1 patient; a verdict needs 60"


def test_a_feature_that_is_missing_is_skipped_with_a_reason_and_the_others_are_compared(ready: Workspace) -> None:
    a_feature_that_the_site_never_has(ready)
    compared = night(ready).compared
    reasons = {row["feature"]: row["reason"] for row in compared.skipped.to_pylist()}
    assert reasons["q50_hu"] == "no_values"
    assert reasons["features"] == "no_values", "a vector of which one part is missing is no vector"
    assert NOISE in compared.rows.column("feature").to_pylist()


def test_a_constant_of_the_reference_has_no_distance_in_its_unit_but_the_others(ready: Workspace) -> None:
    """All of the reference have 2.5 mm; one scan in three of the site has 5 mm: not an area, but a gap."""
    two_months(ready)
    overwrite(ready, layout.FEATURE, lambda row: row | {"spacing_z_mm": 5.0 if row["series_key"][-1] in "369" else 2.5})
    compared = night(ready).compared
    rows = {row["statistic"]: row for row in compared.rows.to_pylist() if row["feature"] == "spacing_z_mm"}
    assert rows.keys() == {"psi", "jensen_shannon", "ks"}
    assert rows["ks"]["value"] == pytest.approx(0.3, abs=0.01)
    reasons = {row["feature"]: row["reason"] for row in compared.skipped.to_pylist()}
    assert reasons["spacing_z_mm"] == "constant"


def test_without_labels_of_the_reference_the_prevalence_is_not_told(ready: Workspace) -> None:
    a_reference_without_labels(ready)
    assert "prevalence cannot be told" in night(ready).finding.explained_by


def test_a_site_of_one_class_only_is_label_shift_of_all_the_rest(ready: Workspace) -> None:
    two_months(ready, prevalence=1.0)
    finding = night(ready).finding
    assert finding.kind == "label"
    assert finding.size == pytest.approx(0.6, abs=0.1)


def test_values_that_are_no_numbers_are_in_no_sketch(ready: Workspace) -> None:
    features_that_are_no_numbers(ready)
    night(ready)
    sums = sum_sketches(ready, BASIS, sites=["b"]).to_pylist()
    assert {row["feature"]: row["n"] for row in sums}["q50_hu"] == 300
    assert NOISE not in {row["feature"] for row in sums}


def test_a_late_arrival_restates_its_closed_day_and_moves_no_verdict(ready: Workspace) -> None:
    two_months(ready)
    before = night(ready)
    n_written = len(ready.lake.read(layout.SKETCH))
    late = replace(QUIET, number=5, n=30)
    fill(ready, late)
    for table in (layout.SERIES, layout.FEATURE):
        overwrite(
            ready, table, lambda row: row | {"observed_on": row["observed_on"] - timedelta(days=5 * 28)}, number=5
        )
    after = night(ready)
    assert is_silent(after)
    assert after.finding.period_start == before.finding.period_start
    (noise,) = [r for r in sum_sketches(ready, BASIS, sites=["b"]).to_pylist() if r["feature"] == NOISE]
    assert noise["n"] == 330
    added = ready.lake.read(layout.SKETCH).slice(0, len(ready.lake.read(layout.SKETCH)) - n_written)
    assert 0 < len(added) < n_written / 2, "only what the days lacked was written"
    night(ready)
    assert len(ready.lake.read(layout.SKETCH)) == n_written + len(added), "and once"


def test_a_revision_that_moves_to_another_day_leaves_nothing_behind(ready: Workspace) -> None:
    """A corrected day: the sketch of the old one is restated to what it would have been without."""
    two_months(ready)
    night(ready)
    moved = MONDAY + timedelta(days=100)
    for table in (layout.SERIES, layout.FEATURE):
        overwrite(ready, table, dated(moved, 11), number=0)
    restate_days(ready, "b", [MONDAY + timedelta(days=i) for i in range(140)], basis=BASIS, run="r")
    per_day = ready.lake.read(layout.SKETCH, pc.field("feature") == NOISE).group_by("day").aggregate([("n", "sum")])
    counts = {row["day"]: row["n_sum"] for row in per_day.to_pylist()}
    assert counts[moved] == 1
    assert sum(counts.values()) == 300
    assert min(counts.values()) >= 0
