import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence, score_edges
from platform_core.shift.risk import Reals

APART = 1.812
"""Distance of two unit normals whose AUROC is .90."""


def scores(rng: np.random.Generator, n: int, prevalence: float) -> tuple[Reals, Reals]:
    y = (np.arange(n) < round(n * prevalence)).astype(float)
    return rng.normal(y * APART, 1), y


def estimate(seed: int, truth: float, assumed: float, n: int = 200, n_simulated: int = 199) -> PrevalenceEstimate:
    rng = np.random.default_rng(seed)
    reference, y = scores(rng, 200, 0.4)
    current = rng.normal((rng.random(n) < truth) * APART, 1)
    return estimate_prevalence(current, reference, y, assumed=assumed, n_simulated=n_simulated)


def test_a_planted_prevalence_is_found_without_bias_and_covered_by_the_interval() -> None:
    found = [estimate(seed, 0.25, 0.25, n_simulated=1) for seed in range(150)]
    assert np.mean([e.value for e in found]) == pytest.approx(0.25, abs=0.02)
    assert np.mean([e.low <= 0.25 <= e.high for e in found]) >= 0.89


def test_an_unchanged_prevalence_is_called_changed_as_often_as_promised() -> None:
    p = np.array([estimate(seed, 0.4, 0.4).p_changed for seed in range(150)])
    assert 0.005 <= np.mean(p <= 0.05) <= 0.10


def test_a_mixture_is_refused_as_often_as_promised() -> None:
    p = np.array([estimate(seed, 0.6, 0.4, n_simulated=1).p_fit for seed in range(200)])
    assert 0.005 <= np.mean(p < 0.05) <= 0.10


def test_a_large_change_is_found_and_still_fits() -> None:
    found = estimate(3, 0.75, 0.4)
    assert found.p_changed <= 0.01
    assert found.p_fit > 0.01
    assert found.low > 0.4


def test_scores_that_no_mixture_explains_do_not_fit() -> None:
    """A scanner that moves all scores apart is not a change of prevalence."""
    rng = np.random.default_rng(4)
    reference, y = scores(rng, 200, 0.4)
    current, _ = scores(rng, 200, 0.4)
    assert estimate_prevalence(3 * current, reference, y, assumed=0.4, n_simulated=1).p_fit < 0.001


def test_the_estimate_maximises_the_likelihood_of_all_three_histograms() -> None:
    """Oracle: SciPy on the same likelihood, with every bin of both classes free."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(5)
    reference, y = scores(rng, 120, 0.5)
    current = rng.normal((rng.random(90) < 0.3) * APART, 1)
    edges = score_edges(reference, y)
    h, r1, r0 = (
        np.bincount(np.searchsorted(edges, x), minlength=10) for x in (current, reference[y == 1], reference[y == 0])
    )

    def loss(theta: Reals) -> float:
        p1, p0 = (np.exp(t) / np.exp(t).sum() for t in (theta[:10], theta[10:20]))
        share = 1 / (1 + np.exp(-theta[20]))
        return -float(h @ np.log(share * p1 + (1 - share) * p0) + r1 @ np.log(p1) + r0 @ np.log(p0))

    best = minimize(loss, np.zeros(21), method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9})
    expected = 1 / (1 + np.exp(-best.x[20]))
    found = estimate_prevalence(current, reference, y, assumed=0.5, n_simulated=1)
    assert found.value == pytest.approx(expected, abs=2e-3)


def test_bins_tell_the_rarer_class_apart_as_well_as_the_other() -> None:
    """Where nine in ten are positive, negatives that move must not stay within one bin."""
    rng = np.random.default_rng(8)
    reference, y = scores(rng, 2000, 0.9)
    edges = score_edges(reference, y)
    weights = np.where(y == 1, 0.5 / 1800, 0.5 / 200)
    shares = np.bincount(np.searchsorted(edges, reference), weights=weights)
    np.testing.assert_allclose(shares, 0.1, atol=0.003)
    moved = [rng.normal((rng.random(600) < 0.74) * APART, 1) for _ in range(40)]
    moved = [np.where(s < 0, s + 1, s) for s in moved]
    p = [estimate_prevalence(s, reference, y, assumed=0.9, n_simulated=1).p_fit for s in moved]
    assert np.mean(np.array(p) < 0.01) > 0.9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 30))
def test_the_interval_holds_the_estimate_and_lies_in_the_unit_interval(seed: int, n: int) -> None:
    found = estimate(seed, 0.5, 0.5, n=n, n_simulated=9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_only_the_order_of_scores_matters() -> None:
    """No calibration is needed: any monotone change of the scores leaves the estimate alone."""
    rng = np.random.default_rng(6)
    reference, y = scores(rng, 101, 0.4)
    current, _ = scores(rng, 150, 0.6)
    plain = estimate_prevalence(current, reference, y, assumed=0.4, n_simulated=9)
    moved = estimate_prevalence(np.sinh(current), np.sinh(reference), y, assumed=0.4, n_simulated=9)
    assert moved.value == pytest.approx(plain.value, abs=1e-9)


def test_the_same_seed_gives_the_same_p() -> None:
    assert estimate(7, 0.4, 0.4) == estimate(7, 0.4, 0.4)


@pytest.mark.parametrize(
    ("n", "y"),
    [(0, [0] * 20 + [1] * 20), (30, [0] * 40), (30, [0] * 35 + [1] * 5)],
    ids=["no scores", "one class", "too few positives"],
)
def test_refuses_what_it_cannot_estimate(n: int, y: list[int]) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(EmptySample):
        estimate_prevalence(rng.normal(size=n), rng.normal(size=40), np.array(y, dtype=float), assumed=0.3)


def test_refuses_a_model_that_gives_everybody_one_score() -> None:
    y = np.array([0.0] * 20 + [1.0] * 20)
    with pytest.raises(EmptySample, match="bins"):
        estimate_prevalence(np.ones(30), np.ones(40), y, assumed=0.3)
