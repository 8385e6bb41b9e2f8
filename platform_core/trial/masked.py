"""What is different about a finding where the target is a segmentation: how risk is told, and what is never done."""

from collections.abc import Sequence
from dataclasses import replace

from platform_core.manifest.serving import Serving, current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision
from platform_core.policy.situation import Situation
from platform_core.shift.resampled import mean_of, resampled
from platform_core.shift.risk import Estimate, RiskReport
from platform_core.trial.overlap import overlaps_of

OF_SCORES = {
    "recalibrate": "a segmentation marks every scan by itself and has no prior that could be moved, so nothing changes",
    "calibrate": "a segmentation marks voxels, and scale and offset are of scores of whole scans, so nothing changes",
    "adapt": "an adaptation without labels is judged by the scores of whole scans, which say nothing of where a "
    "segmentation marks, so nothing changes",
}
"""Actions that move or trust scores of whole scans, and why they are not taken."""


def overlap_risk(workspace: Workspace, serving: Serving, keys: Sequence[str] | None) -> RiskReport | None:
    """1 - Dice of a serving on the masked evaluation patients among some of a site's series.

    Args:
        workspace: Where volumes, masks and models lie.
        serving: Model, recipe and threshold; need not be in force.
        keys: Series, those of a period, say; None for all.

    Returns:
        None if no masked evaluation patient is among them.
    """
    found = overlaps_of(workspace, serving, keys=keys)
    if not found.patients:
        return None
    return RiskReport(
        log_loss=None,
        brier=None,
        balanced_error=None,
        auroc=None,
        overlap_loss=resampled(mean_of(1 - found.dice), found.patients, weight=found.weight),
        n_scans=len(found.patients),
        n_patients=len(set(found.patients)),
        n_positive=int(found.y.sum()),
    )


def with_overlap(workspace: Workspace, target: str, situation: Situation, report: RiskReport | None) -> Situation:
    """The situation with 1 - Dice for both risks: the period's, and the source's under what it runs.

    An adaptation counts as tried and scores as fitted to labels, so that the policy goes on to what can be done.
    """
    serving = current_serving(workspace, workspace.target(target).source_site, target)
    accepted = None if serving is None else overlap_risk(workspace, serving, None)
    tried, taken = (*situation.tried, "adapt"), (*situation.taken, "calibrate")
    return replace(situation, target_risk=_of(report), accepted_risk=_of(accepted), tried=tried, taken=taken)


def in_overlap(decision: Decision) -> Decision:
    """The decision in the unit of its risks; none where it would move or trust scores of whole scans."""
    decision = replace(decision, because=decision.because.replace("nats per scan", "of 1 - Dice"))
    if decision.action not in OF_SCORES:
        return decision
    because = f"{decision.because}; but {OF_SCORES[decision.action]}"
    return replace(decision, action="none", because=because, status="proposed")


def _of(report: RiskReport | None) -> Estimate | None:
    return None if report is None else report.overlap_loss
