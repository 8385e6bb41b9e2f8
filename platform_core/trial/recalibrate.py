"""A new prior for one site: the logits move, no weight does, and no rank of a scan changes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from platform_core.learn.registry import find
from platform_core.policy.decide import Decision
from platform_core.shift.resampled import mean_of
from platform_core.shift.risk import Estimate
from platform_core.trial.case import Case, finding_of, serve, settle
from platform_core.trial.gate import unseen_by
from platform_core.trial.outlook import Outlook, outlook
from platform_core.trial.paired import Pairs, pair
from platform_core.trial.rollout import limit_of
from platform_core.trial.steps import spelt
from platform_core.trial.weigh import as_json

MOST_LOGITS = 2.0
"""The prior may move the logits by at most this: a larger move says that something else has happened.

Proposed together with the decision table, not measured: e^2 is a change of the odds by a factor of 7.4."""
Z_95 = 1.96
"""Standard errors from a mean to either end of its 95 % interval."""
MIN_PATIENTS = 20
"""Labelled patients of the period below which labels are not asked at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """Whether a new prior may be served; gains are above 0 where it is better. AUROC cannot move and is not asked."""

    passed: bool
    because: str
    log_loss_gain: Estimate | None = None
    """Nats per scan; None, as the four that follow, without enough labels."""
    brier_gain: Estimate | None = None
    sensitivity_gain: Estimate | None = None
    """At the served threshold. A prior moves this and the next against each other."""
    specificity_gain: Estimate | None = None
    benefit_gain: Estimate | None = None
    """Net benefit: true positives less false ones, these at the odds of the served threshold, per scan."""
    before: Outlook | None = None
    after: Outlook | None = None

    @property
    def has_labels(self) -> bool:
        """Labels of the site confirm it beyond chance, by log-loss, and nothing that they tell is worse."""
        return self.passed and self.log_loss_gain is not None and self.log_loss_gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it."""
        return as_json(self)


def recalibrate(case: Case, decision: Decision) -> None:
    """Serve the estimated prevalence, as far as the cap lets it go, at this site alone; refuse it if it does harm."""
    before = case.serving
    assumed = before.calibration.prevalence
    prevalence = capped(assumed, assumed + float(finding_of(case)["size"]))
    moved = replace(before, calibration=before.calibration.moved_to(prevalence))
    unseen = unseen_by(case.workspace, [find(case.workspace, before.model)])
    pairs = pair(case.workspace, before, moved, keys=case.keys, unseen=unseen)
    judged = weigh_recalibration(pairs, outlook(case, before), outlook(case, moved))
    kept = ("model", "recipe")
    ends = limit_of(case.workspace, before, case.at, has_labels=judged.has_labels, kept=kept)
    wanted = replace(moved, until=ends)
    facts = {"recalibration": judged.to_json()}
    if judged.passed:
        settle(case, decision, status="done", before=before, after=serve(case, wanted, decision), facts=facts)
    else:
        told = replace(decision, because=f"{decision.because}; it is refused: {judged.because}")
        settle(case, told, status="refused", before=before, after=wanted, facts=facts)


def weigh_recalibration(pairs: Pairs, before: Outlook | None, after: Outlook | None) -> Recalibration:
    """Judge a new prior: by labels if they show a gain beyond chance, else by the scores' fit and the expected risk.

    Labels that show no gain leave the word to the scores, but still refuse what they show to be worse.

    Args:
        pairs: Labelled held-out patients of the period under either prior; may be empty.
        before: The period's scores under the present prior.
        after: The same scores under the new one.
    """
    by_scores = _by_scores(before, after)
    if pairs.n_patients < MIN_PATIENTS:
        return by_scores
    by_labels = replace(_by_labels(pairs), before=before, after=after)
    if by_labels.has_labels or not by_labels.passed:
        return by_labels
    told = f"{by_labels.because}, which is no gain beyond chance; {by_scores.because}"
    return replace(by_labels, passed=by_scores.passed, because=told)


def by_labels_alone(pairs: Pairs) -> Recalibration:
    """Judge a calibration that was fitted to labels: others must show a gain beyond chance, and nothing worse.

    It moves no weight, touches one site and can be taken back. So a gain of more than its standard error is served as
    well, for a time only, if decisions at the served threshold are no worse on the very labels that judge it.
    """
    if pairs.n_patients < MIN_PATIENTS:
        return Recalibration(passed=False, because=f"{pairs.n_patients} labelled patients are too few to judge it")
    judged = _by_labels(pairs)
    if judged.has_labels or not judged.passed:
        return judged
    gain, benefit = judged.log_loss_gain, judged.benefit_gain
    assert gain is not None, "labels were asked"
    assert benefit is not None, "labels were asked"
    told = f"labels of {pairs.n_patients} patients: log-loss changes by {-gain.value:+.3f} nats per scan"
    if gain.value <= (gain.high - gain.low) / (2 * Z_95):
        return replace(judged, passed=False, because=f"{told}, no gain of more than its standard error")
    if benefit.value < 0:
        because = f"{told}, no gain beyond chance, and net benefit falls by {-benefit.value:.3f}"
        return replace(judged, passed=False, because=because)
    return replace(judged, because=f"{told}, more than its standard error and not beyond chance, so for a time")


def capped(assumed: float, estimated: float) -> float:
    """The prevalence nearest to `estimated` whose log-odds are at most `MOST_LOGITS` from those of `assumed`."""
    reach = np.exp(np.array([-MOST_LOGITS, MOST_LOGITS])) * assumed / (1 - assumed)
    low, high = reach / (1 + reach)
    return float(np.clip(estimated, low, high))


def benefit_gain(pairs: Pairs) -> Estimate:
    """Net benefit after less before at the served threshold t, per scan: a false positive costs t / (1 - t) true ones.

    Sensitivity and specificity always move against each other under a new prior; the threshold on a probability says
    what one is worth in the other.

    Source:
        Vickers & Elkin 2006, doi:10.1177/0272989X06295361.
    """
    benefits = [
        (p >= t) * np.where(pairs.y == 1, 1.0, -t / (1 - t))
        for p, t in zip((pairs.before, pairs.after), pairs.thresholds, strict=True)
    ]
    return pairs.interval(mean_of(benefits[1] - benefits[0]))


def _by_scores(before: Outlook | None, after: Outlook | None) -> Recalibration:
    if before is None or after is None:
        because = "neither labels nor scores are enough to say what it does"
        return Recalibration(passed=False, because=because, before=before, after=after)
    reason = None
    if not after.fits:
        reason = f"no mixture of the reference's classes fits the scores (p {after.p_fit:.3f})"
    elif before.risk is not None and after.risk is not None and not after.risk.value <= before.risk.value:
        reason = f"the expected log-loss rises from {before.risk.value:.3f} to {after.risk.value:.3f} nats per scan"
    told = reason or f"a mixture of the reference's classes fits the scores (p {after.p_fit:.2f}), without labels"
    return Recalibration(passed=reason is None, because=told, before=before, after=after)


def _by_labels(pairs: Pairs) -> Recalibration:
    found = {"log-loss": pairs.gain(), "Brier score": pairs.brier_gain(), "net benefit": benefit_gain(pairs)}
    has_both = bool(pairs.fewest_of_a_class)
    worse = [f"{name} gets worse by {spelt(_turned(gain))}" for name, gain in found.items() if not _may_hold(gain)]
    told = f"labels of {pairs.n_patients} patients: log-loss falls by {spelt(found['log-loss'])} nats per scan"
    return Recalibration(
        passed=not worse,
        because="; ".join(worse) or told,
        log_loss_gain=found["log-loss"],
        brier_gain=found["Brier score"],
        sensitivity_gain=pairs.rate_gain(1) if has_both else None,
        specificity_gain=pairs.rate_gain(0) if has_both else None,
        benefit_gain=found["net benefit"],
    )


def _may_hold(gain: Estimate) -> bool:
    """Whether it is known and not worse beyond chance."""
    return bool(np.isfinite(gain.value)) and gain.high >= 0


def _turned(gain: Estimate) -> Estimate:
    return Estimate(-gain.value, -gain.high, -gain.low)
