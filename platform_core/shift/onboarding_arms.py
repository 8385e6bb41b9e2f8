"""The tests of `onboarding`: each a set of columns, and what is made of their means under permutations of patients."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import log_ndtr, ndtri

from platform_core.shift.risk import Reals
from platform_core.shift.scored_patients import ScoredPatients

SCORE = "score"
MIN_KNOWN = 0.5
"""Share of either side that must have a feature for it to be compared at all."""
MIN_JOINTLY = 0.95
"""Share of either side that must have a feature for it to be compared jointly with others."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
N_FREQUENCIES = 128
RIDGE = 0.01
"""Added to the correlations before they are inverted."""
MIN_SCORED = 10
"""Patients of either side with a score, without whom it is left out."""
MIN_LABELS = 10
"""Labelled reference patients of each class without whom a score is compared as it is."""

Greatest = Literal["one", "sum"]


@dataclass(frozen=True, slots=True)
class Told:
    """What an arm says of every split, the observed one first."""

    statistic: Reals
    """(splits,), high where the sides differ."""
    log_p: Reals
    """(splits,), about the logarithm of the chance of such a statistic: makes arms comparable, no more."""
    means: Reals
    """(columns,), standardised difference of means of the observed split."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One test: columns (patients, columns), NaN where unknown, and whether their greatest or their squares count."""

    name: str
    names: tuple[str, ...]
    """Of the columns' features."""
    columns: Reals
    counts: Greatest = "one"
    is_scaled: bool = True
    """Each column is taken in its own standard deviations."""

    def tell(self, splits: Reals) -> Told:
        """Statistic and surprise of every split; `splits` (splits, patients): 1 for the site, the true one first."""
        z = self._differences(splits)
        if self.counts == "one":
            statistic = np.abs(z).max(axis=1)
            return Told(statistic, _log_p_of_largest(statistic), z[0])
        statistic = (z**2).sum(axis=1)
        return Told(statistic, _log_p_of_sum(statistic), z[0])

    def _differences(self, splits: Reals) -> Reals:
        """Site less reference in standard errors, (splits, columns).

        Means and errors are of the patients who are known on either side of the split at hand: else a feature that
        one side often lacks would spread more truly than under permutation.
        """
        known = np.isfinite(self.columns)
        centred = np.nan_to_num(self.columns - np.nanmean(self.columns, axis=0))
        spread = np.nanstd(self.columns, axis=0, ddof=1) if self.is_scaled else np.ones(centred.shape[1])
        added = (splits @ (centred / np.where(spread > 0, spread, 1)).astype(np.float32)).astype(np.float64)
        n_site = splits @ known.astype(np.float32) if not known.all() else splits[:, :1] * 0 + splits[0].sum()
        n_site = n_site.astype(np.float64)
        n_reference = known.sum(axis=0) - n_site
        return np.asarray(added * np.sqrt(1 / np.maximum(n_site, 1) + 1 / np.maximum(n_reference, 1)), np.float64)


def shared_features(reference: ScoredPatients, current: ScoredPatients, least: int) -> tuple[str, ...]:
    """Features that enough of both sides have and that are not one number throughout."""
    found = []
    for name in sorted(set(reference.features) & set(current.features)):
        sides = [side.column(name) for side in (reference, current)]
        known = [np.isfinite(side) for side in sides]
        if all(k.sum() >= least and k.mean() >= MIN_KNOWN for k in known):
            pooled = np.concatenate([side[k] for side, k in zip(sides, known, strict=True)])
            if pooled.min() < pooled.max():
                found.append(name)
    return tuple(found)


def arms_of(
    reference: ScoredPatients, current: ScoredPatients, features: tuple[str, ...], rng: np.random.Generator
) -> list[Arm]:
    """Every arm that the two sides allow."""
    names, raw = list(features), [np.concatenate([p.column(f) for p in (reference, current)]) for f in features]
    arms = []
    if reference.score is not None and current.score is not None and _is_known(reference.score, current.score):
        score = np.concatenate([reference.score, current.score])
        arms.append(Arm(SCORE, (SCORE,), _posterior(score, reference)[:, None]))
        names, raw = [*names, SCORE], [*raw, score]
    if not features:
        return arms
    values = np.stack(raw, axis=1)
    z = _normal_scores(values)
    is_joint = _known_share(values, len(reference)) >= MIN_JOINTLY
    arms += [
        Arm("place", tuple(names), z),
        Arm("spread", tuple(names), np.abs(z)),
        Arm("shape", tuple(name for _ in QUANTILES for name in names), _below_quantiles(values)),
    ]
    if is_joint.sum() < 2:
        return arms
    x = _filled(_winsorised(values[:, is_joint]))
    joint = tuple(name for name, yes in zip(names, is_joint, strict=True) if yes)
    return [*arms, *_joint_arms(x / x.std(axis=0), joint, rng)]


def _is_known(reference: Reals, current: Reals) -> bool:
    """Whether enough patients of either side have a score, and not all the same."""
    known = [side[np.isfinite(side)] for side in (reference, current)]
    return min(map(len, known)) >= MIN_SCORED and bool(np.ptp(np.concatenate(known)) > 0)


def _joint_arms(x: Reals, names: tuple[str, ...], rng: np.random.Generator) -> list[Arm]:
    """Arms on standardised columns without gaps."""
    correlation = x.T @ x / len(x)
    size, axes = np.linalg.eigh(correlation)
    residual = x @ np.linalg.inv(correlation + RIDGE * np.eye(len(names)))
    scores = x @ axes[:, size > 1e-8]
    numbered = tuple(f"axis {i}" for i in range(scores.shape[1]))
    return [
        Arm("relation", names, residual),
        Arm("relation spread", names, np.abs(residual)),
        Arm("axis", numbered, scores),
        Arm("axes", numbered, scores, "sum"),
        Arm("kernel", (), _random_features(x, rng), "sum", is_scaled=False),
    ]


def _posterior(score: Reals, reference: ScoredPatients) -> Reals:
    """Chance of a positive by the reference's labels: the direction in which a change of prevalence moves scores most.

    The locally most powerful test of a change of prevalence compares the mean of exactly this (its score function is
    the posterior less the prevalence, up to a constant).
    """
    y = np.full(len(reference), np.nan) if reference.y is None else reference.y
    z = (score - np.nanmean(score)) / (np.nanstd(score) or 1.0)
    there = z[: len(reference)]
    known = np.isfinite(y) & np.isfinite(there)
    if min((y[known] == value).sum() for value in (0, 1)) < MIN_LABELS:
        return _normal_scores(score[:, None])[:, 0]
    slope, intercept = _logistic(there[known], y[known])
    return np.asarray(1 / (1 + np.exp(-(slope * z + intercept))), np.float64)


def _logistic(x: Reals, y: Reals) -> tuple[float, float]:
    """Slope and intercept of y on x by Newton's method, with a little ridge on the slope."""
    design, weights = np.stack([x, np.ones(len(x))], axis=1), np.zeros(2)
    ridge = np.diag([1e-2, 0.0])
    for _ in range(25):
        p = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (y - p) - ridge @ weights
        weights = weights + np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + ridge, slope)
    return float(weights[0]), float(weights[1])


def _normal_scores(values: Reals) -> Reals:
    """Each column's ranks as quantiles of the normal distribution, ties at their mean rank; NaN stays."""
    from scipy.stats import rankdata

    n = np.isfinite(values).sum(axis=0)
    return np.asarray(ndtri((rankdata(values, axis=0, nan_policy="omit") - 0.5) / n), np.float64)


def _winsorised(values: Reals) -> Reals:
    """Each column about its median in robust standard deviations, at most 5; -1, 0 or 1 if most are one number."""
    low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
    spread = (high - low) / 1.349
    away = (values - middle) / np.where(spread > 0, spread, 1)
    return np.asarray(np.where(spread > 0, np.clip(away, -5, 5), np.sign(away)), np.float64)


def _below_quantiles(values: Reals) -> Reals:
    """Whether each value is at most its column's quantiles, NaN where it is unknown."""
    edges = np.nanquantile(values, QUANTILES, axis=0)
    below = [np.where(np.isnan(values), np.nan, values <= edge) for edge in edges]
    return np.asarray(np.concatenate(below, axis=1), np.float64)


def _random_features(x: Reals, rng: np.random.Generator) -> Reals:
    """Random Fourier features of the Gaussian kernel whose width is the median distance.

    Source:
        Rahimi & Recht 2007, NeurIPS 20, section 3.
    """
    few = x[rng.permutation(len(x))[:500]]
    squares = ((few[: len(few) // 2] - few[-(len(few) // 2) :]) ** 2).sum(axis=1)
    frequency = rng.normal(size=(x.shape[1], N_FREQUENCIES)) / np.sqrt(np.median(squares))
    angle = x @ frequency
    return np.asarray(np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(N_FREQUENCIES), np.float64)


def _filled(columns: Reals) -> Reals:
    """Columns about their means, their few gaps at the mean."""
    return np.asarray(np.nan_to_num(columns - np.nanmean(columns, axis=0)), np.float64)


def _known_share(values: Reals, n_reference: int) -> Reals:
    """Share of the side that knows less of each column."""
    known = np.isfinite(values)
    return np.asarray(np.minimum(known[:n_reference].mean(axis=0), known[n_reference:].mean(axis=0)), np.float64)


def _log_p_of_largest(largest: Reals) -> Reals:
    """By as many independent normal columns as would have its median."""
    log_tail = np.log(2) + log_ndtr(-largest)
    return np.asarray(log_tail - np.median(log_tail), np.float64)


def _log_p_of_sum(total: Reals) -> Reals:
    """By the normal distribution of the cube root (Wilson & Hilferty 1931), placed by the splits' own quartiles."""
    root = np.cbrt(total)
    low, middle, high = np.quantile(root, (0.25, 0.5, 0.75))
    return np.asarray(log_ndtr(-(root - middle) / ((high - low) / 1.349 or 1.0)), np.float64)
