import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.shift.risk import (
    Reals,
    Wholes,
    auroc,
    balanced_error,
    brier,
    log_loss,
    measure_risk,
    patient_bootstrap,
)

probabilities = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0]), min_size=2, max_size=30)


def scored(rng: np.random.Generator, n: int) -> tuple[Reals, Reals]:
    y = (rng.random(n) < 0.4).astype(float)
    return y, 1 / (1 + np.exp(-rng.normal(2 * y - 1, 1)))


@given(st.data(), probabilities)
def test_auroc_is_the_share_of_pairs_in_the_right_order(data: st.DataObject, values: list[float]) -> None:
    p = np.array(values)
    y = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(p), max_size=len(p))))
    if len(set(y)) < 2:
        assert np.isnan(auroc(y, p))
        return
    gap = p[y == 1][:, None] - p[y == 0][None, :]
    assert auroc(y, p) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean(), abs=1e-12)


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-6))


def test_log_loss_and_brier_follow_their_formulas() -> None:
    y, p = np.array([1.0, 0.0]), np.array([0.8, 0.3])
    assert log_loss(y, p) == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    assert brier(y, p) == pytest.approx((0.04 + 0.09) / 2)


def test_balanced_error_weighs_the_classes_equally_and_calls_the_threshold_positive() -> None:
    y, p = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.1, 0.1])
    assert balanced_error(y, p, 0.5) == pytest.approx((0 + 1 / 3) / 2)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    x = np.random.default_rng(1).normal(size=200)
    found = patient_bootstrap(lambda rows: float(x[rows].mean()), [str(i) for i in range(200)])
    half = 1.96 * x.std() / np.sqrt(200)
    assert found.value == pytest.approx(x.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_bootstrap_draws_whole_patients() -> None:
    """Ten copies of each patient's scan must not make the interval narrower."""
    x = np.random.default_rng(2).normal(size=60)
    alone = patient_bootstrap(lambda rows: float(x[rows].mean()), [str(i) for i in range(60)])
    copies = np.repeat(x, 10)
    copied = patient_bootstrap(lambda rows: float(copies[rows].mean()), [str(i // 10) for i in range(600)])
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_bootstrap_keeps_the_rows_of_a_patient_together() -> None:
    patients = ["a", "b", "a", "c", "c", "c"]
    owner = np.array(patients)

    def is_whole(rows: Wholes) -> float:
        n_drawn = np.bincount(rows, minlength=6)
        return float(all(len(set(n_drawn[owner == name])) == 1 for name in "abc"))

    assert patient_bootstrap(is_whole, patients, n=50).low == 1.0


def test_the_same_seed_gives_the_same_interval() -> None:
    x = np.arange(30.0)
    mean = lambda rows: float(x[rows].mean())  # noqa: E731
    patients = [str(i) for i in range(30)]
    assert patient_bootstrap(mean, patients, seed=4) == patient_bootstrap(mean, patients, seed=4)
    assert patient_bootstrap(mean, patients, seed=4) != patient_bootstrap(mean, patients, seed=5)


def test_no_patients_is_an_empty_sample() -> None:
    with pytest.raises(EmptySample):
        patient_bootstrap(lambda _: 0.0, [])


def test_auroc_is_not_evaluable_with_few_patients_of_a_class() -> None:
    """Twelve positive scans of one patient are one positive patient."""
    y = np.array([1.0] * 12 + [0.0] * 12)
    patients = ["same"] * 12 + [str(i) for i in range(12)]
    report = measure_risk(y, np.linspace(0.1, 0.9, 24), patients, threshold=0.5, min_class_patients=10)
    assert report.auroc is None
    assert report.balanced_error is None
    assert report.log_loss is not None
    assert (report.n_scans, report.n_patients, report.n_positive) == (24, 13, 12)


def test_risk_of_nothing_is_not_evaluable() -> None:
    report = measure_risk(np.array([]), np.array([]), [], threshold=0.5, min_class_patients=10)
    assert (report.log_loss, report.brier, report.auroc, report.n_patients) == (None, None, None, 0)


def test_interval_of_auroc_covers_the_truth_as_often_as_it_says() -> None:
    truth = 0.9214  # P(N(2, 2) > 0) = Phi(2 / sqrt 2)
    hits = 0
    for seed in range(60):
        y, p = scored(np.random.default_rng(seed), 120)
        report = measure_risk(y, p, [str(i) for i in range(120)], threshold=0.5, min_class_patients=10)
        assert report.auroc is not None
        hits += report.auroc.low <= truth <= report.auroc.high
    assert hits >= 51
