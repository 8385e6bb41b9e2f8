"""A new prior passes by labels or, without them, by the fit of the scores and the expected risk; no rank moves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from platform_core import layout
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import decisions
from platform_core.shift.risk import Estimate, Reals
from platform_core.storage.tables import rows_of
from platform_core.trial.case import Case
from platform_core.trial.outlook import Outlook, look
from platform_core.trial.paired import Pairs
from platform_core.trial.recalibrate import benefit_gain, capped, recalibrate, weigh_recalibration
from tests.trial.conftest import AT

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


def test_labels_that_cannot_tell_leave_the_word_to_the_scores() -> None:
    """Thirty patients at even odds: neither a gain nor a loss of a prior of 0.45 shows."""
    few = pairs_at(0.5, 0.45, n=30)
    gain = few.gain()
    assert gain.low <= 0 <= gain.high
    assert weigh_recalibration(few, *looks(0.2, 0.45)).passed
    for looked, told in (((0.8, 0.45, 0.0), "expected log-loss rises"), ((0.2, 0.45, 0.4), "no mixture")):
        judged = weigh_recalibration(few, *looks(*looked))
        assert not judged.passed
        assert not judged.has_labels
        assert "no gain beyond chance" in judged.because
        assert told in judged.because
    assert not weigh_recalibration(few, None, None).passed


def test_a_gain_that_is_not_a_number_refuses() -> None:
    pairs = pairs_at(0.1, 0.1)
    broken = replace(pairs, after=np.where(np.arange(300) == 0, np.nan, pairs.after))
    assert not weigh_recalibration(broken, *looks(0.2, 0.2)).passed


@pytest.mark.parametrize("is_known", [True, False])
def test_scans_whose_patient_is_not_known_confirm_no_prior(
    served: Workspace, plant_scores: Callable[..., list[str]], *, is_known: bool
) -> None:
    keys = plant_scores("south", 150, {"lesion@1": 2.0}, n_positive=20, patient_known=is_known)
    days = {"period_start": AT.date(), "period_end": AT.date()}
    finding = {"site": "south", "finding_key": "f", "stratum": "CT", "target": "lesion", "model": "lesion@1"}
    row = finding | days | {"kind": "label", "explained_by": "scores", "size": -0.35, "run": "run"}
    served.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction="f")
    case = Case(
        uri=served.uri,
        site="south",
        target="lesion",
        finding_key="f",
        headline="",
        keys=tuple(keys),
        run="run",
        at=AT,
    )
    recalibrate(case, Decision(action="recalibrate", because="the share of positives moved", rule="prior"))
    (told,) = decisions(served).to_pylist()
    assert told["status"] == ("done" if is_known else "refused")
    assert (case.serving.calibration.prevalence < 0.5) == is_known
    assert is_known or "neither labels nor scores" in told["because"]


def test_a_few_labels_do_not_outvote_the_scores() -> None:
    assert weigh_recalibration(pairs_at(0.5, 0.1, n=18), *looks(0.1, 0.1)).passed


def test_a_prior_moves_the_logits_by_two_at_most() -> None:
    assert capped(0.5, 0.01) == pytest.approx(1 / (1 + np.exp(2)))
    assert capped(0.5, 0.99) == pytest.approx(1 / (1 + np.exp(-2)))
    assert capped(0.5, 0.4) == 0.4
