"""What a site risks under one serving or another."""

from collections.abc import Sequence

from platform_core.manifest.serving import Serving
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import RiskReport, measure_risk
from platform_core.shift.scores import score_rows


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
    scans = scored.where(scored.is_labelled)
    if not len(scans):
        return None
    return measure_risk(
        scans.y,
        serving.calibration.probability(scans.score),
        scans.patient_key.tolist(),
        threshold=serving.calibration.threshold,
        min_class_patients=workspace.settings.policy.min_class_patients,
    )
