import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.shift.labels.reliability import reliability_of
from platform_core.shift.risk import Reals


def test_bins_count_every_patient_once() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(500) < 0.4).astype(float)
    found = reliability_of(rng.normal(y, 1), y)
    assert found.n.sum() == 500
    assert found.n_positive.sum() == y.sum()
    assert found.n.max() - found.n.min() <= 2


def test_at_its_own_prevalence_the_counts_are_those_that_were_counted_and_half_a_patient_of_each_class() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(500) < 0.4).astype(float)
    found = reliability_of(rng.normal(y, 1), y)
    positive, n = found.counts_at(found.prevalence)
    assert positive == pytest.approx(found.n_positive + 0.5)
    assert n == pytest.approx(found.n + 1)


def test_at_another_prevalence_the_shares_are_those_of_a_population_that_has_it() -> None:
    """Oracle: the same classes drawn at the other prevalence, 200,000 of them."""
    rng = np.random.default_rng(2)

    def draw(prevalence: float) -> tuple[Reals, Reals]:
        y = (rng.random(200_000) < prevalence).astype(float)
        return rng.normal(1.8 * y, 1), y

    found = reliability_of(*draw(0.3))
    scores, y = draw(0.6)
    place = found.bins(scores)
    actual = np.bincount(place, weights=y) / np.bincount(place)
    assert np.divide(*found.counts_at(0.6)) == pytest.approx(actual, abs=0.02)


@given(prevalence=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_shares_stay_inside_and_grow_with_the_prevalence(prevalence: float) -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(300) < 0.4).astype(float)
    found = reliability_of(rng.normal(y, 1), y)
    share = np.divide(*found.counts_at(prevalence))
    assert np.all((share > 0) & (share < 1))
    assert np.all(np.divide(*found.counts_at(min(prevalence + 0.005, 0.995))) >= share)


def test_a_model_with_two_scores_has_two_bins() -> None:
    y = np.repeat([0.0, 1.0], 50)
    found = reliability_of(y, y)
    assert found.n.tolist() == [50, 50]
    assert found.bins(y).tolist() == y.tolist()


def test_too_few_of_a_class_or_one_score_for_all_are_refused() -> None:
    y = np.repeat([0.0, 1.0], [100, 29])
    with pytest.raises(EmptySample, match="each class"):
        reliability_of(np.arange(129.0), y)
    with pytest.raises(EmptySample, match="distinct"):
        reliability_of(np.ones(200), np.repeat([0.0, 1.0], 100))
