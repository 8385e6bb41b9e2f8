"""The chance of no gain holds its level far out in the tail, also where few scans lose much."""

import numpy as np
import pytest
from scipy import stats

from platform_core.errors import EmptySample
from platform_core.shift.paired_mean import chance_of_no_gain
from platform_core.shift.risk import Reals, log_losses

OVERCONFIDENT = 1.6903
"""Slope that costs as much as 0.5 on scores N(0, 2) whose right slope is 1 (bisection on 400,000 draws)."""


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def null_gains(n: int, seed: int) -> Reals:
    """An overconfident challenger against a timid champion of the same risk: many small gains, few large losses."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(np.float64)
    before, after = (1 / (1 + np.exp(-slope * x)) for slope in (0.5, OVERCONFIDENT))
    return log_losses(y, before) - log_losses(y, after)


def test_without_skewness_it_is_the_t_test() -> None:
    x = np.random.default_rng(0).normal(0.2, 1, 40)
    symmetric = np.concatenate([x, 0.4 - x])  # about 0.2, so that no correction is made but that of the mean
    expected = stats.ttest_1samp(symmetric, 0, alternative="greater").pvalue
    assert chance_of_no_gain(symmetric, names(80)) == pytest.approx(expected, rel=1e-6)


def test_a_favourable_correction_is_not_made() -> None:
    x = np.random.default_rng(1).exponential(1, 50) - 0.8
    assert chance_of_no_gain(x, names(50)) >= stats.ttest_1samp(x, 0, alternative="greater").pvalue * (1 - 1e-9)


def test_rare_large_losses_do_not_make_a_gain() -> None:
    n, n_worlds = 120, 1500
    told = np.array([chance_of_no_gain(null_gains(n, seed), names(n)) for seed in range(n_worlds)])
    plain = np.array(
        [stats.ttest_1samp(null_gains(n, seed), 0, alternative="greater").pvalue for seed in range(n_worlds)]
    )
    for alpha in (0.03, 0.0075):
        tolerance = 3 * np.sqrt(alpha * (1 - alpha) / n_worlds)
        assert (told <= alpha).mean() <= alpha + tolerance
        assert (plain <= alpha).mean() > alpha + tolerance  # this is what the correction is for


def test_scans_of_one_patient_are_one_observation() -> None:
    x = np.random.default_rng(2).normal(0.2, 1, 30)
    copies = np.repeat(x, 5)
    assert chance_of_no_gain(copies, [str(i // 5) for i in range(150)]) == pytest.approx(
        chance_of_no_gain(x, names(30))
    )


def test_a_weight_for_all_changes_nothing() -> None:
    x = np.random.default_rng(3).normal(0.2, 1, 30)
    assert chance_of_no_gain(x, names(30), np.full(30, 7.0)) == pytest.approx(chance_of_no_gain(x, names(30)))


def test_a_gain_that_is_the_same_for_all_is_sure() -> None:
    assert chance_of_no_gain(np.full(5, 0.1), names(5)) == 0
    assert chance_of_no_gain(np.full(5, -0.1), names(5)) == 1
    assert chance_of_no_gain(np.zeros(5), names(5)) == 1


def test_one_patient_is_no_sample() -> None:
    with pytest.raises(EmptySample, match="patients to compare"):
        chance_of_no_gain(np.array([1.0, 2.0]), ["a", "a"])
