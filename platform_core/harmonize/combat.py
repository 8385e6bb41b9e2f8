"""Take the location and scale of a site out of tables of features, sites that were never seen included.

ComBat moves rows of a table, not voxels: it is no harmonizer of a recipe, and a model that looks at images gains
nothing from it. Use it where features are compared or learned from.

It cannot tell a site from what comes with it. Where groups (sick and well, old and young) are spread unevenly over
sites, differences between groups are biased, and a covariate that is "preserved" can come out stronger than it is:
Nygaard, Rodland & Hovig 2016, doi:10.1093/biostatistics/kxv027; Zindler et al. 2020, doi:10.1186/s12859-020-03559-6.
`confounding` says how near a fit is to that; no number of rows mends it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample, GeometryMismatch, UnknownName
from platform_core.harmonize.unseen_site import (
    Between,
    Extrapolation,
    between_sites,
    estimate_unseen,
    measure_extrapolation,
    moments,
)

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

MIN_ROWS = 2
"""Rows of a site in a fit: one row has no spread."""
TOLERANCE, MAX_ROUNDS = 1e-10, 1000
CONSTANT = 1e-9
"""A feature whose residual is this share of its size does not vary within sites."""


@dataclass(frozen=True, slots=True, eq=False)
class Harmonized:
    """Rows with their sites' location and scale taken out."""

    values: Floats
    """(row, feature), in the units of the input; NaN where that was NaN or a covariate is missing."""
    extrapolation: tuple[Extrapolation, ...]
    """One per site that was not in the fit, in name order."""


@dataclass(frozen=True, slots=True, eq=False)
class Combat:
    """What was learned: value = mean + covariates @ effect + scale * (location + sqrt(variance) * noise)."""

    sites: tuple[str, ...]
    reference: str | None
    mean: Floats
    """(feature,)"""
    effect: Floats
    """(covariate, feature): per unit of the covariate; kept in the data."""
    scale: Floats
    """(feature,): pooled SD; NaN marks a feature that does not vary within sites and is left alone."""
    location: Floats
    """(site, feature): empirical-Bayes estimate, in pooled SDs."""
    variance: Floats
    """(site, feature): empirical-Bayes estimate, in pooled variances."""
    between: Between
    covariate_range: Floats
    """(least and greatest, covariate)."""
    confounding: float
    """Adjusted R^2 of a covariate by site, of the covariate for which it is largest, in [0, 1]; 0 without
    covariates. Lower is better."""

    def apply(self, values: npt.ArrayLike, sites: Sequence[str], covariates: npt.ArrayLike | None = None) -> Harmonized:
        """Bring rows of known and of unseen sites to the pooled location and scale, or to the reference's.

        A site that was not in the fit is estimated from all its rows given here and from how the known sites
        lie about each other, so other rows give another answer: `with_sites` keeps one.

        Args:
            values: (row, feature), in the units of the fit; NaN where missing.
            sites: (row,).
            covariates: (row, covariate), as in the fit.

        Raises:
            GeometryMismatch: If rows, features or covariates are not as many as they should be.
        """
        table, names, extra = self._checked(values, sites, covariates)
        expected = self.mean + extra @ self.effect
        standard = (table - expected) / self.scale
        out, told = table.copy(), []
        for site in sorted(set(names.tolist()) - {self.reference}):
            rows = names == site
            if site in self.sites:
                location, variance = self.location[self.sites.index(site)], self.variance[self.sites.index(site)]
            else:
                location, variance = estimate_unseen(self.between, standard[rows])
                told.append(self._extrapolation(site, standard[rows], extra[rows]))
            moved = (standard[rows] - location) / np.sqrt(variance) * self.scale + expected[rows]
            out[rows] = np.where(np.isnan(self.scale), table[rows], moved)
        return Harmonized(out, tuple(told))

    def with_sites(
        self, values: npt.ArrayLike, sites: Sequence[str], covariates: npt.ArrayLike | None = None
    ) -> "Combat":
        """Keep what these rows say of sites that were not in the fit, so that their later scans are moved alike.

        Known sites and what is assumed of further ones stay as they are; rows of known sites are passed over. Axes,
        units and errors as for `apply`.
        """
        table, names, extra = self._checked(values, sites, covariates)
        standard = (table - self.mean - extra @ self.effect) / self.scale
        added = tuple(sorted(set(names.tolist()) - set(self.sites)))
        estimates = [estimate_unseen(self.between, standard[names == site]) for site in added]
        location = np.stack([*self.location, *(location for location, _ in estimates)])
        variance = np.stack([*self.variance, *(variance for _, variance in estimates)])
        return replace(self, sites=(*self.sites, *added), location=location, variance=variance)

    def to_json(self) -> str:
        """Strict JSON; NaN is null."""
        return json.dumps(asdict(self), default=_as_list, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Combat":
        """What `to_json` wrote, number for number."""
        facts: dict[str, Any] = json.loads(text)
        between = Between(**{name: _as_array(part) for name, part in facts.pop("between").items()})
        arrays: dict[str, Any] = {name: _as_array(facts[name]) for name in ("mean", "scale", "location", "variance")}
        n_features = len(arrays["mean"])
        return cls(
            sites=tuple(facts["sites"]),
            reference=facts["reference"],
            effect=_as_array(facts["effect"]).reshape(-1, n_features),
            between=between,
            covariate_range=_as_array(facts["covariate_range"]),
            confounding=facts["confounding"],
            **arrays,
        )

    def _checked(
        self, values: npt.ArrayLike, sites: Sequence[str], covariates: npt.ArrayLike | None
    ) -> tuple[Floats, Names, Floats]:
        table, names, extra = _checked(values, sites, covariates)
        found, wanted = (table.shape[1], extra.shape[1]), (len(self.mean), len(self.effect))
        if found != wanted:
            raise GeometryMismatch("features and covariates of a table", wanted, found)
        return table, names, extra

    def _extrapolation(self, site: str, standard: Floats, covariates: Floats) -> Extrapolation:
        low, high = self.covariate_range
        outside = ((covariates < low) | (covariates > high)).mean(axis=0)
        shares = tuple(float(share) for share in outside)
        return measure_extrapolation(site, self.between, standard, shares, len(self.sites))


def fit_combat(
    values: npt.ArrayLike,
    sites: Sequence[str],
    covariates: npt.ArrayLike | None = None,
    reference: str | None = None,
) -> Combat:
    """Learn each site's location and scale of each feature, by empirical Bayes over features.

    Residuals of a linear model (sites and covariates) are pooled to one SD per feature; the standardized mean and
    variance of a site are shrunk to a normal and an inverse gamma distribution over the features of that site,
    iterated until nothing moves by more than 1e-10.

    Args:
        values: (row, feature) in any units. NaN is missing and left out feature by feature; a site without any
            row of a feature gets what is typical of its other features. One row per patient.
        sites: (row,), the site of each row.
        covariates: (row, covariate): numbers, classes as 0 and 1; their effects are estimated and kept. A row
            with a missing one is left out.
        reference: The site that stays as it is and that the others are brought to; None for the pooled mean and SD.

    Raises:
        EmptySample: If there are fewer than two sites, or a site has fewer than two rows: leave it out of the
            fit and apply to it as to an unseen one.
        UnknownName: If no row is of the reference.
        GeometryMismatch: If rows or axes do not match.

    Source:
        Johnson, Li & Rabinovic 2007, Biostatistics 8(1):118-127, doi:10.1093/biostatistics/kxj037; on measurements of
        images, Fortin et al. 2018, doi:10.1016/j.neuroimage.2017.11.024. The reference variant: Zhang et al. 2018,
        doi:10.1186/s12859-018-2263-6. Sites that were never seen, and features that a site lacks, are ours.
    """
    table, names, extra = _checked(values, sites, covariates)
    whole = np.isfinite(extra).all(axis=1)
    table, names, extra = table[whole], names[whole], extra[whole]
    known = tuple(sorted(set(names.tolist())))
    _check_sites(names, known, reference)
    member = names[:, None] == np.asarray(known)
    at = None if reference is None else known.index(reference)
    mean, effect, scale = _pooled(table, member, extra, at)
    standard = (table - mean - extra @ effect) / scale
    n, means, variances = (np.stack(part) for part in zip(*(moments(standard[rows]) for rows in member.T), strict=True))
    shrunk = [_posterior(*of_site) for of_site in zip(n, means, variances, strict=True)]
    location, variance = (np.stack(part) for part in zip(*shrunk, strict=True))
    if at is not None:
        location[at], variance[at] = 0, 1
    return Combat(
        sites=known,
        reference=reference,
        mean=mean,
        effect=effect,
        scale=scale,
        location=location,
        variance=variance,
        between=between_sites(n, means, variances),
        covariate_range=np.stack([extra.min(axis=0), extra.max(axis=0)]),
        confounding=_confounding(extra, member),
    )


def _checked(
    values: npt.ArrayLike, sites: Sequence[str], covariates: npt.ArrayLike | None
) -> tuple[Floats, Names, Floats]:
    table, names = np.array(values, dtype=np.float64), np.asarray(sites, dtype=np.str_)
    extra = np.empty((len(names), 0)) if covariates is None else np.array(covariates, dtype=np.float64)
    if table.ndim != 2 or extra.ndim != 2 or not len(table) == len(names) == len(extra):
        found = (table.shape, names.shape, extra.shape)
        raise GeometryMismatch("values, sites and covariates", "(row, feature), (row,), (row, covariate)", found)
    table[~np.isfinite(table)] = np.nan
    return table, names, extra


def _check_sites(names: Names, known: tuple[str, ...], reference: str | None) -> None:
    if len(known) < 2:
        raise EmptySample("sites of a ComBat fit", 2, len(known))
    for site in known:
        if (n := int(np.count_nonzero(names == site))) < MIN_ROWS:
            raise EmptySample(f"rows of site {site} in a ComBat fit", MIN_ROWS, n)
    if reference is not None and reference not in known:
        raise UnknownName("site", reference, known)


def _pooled(
    values: Floats, member: npt.NDArray[np.bool_], covariates: Floats, reference: int | None
) -> tuple[Floats, Floats, Floats]:
    """Mean, effects of covariates, and SD within sites of each feature, by least squares, feature by feature."""
    n_sites, n_features = member.shape[1], values.shape[1]
    mean, scale = np.full(n_features, np.nan), np.full(n_features, np.nan)
    effect = np.zeros((covariates.shape[1], n_features))
    for k, column in enumerate(values.T):
        seen = np.isfinite(column)
        rows = member[seen].sum(axis=0)
        if not seen.any() or (reference is not None and rows[reference] == 0):
            continue
        design = np.hstack([member[seen], covariates[seen]])
        beta = np.linalg.lstsq(design, column[seen], rcond=None)[0]
        residual = column[seen] - design @ beta
        residual = residual if reference is None else residual[member[seen, reference]]
        mean[k] = beta[:n_sites] @ rows / rows.sum() if reference is None else beta[reference]
        effect[:, k] = beta[n_sites:]
        sd = float(np.sqrt(np.mean(residual**2)))
        scale[k] = sd if sd > CONSTANT * float(np.abs(column[seen]).max()) else np.nan
    return mean, effect, scale


def _posterior(n: Floats, mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Location and variance of one site, (feature,), shrunk over its features; not shrunk if there is only one."""
    located, scattered = mean[n > 0], variance[n > 1]
    if len(located) < 2 or len(scattered) < 2:
        return mean, np.where(variance > 0, variance, 1.0)
    centre, t2 = located.mean(), located.var(ddof=1)
    m = scattered.mean()
    s2 = max(scattered.var(ddof=1), np.finfo(float).eps * m**2, np.finfo(float).tiny)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    within = np.where(n > 1, (n - 1) * variance, 0)
    shrunk, spread = mean, np.where(n > 1, variance, m)
    for _ in range(MAX_ROUNDS):
        before = np.stack([shrunk, spread])
        shrunk = (t2 * n * mean + spread * centre) / (t2 * n + spread)
        spread = ((within + n * (mean - shrunk) ** 2) / 2 + b) / (n / 2 + a - 1)
        if np.allclose([shrunk, spread], before, rtol=TOLERANCE, atol=TOLERANCE):
            break
    return shrunk, spread


def _confounding(covariates: Floats, member: npt.NDArray[np.bool_]) -> float:
    n, n_sites = member.shape
    if covariates.shape[1] == 0:
        return 0.0
    site_means = (member.T @ covariates) / member.sum(axis=0)[:, None]
    within = ((covariates - member @ site_means) ** 2).sum(axis=0)
    total = ((covariates - covariates.mean(axis=0)) ** 2).sum(axis=0)
    left = np.where(total > 0, within / np.maximum(total, np.finfo(float).tiny), 1)
    return float(np.clip(1 - left * (n - 1) / max(n - n_sites, 1), 0, 1).max())


def _as_list(array: Floats) -> Any:
    nullable = array.astype(object)
    nullable[np.isnan(array)] = None
    return nullable.tolist()


def _as_array(nested: Any) -> Floats:
    return np.array(nested, dtype=np.float64)
