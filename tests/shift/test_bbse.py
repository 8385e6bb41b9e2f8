import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.shift.labels.bbse import estimate_by_calls, two_opinions
from platform_core.shift.risk import Reals

APART = 1.812
MIDDLE = APART / 2
"""The threshold at which both rates of error are alike."""


def draw(rng: np.random.Generator, n: int, prevalence: float, apart: float = APART) -> tuple[Reals, Reals]:
    y = (np.arange(n) < round(n * prevalence)).astype(float)
    return rng.normal(y * apart, 1), y


def period(rng: np.random.Generator, n: int, prevalence: float) -> Reals:
    return np.asarray(rng.normal((rng.random(n) < prevalence) * APART, 1))


def test_the_estimate_solves_the_two_equations_of_calls_and_classes() -> None:
    """Oracle: the inverse of the joint table, as published, times the shares of calls."""
    rng = np.random.default_rng(0)
    reference, y = draw(rng, 400, 0.3)
    scores = period(rng, 300, 0.5)
    table = np.array(
        [[np.mean((reference >= MIDDLE) & (y == 1)), np.mean((reference >= MIDDLE) & (y == 0))],
         [np.mean((reference < MIDDLE) & (y == 1)), np.mean((reference < MIDDLE) & (y == 0))]]
    )  # fmt: skip
    weights = np.linalg.solve(table, [np.mean(scores >= MIDDLE), np.mean(scores < MIDDLE)])
    found = estimate_by_calls(scores, reference, y, threshold=MIDDLE)
    assert found.value == pytest.approx(weights[0] * y.mean())
    assert found.condition == pytest.approx(np.linalg.svd(table)[1].min())


@pytest.mark.parametrize("truth", [0.05, 0.25, 0.6])
def test_a_planted_prevalence_is_found_without_bias_and_covered_by_the_interval(truth: float) -> None:
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(estimate_by_calls(period(rng, 200, truth), *draw(rng, 300, 0.3), threshold=MIDDLE))
    assert np.mean([e.value for e in found]) == pytest.approx(truth, abs=0.015)
    assert 0.92 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.99


def test_calls_that_tell_nothing_leave_prevalence_open() -> None:
    rng = np.random.default_rng(1)
    reference, y = draw(rng, 500, 0.3, apart=0.1)
    found = estimate_by_calls(period(rng, 300, 0.3), reference, y, threshold=0.05)
    assert not found.is_usable
    assert (found.low, found.high) == (0, 1)


def test_a_threshold_that_calls_everybody_positive_is_not_usable() -> None:
    rng = np.random.default_rng(2)
    found = estimate_by_calls(period(rng, 300, 0.3), *draw(rng, 500, 0.3), threshold=-100)
    assert found.condition == pytest.approx(0, abs=1e-12)
    assert np.isfinite([found.value, found.low, found.high, found.p_fit]).all()


def test_more_calls_than_any_prevalence_gives_do_not_fit() -> None:
    rng = np.random.default_rng(3)
    found = estimate_by_calls(np.full(300, 9.0), *draw(rng, 500, 0.3), threshold=MIDDLE)
    assert found.value == 1
    assert found.p_fit < 1e-4


def opinions(seed: int, truth: float, *, n: int = 300, moved: float = 0.0) -> tuple[float, bool]:
    rng = np.random.default_rng(seed)
    reference, y = draw(rng, 600, 0.3)
    scores = period(rng, n, truth) + moved
    found = two_opinions(scores, reference, y, threshold=MIDDLE, assumed=0.3)
    return found.p_agree, found.by_calls.is_usable and found.p_agree < 0.05


@pytest.mark.parametrize("truth", [0.3, 0.6])
def test_under_a_change_of_prevalence_alone_they_are_at_odds_as_rarely_as_promised(truth: float) -> None:
    assert 0.005 <= np.mean([opinions(seed, truth)[1] for seed in range(40)]) <= 0.15


def test_scores_that_a_scanner_has_raised_put_them_at_odds() -> None:
    """Calls say more positives; the tail of negatives, which has gone, says something else."""
    assert np.mean([opinions(seed, 0.3, n=600, moved=1.0)[1] for seed in range(20)]) >= 0.5


def test_calls_that_hardly_tell_the_classes_apart_are_not_usable() -> None:
    rng = np.random.default_rng(5)
    reference, y = draw(rng, 600, 0.3)
    told, hardly = (two_opinions(period(rng, 300, 0.3), reference, y, threshold=t, assumed=0.3) for t in (MIDDLE, 50.0))
    assert (told.by_calls.is_usable, hardly.by_calls.is_usable) == (True, False)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 40), threshold=st.floats(-3, 4))
def test_the_interval_holds_the_estimate_and_lies_in_the_unit_interval(seed: int, n: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    found = estimate_by_calls(period(rng, n, 0.5), *draw(rng, 60, 0.5), threshold=threshold)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert 0 <= found.p_fit <= 1


def test_refuses_what_it_cannot_estimate() -> None:
    rng = np.random.default_rng(0)
    reference, y = draw(rng, 100, 0.5)
    with pytest.raises(EmptySample, match="scores"):
        estimate_by_calls(np.empty(0), reference, y, threshold=0)
    with pytest.raises(EmptySample, match="each class"):
        estimate_by_calls(reference, reference, np.zeros(100), threshold=0)


def test_the_same_seed_gives_the_same_answer() -> None:
    assert opinions(7, 0.4) == opinions(7, 0.4)
