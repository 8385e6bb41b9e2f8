from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core import layout
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace
from platform_core.shift.sketch.cells import Cells, cells_of, count_days, merge_cells
from platform_core.shift.sketch.histogram import count, quantile_edges
from platform_core.shift.sketch.patient_days import Basis, PatientDays, feature_days, score_days
from platform_core.shift.sketch.references import freeze_reference, read_reference
from platform_core.shift.sketch.sketches import (
    append_entry,
    next_entry,
    read_sketches,
    restate_days,
    sketch_shard,
    sum_sketches,
)
from platform_core.storage.tables import rows_of
from tests.shift.planted import MODEL, MONDAY, RECIPE, STRATUM, Month, fill, keys_of, prepare

BASIS = Basis(reference=MODEL, recipe=RECIPE, target="lesion", model=MODEL)
DAYS = [MONDAY + timedelta(days=i) for i in range(56)]
NOISE = "noise_immerkaer_hu"
REALS = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=200)


@pytest.fixture
def frozen(workspace: Workspace) -> Workspace:
    """Two sites of one month, and the reference of the first."""
    ready = prepare(workspace, "a", "b")
    fill(ready, Month(), Month(site="b", noise_hu=11.0))
    freeze_reference(ready, "a", basis=BASIS, run="r")
    return ready


def sketched(workspace: Workspace, *sites: str) -> Workspace:
    for site in sites:
        restate_days(workspace, site, DAYS, basis=BASIS, run="r")
    return workspace


def total(workspace: Workspace, feature: str, site: str = "b", **window: tuple[date, date]) -> dict[str, Any] | None:
    rows = sum_sketches(workspace, BASIS, sites=[site], **window).filter(pc.field("feature") == feature).to_pylist()
    return rows[0] if rows else None


@given(REALS, REALS)
def test_every_finite_value_is_in_the_bin_that_its_edges_say(reference: list[float], values: list[float]) -> None:
    edges = quantile_edges(np.asarray(reference))
    dirty = np.asarray([*values, np.nan, np.inf, -np.inf])
    counts = count(dirty, edges, np.zeros(len(dirty), np.intp), 1)[0]
    expected = [
        sum(low < v <= high for v in values) for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)
    ]
    assert counts.tolist() == expected


@given(REALS)
def test_edges_are_increasing_and_values_of_the_reference_or_just_below(reference: list[float]) -> None:
    edges = quantile_edges(np.asarray(reference))
    assert (np.diff(edges) > 0).all()
    assert set(edges) <= set(reference) | set(np.nextafter(reference, -np.inf))


def test_below_at_and_above_a_constant_are_three_bins() -> None:
    edges = quantile_edges(np.full(50, 2.5))
    counts = count(np.array([2.4, 2.5, 2.5, 2.6, 2.7]), edges, np.zeros(5, np.intp), 1)
    assert counts.tolist() == [[1, 2, 2]]


def test_bins_hold_equal_shares_of_a_continuous_reference() -> None:
    values = np.random.default_rng(0).normal(size=6400)
    counts = count(values, quantile_edges(values), np.zeros(6400, np.intp), 1)[0]
    assert (abs(counts[2:-2] - 100) <= 1).all()


def test_the_sum_over_days_is_the_count_of_all_patients(frozen: Workspace) -> None:
    sketched(frozen, "b")
    days = feature_days(frozen, "b", RECIPE)
    values = days.values(NOISE)
    edges = np.asarray(read_reference(frozen, BASIS).of_stratum(STRATUM)[NOISE]["edges"])
    found = total(frozen, NOISE)
    assert found is not None
    assert found["n"] == len(values) == 150
    assert found["sketch"] == np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).tolist()
    assert found["sum"] == pytest.approx(values.sum(), rel=1e-12)
    assert found["sum_squares"] == pytest.approx((values**2).sum(), rel=1e-12)


def test_labels_scores_and_embeddings_are_sketched_too(frozen: Workspace) -> None:
    sketched(frozen, "b")
    scored = score_days(frozen, "b", BASIS)
    label, embedding, fourier = (total(frozen, name) for name in ("label", "embedding", "embedding_fourier"))
    assert label is not None
    assert embedding is not None
    assert fourier is not None
    labels = scored.rows.column("label").to_pylist()
    assert label["sketch"] == [labels.count("0"), labels.count("1"), 0]
    assert len(embedding["sketch"]) == 4 + 10
    assert len(fourier["sketch"]) == 128
    assert total(frozen, "score") is not None


def test_a_class_that_nobody_knows_is_counted_apart(frozen: Workspace) -> None:
    rows = score_days(frozen, "b", BASIS).rows
    odd = rows.set_column(rows.column_names.index("label"), "label", pa.array(["2"] * len(rows)))
    cells = count_days(PatientDays(odd, ("score",), ("0", "1")), read_reference(frozen, BASIS))
    assert merge_cells(cell for key, cell in cells.items() if key[3] == "label").sums.tolist() == [0, 0, 150]


def test_a_repeated_write_adds_nothing(frozen: Workspace) -> None:
    assert restate_days(frozen, "b", DAYS, basis=BASIS, run="r1") > 0
    before = frozen.lake.version(layout.SKETCH)
    assert restate_days(frozen, "b", DAYS, basis=BASIS, run="r2") == 0
    assert frozen.lake.version(layout.SKETCH) == before


def test_a_late_arrival_restates_its_day_to_what_it_would_have_been(frozen: Workspace) -> None:
    sketched(frozen, "b")
    arrive_late(frozen, n=9, noise_hu=15.0)
    assert restate_days(frozen, "b", DAYS, basis=BASIS, run="late") > 0
    wanted = count_days(feature_days(frozen, "b", RECIPE), read_reference(frozen, BASIS))
    present = cells_of(read_sketches(frozen, BASIS, sites=["b"]))
    for key, cell in wanted.items():
        assert present[key].n == cell.n
        np.testing.assert_allclose(present[key].sums, cell.sums, atol=1e-9)


def arrive_late(workspace: Workspace, n: int, noise_hu: float) -> None:
    """Scans that come later, on the same days, of other patients."""
    series = [
        {
            "site": "b",
            "series_key": f"late{i}",
            "revision": 1,
            "patient_key": f"late{i}",
            "patient_known": True,
            "modality": "CT",
            "stratum": STRATUM,
            "observed_on": MONDAY + timedelta(days=i),
            "volume_uri": "v",
            "run": "late",
        }
        for i in range(n)
    ]
    workspace.lake.append(layout.SERIES, rows_of(workspace.lake.schemas[layout.SERIES], series), transaction="late")
    rows = [
        {name: row[name] for name in ("site", "series_key", "revision", "stratum", "observed_on", "run")}
        | {"recipe": RECIPE}
        for row in series
    ]
    table = rows_of(workspace.lake.schemas[layout.FEATURE], rows)
    for name, value in ((NOISE, noise_hu), ("spacing_z_mm", 2.5), ("q50_hu", float("nan"))):
        table = table.append_column(name, pa.array([value] * n, pa.float64()))
    workspace.lake.append(layout.FEATURE, table, transaction="late")


def test_a_missing_number_is_in_no_sum_but_in_the_others(frozen: Workspace) -> None:
    arrive_late(frozen, n=9, noise_hu=10.0)
    sketched(frozen, "b")
    q50, noise, every = (total(frozen, name) for name in ("q50_hu", NOISE, "features"))
    assert q50 is not None
    assert noise is not None
    assert every is not None
    assert (q50["n"], noise["n"], every["n"]) == (150, 159, 150)
    rows = frozen.lake.read(layout.SKETCH)
    assert all(np.isfinite(row["sketch"]).all() for row in rows.to_pylist())


def test_a_number_that_no_measurement_has_is_none() -> None:
    days = PatientDays(pa.table({"x": [1.0, 1e200, -1e308, float("inf"), None]}), ("x",))
    np.testing.assert_array_equal(days.values("x"), [1.0, np.nan, np.nan, np.nan, np.nan])


def test_two_scans_of_a_patient_and_day_count_once_as_the_first_key(frozen: Workspace) -> None:
    series = frozen.lake.read(layout.SERIES, pc.field("site") == "b").to_pylist()[0]
    again = {**series, "series_key": "0again"}
    frozen.lake.append(layout.SERIES, rows_of(frozen.lake.schemas[layout.SERIES], [again]), transaction="again")
    about = {name: again[name] for name in ("site", "series_key", "revision", "stratum", "observed_on")}
    table = rows_of(frozen.lake.schemas[layout.FEATURE], [about | {"recipe": RECIPE, "run": "r"}])
    table = table.append_column(NOISE, pa.array([99.0]))
    frozen.lake.append(layout.FEATURE, table, transaction="again")
    days = feature_days(frozen, "b", RECIPE)
    mine = days.rows.filter(pc.field("patient_key") == series["patient_key"]).to_pylist()
    assert len(mine) == 1
    assert mine[0][NOISE] == 99.0
    assert mine[0]["q50_hu"] is not None, "what the first scan lacks the second gives"


def test_of_two_writers_one_lands_and_the_other_looks_again(frozen: Workspace) -> None:
    row = {
        "stratum": STRATUM,
        "day": MONDAY,
        "last_day": MONDAY,
        "feature": "x",
        "kind": "labels",
        "n": 1,
        "sketch": [1.0],
    }
    assert append_entry(frozen, "b", [row], basis=BASIS, entry=0, run="one") == 1
    assert append_entry(frozen, "b", [row], basis=BASIS, entry=0, run="two") == 0
    assert next_entry(frozen, "b", BASIS) == 1


def test_who_comes_second_counts_what_the_first_has_written(frozen: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def while_another_writes(workspace: Workspace, site: str, basis: Basis) -> int:
        number = next_entry(workspace, site, basis)
        if not asked:
            asked.append(number)
            restate_days(workspace, site, DAYS, basis=basis, run="other")
        return number

    monkeypatch.setattr("platform_core.shift.sketch.sketches.next_entry", while_another_writes)
    monkeypatch.setattr("platform_core.shift.sketch.sketches.cells_of", blind_once(cells_of))
    restate_days(frozen, "b", DAYS, basis=BASIS, run="r")
    found = total(frozen, NOISE)
    assert found is not None
    assert found["n"] == 150


def blind_once(look: Callable[[pa.Table], Cells]) -> Callable[[pa.Table], Cells]:
    """The other writer, who looks first, and we both see an empty table."""
    looks = []

    def blind(rows: pa.Table) -> Cells:
        looks.append(rows)
        return {} if len(looks) <= 2 else look(rows)

    return blind


def test_a_window_takes_its_days_and_no_others(frozen: Workspace) -> None:
    sketched(frozen, "b")
    whole, first, rest = (
        total(frozen, NOISE, days=days) for days in ((DAYS[0], DAYS[-1]), (DAYS[0], DAYS[9]), (DAYS[10], DAYS[-1]))
    )
    assert whole is not None
    assert first is not None
    assert rest is not None
    assert np.array_equal(np.add(first["sketch"], rest["sketch"]), whole["sketch"])
    assert total(frozen, NOISE, days=(date(2031, 1, 1), date(2031, 1, 9))) is None


def test_the_stage_answers_every_series_once(frozen: Workspace) -> None:
    fill(frozen, Month(site="b", number=1, n=20, stratum="ct/head/plain/sharp"))
    months = (Month(site="b"), Month(site="b", number=1, n=20, stratum="ct/head/plain/sharp"))
    keys = [key for month in months for key in keys_of(month)]
    passed = [Verdict(series_key=key, revision=1) for key in keys]
    record_stage(frozen, "b", "predict", passed, run="r", recipe=RECIPE, model=MODEL)
    done = sketch_shard(frozen, "b", keys, basis=BASIS, run="r")
    assert (done.n_in, done.n_done, done.n_refused) == (170, 150, 20)
    assert sketch_shard(frozen, "b", keys, basis=BASIS, run="r").n_in == 0
    refused = frozen.lake.read(layout.STAGE, pc.field("outcome") == "refused").column("reason").to_pylist()
    assert set(refused) == {"no_reference_stratum"}


def test_before_the_reference_is_frozen_nothing_is_due(workspace: Workspace) -> None:
    ready = prepare(workspace, "a")
    fill(ready, Month())
    passed = [Verdict(series_key=key, revision=1) for key in keys_of(Month())]
    record_stage(ready, "a", "predict", passed, run="r", recipe=RECIPE, model=MODEL)
    assert sketch_shard(ready, "a", keys_of(Month()), basis=BASIS, run="r").n_in == 0
    freeze_reference(ready, "a", basis=BASIS, run="r")
    assert sketch_shard(ready, "a", keys_of(Month()), basis=BASIS, run="r").n_done == 150


def test_a_reference_is_frozen_once(frozen: Workspace) -> None:
    before = read_reference(frozen, BASIS).rows
    fill(frozen, Month(number=1, noise_hu=30.0))
    assert freeze_reference(frozen, "a", basis=BASIS, run="again").rows.equals(before)


def test_a_site_without_scans_has_no_sketch(frozen: Workspace) -> None:
    assert restate_days(frozen, "nobody", DAYS, basis=BASIS, run="r") == 0
    assert len(sum_sketches(frozen, BASIS, sites=["nobody"])) == 0


def test_merging_small_files_changes_no_sum(frozen: Workspace) -> None:
    for day in DAYS[:6]:
        restate_days(frozen, "b", [day], basis=BASIS, run="r")
    before = sum_sketches(frozen, BASIS)
    assert frozen.lake.compact(layout.SKETCH) == 5
    assert sum_sketches(frozen, BASIS).equals(before)
    assert restate_days(frozen, "b", DAYS[:6], basis=BASIS, run="r") == 0
