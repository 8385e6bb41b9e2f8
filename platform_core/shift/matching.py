"""Compare like with like: the reference weighted to the site's prevalence, and to its mix of header values.

A scan with a value that the reference has never seen is like nothing there, and left out.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.shift.reweighted import MIN_PATIENTS, weighted_ks
from platform_core.shift.risk import Reals

ALPHA = 0.05
"""Chance that a feature is taken to differ though none does, all features together."""
KOLMOGOROV_MEAN = 0.8687
"""Mean of Kolmogorov's distribution, sqrt(pi / 2) ln 2: a distance by chance in units of sqrt(1 / n + 1 / m)."""


Codes = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""A field's values as numbers, at the reference and at the site."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared, one row per patient."""

    reference: Reals
    """(patients, features), NaN where unknown."""
    weights: Reals
    """What each reference patient counts so that the prevalence is the site's; they add up to one."""
    current: Reals
    """(patients, features) of the site."""
    fields: Mapping[str, Codes]


def is_different(reference: Reals, weights: Reals, current: Reals, n_features: int) -> bool:
    """Whether a feature differs beyond chance, by Kolmogorov's limit at alpha over the number of features."""
    here = np.isfinite(current).sum()
    known = np.isfinite(reference) & (weights > 0)
    if min(here, known.sum()) < MIN_PATIENTS:
        return False
    critical = np.sqrt(-np.log(ALPHA / n_features / 2) / 2)
    spread = np.sqrt(1 / here + 1 / _effective(weights[known]))
    return bool(weighted_ks(reference, weights, current) > critical * spread)


def _effective(weights: Reals) -> float:
    """As many equally weighted patients would tell as much."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def codes_of(reference: Sequence[Hashable], current: Sequence[Hashable]) -> Codes:
    """Values as numbers, the same on both sides; a missing value is a value of its own."""
    number: dict[Hashable, int] = {}
    there, here = ([number.setdefault(value, len(number)) for value in side] for side in (reference, current))
    return np.array(there, dtype=np.intp), np.array(here, dtype=np.intp)


def excess(sides: Sides, fields: Sequence[str]) -> float:
    """Mean of `excesses` over features."""
    return float(excesses(sides, fields).mean())


def excesses(sides: Sides, fields: Sequence[str]) -> Reals:
    """Distance of each feature beyond chance between the site and the reference weighted to its values of `fields`.

    Over the site's patients with values that the reference has; the others' distance counts as none.
    """
    weights, is_seen = _matched(sides, fields)
    found = np.zeros(sides.current.shape[1])
    if is_seen.sum() < MIN_PATIENTS:
        return found
    for k, (there, here) in enumerate(zip(sides.reference.T, sides.current[is_seen].T, strict=True)):
        known, n_here = np.isfinite(there) & (weights > 0), np.isfinite(here).sum()
        if known.any() and n_here:
            chance = KOLMOGOROV_MEAN * np.sqrt(1 / n_here + 1 / _effective(weights[known]))
            found[k] = max(weighted_ks(there, weights, here) - chance, 0.0) * is_seen.mean()
    return found


def _matched(sides: Sides, fields: Sequence[str]) -> tuple[Reals, npt.NDArray[np.bool_]]:
    """Reference weights that give it the site's mix of values, and the site's patients whose values it has."""
    if not fields:
        return sides.weights, np.ones(len(sides.current), dtype=bool)
    pairs = [sides.fields[name] for name in fields]
    cells, cell = np.unique(
        np.concatenate([np.stack([side[k] for side in pairs], axis=1) for k in (0, 1)]), axis=0, return_inverse=True
    )
    there, here = np.split(cell.ravel(), [len(sides.weights)])
    before = np.bincount(there, weights=sides.weights, minlength=len(cells))
    after = np.bincount(here, minlength=len(cells)) / len(here)
    ratio = np.divide(after, before, out=np.zeros(len(cells)), where=before > 0)
    return sides.weights * ratio[there], before[here] > 0
