"""Scale and offset of one site's scores by its own labels: no weight moves, and no rank of a scan changes."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from platform_core.learn.calibrate import fit_calibration
from platform_core.learn.registry import find
from platform_core.learn.train import FEWEST_OF_A_CLASS, FEWEST_PATIENTS
from platform_core.manifest.serving import Calibration, Serving
from platform_core.policy.decide import Decision
from platform_core.provenance import digest, number_of
from platform_core.shift.risk import Reals
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.trial.case import Case, serve, settle
from platform_core.trial.gate import unseen_by
from platform_core.trial.paired import Pairs, Unseen, labelled_scans, of_persons
from platform_core.trial.recalibrate import by_labels_alone
from platform_core.trial.rollout import limit_of


def calibrate(case: Case, decision: Decision) -> None:
    """Fit the site's calibration to the period's labels; serve it, at this site alone, if other labels confirm it."""
    before = case.serving
    unseen = unseen_by(case.workspace, [find(case.workspace, before.model)])
    fitting = _to_fit(case, before, unseen)
    if few := too_few(fitting.y, fitting.patient_key):
        settle(case, decision, status="refused", before=before, facts={"refused": few})
        return
    held_out = labelled_scans(case.workspace, before, keys=case.keys, unseen=unseen)
    present, n_folds = before.calibration, case.workspace.settings.policy.n_folds
    fitted = fit_calibration(fitting.score, fitting.y, present, fitting.weight)
    judged = by_labels_alone(judging_pairs(fitting, held_out, present, fitted, n_folds=n_folds))
    kept = ("model", "recipe")
    until = limit_of(case.workspace, before, case.at, has_labels=judged.has_labels, kept=kept)
    wanted = replace(before, calibration=fitted, until=until)
    fitted_to = {"n": len(fitting), "series": digest(sorted(fitting.series_key.tolist()))}
    facts = {"recalibration": judged.to_json(), "fitted_to": fitted_to}
    if judged.passed:
        told = replace(decision, because=f"{decision.because}; {judged.because}")
        settle(case, told, status="done", before=before, after=serve(case, wanted, decision), facts=facts)
    else:
        told = replace(decision, because=f"{decision.because}; it is refused: {judged.because}")
        settle(case, told, status="refused", before=before, after=wanted, facts=facts)


def too_few(y: Reals, patients: npt.NDArray[np.str_]) -> str | None:
    """Why labelled patients are too few to fit to; None if they are not."""
    n_patients, n_class = len(set(patients)), [len(set(patients[y == value])) for value in (0, 1)]
    if n_patients >= FEWEST_PATIENTS and min(n_class) >= FEWEST_OF_A_CLASS:
        return None
    return (
        f"{n_patients} labelled patients outside the evaluation part, {n_class[1]} of them positive, are too few to "
        f"fit a calibration to; it takes {FEWEST_PATIENTS}, and {FEWEST_OF_A_CLASS} of either class"
    )


def judging_pairs(
    fitting: ScoredScans, held_out: ScoredScans, present: Calibration, fitted: Calibration, *, n_folds: int
) -> Pairs:
    """The present calibration against the fitted one, on patients who had no part in what they are judged by.

    Evaluation patients by the fitted one; those whom it is fitted to, a fold at a time, by what the others give.
    """
    scans = (fitting, held_out)
    return Pairs(
        patients=tuple(key for part in scans for key in part.patient_key.tolist()),
        y=np.concatenate([part.y for part in scans]),
        before=np.concatenate([present.probability(part.score) for part in scans]),
        after=np.concatenate([_by_others(fitting, present, n_folds), fitted.probability(held_out.score)]),
        thresholds=(present.threshold, fitted.threshold),
        weight=np.concatenate([part.weight for part in scans]),
    )


def _by_others(scans: ScoredScans, present: Calibration, n_folds: int) -> Reals:
    """Probability of every scan, (n,), by a calibration that its patient's fold had no part in."""
    fold = np.array([number_of(f"calibrate/{key}") % n_folds for key in scans.patient_key])
    p = np.empty(len(scans))
    for number in np.unique(fold):
        rest, own = scans.where(fold != number), fold == number
        p[own] = fit_calibration(rest.score, rest.y, present, rest.weight).probability(scans.score[own])
    return p


def _to_fit(case: Case, serving: Serving, unseen: Unseen) -> ScoredScans:
    """The period's labelled scans of known persons who are not kept for evaluation and whom no training has seen."""
    scans = score_rows(case.workspace, case.site, case.target, serving.model, serving.recipe, keys=case.keys)
    return of_persons(scans.where(scans.is_labelled), unseen.name_to_fit)
