"""What scores alone say of a site: are they a mixture of the reference's classes, and what would a serving cost?"""

from dataclasses import dataclass

from platform_core.errors import EmptySample
from platform_core.manifest.serving import Calibration, Serving
from platform_core.shift.bound import expected_risk
from platform_core.shift.evidence import FAITHFUL
from platform_core.shift.inputs import Inputs, inputs_of
from platform_core.shift.labels.prevalence import P_FIT, estimate_prevalence
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.scores import score_rows
from platform_core.trial.case import Case, finding_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A site's scores under one serving, held against the labelled reference; no label of the site is read."""

    p_fit: float
    """Chance of scores this unlike any mixture of the reference's classes if they are one."""
    prevalence: Estimate
    """That of the mixture."""
    risk: Estimate | None
    """Log-loss at that prevalence, nats per scan, if the reference's classes score as the site's do."""

    @property
    def fits(self) -> bool:
        """Whether a mixture explains the scores."""
        return self.p_fit > P_FIT


def outlook(case: Case, serving: Serving) -> Outlook | None:
    """The period's scores under a serving of the case's site; its model and recipe must have predicted them.

    Held against the reference as the site's scanner shows it, if anybody has shown it faithfully by this recipe, else
    as it is.

    Returns:
        None if either side has too few scores.
    """
    inputs = inputs_of(case.workspace, case.site, case.target, str(finding_of(case)["stratum"]))
    reference = None if inputs is None else _reference(inputs, serving)
    if inputs is None or reference is None:
        return None
    scans = score_rows(case.workspace, case.site, case.target, serving.model, serving.recipe, keys=inputs.current.keys)
    return look(scans.score, *reference, serving.calibration)


def look(scores: Reals, reference: Reals, y: Reals, calibration: Calibration) -> Outlook | None:
    """The same on arrays; None if either side has too few scores.

    Args:
        scores: Of the site's patients, logits before calibration.
        reference: Of the labelled reference, in the same unit.
        y: 1 or 0 for each of the reference.
        calibration: Of the site.
    """
    try:
        found = estimate_prevalence(scores, reference, y, assumed=calibration.prevalence)
    except EmptySample:
        return None
    share = Estimate.of(found)
    return Outlook(p_fit=found.p_fit, prevalence=share, risk=expected_risk(reference, y, calibration, share))


def _reference(inputs: Inputs, serving: Serving) -> tuple[Reals, Reals] | None:
    present, shown = inputs.serving, inputs.transported
    is_present = present is not None and (present.model, present.recipe) == (serving.model, serving.recipe)
    if is_present and shown is not None and shown.worst < FAITHFUL:
        return shown.scores, shown.y
    source = inputs.reference_scores
    if source is None:
        return None
    known = source.where(source.is_labelled)
    return known.score, known.y
