"""A new prior passes by labels or, without them, by the fit of the scores and the expected risk; no rank moves."""

from dataclasses import replace

import numpy as np
import pytest

from platform_core.manifest.serving import Calibration
from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.outlook import Outlook, look
from platform_core.trial.paired import Pairs
from platform_core.trial.recalibrate import benefit_gain, capped, weigh_recalibration

EVEN = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)


def scores_of(y: Reals, seed: int) -> Reals:
    """Log likelihood ratios: calibrated at even odds."""
    return np.asarray(2 * (np.random.default_rng(seed).normal(0, 1, len(y)) + np.where(y == 1, 1, -1)))


def classes(n: int, prevalence: float) -> Reals:
    return (np.arange(n) < round(n * prevalence)).astype(np.float64)


def pairs_at(prevalence: float, to: float, n: int = 300) -> Pairs:
    """Labels at one prevalence, scores that assume even odds before and `to` after."""
    y = classes(n, prevalence)
    scores = scores_of(y, 0)
    return Pairs(
        patients=tuple(map(str, range(n))),
        y=y,
        before=EVEN.probability(scores),
        after=EVEN.moved_to(to).probability(scores),
    )


NOTHING = pairs_at(0.2, 0.2, n=0)


def test_the_right_prior_passes_by_labels_and_is_confirmed() -> None:
    judged = weigh_recalibration(pairs_at(0.1, 0.1), None, None)
    assert judged.passed
    assert judged.has_labels
    assert judged.sensitivity_gain is not None
    assert judged.specificity_gain is not None
    assert judged.sensitivity_gain.value <= 0 < judged.specificity_gain.value


def test_a_prior_that_labels_speak_against_is_refused_whatever_the_scores_say() -> None:
    fine = Outlook(p_fit=0.5, prevalence=Estimate(0.1, 0.05, 0.15), risk=Estimate(0.3, 0.2, 0.4))
    judged = weigh_recalibration(pairs_at(0.5, 0.1), fine, replace(fine, risk=Estimate(0.2, 0.1, 0.3)))
    assert not judged.passed
    assert not judged.has_labels
    assert "log-loss gets worse" in judged.because


def test_net_benefit_is_that_of_its_definition() -> None:
    pairs = replace(pairs_at(0.2, 0.2), thresholds=(0.3, 0.3))
    expected = []
    for p in (pairs.before, pairs.after):
        called = p >= 0.3
        n_true, n_false = (called & (pairs.y == 1)).sum(), (called & (pairs.y == 0)).sum()
        expected.append((n_true - n_false * 0.3 / 0.7) / len(pairs.y))
    assert benefit_gain(pairs).value == pytest.approx(expected[1] - expected[0])


def looks(site_prevalence: float, to: float, odd: float = 0.0) -> tuple[Outlook | None, Outlook | None]:
    """Before and after, of 400 unlabelled scores, a share of which is like no class of the reference."""
    y_reference = classes(400, 0.5)
    reference = scores_of(y_reference, 1)
    scores = scores_of(classes(400, site_prevalence), 2)
    scores[: round(400 * odd)] = 0.0
    return look(scores, reference, y_reference, EVEN), look(scores, reference, y_reference, EVEN.moved_to(to))


def test_without_labels_the_prior_that_scores_imply_passes_for_a_time() -> None:
    judged = weigh_recalibration(NOTHING, *looks(0.2, 0.2))
    assert judged.passed
    assert not judged.has_labels
    assert judged.before is not None
    assert judged.before.prevalence.low < 0.2 < judged.before.prevalence.high


def test_without_labels_a_prior_whose_expected_risk_is_higher_is_refused() -> None:
    judged = weigh_recalibration(NOTHING, *looks(0.5, 0.1))
    assert not judged.passed
    assert "expected log-loss rises" in judged.because


def test_without_labels_scores_that_no_mixture_explains_are_no_ground_for_a_prior() -> None:
    judged = weigh_recalibration(NOTHING, *looks(0.2, 0.2, odd=0.4))
    assert not judged.passed
    assert "no mixture" in judged.because


def test_without_labels_and_scores_nothing_passes() -> None:
    judged = weigh_recalibration(NOTHING, None, None)
    assert not judged.passed
    assert "neither labels nor scores" in judged.because


def test_a_few_labels_do_not_outvote_the_scores() -> None:
    assert weigh_recalibration(pairs_at(0.5, 0.1, n=18), *looks(0.1, 0.1)).passed


def test_a_prior_moves_the_logits_by_two_at_most() -> None:
    assert capped(0.5, 0.01) == pytest.approx(1 / (1 + np.exp(2)))
    assert capped(0.5, 0.99) == pytest.approx(1 / (1 + np.exp(-2)))
    assert capped(0.5, 0.4) == 0.4
