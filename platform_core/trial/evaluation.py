"""How good one model is at every site and over all of them, on patients that no training has seen."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import Serving, current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.settings import PolicySettings
from platform_core.shift.resampled import (
    Metric,
    auroc_of,
    balanced_accuracy_of,
    calibration_error_of,
    mean_of,
    resampled,
    sensitivity_of,
)
from platform_core.shift.risk import Estimate, Reals, log_losses
from platform_core.trial.gate import unseen_by
from platform_core.trial.overlap import Overlaps, overlaps_of
from platform_core.trial.paired import Unseen, labelled_scans
from platform_core.trial.rollout import with_model

POOLED = "all sites"
METRICS = (
    "auroc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "sensitivity_at_specificity",
    "brier",
    "calibration_error",
    "log_loss",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """One row per labelled scan: what a serving said of it, and what it was."""

    patients: tuple[str, ...]
    y: Reals
    """1 positive, 0 negative."""
    p: Reals
    """Calibrated probability of the positive class."""
    threshold: Reals
    """Served: positive from there on; sites may differ."""
    weight: Reals
    """1 / the probability with which the label was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One model at one site, or pooled; every metric with its patient-bootstrap interval, None where not evaluable."""

    site: str
    n_scans: int
    n_patients: int
    n_positive: int
    auroc: Estimate | None = None
    """[0, 1], higher is better. Pooled, pairs of two sites count as well: a site's prevalence alone can move it."""
    balanced_accuracy: Estimate | None = None
    """At the served threshold, [0, 1], higher is better."""
    sensitivity: Estimate | None = None
    """At the served threshold."""
    specificity: Estimate | None = None
    """At the served threshold."""
    sensitivity_at_specificity: Estimate | None = None
    """At the specificity of the settings; the threshold is chosen on the same scans."""
    brier: Estimate | None = None
    """[0, 1], lower is better."""
    calibration_error: Estimate | None = None
    """Root mean square over bins of equal mass, sampling variance taken off; [0, 1], lower is better."""
    log_loss: Estimate | None = None
    """Nats per scan, lower is better."""
    dice: Estimate | None = None
    """Of a segmentation, mean over scans, [0, 1], higher is better; all others are None then."""

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-able; an estimate is [value, low, high]."""
        names = METRICS if self.dice is None else ("dice",)
        told = {name: getattr(self, name) for name in names}
        return {"site": self.site, "n_scans": self.n_scans, "n_patients": self.n_patients} | {
            "n_positive": self.n_positive,
            **{name: None if found is None else list(asdict(found).values()) for name, found in told.items()},
        }

    @property
    def told(self) -> dict[str, Any]:
        """For a table: each estimate in words."""
        return {name: _spelt(value) if name in (*METRICS, "dice") else value for name, value in self.facts.items()}


def evaluate(site: str, answers: Answers, rules: PolicySettings) -> Evaluation:
    """Every metric of some answers; all are None below `rules.min_class_patients` patients of either class.

    Args:
        site: Whose.
        answers: May be empty.
        rules: Fewest patients of a class, and the specificity at which sensitivity is told.
    """
    keys, y, p = np.asarray(answers.patients), answers.y, answers.p
    counted = Evaluation(
        site=site, n_scans=len(y), n_patients=len(set(answers.patients)), n_positive=int((y == 1).sum())
    )
    if not len(y) or min(len(set(keys[y == value])) for value in (0, 1)) < rules.min_class_patients:
        return counted

    def interval(metric: Metric, of_resamples: Metric | None = None) -> Estimate | None:
        found = resampled(metric, answers.patients, weight=answers.weight, of_resamples=of_resamples)
        return found if all(map(math.isfinite, (found.value, found.low, found.high))) else None

    called = p >= answers.threshold
    return replace(
        counted,
        auroc=interval(auroc_of(y, p)),
        balanced_accuracy=interval(balanced_accuracy_of(y, called)),
        sensitivity=interval(mean_of(called.astype(np.float64), y == 1)),
        specificity=interval(mean_of((~called).astype(np.float64), y == 0)),
        sensitivity_at_specificity=interval(sensitivity_of(y, p, rules.specificity)),
        brier=interval(mean_of((p - y) ** 2)),
        calibration_error=interval(calibration_error_of(y, p), calibration_error_of(y, p, times=2)),
        log_loss=interval(mean_of(log_losses(y, p))),
    )


def evaluate_model(workspace: Workspace, model: str) -> list[Evaluation]:
    """One model at every site that is served, by the site's recipe and prevalence, and pooled last; a segmentation by
    Dice.

    Only labelled scans that it has predicted count, of known patients of the evaluation part whom neither it nor what
    it comes from has seen.

    Raises:
        UnknownName: If there is no such model.
    """
    ref = registry.find(workspace, model)
    if workspace.target(ref.model).task == "segmentation":
        return _evaluate_overlaps(workspace, ref)
    rules, answers = workspace.settings.policy, answers_of(workspace, model)
    told = [evaluate(site, each, rules) for site, each in answers.items()]
    return told if not answers else [*told, evaluate(POOLED, joined(list(answers.values())), rules)]


def answers_of(workspace: Workspace, model: str) -> dict[str, Answers]:
    """By site, what `evaluate_model` judges.

    Raises:
        UnknownName: If there is no such model.
    """
    ref = registry.find(workspace, model)
    unseen = unseen_by(workspace, [ref])
    return {
        serving.site: _answers(workspace, serving if serving.model == ref.name else with_model(serving, ref), unseen)
        for serving in current_servings(workspace, ref.model)
    }


def _evaluate_overlaps(workspace: Workspace, ref: ModelRef) -> list[Evaluation]:
    unseen, least = unseen_by(workspace, [ref]), workspace.settings.policy.min_class_patients
    found = {
        serving.site: overlaps_of(workspace, with_model(serving, ref), unseen=unseen)
        for serving in current_servings(workspace, ref.model)
    }
    told = [_by_dice(site, [each], least) for site, each in found.items()]
    return told if not found else [*told, _by_dice(POOLED, list(found.values()), least)]


def _by_dice(site: str, parts: Sequence[Overlaps], least: int) -> Evaluation:
    """None below `least` patients on whom a reader has drawn something."""
    y, dice = (np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "dice"))
    patients = tuple(key for part in parts for key in part.patients)
    n_marked = len({key for key, is_marked in zip(patients, y, strict=True) if is_marked})
    return Evaluation(
        site=site,
        n_scans=len(y),
        n_patients=len(set(patients)),
        n_positive=int(y.sum()),
        dice=resampled(mean_of(dice), patients) if n_marked >= least else None,
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """The rows of several sites; a patient of two of them stays one patient."""
    y, p, threshold, weight = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "p", "threshold", "weight")
    )
    patients = tuple(key for part in parts for key in part.patients)
    return Answers(patients=patients, y=y, p=p, threshold=threshold, weight=weight)


def _answers(workspace: Workspace, serving: Serving, unseen: Unseen) -> Answers:
    scans = labelled_scans(workspace, serving, unseen=unseen)
    return Answers(
        patients=tuple(scans.patient_key.tolist()),
        y=scans.y,
        p=serving.calibration.probability(scans.score),
        threshold=np.full(len(scans), serving.calibration.threshold),
        weight=scans.weight,
    )


def _spelt(found: Sequence[float] | None) -> str:
    return "not evaluable" if found is None else f"{found[0]:.3f} [{found[1]:.3f}, {found[2]:.3f}]"
