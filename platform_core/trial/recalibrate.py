"""A new prior for one site: the logits move, no weight does."""

from dataclasses import replace

import numpy as np

from platform_core.manifest.serving import Serving
from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, finding_of, serve, settle
from platform_core.trial.paired import pair

MOST_LOGITS = 2.0
"""The prior may move the logits by at most this: a larger move says that something else has happened.

Proposed together with the decision table, not measured: e^2 is a change of the odds by a factor of 7.4."""


def recalibrate(case: Case, decision: Decision) -> None:
    """Serve the estimated prevalence, as far as the cap lets it go; refuse it if labels say that it harms."""
    before = case.serving
    assumed = before.calibration.prevalence
    prevalence = capped(assumed, assumed + float(finding_of(case)["size"]))
    wanted = replace(before, calibration=before.calibration.moved_to(prevalence))
    if does_harm(case, before, wanted):
        settle(case, decision, status="refused", before=before, after=wanted)
    else:
        settle(case, decision, status="done", before=before, after=serve(case, wanted, decision))


def does_harm(case: Case, before: Serving, wanted: Serving) -> bool:
    """Whether log-loss on the period's labelled evaluation patients rises beyond chance; False without labels."""
    pairs = pair(case.workspace, before, wanted, keys=case.keys)
    return pairs.n_patients > 0 and pairs.gain().high < 0


def capped(assumed: float, estimated: float) -> float:
    """The prevalence nearest to `estimated` whose log-odds are at most `MOST_LOGITS` from those of `assumed`."""
    reach = np.exp(np.array([-MOST_LOGITS, MOST_LOGITS])) * assumed / (1 - assumed)
    low, high = reach / (1 + reach)
    return float(np.clip(estimated, low, high))
