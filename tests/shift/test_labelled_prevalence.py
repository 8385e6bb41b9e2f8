import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from platform_core.errors import EmptySample
from platform_core.shift.labels.labelled_prevalence import (
    change_log_e,
    labels_needed,
    log_e_value,
    prevalence_from_labels,
)
from platform_core.shift.risk import Reals

ENOUGH = math.log(20)


def paths(seed: int, prevalence: float, n_sites: int, n_labels: int) -> Reals:
    """(site, label): evidence against 0.15 after each label."""
    y = (np.random.default_rng(seed).random((n_sites, n_labels)) < prevalence).astype(float)
    return log_e_value(np.cumsum(y, axis=1), np.arange(1, n_labels + 1), 0.15)


def test_the_evidence_is_a_likelihood_ratio_averaged_over_the_arcsine_law() -> None:
    """Oracle: the integral, by quadrature after p = sin^2(t)."""
    k, n, assumed = 7, 30, 0.15
    integral, _ = quad(lambda t: np.sin(t) ** (2 * k) * np.cos(t) ** (2 * (n - k)) * 2 / np.pi, 0, np.pi / 2)
    expected = math.log(integral / (assumed**k * (1 - assumed) ** (n - k)))
    assert log_e_value(k, n, assumed) == pytest.approx(expected, abs=1e-9)


def test_looking_after_every_label_misses_the_truth_no_more_often_than_promised() -> None:
    """2,000 looks at each of 400 sites; 5 % are allowed, 2 to 3 % are to be expected."""
    ever = (paths(1, 0.15, 400, 2000) >= ENOUGH).any(axis=1).mean()
    assert 0.002 <= ever <= 0.05


@pytest.mark.parametrize(("actual", "median"), [(0.20, 542), (0.25, 133), (0.30, 55)])
def test_a_change_is_seen_after_the_labels_that_were_published_for_it(actual: float, median: int) -> None:
    """The figures are medians over streams of another random generator: 15 % is about two of their standard errors."""
    refuted = paths(2, actual, 400, 2000) >= ENOUGH
    first = np.where(refuted.any(axis=1), refuted.argmax(axis=1) + 1, 2001)
    assert np.median(first) == pytest.approx(median, rel=0.15)
    assert 0.55 <= np.mean(first <= labels_needed(0.15, actual)) <= 0.8


def test_the_interval_holds_what_the_evidence_does_not_refute_and_nothing_else() -> None:
    y = np.array([1.0] * 12 + [0.0] * 68)
    found = prevalence_from_labels(y)
    for end, inwards in ((found.low, 1e-6), (found.high, -1e-6)):
        assert log_e_value(12, 80, end + inwards) < ENOUGH <= log_e_value(12, 80, end - inwards)
    assert found.value == 12 / 80


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_of_one_class_only_leave_one_end_open(value: float) -> None:
    found = prevalence_from_labels(np.full(50, value))
    assert (found.low == 0) == (value == 0)
    assert (found.high == 1) == (value == 1)
    assert found.high - found.low < 0.15


@given(n=st.integers(1, 120), share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_evenly_drawn_labels_tell_the_same_with_and_without_their_probabilities(n: int, share: float) -> None:
    y = (np.arange(n) < round(share * n)).astype(float)
    plain, weighted = prevalence_from_labels(y), prevalence_from_labels(y, np.full(n, 0.3))
    assert weighted.value == pytest.approx(plain.value)
    assert weighted.low == pytest.approx(plain.low, abs=1.1e-3)
    assert weighted.high == pytest.approx(plain.high, abs=1.1e-3)


def uneven(seed: int, n: int, prevalence: float = 0.2) -> tuple[Reals, Reals]:
    """Suspicious patients, twice as many of whom are ill, are asked for four times as often."""
    rng = np.random.default_rng(seed)
    is_suspicious = rng.random(n) < 0.3
    y = rng.random(n) < np.where(is_suspicious, 2, 1) * prevalence / 1.3
    probability = np.where(is_suspicious, 0.8, 0.2)
    drawn = rng.random(n) < probability
    return y[drawn].astype(float), probability[drawn]


def test_labels_of_suspicious_patients_first_are_unbiased_by_weight_and_misleading_without() -> None:
    y, probability = uneven(3, 20_000)
    assert prevalence_from_labels(y, probability).value == pytest.approx(0.2, abs=0.015)
    assert prevalence_from_labels(y).low > 0.2


def test_the_weighted_interval_holds_the_truth_at_every_look() -> None:
    missed = 0
    for seed in range(120):
        y, probability = uneven(seed, 1500)
        looks = [prevalence_from_labels(y[:n], probability[:n], least_probability=0.2) for n in range(40, len(y), 200)]
        missed += any(not look.low <= 0.2 <= look.high for look in looks)
    assert missed <= 0.05 * 120


def test_a_floor_far_below_what_was_used_widens_the_interval() -> None:
    y, probability = uneven(4, 1000)
    kept, wider = (prevalence_from_labels(y, probability, least_probability=floor) for floor in (0.2, 0.005))
    assert wider.high - wider.low > kept.high - kept.low


def checks(seed: int, n_checks: int, changed_at: int, actual: float) -> Reals:
    """Evidence after each check of ten labels."""
    prevalence = np.where(np.arange(n_checks) < changed_at, 0.15, actual)
    positive = np.random.default_rng(seed).binomial(10, prevalence).astype(float)
    return change_log_e(positive, np.full(n_checks, 10.0), 0.15)


def test_no_change_alarms_at_most_as_often_as_promised() -> None:
    assert np.mean([(checks(seed, 200, 200, 0.15) >= ENOUGH).any() for seed in range(200)]) <= 0.05


def test_a_change_after_years_of_labels_is_seen_though_all_labels_together_hide_it() -> None:
    found, hidden = [], []
    for seed in range(60):
        evidence = checks(seed, 240, 200, 0.30)
        found.append((evidence >= ENOUGH)[200:].any())
        positive = np.random.default_rng(seed).binomial(10, np.where(np.arange(240) < 200, 0.15, 0.30))
        hidden.append(log_e_value(positive.sum(), 2400, 0.15) < ENOUGH)
    assert np.mean(found) >= 0.95
    assert np.mean(hidden) >= 0.5


def test_counts_of_days_are_all_that_matters() -> None:
    """A sum over days in any order tells what the single labels tell, so no label is ever read again."""
    y = np.random.default_rng(5).random(90) < 0.3
    by_day = y.reshape(9, 10).sum(axis=1)
    assert log_e_value(by_day[::-1].sum(), 90, 0.2) == log_e_value(y.sum(), 90, 0.2)


def test_no_labels_are_refused() -> None:
    with pytest.raises(EmptySample):
        prevalence_from_labels(np.empty(0))


def test_no_number_of_labels_tells_a_prevalence_from_itself() -> None:
    with pytest.raises(EmptySample):
        labels_needed(0.2, 0.2)
