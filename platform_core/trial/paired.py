"""One set of held-out scans as two servings see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.learn.persons import Person, person_of
from platform_core.manifest.serving import Serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import current_series, series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SplitSettings
from platform_core.shift.paired_mean import chance_of_no_gain
from platform_core.shift.resampled import Metric, auroc_of, calibration_error_of, mean_of, resampled
from platform_core.shift.risk import Estimate, Reals, log_losses
from platform_core.shift.scores import ScoredScans, score_rows


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One row per scan: its label and two calibrated probabilities of the positive class.

    Every gain is a difference that is above 0 where `after` is better, with its patient-bootstrap interval.
    """

    patients: tuple[str, ...]
    y: Reals
    before: Reals
    after: Reals
    groups: tuple[str | None, ...] = ()
    """Subgroup of each scan, its manufacturer say; none: no subgroups."""
    thresholds: tuple[float, float] = (0.5, 0.5)
    """Served before and after: positive from there on."""
    weight: Reals | None = None
    """Of every scan, 1 / the probability with which its label was asked for; None: all 1."""

    @property
    def n_patients(self) -> int:
        """Patients, not scans."""
        return len(set(self.patients))

    @property
    def fewest_of_a_class(self) -> int:
        """Patients of the rarer class."""
        keys = np.asarray(self.patients)
        return min(len(set(keys[self.y == value])) for value in (0, 1))

    @property
    def saved(self) -> Reals:
        """Log-loss before less after of each scan, nats."""
        return log_losses(self.y, self.before) - log_losses(self.y, self.after)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        """The rows that are chosen, without subgroups."""
        return Pairs(
            patients=tuple(np.asarray(self.patients)[chosen].tolist()),
            y=self.y[chosen],
            before=self.before[chosen],
            after=self.after[chosen],
            thresholds=self.thresholds,
            weight=None if self.weight is None else self.weight[chosen],
        )

    def by_group(self) -> "dict[str, Pairs]":
        """The rows of every subgroup."""
        names = np.asarray([group or "" for group in self.groups])
        return {name: self.where(names == name) for name in sorted(set(names.tolist()) - {""})}

    def chance_of_no_gain(self) -> float:
        """One-sided p value of "log-loss does not fall".

        Raises:
            EmptySample: If there are fewer than two patients.
        """
        return chance_of_no_gain(self.saved, self.patients, self.weight)

    def gain(self) -> Estimate:
        """Log-loss before less log-loss after, nats per scan.

        Raises:
            EmptySample: If there is no pair.
        """
        return self.interval(mean_of(self.saved))

    def brier_gain(self) -> Estimate:
        """Brier score before less after.

        Raises:
            EmptySample: If there is no pair.
        """
        return self.interval(mean_of((self.before - self.y) ** 2 - (self.after - self.y) ** 2))

    def auroc_gain(self) -> Estimate:
        """AUROC after less before.

        Raises:
            EmptySample: If there is no pair.
        """
        before, after = (auroc_of(self.y, p) for p in (self.before, self.after))
        return self.interval(lambda weights: after(weights) - before(weights))

    def calibration_gain(self) -> Estimate:
        """Calibration error before less after.

        Raises:
            EmptySample: If there is no pair.
        """

        def fall(times: int) -> Metric:
            before, after = (calibration_error_of(self.y, p, times=times) for p in (self.before, self.after))
            return lambda weights: before(weights) - after(weights)

        return self.interval(fall(1), of_resamples=fall(2))

    def rate_gain(self, value: int) -> Estimate:
        """Share of the class `value` that is called right at the served threshold, after less before.

        Raises:
            EmptySample: If there is no pair.
        """
        right = [
            ((p >= threshold) == (value == 1)).astype(np.float64)
            for p, threshold in zip((self.before, self.after), self.thresholds, strict=True)
        ]
        return self.interval(mean_of(right[1] - right[0], self.y == value))

    def interval(self, metric: Metric, *, of_resamples: Metric | None = None) -> Estimate:
        """A metric of the scans with its patient-bootstrap interval.

        Raises:
            EmptySample: If there is no pair.
        """
        return resampled(metric, self.patients, weight=self.weight, of_resamples=of_resamples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Who may be evidence: persons of the evaluation part under all of their keys, whom no training has seen."""

    seen: frozenset[str]
    """Keys of patients whose scans moved a weight."""
    persons: Mapping[str, Person]
    split: SplitSettings

    def has_seen(self, patient_key: str) -> bool:
        """Whether any training has seen the person, under any key."""
        return bool(person_of(patient_key, self.persons) & self.seen)

    def name_of(self, patient_key: str) -> str | None:
        """One key for all keys of the person; None if any of them was seen or is of another part."""
        return self._name(patient_key, is_evaluation={True})

    def name_to_fit(self, patient_key: str) -> str | None:
        """One key for all keys of the person; None if any of them was seen or is of the evaluation part."""
        return self._name(patient_key, is_evaluation={False})

    def _name(self, patient_key: str, is_evaluation: set[bool]) -> str | None:
        person = person_of(patient_key, self.persons)
        is_so = {part_of(key, self.split) == "evaluation" for key in person}
        return None if person & self.seen or is_so != is_evaluation else min(person)


def pair(
    workspace: Workspace,
    before: Serving,
    after: Serving,
    *,
    keys: Sequence[str] | None = None,
    unseen: Unseen | None = None,
) -> Pairs:
    """Labelled scans of evaluation patients that both servings of one site have predicted.

    Args:
        workspace: Where predictions and labels lie.
        before: One serving.
        after: The other, of the same site and target.
        keys: Only these series; None for all.
        unseen: Only known patients who may be evidence, under one key per person; None: all evaluation patients.
    """
    first, second = (labelled_scans(workspace, serving, keys=keys, unseen=unseen) for serving in (before, after))
    shared = np.intersect1d(first.series_key, second.series_key)
    first, second = (scans.where(np.isin(scans.series_key, shared)) for scans in (first, second))
    return Pairs(
        patients=tuple(first.patient_key.tolist()),
        y=first.y,
        before=before.calibration.probability(first.score),
        after=after.calibration.probability(second.score),
        groups=_manufacturers(workspace, before.site, first.series_key.tolist()),
        thresholds=(before.calibration.threshold, after.calibration.threshold),
        weight=first.weight,
    )


def labelled_scans(
    workspace: Workspace, serving: Serving, *, keys: Sequence[str] | None = None, unseen: Unseen | None = None
) -> ScoredScans:
    """A serving's labelled scans of evaluation patients; with `unseen`, of known persons who may be evidence."""
    scans = score_rows(
        workspace, serving.site, serving.target, serving.model, serving.recipe, keys=keys, part="evaluation"
    )
    scans = scans.where(scans.is_labelled)
    return scans if unseen is None else of_persons(scans, unseen.name_of)


def of_persons(scans: ScoredScans, name_of: Callable[[str], str | None]) -> ScoredScans:
    """The scans of known patients who have a name, under it."""
    names = [name_of(str(key)) for key in scans.patient_key]
    scans = replace(scans, patient_key=np.asarray([name or "" for name in names], dtype=np.str_))
    return scans.where(scans.patient_known & (scans.patient_key != ""))


def patients_of(workspace: Workspace, series: set[tuple[str, str]]) -> frozenset[str]:
    """Patients of the named (site, series_key)."""
    found: set[str] = set()
    for site in sorted({site for site, _ in series}):
        rows = current_series(workspace, site).select(["series_key", "patient_key"]).to_pylist()
        found |= {str(row["patient_key"]) for row in rows if (site, row["series_key"]) in series}
    return frozenset(found)


def _manufacturers(workspace: Workspace, site: str, keys: Sequence[str]) -> tuple[str | None, ...]:
    made_by = {row["series_key"]: row["manufacturer"] for row in series_rows(workspace, site, keys)}
    return tuple(made_by.get(key) for key in keys)
