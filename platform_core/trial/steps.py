"""What each step of a recipe did: to the distance between a site and the reference, and to the signal of the task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.features.measure import FEATURES
from platform_core.shift.discriminant import cross_fitted
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence
from platform_core.shift.mmd import mmd_test
from platform_core.shift.reweighted import MIN_CLASS_PATIENTS, class_weights, weighted_ks
from platform_core.shift.risk import Estimate, Reals, auroc, balanced_error, patient_bootstrap
from platform_core.trial.walk import Walk

MIN_PATIENTS = 20
"""Patients of either side who must have a feature for its distance to mean anything."""
N_RESAMPLES = 200
P_FIT = 0.01
"""Below it no mixture of the reference's two classes explains the site's scores."""
MOST_SIGNAL_LOST = 0.02
"""AUROC that a step may cost; more, beyond chance, and the step is refused."""
MOST_DISTANCE_GAINED = 0.02
"""Mean Kolmogorov-Smirnov distance that a step may add; more, beyond chance, and the step is refused."""
MOST_VOLUME_ERROR = 0.05
"""Share by which a step may change the volume of a label map (median over scans)."""

Named = tuple[str, str]
"""Feature and statistic, as in `out__shift`."""

EVERY = ("every_feature", "ks_mean")
SITE_BY_FEATURES, SITE_BY_EMBEDDING = ("site", "told_by_features"), ("site", "told_by_embedding")
EMBEDDING = ("embedding", "mmd")
SIGNAL_HERE, SIGNAL_THERE = ("label", "auroc"), ("label_of_reference", "auroc")
FIT = ("score", "label_shift_fit")
FAR = ("extrapolation", "share_beyond_2_sd")
"""Share of features in which an unseen site lies further than 2 SD of the known sites from their mean."""
VOLUME_ERROR, CENTROID = ("label_map", "volume_error"), ("label_map", "centroid_moved_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReceipt:
    """One step of a recipe at one site.

    Each number is named by feature and statistic: Kolmogorov-Smirnov distances to the reference in [0, 1], `site` the
    balanced accuracy above chance of a classifier that tells the site from the reference, [-0.5, 0.5], `embedding` the
    squared MMD, `label` the AUROC of a cross-fitted probe within the site, `label_of_reference` the same among the
    labelled reference pushed through the site's own steps, `score` the p-value of the label-shift fit,
    `label_map` what the step did to the foreground as a label map.
    """

    number: int
    """1, 2, ... in the recipe."""
    harmonizer: str
    before: Mapping[Named, Estimate]
    after: Mapping[Named, Estimate]
    change: Mapping[Named, Estimate]
    """After less before, on the same resampled patients."""
    n_patients: int
    n_reference: int

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the step should not be taken, each with its numbers; none if it may."""
        return (*self._further_away(), *self._signal_lost(), *self._label_map_changed())

    def _further_away(self) -> Iterator[str]:
        change = self.change.get(EVERY)
        if change is not None and change.low > 0 and change.value > MOST_DISTANCE_GAINED:
            yield f"the distance to the reference rises by {spelt(change)}"
        if change is not None and change.high < 0:
            return  # what the network sees is one view of it; by all features together the site came nearer
        for named, what in ((EMBEDDING, "squared MMD"), (SITE_BY_EMBEDDING, "accuracy above chance")):
            was, now = self.before.get(named), self.after.get(named)
            if was is not None and now is not None and now.low > was.high:
                yield f"the network tells the site better: {what} {spelt(was)} to {spelt(now)}"

    def _signal_lost(self) -> Iterator[str]:
        for named, whose in ((SIGNAL_HERE, "the site's"), (SIGNAL_THERE, "the reference's")):
            change = self.change.get(named)
            if change is not None and change.high < 0 and change.value < -MOST_SIGNAL_LOST:
                yield f"{whose} label is harder to tell: AUROC changes by {spelt(change)}"
        if self.signal_at == "reference" and self._fit_is_lost:
            yield f"label shift explains the scores no longer (p {self.after[FIT].value:.2g})"

    def _label_map_changed(self) -> Iterator[str]:
        error = self.after.get(VOLUME_ERROR)
        if error is not None and abs(error.value) > MOST_VOLUME_ERROR:
            yield f"a label map changes its volume by {error.value:+.0%}"

    @property
    def signal_at(self) -> str:
        """Where the label's signal was measured: `site`, `reference` or `nowhere`."""
        if SIGNAL_HERE in self.after:
            return "site"
        return "reference" if SIGNAL_THERE in self.after else "nowhere"

    @property
    def because(self) -> str:
        """One sentence with the numbers."""
        told = [f"{self.number} {self.harmonizer}:"]
        if EVERY in self.change:
            told.append(f"distance {self.before[EVERY].value:.2f} to {self.after[EVERY].value:.2f},")
        if FAR in self.after:
            told.append(f"{self.after[FAR].value:.0%} of features lie beyond 2 SD of the known sites,")
        named = {"site": SIGNAL_HERE, "reference": SIGNAL_THERE}.get(self.signal_at)
        if named is not None:
            whose = (
                "label signal" if self.signal_at == "site" else "label signal not measured at this site, reference's"
            )
            told.append(f"{whose} AUROC {self.before[named].value:.2f} to {self.after[named].value:.2f}")
        else:
            told.append("label signal not measured")
        return " ".join(told) + (f"; refused: {'; '.join(self.refusals)}" if self.refusals else "")

    @property
    def _fit_is_lost(self) -> bool:
        if FIT not in self.before or FIT not in self.after:
            return False
        return self.before[FIT].value >= P_FIT > self.after[FIT].value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sides:
    """What is compared: the site's scans and the reference's, each on its own way through the recipe."""

    site: Walk
    y: Reals
    """Labels of the site's scans: 1, 0, NaN where unknown."""
    reference: Walk
    y_reference: Reals
    pushed: Walk | None = None
    """The reference's scans through the SITE's steps; None where the site's own labels tell the signal."""
    y_pushed: Reals | None = None
    """Labels of the pushed scans."""
    prevalence: float | None = None
    """Share of positives among the site's patients, as far as it is known."""

    @property
    def has_labels(self) -> bool:
        """Whether the site's own labels can say what became of their signal."""
        return _fewest(self.y) >= MIN_CLASS_PATIENTS


def implied_prevalence(sides: Sides, state: int) -> float | None:
    """The share of positives that the site's scores imply at a state; None where no mixture explains them.

    To be asked before the first step that learns: a map onto the reference brings its prevalence along.
    """
    fit = _mixture(sides, state)
    return fit.value if fit is not None and fit.p_fit >= P_FIT else None


def receipts_of(sides: Sides) -> tuple[StepReceipt, ...]:
    """One receipt per step.

    A marginal distance also falls when a map eats a difference in prevalence. So where the site's prevalence is
    known, the reference's patients are weighted to it, class by class.
    """
    features = _comparable(sides)
    weights = class_weights(sides.y_reference, sides.prevalence)
    distances = [_distances(sides, state, features, weights) for state in range(len(sides.site.steps) + 1)]
    signals = [_signals(sides, state) for state in range(len(sides.site.steps) + 1)]
    states = [
        _state(sides, state, features, distances[state], signals[state])
        for state in range(len(sides.site.steps) + 1)
    ]  # fmt: skip
    return tuple(
        StepReceipt(
            number=number,
            harmonizer=name,
            before=states[number - 1],
            after=states[number] | _label_maps(sides.site, number - 1),
            change=_changes(distances, signals, number),
            n_patients=len(sides.site.keys),
            n_reference=len(sides.reference.keys),
        )
        for number, name in enumerate(sides.site.steps, start=1)
    )


def receipt_of_features(name: str, names: Sequence[str], reference: Reals, before: Reals, after: Reals) -> StepReceipt:
    """The receipt of a step that moves rows of features and no voxel.

    Args:
        name: Of the step.
        names: Of the features.
        reference: (patients, features), NaN where unknown.
        before: (patients, features) of the site.
        after: The same patients after the step.
    """
    even = np.full(len(reference), 1 / len(reference))
    drawn = [_drawn(reference, even, here) for here in (before, after)]
    states = [
        {(feature, "ks"): _interval(distances[:, n]) for n, feature in enumerate(names)}
        | {EVERY: _interval(distances.mean(axis=1)), SITE_BY_FEATURES: _told_apart(reference, here)}
        for distances, here in zip(drawn, (before, after), strict=True)
    ]
    change = {EVERY: _interval((drawn[1] - drawn[0]).mean(axis=1))}
    return StepReceipt(
        number=1,
        harmonizer=name,
        before=states[0],
        after=states[1],
        change=change,
        n_patients=len(before),
        n_reference=len(reference),
    )


def laid_about(value: float, drawn: Reals | Sequence[float]) -> Estimate:
    """The value with the middle 95 % of its resamples, laid about it.

    A distance of two resamples is greater than that of the samples, so only their spread is taken.
    """
    low, middle, high = np.nanpercentile(drawn, [2.5, 50, 97.5])
    return Estimate(value, value - float(middle - low), value + float(high - middle))


def spelt(estimate: Estimate) -> str:
    """`0.12 [0.05, 0.20]`."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _comparable(sides: Sides) -> npt.NDArray[np.intp]:
    """Features that enough patients of both sides have at every state, so that means of them can be compared."""
    enough = [
        (np.isfinite(walk.features).sum(axis=1) >= MIN_PATIENTS).all(axis=0)
        for walk in (sides.site, sides.reference)
        if walk.features.size
    ]
    return np.flatnonzero(np.logical_and.reduce(enough)) if len(enough) == 2 else np.empty(0, dtype=np.intp)


def _distances(sides: Sides, state: int, features: npt.NDArray[np.intp], weights: Reals) -> Reals:
    there, here = sides.reference.features[state][:, features], sides.site.features[state][:, features]
    return _drawn(there, weights, here)


def _drawn(there: Reals, weights: Reals, here: Reals) -> Reals:
    """(1 + resamples, features): the distances, then those of resampled patients, the same ones at every call."""
    rng = np.random.default_rng(0)
    rows = [_each_ks(there, weights, here)]
    for _ in range(N_RESAMPLES):
        drawn, ours = rng.integers(len(there), size=len(there)), rng.integers(len(here), size=len(here))
        rows.append(_each_ks(there[drawn], weights[drawn], here[ours]))
    return np.asarray(rows, dtype=np.float64).reshape(N_RESAMPLES + 1, there.shape[1])


def _each_ks(reference: Reals, weights: Reals, current: Reals) -> list[float]:
    return [weighted_ks(a, weights, b) for a, b in zip(reference.T, current.T, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Signal:
    """Cross-fitted calls of a probe for the label, on labelled patients."""

    named: Named
    y: Reals
    side: Reals

    def auroc(self) -> Estimate:
        return patient_bootstrap(lambda rows: auroc(self.y[rows], self.side[rows]), _each(self.y))


def _signals(sides: Sides, state: int) -> list[_Signal]:
    """At the site where it has labels; else among the reference's scans on the site's way."""
    here = _signal(SIGNAL_HERE, sides.site, sides.y, state)
    if here is not None:
        return [here]
    if sides.pushed is None or sides.y_pushed is None:
        return []
    there = _signal(SIGNAL_THERE, sides.pushed, sides.y_pushed, state)
    return [there] if there is not None else []


def _signal(named: Named, walk: Walk, y: Reals, state: int) -> _Signal | None:
    known = np.isfinite(y)
    if not walk.embeddings.size or _fewest(y) < MIN_CLASS_PATIENTS:
        return None
    return _Signal(named=named, y=y[known], side=cross_fitted(walk.embeddings[state][known], y[known]))


def _state(
    sides: Sides, state: int, features: npt.NDArray[np.intp], distances: Reals, signals: Sequence[_Signal]
) -> dict[Named, Estimate]:
    names = list(FEATURES)
    told = {(names[column], "ks"): _interval(distances[:, n]) for n, column in enumerate(features)}
    if len(features):
        told[EVERY] = _interval(distances.mean(axis=1))
        told[SITE_BY_FEATURES] = _told_apart(
            sides.reference.features[state][:, features], sides.site.features[state][:, features]
        )
    there, here = sides.reference.embeddings, sides.site.embeddings
    if there.size and here.size and min(len(sides.reference.keys), len(sides.site.keys)) >= MIN_PATIENTS:
        apart = mmd_test(there[state], here[state])
        told[EMBEDDING] = Estimate.of(apart)
        told[SITE_BY_EMBEDDING] = _told_apart(there[state], here[state])
    told |= {signal.named: signal.auroc() for signal in signals}
    return told | _fit(sides, state)


def _told_apart(reference: Reals, current: Reals) -> Estimate:
    """Balanced accuracy above chance, [-0.5, 0.5], of a cross-fitted discriminant between site and reference."""
    rows = np.vstack([reference, current])
    means = np.nanmean(rows, axis=0)
    rows = np.where(np.isfinite(rows), rows, means)
    domain = np.repeat([0.0, 1.0], [len(reference), len(current)])
    side = cross_fitted(rows, domain)
    return patient_bootstrap(lambda drawn: 0.5 - balanced_error(domain[drawn], side[drawn], 0.0), _each(domain))


def _fit(sides: Sides, state: int) -> dict[Named, Estimate]:
    """p-value of the label-shift fit of the site's scores, by the reference's classes on their own way."""
    fit = _mixture(sides, state)
    return {} if fit is None else {FIT: Estimate(fit.p_fit, fit.p_fit, fit.p_fit)}


def _mixture(sides: Sides, state: int) -> PrevalenceEstimate | None:
    scores, known = sides.site.scores, np.isfinite(sides.y_reference)
    if not scores.size or not np.isfinite(scores).all():
        return None
    there, y = sides.reference.scores[state][known], sides.y_reference[known]
    try:
        return estimate_prevalence(scores[state], there, y, assumed=0.5, n_simulated=1)
    except EmptySample:
        return None


def _fewest(y: Reals) -> int:
    """Labelled patients of the rarer class."""
    return int(min((y == 0).sum(), (y == 1).sum()))


def _label_maps(walk: Walk, step: int) -> dict[Named, Estimate]:
    """Median over scans, with the middle 95 % of them."""
    told = {}
    for named, column in ((VOLUME_ERROR, 0), (CENTROID, 1)):
        values = walk.label_maps[step, :, column]
        values = values[np.isfinite(values)]
        if values.size:
            low, high = np.percentile(values, [2.5, 97.5])
            told[named] = Estimate(float(np.median(values)), float(low), float(high))
    return told


def _changes(distances: Sequence[Reals], signals: Sequence[Sequence[_Signal]], number: int) -> dict[Named, Estimate]:
    told: dict[Named, Estimate] = {}
    before, after = distances[number - 1], distances[number]
    if before.shape[1]:
        told[EVERY] = _interval((after - before).mean(axis=1))
    for was, now in zip(signals[number - 1], signals[number], strict=True):
        told[now.named] = _gained(was, now)
    return told


def _gained(was: _Signal, now: _Signal) -> Estimate:
    """AUROC after less before, of the same resampled patients."""
    return patient_bootstrap(
        lambda rows: auroc(now.y[rows], now.side[rows]) - auroc(was.y[rows], was.side[rows]), _each(now.y)
    )


def _interval(drawn: Reals) -> Estimate:
    """The first is the value, the others are resamples."""
    return laid_about(float(drawn[0]), drawn[1:])


def _each(rows: Reals) -> list[str]:
    """One name per row: one row per patient."""
    return [str(number) for number in range(len(rows))]
