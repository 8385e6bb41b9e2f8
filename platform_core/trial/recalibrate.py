"""A new prior for one site: the logits move, no weight does."""

from dataclasses import replace

import numpy as np

from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, finding_of, serve, settle
from platform_core.trial.expiry import until
from platform_core.trial.paired import pair

MOST_LOGITS = 2.0
"""The prior may move the logits by at most this: a larger move says that something else has happened.

Proposed together with the decision table, not measured: e^2 is a change of the odds by a factor of 7.4."""


def recalibrate(case: Case, decision: Decision) -> None:
    """Serve the estimated prevalence, as far as the cap lets it go; refuse it if labels say that it harms."""
    before = case.serving
    assumed = before.calibration.prevalence
    prevalence = capped(assumed, assumed + float(finding_of(case)["size"]))
    moved = replace(before, calibration=before.calibration.moved_to(prevalence))
    pairs = pair(case.workspace, before, moved, keys=case.keys)
    gain = pairs.gain() if pairs.n_patients else None
    has_enough = pairs.fewest_of_a_class >= case.workspace.settings.policy.min_class_patients
    is_confirmed = gain is not None and has_enough and gain.low > 0
    wanted = replace(moved, until=until(case.workspace, case.at, has_labels=is_confirmed))
    if gain is not None and gain.high < 0:
        settle(case, decision, status="refused", before=before, after=wanted)
    else:
        settle(case, decision, status="done", before=before, after=serve(case, wanted, decision))


def capped(assumed: float, estimated: float) -> float:
    """The prevalence nearest to `estimated` whose log-odds are at most `MOST_LOGITS` from those of `assumed`."""
    reach = np.exp(np.array([-MOST_LOGITS, MOST_LOGITS])) * assumed / (1 - assumed)
    low, high = reach / (1 + reach)
    return float(np.clip(estimated, low, high))
