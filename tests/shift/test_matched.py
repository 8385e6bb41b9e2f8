"""Directions matched to known changes: they tell sooner than any feature alone, and a wrong one does no harm."""

import numpy as np
import pytest
from scipy.stats import kstest

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals
from platform_core.shift.watch.conformal import conformal_ranks
from platform_core.shift.watch.matched import Directions, learn_directions, scores_along

FEATURES = ("noise_hu", "edge_width_mm", "q50_hu")
COVARIANCE = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
MOVE = np.array([0.5, 0.0, 0.0])


def patients(n: int, seed: int) -> Reals:
    return np.random.default_rng(seed).multivariate_normal(np.zeros(3), COVARIANCE, n)


@pytest.fixture
def directions() -> Directions:
    before = patients(40, seed=1)
    return learn_directions(FEATURES, patients(4000, seed=0), {"noise": (before, before + MOVE)})


def test_a_direction_is_fisher_s(directions: Directions) -> None:
    learnt, fisher = np.array(directions.weights["noise"]), np.linalg.solve(COVARIANCE, MOVE)
    cosine = learnt @ fisher / np.linalg.norm(learnt) / np.linalg.norm(fisher)
    assert cosine > 0.98


def test_a_direction_tells_better_than_any_feature(directions: Directions) -> None:
    plain = patients(4000, seed=2)
    before, after = (scores_along(directions, each)[:, 0] for each in (plain, plain + MOVE))
    assert (after.mean() - before.mean()) / before.std() > 1.4 * MOVE[0]


def test_a_missing_value_counts_as_the_median_and_no_value_as_none(directions: Directions) -> None:
    median = np.array([[*directions.center]])
    assert scores_along(directions, median)[0, 0] == pytest.approx(0)
    partly = median.copy()
    partly[0, 1] = np.nan
    assert scores_along(directions, partly)[0, 0] == pytest.approx(0)
    assert np.isnan(scores_along(directions, np.full((1, 3), np.nan))).all()


def test_one_odd_scan_does_not_turn_a_direction(directions: Directions) -> None:
    reference, before = patients(4000, seed=0), patients(40, seed=1)
    after = before + MOVE
    reference[0, 2] = after[0, 2] = 1e9
    odd = learn_directions(FEATURES, reference, {"noise": (before, after)})
    np.testing.assert_allclose(odd.weights["noise"], directions.weights["noise"], atol=0.15)


def test_a_feature_that_never_varies_or_is_never_there_counts_nothing() -> None:
    reference = patients(100, seed=3)
    reference[:, 1], reference[:, 2] = 2.5, np.nan
    before = reference[:20]
    learnt = learn_directions(FEATURES, reference, {"noise": (before, before + 1)})
    assert learnt.weights["noise"][1:] == (0, 0)
    assert learnt.weights["noise"][0] > 0
    assert np.isfinite(scores_along(learnt, before + 1)).all()


def test_while_nothing_changes_ranks_along_a_direction_are_uniform(directions: Directions) -> None:
    scores = scores_along(directions, patients(3000, seed=4))[:, 0]
    ranks = conformal_ranks(scores[:500], scores[500:], np.random.default_rng(5).random(2500))
    assert kstest(ranks, "uniform").pvalue > 0.001


def test_too_few_patients_or_pairs_are_refused() -> None:
    few = patients(49, seed=6)
    with pytest.raises(EmptySample):
        learn_directions(FEATURES, few, {})
    with pytest.raises(EmptySample):
        learn_directions(FEATURES, patients(50, seed=6), {"noise": (few[:9], few[:9])})
