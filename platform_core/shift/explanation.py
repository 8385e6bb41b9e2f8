"""What accounts for a divergence: the fewest header fields that explain it, the fewest features that show it.

A field explains as much as is gone once the reference is weighted to the site's values of it, so that like is compared
with like. Scans with a value that the reference has never seen cannot be compared with anything: the field explains
them, but whether it or the hospital is the cause, nobody can tell from these data.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from platform_core.shift.discriminant import cross_fitted
from platform_core.shift.matching import Sides, codes_of, excess, excesses, is_different
from platform_core.shift.reweighted import class_draw, class_weights
from platform_core.shift.risk import Reals, balanced_error

REPEATED = 5
"""Patients per value, on average, fewer than which a field names single patients and no cause."""
ENOUGH = 0.9
"""Share of the divergence from which on no further field, and of what tells the sides apart no further feature, is
asked for."""
LEAST_GAIN = 0.1
"""Share that a further field must explain, and a further feature show."""
SAME = 0.05
"""Fields that explain within this share of the best one cannot be told from it."""
MOST_FEATURES = 3

Fields = Mapping[str, Sequence[Hashable]]
"""Header fields, each with one value per patient; None where missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldCause:
    """A header field that accounts for a part of the divergence."""

    field: str
    value: str
    """The value whose share of patients rose most."""
    share: float
    """Of the site's patients with that value, [0, 1]."""
    share_before: float
    """Of the reference's, weighted to the site's prevalence."""
    like: tuple[str, ...]
    """Other fields that explain as much and cannot be told from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a site's features lie elsewhere."""

    divergence: float
    """Mean Kolmogorov-Smirnov distance, beyond what chance makes, of the features that differ, [0, 1]."""
    fields: tuple[FieldCause, ...]
    """Fewest that account for it, most important first."""
    explained: float
    """Share of the divergence that they account for, [0, 1]."""
    features: tuple[str, ...]
    """For each field the one that it explains most of; then the fewest more with which the sides are told apart about
    as well as with all."""
    sentence: str


def explain_divergence(
    names: Sequence[str],
    reference: Reals,
    reference_y: Reals,
    current: Reals,
    *,
    reference_fields: Fields,
    current_fields: Fields,
    prevalence: float | None,
    seed: int = 0,
) -> Explanation:
    """Find fields and features that account for a divergence, greedily, one at a time.

    Args:
        names: Of the features, as many as columns.
        reference: (patients, features), one row per patient, NaN where unknown.
        reference_y: 1 or 0 for each, NaN where unknown.
        current: (patients, features) of the site.
        reference_fields: Header fields of the reference's patients; order breaks ties, the likeliest cause first.
        current_fields: The same fields of the site's.
        prevalence: Of the site; None: not known, the reference is not weighted.
        seed: Of folds and of the draw that has the site's prevalence.
    """
    weights = class_weights(reference_y, prevalence)
    differing = [k for k in range(len(names)) if is_different(reference[:, k], weights, current[:, k], len(names))]
    if not differing:
        return Explanation(
            divergence=0.0, fields=(), explained=0.0, features=(), sentence="no feature differs beyond chance"
        )
    shared = [name for name in reference_fields if name in current_fields]
    codes = {name: codes_of(reference_fields[name], current_fields[name]) for name in shared}
    sides = Sides(reference[:, differing], weights, current[:, differing], codes)
    divergence = excess(sides, [])
    chosen, explained = _fewest_fields(sides, divergence)
    causes = tuple(
        _cause(field, chosen[:place], sides, reference_fields[field], current_fields[field], divergence)
        for place, field in enumerate(chosen)
    )
    rows = class_draw(reference_y, prevalence, np.random.default_rng(seed))
    shows = [_shows_best(sides, chosen[:place], field) for place, field in enumerate(chosen)]
    told = _fewest_features(
        [names[k] for k in differing], sides.reference[rows], sides.current, seed, list(dict.fromkeys(shows))
    )
    return Explanation(
        divergence=divergence,
        fields=causes,
        explained=explained,
        features=told,
        sentence=_sentence(divergence, causes, explained, told),
    )


def _fewest_fields(sides: Sides, divergence: float) -> tuple[list[str], float]:
    """Add the field that explains most until enough is explained or none adds enough; and what they explain."""
    offered = [name for name in sides.fields if _is_repeated(sides, name)]
    chosen: list[str] = []
    explained = 0.0
    while explained < ENOUGH and len(chosen) < len(offered):
        gains = {name: 1 - excess(sides, [*chosen, name]) / divergence for name in offered if name not in chosen}
        best = max(gains, key=lambda name: gains[name])
        # of those that cannot be told apart, the first in order
        best = next(name for name in gains if gains[name] >= gains[best] - SAME)
        if gains[best] - explained < LEAST_GAIN:
            break
        chosen, explained = [*chosen, best], gains[best]
    return chosen, float(np.clip(explained, 0, 1))


def _cause(
    field: str,
    before: Sequence[str],
    sides: Sides,
    reference: Sequence[Hashable],
    current: Sequence[Hashable],
    divergence: float,
) -> FieldCause:
    left = {name: excess(sides, [*before, name]) / divergence for name in sides.fields if name not in before}
    there, here = sides.fields[field]
    n = 1 + max(there.max(), here.max())
    shares = [np.bincount(there, weights=sides.weights, minlength=n), np.bincount(here, minlength=n) / len(here)]
    risen = int(np.argmax(shares[1] - shares[0]))
    value = next(v for v, code in zip([*current, *reference], [*here, *there], strict=True) if code == risen)
    return FieldCause(
        field=field,
        value="missing" if value is None else str(value),
        share=float(shares[1][risen]),
        share_before=float(shares[0][risen]),
        like=tuple(
            name
            for name, rest in left.items()
            if name != field and abs(rest - left[field]) <= SAME and _is_repeated(sides, name)
        ),
    )


def _is_repeated(sides: Sides, field: str) -> bool:
    """Whether a field's values are shared by patients."""
    there, here = sides.fields[field]
    return (len(there) + len(here)) / len(np.unique(np.concatenate([there, here]))) >= REPEATED


def _shows_best(sides: Sides, before: Sequence[str], field: str) -> int:
    """The feature whose distance falls most once `field` is taken into account after those before."""
    return int(np.argmax(excesses(sides, before) - excesses(sides, [*before, field])))


def _fewest_features(
    names: Sequence[str], reference: Reals, current: Reals, seed: int, chosen: list[int]
) -> tuple[str, ...]:
    """Add the feature with which a discriminant tells the sides apart best, until it does about as well as with all."""
    domain = np.repeat([0.0, 1.0], [len(reference), len(current)])
    columns = [_with_square(reference[:, k], current[:, k]) for k in range(len(names))]

    def told(chosen: Sequence[int]) -> float:
        side = cross_fitted(np.concatenate([columns[k] for k in chosen], axis=1), domain, seed=seed)
        return 0.5 - balanced_error(domain, side, 0.0)

    best, all_of_them = told(chosen) if chosen else 0.0, told(range(len(names)))
    while len(chosen) < min(MOST_FEATURES, len(names)) and (not chosen or best < ENOUGH * all_of_them):
        gains = {k: told([*chosen, k]) for k in range(len(names)) if k not in chosen}
        adding = max(gains, key=lambda k: gains[k])
        if chosen and gains[adding] - best < LEAST_GAIN * all_of_them:
            break
        chosen, best = [*chosen, adding], gains[adding]
    return tuple(names[k] for k in chosen)


def _with_square(reference: Reals, current: Reals) -> Reals:
    """(patients of both, 2): the value in units of the reference's spread, cut at 5, and its square; 0 if unknown."""
    both = np.concatenate([reference, current])
    if not np.isfinite(reference).any():
        return np.zeros((len(both), 2))
    low, middle, high = np.nanpercentile(reference, [25, 50, 75])
    spread = (high - low) / 1.349 or np.nanstd(both) or 1.0
    z = np.nan_to_num(np.clip((both - middle) / spread, -5, 5))
    return np.stack([z, z**2], axis=1)


def _sentence(divergence: float, causes: Sequence[FieldCause], explained: float, features: Sequence[str]) -> str:
    shown = f"it shows in {_listed(features)}"
    if not causes:
        return f"no header field accounts for the divergence of {divergence:.2f}; {shown}"
    told = _listed([_named(cause) for cause in causes])
    accounts = "accounts" if len(causes) == 1 else "account"
    alike = sorted({name for cause in causes for name in cause.like} - {cause.field for cause in causes})
    apart = f", not to be told from {_listed(alike)}," if alike else ""
    return f"{told}{apart} {accounts} for {explained:.0%} of the divergence of {divergence:.2f}; {shown}"


def _named(cause: FieldCause) -> str:
    before = "never in the reference" if cause.share_before == 0 else f"{cause.share_before:.0%} in the reference"
    return f"{cause.field} {cause.value!r} ({cause.share:.0%} of patients, {before})"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
