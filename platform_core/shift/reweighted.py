"""Distances of acquisition that a change of prevalence cannot feign: the reference is weighted to the site's.

Sick patients look otherwise, so a site with more of them has other features by any scanner. Weighting the reference's
labelled patients class by class takes that part out, and what is left is acquisition, or other patients within a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals

MIN_PATIENTS = 20
"""Patients of either side who must have a feature for its distance to mean anything."""
MIN_CLASS_PATIENTS = 10
"""Labelled reference patients of each class without whom nothing is weighted."""
N_PERMUTATIONS = 499
MOST_PATIENTS = 3000
"""Patients of either side who are permuted, drawn at random from more: beyond, chance makes no material distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReweightedDistance:
    """How far a site's features lie from those of the reference at the site's prevalence."""

    value: float
    """Largest Kolmogorov-Smirnov distance over the features, [0, 1]."""
    feature: str
    """The one that has it."""
    p: float
    """Chance of a largest distance like this if only prevalence differs; over all features together."""
    by_chance: float
    """What the largest distance would be then, [0, 1]: median over permutations of patients."""
    each: dict[str, float]
    """Distance of every feature that was compared, largest first."""
    n: int
    n_reference: int
    """Reference patients who took part in the permutations."""


def class_weights(y: Reals, prevalence: float | None) -> Reals:
    """What each reference patient counts so that positives make up `prevalence`; all alike if that is not known.

    Patients without a label count nothing then.
    """
    n = [int((y == value).sum()) for value in (0, 1)]
    if prevalence is None or min(n) < MIN_CLASS_PATIENTS:
        return np.full(len(y), 1 / len(y)) if len(y) else np.empty(0)
    return np.select([y == 1, y == 0], [prevalence / n[1], (1 - prevalence) / n[0]], default=0.0)


def weighted_ks(reference: Reals, weights: Reals, current: Reals) -> float:
    """Largest gap between the distributions of the weighted reference and the site, [0, 1]; NaN if one is empty."""
    known, here = np.isfinite(reference) & (weights > 0), current[np.isfinite(current)]
    if not known.any() or not here.size:
        return float("nan")
    order = np.argsort(reference[known], kind="stable")
    values, share = reference[known][order], np.cumsum(weights[known][order])
    pooled = np.concatenate([values, here])
    below = np.concatenate([[0.0], share / share[-1]])[np.searchsorted(values, pooled, side="right")]
    gap = below - np.searchsorted(np.sort(here), pooled, side="right") / here.size
    return float(np.abs(gap).max())


def class_draw(y: Reals, prevalence: float | None, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Rows of the largest part of the reference in which positives make up `prevalence`; all if that is not known."""
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    if prevalence is None or min(len(positive), len(negative)) < MIN_CLASS_PATIENTS:
        return np.arange(len(y))
    total = min(
        len(positive) / prevalence if prevalence > 0 else np.inf,
        len(negative) / (1 - prevalence) if prevalence < 1 else np.inf,
    )
    sizes = round(total * prevalence), round(total * (1 - prevalence))
    drawn = [rng.permutation(rows)[:n] for rows, n in zip((positive, negative), sizes, strict=True)]
    return np.sort(np.concatenate(drawn))


def reweighted_distance(
    names: Sequence[str],
    reference: Reals,
    reference_y: Reals,
    current: Reals,
    *,
    prevalence: float | None,
    seed: int = 0,
) -> ReweightedDistance:
    """Measure the largest distance of any feature, and how often chance would make one as large.

    Permuting patients is only fair between samples of one mix of classes, so it is done between the site and the
    largest part of the reference that has the site's prevalence. The prevalence is taken as given: estimate it from
    scores that a scanner has moved, and it is wrong.

    Args:
        names: Of the features.
        reference: (patients, features), one row per patient, NaN where unknown.
        reference_y: 1 or 0 for each, NaN where unknown.
        current: (patients, features) of the site.
        prevalence: Of the site, [0, 1]; None: not known, nothing is weighted.
        seed: Of the permutations.

    Raises:
        EmptySample: If no feature is known of `MIN_PATIENTS` on either side.

    Source:
        Roschewitz et al. 2024, arXiv:2411.07940 (the reference is brought to the estimated prevalence before it is
        compared); the greatest of many distances by permutation is Westfall & Young 1993, section 2.5.
    """
    rng = np.random.default_rng(seed)
    rows = _at_most(class_draw(reference_y, prevalence, rng), rng)
    drawn, here = reference[rows], current[_at_most(np.arange(len(current)), rng)]
    enough = [np.isfinite(side).sum(axis=0) >= MIN_PATIENTS for side in (drawn, here)]
    shared = np.flatnonzero(np.logical_and(*enough))
    if not shared.size:
        raise EmptySample("patients with a feature in common", MIN_PATIENTS, 0)
    weights = class_weights(reference_y, prevalence)
    each = {names[int(k)]: weighted_ks(reference[:, k], weights, current[:, k]) for k in shared}
    each = dict(sorted(each.items(), key=lambda item: -item[1]))
    is_site = np.arange(len(rows) + len(here)) >= len(rows)
    splits = np.vstack([is_site, rng.permuted(np.tile(is_site, (N_PERMUTATIONS, 1)), axis=1)])
    scaled, plain = _largest(np.vstack([drawn, here])[:, shared], splits)
    return ReweightedDistance(
        value=next(iter(each.values())),
        feature=next(iter(each)),
        p=float((scaled >= scaled[0] - 1e-12).mean()),
        by_chance=float(np.median(plain[1:])),
        each=each,
        n=len(current),
        n_reference=len(rows),
    )


def _at_most(rows: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    return rows if len(rows) <= MOST_PATIENTS else np.sort(rng.choice(rows, MOST_PATIENTS, replace=False))


def _largest(pooled: Reals, splits: npt.NDArray[np.bool_]) -> tuple[Reals, Reals]:
    """Per split, (splits, patients): the largest distance in its standard unit sqrt(nm / (n + m)), and as it is."""
    scaled, plain = np.zeros(len(splits)), np.zeros(len(splits))
    for values in pooled.T:
        known = np.flatnonzero(np.isfinite(values))
        order = known[np.argsort(values[known], kind="stable")]
        is_last = np.append(np.diff(values[order]) > 0, True)
        here = np.cumsum(splits[:, order], axis=1)
        n_here = here[:, -1:]
        n_there = len(order) - n_here
        there = np.arange(1, len(order) + 1) - here
        # nobody of one side may be left with the feature in a permutation
        gap = np.abs(here / np.maximum(n_here, 1) - there / np.maximum(n_there, 1))[:, is_last].max(axis=1)
        unit = np.sqrt(n_here * n_there / len(order))[:, 0]
        scaled, plain = np.maximum(scaled, gap * unit), np.maximum(plain, gap * (unit > 0))
    return scaled, plain
