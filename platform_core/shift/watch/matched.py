"""Directions among features along which a known change moves a scan, learnt before the first scan is ranked.

A change of the scanner moves several features at once, each a little, and along with it the ways in which scans of one
scanner differ anyway. The direction that tells the two apart best is Fisher's; its score is one more feature to be
watched. Any score that is fixed beforehand can be ranked, so a direction that is wrong costs power, never validity.

What a change does is learnt from pairs: the features of some scans of the reference, and of the same scans as the
changed scanner would have shown them. Patients that a direction was learnt from have no place in the pool that it is
ranked among: their scores lie closer together than those of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals

MIN_PATIENTS = 50
"""Of whom the spread of the features is learnt."""
MIN_PAIRS = 10
FARTHEST = 5.0
"""Robust standard deviations at which a value is held: one odd scan must not turn a direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """Fixed scores; as data, to be kept with the watch that ranks them."""

    features: tuple[str, ...]
    center: tuple[float, ...]
    """Median of each feature in the reference, in its unit."""
    scale: tuple[float, ...]
    """Robust standard deviation, in its unit; infinite for a feature that does not vary, which then counts nothing."""
    weights: Mapping[str, tuple[float, ...]]
    """Per change one weight per feature, of standardised values."""


def learn_directions(
    features: Sequence[str], reference: Reals, changes: Mapping[str, tuple[Reals, Reals]]
) -> Directions:
    """One direction per change.

    Args:
        features: Names of the columns.
        reference: (patients, features), NaN where missing.
        changes: By name the same scans before and after, each (scans, features).

    Raises:
        EmptySample: If there are fewer than `MIN_PATIENTS` patients, or `MIN_PAIRS` scans of a change.

    Source:
        Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x; the covariance is shrunk towards its diagonal.
    """
    if len(reference) < MIN_PATIENTS:
        raise EmptySample("patients of the reference", MIN_PATIENTS, len(reference))
    for name, (before, _) in changes.items():
        if len(before) < MIN_PAIRS:
            raise EmptySample(f"scans with and without {name}", MIN_PAIRS, len(before))
    center, scale = _place_and_scale(reference)
    plain = _standardised(reference, center, scale)
    within = plain.T @ plain / len(plain)
    shrunk = 0.1 + len(features) / (2 * len(plain))
    within = (1 - shrunk) * within + shrunk * np.diag(np.diag(within)) + 1e-6 * np.eye(len(features))
    moved = {
        name: (_standardised(after, center, scale) - _standardised(before, center, scale)).mean(axis=0)
        for name, (before, after) in changes.items()
    }
    return Directions(
        features=tuple(features),
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        weights={name: tuple(np.linalg.solve(within, by).tolist()) for name, by in moved.items()},
    )


def scores_along(directions: Directions, values: Reals) -> Reals:
    """The score of each scan in each direction, (scans, directions), in order of names; higher is more of the change.

    A missing value counts as the reference's median; a scan without any has no score (NaN).

    Args:
        directions: As they were learnt.
        values: (scans, features), NaN where missing.
    """
    plain = _standardised(values, np.array(directions.center), np.array(directions.scale))
    weights = np.array([directions.weights[name] for name in sorted(directions.weights)])
    scores = plain @ weights.T
    scores[~np.isfinite(values).any(axis=1)] = np.nan
    return np.asarray(scores, np.float64)


def _place_and_scale(values: Reals) -> tuple[Reals, Reals]:
    """Median, and the interquartile range of a normal sample of that standard deviation."""
    known = np.where(np.isfinite(values), values, np.nan)
    has_any = np.isfinite(known).any(axis=0)
    low, middle, high = np.nanquantile(np.where(has_any, known, 0.0), [0.25, 0.5, 0.75], axis=0)
    scale = (high - low) / 1.349
    return middle, np.where(scale > 0, scale, np.inf)


def _standardised(values: Reals, center: Reals, scale: Reals) -> Reals:
    """Robust standard deviations from the reference's median, held at `FARTHEST`; 0 where missing."""
    plain = np.clip((values - center) / scale, -FARTHEST, FARTHEST)
    return np.asarray(np.where(np.isfinite(values), plain, 0.0), np.float64)
