"""Alarms: false ones are as rare as promised for ever, true ones come soon, and each can be explained and repeated."""

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from platform_core import layout
from platform_core.errors import BadRequest, EmptySample
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Reals
from platform_core.shift.watch.alarms import advance, catch_up, judge, open_watch, restart
from platform_core.shift.watch.bets import BETS, WAVES, log_returns, log_weights, prevalence_bets
from platform_core.shift.watch.conformal import conformal_ranks
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.power import first_crossing
from platform_core.shift.watch.ranks import open_reference, rank_new
from platform_core.shift.watch.streams import Stream, Watch, from_json, to_json
from platform_core.shift.watch.wealth import (
    N_FIRST,
    Wealth,
    e_bh,
    log_mixture,
    log_spent,
    log_sum,
    settle,
    share,
    unspent,
)
from tests.shift.test_ranks import LATER, SCOPE, rows

MONDAY = date(2026, 1, 5)


def test_the_weights_of_all_restarts_add_up_to_one() -> None:
    n = 15 * N_FIRST
    spent = math.fsum(math.exp(log_spent(block)) for block in range(n))
    assert spent == pytest.approx(1 - 1 / 16)
    assert unspent(n) == pytest.approx(1 / 16)
    assert unspent(0) == 1


@given(st.integers(0, 5000))
def test_what_a_block_spends_is_gone(block: int) -> None:
    assert unspent(block) - unspent(block + 1) == pytest.approx(math.exp(log_spent(block)), rel=1e-6)


def test_the_shares_of_all_families_add_up_to_alpha() -> None:
    assert math.fsum(share(n) for n in range(100_000)) == pytest.approx(1, abs=1e-4)


def test_the_recursion_is_the_sum_over_all_restarts() -> None:
    """Wealth by definition: every start, weighted, times what all later blocks won."""
    won = np.random.default_rng(0).normal(0, 1, (30, 3))
    wealth: Wealth | None = None
    for block, each in enumerate(won):
        wealth = settle(wealth, each, block)
    assert wealth is not None
    since_each = won[::-1].cumsum(axis=0)[::-1]
    spent = np.array([log_spent(block) for block in range(30)])
    np.testing.assert_allclose(wealth.log_e, logsumexp(since_each + spent[:, None], axis=0), atol=1e-12)
    np.testing.assert_allclose(wealth.log_sr, logsumexp(since_each, axis=0), atol=1e-12)
    np.testing.assert_allclose(wealth.log_peak, since_each.max(axis=0), atol=1e-12)
    assert wealth.since.tolist() == since_each.argmax(axis=0).tolist()


def streams_of_ranks(n_streams: int, n: int, *, seed: int, n_reference: int = 200, decimals: int = 9) -> Reals:
    """Ranks of streams in which nothing changes."""
    rng = np.random.default_rng(seed)
    made = [
        conformal_ranks(rng.normal(size=n_reference).round(decimals), rng.normal(size=n).round(decimals), rng.random(n))
        for _ in range(n_streams)
    ]
    return np.stack(made)


@pytest.mark.parametrize("decimals", [9, 0], ids=["continuous", "ties"])
def test_no_more_streams_ever_alarm_than_promised(decimals: int) -> None:
    """Ville's bound at a loose level, where it bites: 400 streams, 120 checks each, a reference of 50."""
    ranks = streams_of_ranks(400, 1200, seed=decimals, n_reference=50, decimals=decimals)
    for alpha in (0.5, 0.2, 0.05):
        n_alarms = np.isfinite(first_crossing(ranks, 10, math.log(1 / alpha))).sum()
        assert n_alarms <= 400 * alpha + 3 * math.sqrt(400 * alpha * (1 - alpha))


def test_the_expected_wealth_never_exceeds_one() -> None:
    """Ten checks of ten ranks: the e-value itself, averaged over 4000 streams."""
    ranks = np.random.default_rng(1).random((4000, 100))
    wealth: Wealth | None = None
    for block in range(10):
        wealth = settle(wealth, log_returns(ranks[:, block * 10 : block * 10 + 10]).sum(axis=1), block)
    assert wealth is not None
    values = np.exp(log_mixture(wealth.log_e, 10, log_weights(BETS)))
    assert values.mean() == pytest.approx(1, abs=4 * values.std() / math.sqrt(4000))


def test_the_quick_detector_is_silent_as_long_as_stated() -> None:
    """Signals within n checks have a chance of at most n / run length."""
    ranks = streams_of_ranks(300, 1000, seed=5)
    wealth, is_up = None, np.zeros(300, dtype=bool)
    for block in range(100):
        wealth = settle(wealth, log_returns(ranks[:, block * 10 : block * 10 + 10]).sum(axis=1), block)
        is_up |= log_sum(wealth.log_sr + log_weights(BETS)) >= math.log(500)
    assert is_up.mean() <= 100 / 500 + 3 * math.sqrt(0.2 * 0.8 / 300)


def planted(shift: float, spread: float, *, n_streams: int, n_after: int, seed: int) -> Reals:
    rng, n_before = np.random.default_rng(seed), 2500
    made = []
    for _ in range(n_streams):
        values = rng.normal(size=n_before + n_after)
        values[n_before:] = shift + spread * values[n_before:]
        made.append(conformal_ranks(rng.normal(size=2000), values, rng.random(len(values))))
    return np.stack(made)


@pytest.mark.parametrize(("shift", "spread", "at_most"), [(0.5, 1.0, 150), (0.3, 1.0, 375), (0.0, 1.3, 275)])
def test_a_planted_shift_is_found_soon(shift: float, spread: float, at_most: int) -> None:
    """Median scans to the alarm, at the promise of 5 % for ever over 8 features."""
    ranks = planted(shift, spread, n_streams=60, n_after=800, seed=7)
    delays = (first_crossing(ranks, 25, math.log(8 / (0.05 * share(0)))) + 1) * 25 - 2500
    assert 0 < np.median(delays) <= at_most


def test_the_bets_find_a_change_sooner_than_the_classical_ones() -> None:
    ranks = planted(0.0, 1.3, n_streams=40, n_after=1000, seed=8)
    level = math.log(8 / (0.05 * share(0)))
    ours, classical = (np.median(first_crossing(ranks, 25, level, bets)) - 100 for bets in (BETS, WAVES))
    assert ours < 0.7 * classical


def scope_rows(values: dict[str, Reals]) -> pa.Table:
    """Ranks of several features, ten a day from Monday on."""
    made = [
        {"feature": f, "sequence": i, "observed_on": MONDAY + timedelta(days=i // 10), "rank": rank}
        for f, ranks in values.items()
        for i, rank in enumerate(ranks.tolist())
    ]
    return pa.Table.from_pylist(made)


def watching(*features: str, size: int = 25) -> Watch:
    streams = tuple(Stream(feature=f, size=size) for f in features)
    return Watch(scope=SCOPE, alpha=0.05, n_opened=0, streams=streams)


def shifted_ranks(n_before: int, n_after: int, seed: int = 0) -> Reals:
    rng = np.random.default_rng(seed)
    values = np.r_[rng.normal(size=n_before), rng.normal(1.0, 1, n_after)]
    return conformal_ranks(rng.normal(size=1000), values, rng.random(n_before + n_after))


QUIET = np.random.default_rng(9).random(800)


def test_an_alarm_says_what_changed_and_since_when() -> None:
    table = scope_rows({"noise_hu": shifted_ranks(500, 300), "q50_hu": QUIET})
    verdict = judge(advance(watching("noise_hu", "q50_hu"), table))
    assert verdict.is_alarm
    ((feature, crossing),) = verdict.carriers
    assert (feature, crossing.meaning) == ("noise_hu", "higher")
    assert verdict.changed_on is not None
    assert verdict.alarmed_on is not None
    assert abs(verdict.changed_on - (MONDAY + timedelta(days=50))).days <= 5
    assert 0 < (verdict.alarmed_on - (MONDAY + timedelta(days=50))).days <= 10
    assert verdict.threshold == 2 / (0.05 * 0.5)
    assert verdict.e_values["noise_hu"] >= verdict.threshold > verdict.e_values["q50_hu"]
    assert verdict.sentence.startswith("noise_hu higher since about 2026-02-2")


def test_without_a_change_the_verdict_says_how_far_it_is_from_an_alarm() -> None:
    verdict = judge(advance(watching("q50_hu"), scope_rows({"q50_hu": QUIET})))
    assert (verdict.is_alarm, verdict.carriers, verdict.alarmed_on) == (False, (), None)
    assert verdict.sentence.startswith("no change: largest e-value")


def test_the_quick_detector_shows_what_is_not_yet_an_alarm() -> None:
    table = scope_rows({"noise_hu": shifted_ranks(1000, 25, seed=3)})
    verdict = judge(advance(watching("noise_hu"), table), run_length=200)
    assert (verdict.is_alarm, verdict.signals) == (False, ("noise_hu",))


def test_a_night_at_a_time_or_all_at_once_is_the_same_to_the_last_bit() -> None:
    table = scope_rows({"noise_hu": shifted_ranks(100, 100), "q50_hu": QUIET[:200]})
    at_once = advance(watching("noise_hu", "q50_hu"), table)
    nightly = watching("noise_hu", "q50_hu")
    for n in range(4, 201, 14):
        seen = table.filter(pa.array([s < n for s in table.column("sequence").to_pylist()]))
        nightly = advance(nightly, seen)
    assert nightly.streams == at_once.streams


def test_history_is_not_read_again() -> None:
    """From the kept state on, only ranks that are not settled are needed."""
    table = scope_rows({"noise_hu": QUIET[:510]})
    kept = advance(watching("noise_hu"), table)
    fresh = scope_rows({"noise_hu": QUIET[:600]}).slice(500)
    whole = advance(watching("noise_hu"), scope_rows({"noise_hu": QUIET[:600]}))
    assert advance(kept, fresh) == whole


def test_an_alarm_stays_and_its_explanation_may_grow() -> None:
    first, second = shifted_ranks(100, 500, seed=1), shifted_ranks(300, 300, seed=2)
    table = scope_rows({"noise_hu": first, "q50_hu": second})
    early = advance(watching("noise_hu", "q50_hu"), scope_rows({"noise_hu": first[:300], "q50_hu": second[:300]}))
    assert early.is_closed
    late = advance(early, table)
    assert judge(late).alarmed_on == judge(early).alarmed_on
    assert late.streams[0] == early.streams[0]
    assert [feature for feature, _ in judge(late).carriers] == ["noise_hu", "q50_hu"]


@pytest.mark.parametrize("n", [10, 60, 400])
def test_a_watch_survives_json(n: int) -> None:
    rng = np.random.default_rng(0)
    bets = prevalence_bets(rng.normal(size=100), (np.arange(100) % 2).astype(float))
    start = Watch(scope=SCOPE, alpha=0.05, n_opened=2, streams=(Stream(feature="score", size=25, steps=bets),))
    watch = advance(start, scope_rows({"score": shifted_ranks(100, 300)[:n]}))
    assert from_json(to_json(watch)) == watch
    assert watch.is_closed == (n == 400)


def test_e_bh_rejects_as_its_definition_says() -> None:
    assert e_bh({"a": 79.0, "b": 39.0, "c": 1.0, "d": 26.0}, 0.05) == ()
    assert e_bh({"a": 100, "b": 45.0, "c": 1.0, "d": 30.0}, 0.05) == ("a", "b", "d")
    assert e_bh({}, 0.05) == ()


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=12))
def test_e_bh_keeps_the_largest(values: list[float]) -> None:
    named = {f"n{i}": value for i, value in enumerate(values)}
    kept = e_bh(named, 0.1)
    assert all(named[k] >= len(values) / (0.1 * len(kept)) for k in kept)
    assert not kept or min(named[k] for k in kept) >= max((v for n, v in named.items() if n not in kept), default=0)


@pytest.fixture
def watched(workspace: Workspace) -> tuple[Workspace, Watch]:
    """A workspace whose site changes after forty days, and a watch that has seen it."""
    rng = np.random.default_rng(1)
    open_reference(
        workspace, SCOPE, rows(rng.normal(size=400), name="r", first=MONDAY - timedelta(days=400), per_day=1), run="r"
    )
    watch = open_watch(workspace, SCOPE, alpha=0.05, n_opened=0, scans_per_check=10)
    values = np.r_[rng.normal(size=400), rng.normal(1, 1, 200)]
    rank_new(workspace, SCOPE, rows(values, first=LATER), run="r")
    return workspace, catch_up(workspace, watch)


def test_a_site_that_changes_alarms_from_its_ranks(watched: tuple[Workspace, Watch]) -> None:
    verdict = judge(watched[1])
    assert verdict.alarmed_on is not None
    assert 0 <= (verdict.alarmed_on - LATER).days - 40 <= 12


def test_a_restart_watches_against_the_accepted_state_with_less_of_alpha(watched: tuple[Workspace, Watch]) -> None:
    """After an accepted action a persisting shift is the new normal: it does not alarm again."""
    workspace, alarmed = watched
    accepted, rng = replace(SCOPE, reference="north@2026-04-13"), np.random.default_rng(2)
    start = LATER + timedelta(days=60)
    open_reference(workspace, accepted, rows(rng.normal(1, 1, 300), name="s", first=start, per_day=1), run="r")
    again = restart(workspace, alarmed, accepted.reference, n_opened=1, scans_per_check=10)
    rank_new(workspace, accepted, rows(rng.normal(1, 1, 300), name="t", first=start + timedelta(days=300)), run="r")
    after = catch_up(workspace, again)
    assert not after.is_closed
    assert after.streams[0].n_settled == 30
    assert after.threshold == pytest.approx(3 * alarmed.threshold)


def test_a_restart_must_be_against_something_else_and_be_counted(watched: tuple[Workspace, Watch]) -> None:
    workspace, watch = watched
    with pytest.raises(BadRequest, match="another reference"):
        restart(workspace, watch, SCOPE.reference, n_opened=1)
    with pytest.raises(BadRequest, match="1 families were opened"):
        restart(workspace, watch, "other", n_opened=0)
    with pytest.raises(EmptySample):
        restart(workspace, watch, "other", n_opened=1)


def test_a_feature_in_days_has_a_block_of_days(workspace: Workspace) -> None:
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=40), 12) + rng.normal(size=480)
    scope = Scope(site="north", stratum="CT", reference="days")
    open_reference(workspace, scope, rows(values, name="r", per_day=12), run="r")
    watch = open_watch(workspace, scope, alpha=0.05, n_opened=0, scans_per_check=25)
    assert [stream.size for stream in watch.streams] == [2]


def test_two_runs_of_the_same_nights_agree_to_the_last_bit(watched: tuple[Workspace, Watch]) -> None:
    workspace, watch = watched
    repeated = catch_up(workspace, open_watch(workspace, SCOPE, alpha=0.05, n_opened=0, scans_per_check=10))
    assert to_json(repeated) == to_json(watch)
    assert workspace.lake.read(layout.RANK).num_rows == 1000
