"""What a site risks under one serving or another."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from platform_core.learn.persons import find_persons, person_of
from platform_core.learn.registry import find, trained_on
from platform_core.manifest.serving import Serving
from platform_core.manifest.workspace import Workspace
from platform_core.shift.resampled import auroc_of, mean_of, resampled
from platform_core.shift.risk import Reals, RiskReport, log_losses, measure_risk
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.trial.paired import patients_of


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


def risk_of_unlearned(workspace: Workspace, serving: Serving, keys: Sequence[str]) -> RiskReport | None:
    """The same on every labelled patient from whom the serving's model has not learned, whatever their part.

    For the decision whether a model does harm: it needs all labels there are, of which the evaluation part is less than
    a half. Nobody may compare two models by it.
    """
    scored = score_rows(workspace, serving.site, serving.target, serving.model, serving.recipe, keys=keys)
    learned = patients_of(workspace, trained_on(workspace, find(workspace, serving.model)))
    persons = find_persons(workspace)
    is_new = [not person_of(key, persons) & learned for key in scored.patient_key.tolist()]
    return _report(workspace, scored.where(np.array(is_new, dtype=bool)), serving)


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
