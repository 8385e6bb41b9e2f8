"""Ranks without a series: the others keep theirs, places close up, and the watch goes on."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from platform_core import layout
from platform_core.lineage.plan import plan_withdrawal
from platform_core.lineage.ranks import without
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.schemas import RANK
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.watch.alarms import catch_up, open_watch
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.ranks import features_of_days, rank_new
from platform_core.storage.tables import rows_of
from tests.lineage.conftest import AT, GONE, Fleet, keys_of, send, take_in
from tests.lineage.test_withdraw import night

N_REFERENCE = 12


def table(n: int) -> pa.Table:
    """Two features: a row that sets the grid, a reference, and n ranks in batches of two."""
    made: list[dict[str, Any]] = []
    for feature in ("a", "b"):
        about = {"site": "s", "stratum": "t", "recipe": "native", "reference": "r", "feature": feature}
        made.append(about | {"series_key": "grid", "sequence": None, "batch": -1})
        for i in range(-N_REFERENCE, n):
            batch = -1 if i < 0 else i // 2
            made.append(
                about | {"series_key": f"k{i}", "sequence": i, "batch": batch, "rank": i / 100, "value": 1.0 * i}
            )
    return rows_of(RANK, made)


@given(st.integers(0, 9), st.sets(st.integers(-N_REFERENCE, 9), max_size=8), st.booleans())
def test_the_others_keep_rank_value_and_order_and_their_places_have_no_gap(n: int, gone: set[int], grid: bool) -> None:
    before = table(n)
    keys = {f"k{i}" for i in gone} | ({"grid"} if grid else set())
    after = without(before, keys).to_pylist()
    for feature in ("a", "b"):
        old = [row for row in before.to_pylist() if row["feature"] == feature and row["series_key"] not in keys]
        new = [row for row in after if row["feature"] == feature]
        placed = sorted((row for row in new if row["sequence"] is not None), key=lambda row: row["sequence"])
        n_reference = sum(row["sequence"] is not None and row["sequence"] < 0 for row in old)
        assert [row["sequence"] for row in placed] == list(range(-n_reference, len(placed) - n_reference))
        told = ("series_key", "rank", "value", "tie_break")
        ordered = [row for row in old if row["sequence"] is not None]
        assert [[row[name] for name in told] for row in placed] == [[row[name] for name in told] for row in ordered]
        assert len(new) == len(old)


@given(st.integers(1, 9), st.sets(st.integers(-N_REFERENCE + 2, 9), max_size=18))
def test_the_number_of_the_last_batch_never_comes_again(n: int, gone: set[int]) -> None:
    before = table(n)
    after = without(before, {f"k{i}" for i in gone})
    assert pc.max(after.column("batch")) == pc.max(before.column("batch"))
    units = [row for row in after.to_pylist() if row["sequence"] == -1]
    assert [row["batch"] for row in units] == [-1, -1]


def scope_of(workspace: Workspace) -> Scope:
    row = workspace.lake.read(layout.RANK).to_pylist()[0]
    return Scope(**{name: row[name] for name in ("site", "stratum", "reference", "recipe")})


def ranked(workspace: Workspace) -> dict[tuple[str, str], tuple[float, float]]:
    rows = workspace.lake.read(layout.RANK, pc.field("sequence") >= 0).to_pylist()
    return {(row["series_key"], row["feature"]): (row["rank"], row["value"]) for row in rows}


def test_ranks_of_others_stay_and_the_next_is_among_those_who_are_left(fleet: Fleet) -> None:
    here, scope = fleet.workspace, scope_of(fleet.workspace)
    before, gone = ranked(here), set(keys_of(here, "north", GONE))
    n_before = {feature for key, feature in before if key in gone}
    assert n_before
    withdraw(here, plan_withdrawal(here, "north", GONE, run="w", at=AT), at=AT)
    assert ranked(here) == {name: told for name, told in before.items() if name[0] not in gone}
    new = come(fleet)
    values = features_of_days(here, "north", scope.stratum, new, layout.NATIVE)
    assert rank_new(here, scope, values, run="later") > 0
    with here.lake.connect([layout.RANK]) as db:
        last = {"site": scope.site, "stratum": scope.stratum, "recipe": scope.recipe, "reference": scope.reference}
        audit = load("platform_core.shift.watch", "audit").run(db, **last, since=0).to_pylist()
    mine = [row for row in audit if row["series_key"] in new]
    assert mine
    assert all(row["written"] == row["expected"] for row in mine)


def test_a_watch_goes_on(fleet: Fleet) -> None:
    """It had come past a place that is gone: it leaves out one rank to come, whatever that is, and no more."""
    here, scope = fleet.workspace, scope_of(fleet.workspace)
    watch = catch_up(here, open_watch(here, scope, alpha=0.05, n_opened=0, scans_per_check=3))
    n_seen = {stream.feature: stream.n_seen for stream in watch.streams}
    withdraw(here, plan_withdrawal(here, "north", GONE, run="w", at=AT), at=AT)
    assert catch_up(here, watch) == watch
    for number in range(2):
        new = come(fleet, f"HOSP-06{number:02}", day=number)
        rank_new(here, scope, features_of_days(here, "north", scope.stratum, new, layout.NATIVE), run=f"later{number}")
    after = {stream.feature: stream.n_seen for stream in catch_up(here, watch).streams}
    rows = here.lake.read(layout.RANK, pc.field("sequence") == -1).to_pylist()
    by_patient = [row["feature"] for row in rows if row["unit"] == "patient_day"]  # a whole day has its rank already
    assert len(by_patient) > 5
    assert {after[feature] - n_seen[feature] for feature in by_patient} == {1}


def come(fleet: Fleet, patient: str = "HOSP-0303", day: int = 0) -> list[str]:
    """One more patient at north; returns the series."""
    from pathlib import Path

    here = fleet.workspace
    before = set(keys_of(here, "north"))
    scans = Path(here.uri).parent / "scans"
    send(scans, "north", patient)
    file = Path(here.uri) / layout.site_file("north")
    file.write_text(file.read_text(encoding="utf-8").replace(str(fleet.scans), str(scans)), encoding="utf-8")
    take_in(Workspace(here.uri), "north", AT + timedelta(days=5 + day))
    night(here, "north")
    return sorted(set(keys_of(here, "north")) - before)
