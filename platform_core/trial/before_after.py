"""What a site risks under one serving or another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from platform_core.learn.calibrate import smoothed_share
from platform_core.learn.registry import find
from platform_core.manifest.serving import Calibration, Serving
from platform_core.manifest.workspace import Workspace
from platform_core.shift.bound import expected_risk
from platform_core.shift.inputs import Inputs, inputs_of
from platform_core.shift.resampled import auroc_of, mean_of, resampled
from platform_core.shift.risk import Estimate, Reals, RiskReport, log_losses, measure_risk
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.trial.gate import unseen_by


def risk_under(
    workspace: Workspace, site: str, target: str, serving: Serving, keys: Sequence[str]
) -> RiskReport | None:
    """Risk of a serving on the labelled evaluation patients among some of a site's series.

    Args:
        workspace: Where predictions and labels lie.
        site: The site.
        target: The task.
        serving: Model, recipe and calibration; need not be in force, but its model must have predicted the series.
        keys: Series, those of a period, say.

    Returns:
        None if no labelled evaluation patient among them has a prediction.
    """
    scored = score_rows(workspace, site, target, serving.model, serving.recipe, keys=keys, part="evaluation")
    return _report(workspace, scored, serving)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What a model costs at a site now, and what it costs where it was accepted."""

    risk: RiskReport
    accepted: Estimate | None
    """Log-loss on the reference, weighted to as many positives as the site's labels have and with that prior, nats per
    scan: two hospitals are as hard only at one mix. None without enough labels of either class there."""


def harm_of(workspace: Workspace, serving: Serving, keys: Sequence[str], stratum: str) -> Harm | None:
    """On every labelled patient of the site from whom the serving's model has not learned, whatever their part.

    For the decision whether a model does harm: it needs all labels there are, of which the evaluation part is less than
    a half. Nobody may compare two models by it. Right after a `calibrate` it is a little too low, by about two numbers
    over the patients that those were fitted to (.03 nats at 60).

    Args:
        workspace: Where predictions and labels lie.
        serving: What the site runs.
        keys: Series of the period.
        stratum: Of the period; the reference's patients are of the same.

    Returns:
        None without such a patient.
    """
    scans = _unlearned(workspace, serving, keys)
    report = _report(workspace, scans, serving)
    if report is None:
        return None
    inputs = inputs_of(workspace, serving.site, serving.target, stratum)
    share = smoothed_share(scans.y, scans.weight)
    return Harm(risk=report, accepted=None if inputs is None else _accepted(inputs, share))


def _accepted(inputs: Inputs, share: float) -> Estimate | None:
    """By the model's own calibration: what the source site has made of it since is of its present scans."""
    source, reference = inputs.reference_scores, inputs.reference
    if source is None or reference is None:
        return None
    known = source.where(source.is_labelled)
    return risk_at(known.score, known.y, find(inputs.workspace, reference.model).calibration, share)


def risk_at(scores: Reals, y: Reals, calibration: Calibration, share: float) -> Estimate | None:
    """Log-loss of labelled scores weighted to a share of positives, with that prior, nats per scan."""
    return expected_risk(scores, y, calibration.moved_to(share), Estimate(share, share, share))


def _unlearned(workspace: Workspace, serving: Serving, keys: Sequence[str]) -> ScoredScans:
    scored = score_rows(workspace, serving.site, serving.target, serving.model, serving.recipe, keys=keys)
    unseen = unseen_by(workspace, [find(workspace, serving.model)])
    is_new = [not unseen.has_seen(key) for key in scored.patient_key.tolist()]
    return scored.where(np.array(is_new, dtype=bool) & scored.is_labelled)


def _report(workspace: Workspace, scored: ScoredScans, serving: Serving) -> RiskReport | None:
    scans = scored.where(scored.is_labelled)
    if not len(scans):
        return None
    p, patients = serving.calibration.probability(scans.score), scans.patient_key.tolist()
    least, threshold = workspace.settings.policy.min_class_patients, serving.calibration.threshold
    report = measure_risk(scans.y, p, patients, threshold=threshold, min_class_patients=least)
    return report if np.ptp(scans.weight) == 0 else _weighted(report, scans, p, threshold)


def _weighted(report: RiskReport, scans: ScoredScans, p: Reals, threshold: float) -> RiskReport:
    """The report with every scan weighed by the inverse of its chance of being labelled."""
    measure = partial(resampled, patients=scans.patient_key.tolist(), weight=scans.weight)
    called = p >= threshold
    wrong = [mean_of(is_wrong.astype(float), scans.y == y) for y, is_wrong in ((1, ~called), (0, called))]
    return replace(
        report,
        log_loss=measure(mean_of(log_losses(scans.y, p))),
        brier=measure(mean_of((p - scans.y) ** 2)),
        balanced_error=report.balanced_error and measure(lambda w: (wrong[0](w) + wrong[1](w)) / 2),
        auroc=report.auroc and measure(auroc_of(scans.y, p)),
    )
