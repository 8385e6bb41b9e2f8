"""Conformal ranks: what they are, that they are uniform, and that each is given once."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.risk import Reals
from platform_core.shift.watch.conformal import conformal_ranks, grid_of, tie_breaks
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.ranks import (
    VALUES,
    DayIcc,
    day_icc,
    features_of_days,
    open_reference,
    rank_new,
    scores_of_days,
)
from platform_core.storage.tables import rows_of
from tests.shift.planted import MODEL, RECIPE, Month, fill, keys_of, prepare

MONDAY = date(2026, 1, 5)
AT = datetime(2026, 2, 1, tzinfo=UTC)
SCOPE = Scope(site="north", stratum="CT", reference="north@2026-01-05")


def by_definition(pool: list[float], values: list[float], tie_break: list[float]) -> list[float]:
    earlier, ranks = list(pool), []
    for value, u in zip(values, tie_break, strict=True):
        n_below, n_ties = sum(e < value for e in earlier), sum(e == value for e in earlier)
        ranks.append((n_below + u * (1 + n_ties)) / (len(earlier) + 1))
        earlier.append(value)
    return ranks


FEW = st.lists(st.integers(0, 5).map(float), max_size=12)


@given(FEW, FEW, st.integers(0, 99))
def test_a_rank_is_what_its_definition_says(pool: list[float], values: list[float], seed: int) -> None:
    u = np.random.default_rng(seed).random(len(values))
    found = conformal_ranks(np.asarray(pool), np.asarray(values), u)
    assert found.tolist() == by_definition(pool, values, u.tolist())


def test_ranks_of_many_values_are_those_of_one_at_a_time() -> None:
    rng = np.random.default_rng(1)
    pool, values, u = rng.normal(size=50).round(1), rng.normal(size=1300).round(1), rng.random(1300)
    found = conformal_ranks(pool, values, u)
    assert found.tolist() == by_definition(pool.tolist(), values.tolist(), u.tolist())
    nightly = [conformal_ranks(np.r_[pool, values[:i]], values[i : i + 7], u[i : i + 7]) for i in range(0, 1300, 7)]
    assert np.concatenate(nightly).tolist() == found.tolist()


@given(st.permutations(list(range(8))))
def test_the_order_of_the_pool_does_not_matter(order: list[int]) -> None:
    values, u = np.array([2.5, 4.0]), np.array([0.3, 0.6])
    pool = np.asarray(order, np.float64)
    assert conformal_ranks(pool, values, u).tolist() == conformal_ranks(np.arange(8.0), values, u).tolist()


def test_ranks_do_not_know_the_unit() -> None:
    rng = np.random.default_rng(2)
    pool, values, u = rng.normal(size=40), rng.normal(size=40), rng.random(40)
    assert conformal_ranks(np.exp(pool), np.exp(values), u).tolist() == conformal_ranks(pool, values, u).tolist()


@pytest.mark.parametrize("decimals", [6, 0], ids=["continuous", "ties"])
@pytest.mark.parametrize("n_reference", [1, 20, 300])
def test_without_a_change_ranks_are_uniform_and_independent_for_a_reference_of_any_size(
    decimals: int, n_reference: int
) -> None:
    """A thousand sites of fifty ranks: each is uniform, at every place, and a rank tells nothing of the next."""
    rng = np.random.default_rng(n_reference)
    ranks = np.stack(
        [
            conformal_ranks(rng.normal(size=n_reference).round(decimals), rng.normal(size=50).round(decimals), u)
            for u in rng.random((1000, 50))
        ]
    )
    assert min(stats.kstest(ranks[:, place], "uniform").pvalue for place in (0, 10, 49)) > 1e-3
    assert stats.kstest(ranks.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(ranks[:, :-1].ravel(), ranks[:, 1:].ravel())[0, 1]) < 4 / np.sqrt(ranks[:, 1:].size)
    spread_of_means = ranks.mean(axis=1).var() * 12 * 50
    assert 0.85 < spread_of_means < 1.15


def test_ranks_against_the_reference_alone_would_drift_together() -> None:
    """Why the site's own past is in the pool: a finite reference's error is shared by all ranks against it."""
    rng = np.random.default_rng(3)
    means = []
    for _ in range(300):
        pool, values = rng.normal(size=20), rng.normal(size=50)
        means.append(((np.searchsorted(np.sort(pool), values) + rng.random(50)) / 21).mean())
    assert np.var(means) * 12 * 50 > 2


def test_tie_breaks_are_uniform_and_the_same_for_ever() -> None:
    keys = [f"key{i}" for i in range(5000)]
    u = tie_breaks(keys, "noise_hu", "r")
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert tie_breaks(["key7"], "noise_hu", "r")[0] == u[7] == 0.8893582476481725
    assert abs(np.corrcoef(u, tie_breaks(keys, "noise_hu", "other"))[0, 1]) < 0.06


def rows(values: Reals, *, first: date = MONDAY, per_day: int = 10, name: str = "a", **facts: Any) -> pa.Table:
    """One series per patient, `per_day` a day."""
    n = len(values)
    table = {
        "series_key": facts.get("series_key", [f"{name}{i:05d}" for i in range(n)]),
        "revision": [1] * n,
        "patient_key": facts.get("patient_key", [f"p{name}{i:05d}" for i in range(n)]),
        "observed_on": facts.get("observed_on", [first + timedelta(days=i // per_day) for i in range(n)]),
        "arrived_at": [facts.get("arrived_at", AT)] * n,
        "feature": [facts.get("feature", "noise_hu")] * n,
        "value": values,
    }
    return pa.table(table, schema=VALUES)


def ranks_of(workspace: Workspace) -> list[dict[str, Any]]:
    found = workspace.lake.read(layout.RANK).to_pylist()
    return sorted(
        (r for r in found if r["rank"] is not None), key=lambda r: (r["reference"], r["feature"], r["sequence"])
    )


@pytest.fixture
def opened(workspace: Workspace) -> Workspace:
    """A reference of sixty patients."""
    open_reference(workspace, SCOPE, rows(np.random.default_rng(0).normal(size=60), name="r", per_day=1), run="r")
    return workspace


LATER = MONDAY + timedelta(days=60)


def test_every_rank_can_be_given_again_from_what_is_written(opened: Workspace) -> None:
    rng = np.random.default_rng(1)
    for night in range(3):
        first = LATER + timedelta(days=night)
        rank_new(opened, SCOPE, rows(rng.normal(size=9).round(1), first=first, name=f"n{night}"), run="r")
    scope = {"site": "north", "stratum": "CT", "recipe": "native", "reference": SCOPE.reference}
    with opened.lake.connect([layout.RANK]) as db:
        audit = load("platform_core.shift.watch", "audit").run(db, since=0, **scope).to_pylist()
    assert [row["sequence"] for row in audit] == list(range(27))
    assert [row["written"] for row in audit] == pytest.approx([row["expected"] for row in audit], abs=1e-12)
    assert all(0 < row["written"] < 1 for row in audit)


def test_a_rank_is_given_once(opened: Workspace) -> None:
    new = rows(np.arange(5.0), first=LATER)
    assert rank_new(opened, SCOPE, new, run="1") == 5
    before = ranks_of(opened)
    assert rank_new(opened, SCOPE, new, run="2") == 0
    corrected = new.set_column(1, "revision", pa.array([2] * 5)).set_column(6, "value", pa.array([9.0] * 5))
    assert rank_new(opened, SCOPE, corrected, run="3") == 0
    moved = rows(np.arange(5.0), first=LATER + timedelta(days=3)).set_column(1, "revision", pa.array([2] * 5))
    assert rank_new(opened, SCOPE, moved, run="4") == 0
    assert ranks_of(opened) == before


def test_a_patient_day_is_one_observation(opened: Workspace) -> None:
    four_images = rows(np.array([1.0, 2.0, 3.0, 4.0]), first=LATER, patient_key=["p"] * 4)
    assert rank_new(opened, SCOPE, four_images, run="r") == 1
    fifth = rows(np.array([5.0]), first=LATER, name="0", patient_key=["p"])
    assert rank_new(opened, SCOPE, pa.concat_tables([fifth, four_images]), run="r") == 0
    assert [row["value"] for row in ranks_of(opened)] == [1.0]


def test_a_late_arrival_gets_the_next_place_and_changes_no_rank(opened: Workspace) -> None:
    rank_new(opened, SCOPE, rows(np.arange(3.0), first=LATER, name="b"), run="1")
    before = ranks_of(opened)
    late = rows(np.array([0.5]), first=LATER - timedelta(days=9), name="late", arrived_at=AT + timedelta(days=1))
    rank_new(opened, SCOPE, late, run="2")
    after = ranks_of(opened)
    assert after[:3] == before
    assert (after[3]["sequence"], after[3]["series_key"]) == (3, "late00000")


def test_a_night_and_a_backlog_make_the_same_ranks(workspace: Workspace) -> None:
    """Ten nights one by one, or all at once: what came is in the same order."""
    values = np.random.default_rng(4).normal(size=60)
    one, other = SCOPE, replace(SCOPE, site="south")
    for scope in (one, other):
        open_reference(workspace, scope, rows(np.arange(40.0) / 20, name="r", per_day=1), run="r")
    backlog = rows(values, first=LATER, per_day=6)
    rank_new(workspace, one, backlog, run="r")
    for night in range(10):
        rank_new(workspace, other, backlog.slice(6 * night, 6), run="r")
    found = {site: [r["rank"] for r in ranks_of(workspace) if r["site"] == site] for site in ("north", "south")}
    assert found["north"] == found["south"]


def test_a_value_that_could_not_be_told_has_no_rank(opened: Workspace) -> None:
    assert rank_new(opened, SCOPE, rows(np.array([np.nan, np.inf, 1.0]), first=LATER), run="r") == 1


def test_a_feature_that_the_reference_lacks_is_left_out(opened: Workspace) -> None:
    assert rank_new(opened, SCOPE, rows(np.arange(3.0), first=LATER, feature="new_mm"), run="r") == 0


def test_a_constant_feature_has_uniform_ranks(workspace: Workspace) -> None:
    open_reference(workspace, SCOPE, rows(np.full(50, 2.5), name="r"), run="r")
    rank_new(workspace, SCOPE, rows(np.full(400, 2.5), first=LATER), run="r")
    assert stats.kstest([row["rank"] for row in ranks_of(workspace)], "uniform").pvalue > 1e-3


def test_a_scope_without_a_reference_says_so(workspace: Workspace) -> None:
    with pytest.raises(EmptySample, match="north@2026-01-05"):
        rank_new(workspace, SCOPE, rows(np.arange(3.0)), run="r")


def test_a_reference_is_frozen(opened: Workspace) -> None:
    assert open_reference(opened, SCOPE, rows(np.arange(90.0), name="x"), run="r") == 0
    assert opened.lake.read(layout.RANK).num_rows == 60


def test_a_reference_row_of_the_same_site_is_not_ranked_among_itself(opened: Workspace) -> None:
    again = rows(np.random.default_rng(0).normal(size=60), name="r", per_day=1)
    assert rank_new(opened, SCOPE, again, run="r") == 0


def days_with_an_effect(icc: float, seed: int, n_days: int = 60, per_day: int = 20) -> Reals:
    rng = np.random.default_rng(seed)
    day = np.repeat(rng.normal(size=n_days), per_day)
    return np.asarray(np.sqrt(icc) * day + np.sqrt(1 - icc) * rng.normal(size=n_days * per_day), np.float64)


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.3])
def test_the_day_effect_is_estimated(icc: float) -> None:
    found = [day_icc(rows(days_with_an_effect(icc, seed), per_day=20))[0] for seed in range(20)]
    estimates = [each.icc or 0.0 for each in found]
    of_ranks = 6 / np.pi * np.arcsin(icc / 2)
    assert np.mean(estimates) == pytest.approx(of_ranks, abs=0.02)
    assert {(each.n, each.n_days, each.n_per_day) for each in found} == {(1200, 60, 20)}


@pytest.mark.parametrize(("icc", "n_days", "at_most"), [(0.05, 40, 0.01), (0.05, 20, 0.03), (0.02, 40, 0.15)])
def test_a_day_effect_is_seldom_taken_for_none(icc: float, n_days: int, at_most: float) -> None:
    """By the estimate's own distribution: F of a one-way analysis of variance, 25 patients a day."""
    ratio = (1 + 25 * icc / (1 - icc)) * stats.f.rvs(n_days - 1, 24 * n_days, size=4000, random_state=0)
    estimates = (ratio - 1) / (ratio + 24)
    facts: Any = {"feature": "f", "n": 25 * n_days, "n_days": n_days, "n_per_day": 25}
    missed = [DayIcc(icc=float(each), **facts).unit == "patient_day" for each in estimates]
    assert np.mean(missed) <= at_most


def test_without_a_day_effect_and_with_days_enough_patients_are_ranked() -> None:
    ratio = stats.f.rvs(199, 4 * 200, size=2000, random_state=0)
    facts: Any = {"feature": "f", "n": 1000, "n_days": 200, "n_per_day": 5}
    units = [DayIcc(icc=float(each), **facts).unit for each in (ratio - 1) / (ratio + 4)]
    assert units.count("patient_day") > 0.9 * len(units)


def test_one_patient_a_day_leaves_nothing_to_tell_a_day_effect_from() -> None:
    (found,) = day_icc(rows(np.random.default_rng(0).normal(size=40), per_day=1))
    assert (found.icc, found.unit) == (None, "patient_day")


def test_where_days_differ_the_median_of_as_many_patients_every_day_is_ranked(workspace: Workspace) -> None:
    reference = rows(days_with_an_effect(0.3, 5), name="r", per_day=20)
    open_reference(workspace, SCOPE, reference, run="r")
    small_day, large_day = (LATER + timedelta(days=i) for i in range(2))
    new = pa.concat_tables(
        [
            rows(np.arange(19.0), first=small_day, per_day=99),
            rows(np.arange(50.0), first=large_day, per_day=99, name="b"),
        ]
    )
    assert rank_new(workspace, SCOPE, new, run="r") == 1
    (only,) = ranks_of(workspace)
    assert (only["observed_on"], only["unit"], only["n_values"], only["value"]) == (large_day, "day", 20, 9.0)
    assert rank_new(workspace, SCOPE, new, run="r") == 0


def test_counting_the_pools_changes_no_rank(opened: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sites of the same nights; the pools of one are counted every second night, of the other never."""
    other = replace(SCOPE, site="south")
    open_reference(opened, other, rows(np.random.default_rng(0).normal(size=60), name="r", per_day=1), run="r")
    for scope, n_batches in ((SCOPE, 2), (other, 99)):
        monkeypatch.setattr("platform_core.shift.watch.ranks.N_BATCHES", n_batches)
        rng = np.random.default_rng(5)
        for night in range(7):
            new = [rows(rng.normal(size=4), first=LATER + timedelta(days=night), name=f"n{night}", feature="noise_hu")]
            rank_new(opened, scope, pa.concat_tables(new), run="r")
    counted = opened.lake.read(layout.POOL).to_pylist()
    assert sorted(row["batch"] for row in counted) == [1, 3, 5]
    assert {sum(row["n"]) for row in counted} == {57 + 8, 57 + 16, 57 + 24}
    found = {site: [r for r in ranks_of(opened) if r["site"] == site] for site in ("north", "south")}
    assert [r["rank"] for r in found["north"]] == [r["rank"] for r in found["south"]]
    assert [r["sequence"] for r in found["north"]] == list(range(28))


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_the_grid_keeps_what_a_feature_tells(scale: float, middle: float) -> None:
    few = middle + scale * np.array([-1.0, 0.2, 1.0])
    assert 1 / 512 <= grid_of(few) / np.ptp(few) <= 1 / 256


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_a_grid_is_a_number_whatever_the_values(few: list[float]) -> None:
    assert 0 < grid_of(np.array(few)) < np.inf


@pytest.mark.parametrize("value", [0.0, 2.5, -1024.0])
def test_a_constant_has_a_grid_that_holds_small_changes(value: float) -> None:
    assert 0 < grid_of(np.full(3, value)) <= max(abs(value), 1) / 256


def test_a_patient_who_was_there_last_week_is_no_new_observation(workspace: Workspace) -> None:
    """Daily follow-ups of one patient are not independent; after a long while it counts again."""
    days = [0, 1, 3, 20, 47, 48, 90]
    series = [
        {"site": "north", "series_key": f"k{day:02d}", "revision": 1, "patient_key": "p", "stratum": "CT", "run": "r"}
        | {"observed_on": MONDAY + timedelta(days=day), "volume_uri": "v", "ingested_at": AT}
        for day in days
    ]
    workspace.lake.append(layout.SERIES, rows_of(workspace.lake.schemas[layout.SERIES], series), transaction="s")
    keys = [row["series_key"] for row in series]
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        db.register("chosen", pa.table({"series_key": keys}))
        found = load("platform_core.shift.watch", "series").run(db, site="north", stratum="CT", return_days=28)
    assert found.column("series_key").to_pylist() == ["k00", "k90"]


def test_features_and_scores_are_ranked_from_the_manifest(workspace: Workspace) -> None:
    ready = prepare(workspace, "north")
    months = [Month(site="north", number=number, n=60) for number in (0, 1)]
    fill(ready, *months)
    stratum = months[0].stratum
    scope = Scope(site="north", stratum=stratum, reference="north@0")

    def values(month: Month) -> pa.Table:
        keys = keys_of(month)
        scores = scores_of_days(ready, "north", stratum, keys, model=MODEL, recipe=RECIPE)
        return pa.concat_tables([features_of_days(ready, "north", stratum, keys, layout.NATIVE), scores])

    open_reference(ready, scope, values(months[0]), run="r")
    rank_new(ready, scope, values(months[1]), run="r")
    found = ranks_of(ready)
    assert {row["feature"] for row in found} == {"noise_immerkaer_hu", "q50_hu", "score", "spacing_z_mm"}
    per_patient = [row for row in found if row["unit"] == "patient_day"]
    assert {row["series_key"] for row in per_patient} == set(keys_of(months[1]))
