"""Bets: fair while nothing changes, and summed by SQL as by NumPy."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals
from platform_core.shift.watch.alarms import STREAM
from platform_core.shift.watch.bets import (
    BETS,
    WAVES,
    Bet,
    block_sums,
    log_returns,
    log_weights,
    normal_bet,
    prevalence_bets,
)

RNG = np.random.default_rng(0)
SCORE = np.r_[RNG.normal(1.8, 1, 300), RNG.normal(0, 1, 700)]
Y = np.r_[np.ones(300), np.zeros(700)]
EVERY = (*WAVES, *BETS, *prevalence_bets(SCORE, Y))


def returns(bet: Bet, ranks: Reals) -> Reals:
    return np.exp(log_returns(ranks, [bet])[..., 0])


@pytest.mark.parametrize("bet", EVERY, ids=lambda bet: bet.name)
def test_a_bet_returns_one_on_average_and_never_takes_more_than_the_stake(bet: Bet) -> None:
    midpoints = (np.arange(640_000) + 0.5) / 640_000  # exact for steps of 64 and 10 bins
    assert returns(bet, midpoints).mean() == pytest.approx(1, abs=1e-9)
    assert returns(bet, midpoints).min() > 0


def test_names_are_one_per_bet() -> None:
    assert len({bet.name for bet in EVERY}) == len(EVERY)


def test_the_stake_is_shared_out() -> None:
    assert np.exp(log_weights(BETS)).sum() == pytest.approx(1)
    assert np.exp(log_weights(BETS))[:8].sum() == pytest.approx(0.5)


@pytest.mark.parametrize(("shift", "spread"), [(0.5, 1.0), (-1.0, 1.0), (0.0, 1.3), (0.0, 0.75)])
def test_a_normal_bet_is_the_likelihood_ratio_averaged_over_bins(shift: float, spread: float) -> None:
    def ratio(u: float) -> float:
        z = stats.norm.ppf(u)
        return float(stats.norm.pdf(z, shift, spread) / stats.norm.pdf(z))

    for bin_ in (1, 20, 40, 62):
        low, high = bin_ / 64, (bin_ + 1) / 64
        expected = integrate.quad(ratio, low, high)[0] * 64
        assert returns(normal_bet(shift, spread), np.array([(low + high) / 2]))[0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("changed", [0.1, 0.6])
def test_the_prevalence_bets_grow_when_only_prevalence_changes(changed: float) -> None:
    rng = np.random.default_rng(1)
    y = rng.random(4000) < changed
    ranks = np.searchsorted(np.sort(SCORE), rng.normal(1.8 * y, 1)) / 1001 + 1e-4
    bets = prevalence_bets(SCORE, Y)
    won = dict(zip([bet.meaning for bet in bets], log_returns(ranks, bets).mean(axis=0), strict=True))
    best = max(won, key=lambda meaning: won[meaning])
    assert best == ("more positives" if changed > 0.3 else "fewer positives")
    assert won[best] > 0.03


def test_prevalence_bets_need_both_classes() -> None:
    with pytest.raises(EmptySample, match="positive patients"):
        prevalence_bets(SCORE, np.zeros(1000))


def ranked(ranks: dict[str, Reals]) -> pa.Table:
    rows = [
        {"feature": feature, "sequence": i, "observed_on": date(2026, 1, 5) + timedelta(days=i // 10), "rank": rank}
        for feature, of in ranks.items()
        for i, rank in enumerate(of)
    ]
    return pa.Table.from_pylist(rows)


def streams(**facts: tuple[int, int]) -> pa.Table:
    rows = [{"feature": f, "size": size, "n_settled": n} for f, (size, n) in facts.items()]
    return pa.Table.from_pylist(rows, schema=STREAM)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 3))
def test_sql_sums_are_those_of_numpy(seed: int, size: int, n_settled: int) -> None:
    ranks = np.random.default_rng(seed).random(100)
    sums = block_sums(ranked({"f": ranks}), streams(f=(size, n_settled)), {"f": EVERY[20:]})
    blocks = [ranks[i : i + size] for i in range(n_settled * size, 100 - size + 1, size)]
    expected = {
        (n_settled + at, bet.name): log_returns(block, [bet]).sum()
        for at, block in enumerate(blocks)
        for bet in EVERY[20:]
    }
    found = {(row["block"], row["bet"]): row["log_won"] for row in sums.to_pylist()}
    assert found.keys() == expected.keys()
    assert [found[key] for key in expected] == pytest.approx(list(expected.values()), abs=1e-12)


def test_a_block_is_dated_by_its_first_and_last_rank_and_left_out_until_it_is_full() -> None:
    sums = block_sums(ranked({"f": np.full(34, 0.4)}), streams(f=(15, 0)), {"f": BETS})
    days = sorted({(row["block"], row["first_on"].day, row["last_on"].day) for row in sums.to_pylist()})
    assert days == [(0, 5, 6), (1, 6, 7)]


def test_every_feature_has_blocks_and_bets_of_its_own() -> None:
    table = ranked({"a": np.full(10, 0.3), "b": np.full(10, 0.6)})
    sums = block_sums(table, streams(a=(5, 0), b=(10, 0)), {"a": BETS, "b": (*BETS, *prevalence_bets(SCORE, Y))})
    n = {f: sum(row["feature"] == f for row in sums.to_pylist()) for f in "ab"}
    assert n == {"a": 2 * len(BETS), "b": len(BETS) + 4}


def test_the_order_of_rows_changes_no_bit() -> None:
    table = ranked({"f": np.random.default_rng(2).random(60)})
    shuffled = table.take(np.random.default_rng(3).permutation(60))
    made = [block_sums(each, streams(f=(20, 0)), {"f": BETS}) for each in (table, shuffled)]
    assert made[0].equals(made[1])
