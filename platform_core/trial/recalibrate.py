"""A new prior for one site: the logits move, no weight does."""

from dataclasses import replace

import numpy as np

from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, finding_of, serve, settle

MOST_LOGITS = 2.0
"""The prior may move the logits by at most this: a larger move says that something else has happened.

Proposed together with the decision table, not measured: e^2 is a change of the odds by a factor of 7.4."""


def recalibrate(case: Case, decision: Decision) -> None:
    """Serve the prevalence that the finding estimates, as far as the cap lets it go."""
    before = case.serving
    assumed = before.calibration.prevalence
    prevalence = capped(assumed, assumed + float(finding_of(case)["size"]))
    after = serve(case, replace(before, calibration=before.calibration.moved_to(prevalence)), decision)
    settle(case, decision, status="done", before=before, after=after)


def capped(assumed: float, estimated: float) -> float:
    """The prevalence nearest to `estimated` whose log-odds are at most `MOST_LOGITS` from those of `assumed`."""
    reach = np.exp(np.array([-MOST_LOGITS, MOST_LOGITS])) * assumed / (1 - assumed)
    low, high = reach / (1 + reach)
    return float(np.clip(estimated, low, high))
