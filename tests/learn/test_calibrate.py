"""Scores mean the same whatever the prevalence that they were calibrated at."""

import numpy as np
import pytest

from platform_core.learn.calibrate import fit_platt, smoothed_share
from platform_core.manifest.serving import log_odds

Reals = np.ndarray


def sample(n: int, prevalence: float, seed: int) -> tuple[Reals, Reals]:
    """Logits that are twice the true log likelihood ratio, plus one."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(np.float64)
    x = rng.normal(np.where(y == 1, 1.0, -1.0), 1.0)  # log likelihood ratio of N(1, 1) to N(-1, 1) is 2 x
    return 2 * (2 * x) + 1, y


@pytest.mark.parametrize("prevalence", [0.15, 0.5, 0.8])
def test_the_likelihood_ratio_is_found_at_any_prevalence(prevalence: float) -> None:
    logits, y = sample(4000, prevalence, seed=1)
    platt = fit_platt(logits, y, ["north"] * len(y))
    assert platt.slope == pytest.approx(0.5, abs=0.06)
    assert platt.intercept == pytest.approx(-0.5, abs=0.15)


def test_two_sites_of_different_prevalence_share_one_score() -> None:
    (a, y_a), (b, y_b) = sample(3000, 0.2, seed=2), sample(3000, 0.7, seed=3)
    sites = ["north"] * 3000 + ["south"] * 3000
    platt = fit_platt(np.concatenate([a, b]), np.concatenate([y_a, y_b]), sites)
    assert platt.slope == pytest.approx(0.5, abs=0.05)
    assert platt.intercept == pytest.approx(-0.5, abs=0.12)


def test_nothing_held_out_leaves_the_logits_as_they_are() -> None:
    platt = fit_platt(np.empty(0), np.empty(0), [])
    assert platt.score(np.array([-1.0, 2.0])) == pytest.approx([-1.0, 2.0])


def test_a_network_that_is_always_wrong_keeps_its_ranks() -> None:
    logits, y = sample(200, 0.5, seed=4)
    assert fit_platt(-logits, y, ["north"] * 200).slope > 0


def test_one_class_only_gives_finite_numbers() -> None:
    platt = fit_platt(np.array([3.0, 4.0]), np.ones(2), ["north", "north"])
    assert np.isfinite([platt.slope, platt.intercept]).all()


def test_a_share_of_none_is_not_zero() -> None:
    assert 0 < smoothed_share(np.zeros(9)) < smoothed_share(np.ones(9)) < 1
    assert log_odds(0.5) == 0
