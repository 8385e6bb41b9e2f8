"""Metrics of many resamples at once agree with one resample at a time, and with formulas written down by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.shift.resampled import (
    Metric,
    auroc_of,
    balanced_accuracy_of,
    calibration_error_of,
    mean_of,
    resampled,
    sensitivity_of,
)
from platform_core.shift.risk import Reals, auroc, balanced_error, patient_bootstrap

ROUND = 2


def sample(seed: int, n: int = 60) -> tuple[Reals, Reals, list[str]]:
    """Labels, probabilities with ties, and patients of one to three scans."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.float64)
    y[:2] = 0, 1
    p = np.round(1 / (1 + np.exp(-(y + rng.normal(0, 1, n)))), ROUND)
    return y, p, [f"p{i // int(rng.integers(1, 4))}" for i in range(n)]


def by_pairs(y: Reals, p: Reals, w: Reals) -> float:
    """Every positive against every negative."""
    wins = [
        w[i] * w[j] * ((p[i] > p[j]) + 0.5 * (p[i] == p[j]))
        for i in np.flatnonzero(y == 1)
        for j in np.flatnonzero(y == 0)
    ]
    return float(sum(wins) / (w[y == 1].sum() * w[y == 0].sum()))


def by_thresholds(y: Reals, p: Reals, w: Reals, specificity: float) -> float:
    """The best sensitivity of any threshold that is specific enough."""
    cuts = [
        cut for cut in [*np.unique(p), np.inf] if w[(y == 0) & (p < cut)].sum() >= specificity * w[y == 0].sum() - 1e-9
    ]
    return max(float(w[(y == 1) & (p >= cut)].sum() / w[y == 1].sum()) for cut in cuts)


@given(st.integers(0, 10_000))
def test_weighted_metrics_are_what_pairs_and_thresholds_say(seed: int) -> None:
    y, p, _ = sample(seed, 30)
    w = np.random.default_rng(seed).integers(0, 4, 30).astype(np.float64)
    w[:2] = 1
    weights = w[None]
    assert auroc_of(y, p)(weights)[0] == pytest.approx(by_pairs(y, p, w))
    for specificity in (0.5, 0.9, 0.99):
        assert sensitivity_of(y, p, specificity)(weights)[0] == pytest.approx(by_thresholds(y, p, w, specificity))
    assert mean_of(p, y == 1)(weights)[0] == pytest.approx(np.average(p[y == 1], weights=w[y == 1]))


@given(st.integers(0, 10_000))
def test_a_weight_of_two_is_the_scan_twice(seed: int) -> None:
    y, p, _ = sample(seed, 40)
    w = np.random.default_rng(seed).integers(1, 3, 40)
    twice = np.repeat(np.arange(40), w)
    for metric in (auroc_of, lambda y, p: sensitivity_of(y, p, 0.9)):
        assert metric(y, p)(w[None].astype(np.float64))[0] == pytest.approx(
            metric(y[twice], p[twice])(np.ones((1, len(twice))))[0]
        )


@pytest.mark.parametrize(
    ("metric", "one_at_a_time"),
    [
        (auroc_of, auroc),
        (lambda y, p: balanced_accuracy_of(y, p >= 0.5), lambda y, p: 1 - balanced_error(y, p, 0.5)),
        (lambda y, p: mean_of((p - y) ** 2), lambda y, p: float(((p - y) ** 2).mean())),
    ],
    ids=["auroc", "balanced accuracy", "brier"],
)
def test_all_resamples_at_once_give_the_interval_of_one_at_a_time(
    metric: Callable[[Reals, Reals], Metric], one_at_a_time: Callable[[Reals, Reals], float]
) -> None:
    y, p, patients = sample(3)
    found = resampled(metric(y, p), patients, n=200)
    expected = patient_bootstrap(lambda rows: one_at_a_time(y[rows], p[rows]), patients, n=200)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_a_class_that_is_not_there_gives_nan() -> None:
    y, p = np.zeros(5), np.linspace(0.1, 0.9, 5)
    ones = np.ones((1, 5))
    assert np.isnan(auroc_of(y, p)(ones)[0])
    assert np.isnan(sensitivity_of(y, p, 0.9)(ones)[0])
    assert np.isnan(sensitivity_of(1 - y, p, 0.9)(ones)[0])
    assert np.isnan(balanced_accuracy_of(y, p >= 0.5)(ones)[0])


def test_the_calibration_error_of_a_calibrated_model_is_not_biased_upward() -> None:
    """The plain estimator says 0.09 here, of a model whose error is 0."""
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(300):
        p = rng.uniform(0, 1, 150)
        y = (rng.random(150) < p).astype(np.float64)
        bins = np.searchsorted(np.quantile(p, np.arange(1, 15) / 15), p, side="right")
        gap = np.array([(y[bins == b].mean() - p[bins == b].mean()) for b in range(15)])
        noise = np.array([y[bins == b].mean() * (1 - y[bins == b].mean()) / 9 for b in range(15)])
        ours = calibration_error_of(y, p)(np.ones((1, 150)))[0]
        assert ours == pytest.approx(np.sqrt(max(np.mean(gap**2 - noise), 0.0)))
        squares.append(np.mean(gap**2 - noise))
    assert abs(np.mean(squares)) < 3 * np.std(squares) / np.sqrt(300)


def test_the_calibration_error_of_a_constant_gap_is_the_gap() -> None:
    y = np.tile([0.0, 1.0], 5000)
    assert calibration_error_of(y, np.full(10_000, 0.7))(np.ones((1, 10_000)))[0] == pytest.approx(0.2, abs=0.001)


def test_weights_enter_value_and_interval() -> None:
    y, _, patients = sample(5)
    weight = np.where(y == 1, 4.0, 1.0)
    found = resampled(mean_of(y), patients, weight=weight, n=200)
    assert found.value == pytest.approx(4 * y.sum() / (4 * y.sum() + (1 - y).sum()))
    assert found.low < found.value < found.high


def test_no_scans_have_no_interval() -> None:
    with pytest.raises(EmptySample, match="patients to resample"):
        resampled(mean_of(np.array([])), [])
