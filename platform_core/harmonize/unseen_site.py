"""Location and scale of a site that no fit has seen: from its rows, and from how the known sites differ."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

POOLED_SITES = 3
"""A between-site variance leans on its mean over features as if that were this many more sites."""
LEAST_VARIANCE = 1e-6
"""Of a site's mean, in pooled SDs squared, and of its ln variance: known sites are never taken for exactly alike."""
FAR = 2.0
"""Standard deviations from which a site is called far from those known."""
FEW_ROWS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Between:
    """What is assumed of a site before its first row; all (feature,)."""

    location: Floats
    """Mean over known sites of the site's mean, in pooled SDs."""
    location_variance: Floats
    """Variance of a further site's mean about that."""
    log_variance: Floats
    """Mean over known sites of ln of the site's variance over the pooled one."""
    log_variance_variance: Floats
    """Variance of a further site's about that."""


@dataclass(frozen=True, slots=True, eq=False)
class Extrapolation:
    """How far a site that was not in the fit lies from those that were."""

    site: str
    n_rows: int
    location_sd: Floats
    """(feature,): the site's mean less the mean of the known sites, in standard deviations of what one more site of
    their kind would show with as many rows; signed, NaN where it cannot be told."""
    log_scale_sd: Floats
    """(feature,): the same of ln of the site's variance; NaN with fewer than two rows."""
    share_beyond_2: float
    """Share of features of which either exceeds 2, in [0, 1]; about 0.09 for a site like the others."""
    covariates_outside: tuple[float, ...]
    """Per covariate the share of rows outside the range that was fitted, in [0, 1]."""
    because: str
    """One sentence for whoever reads the numbers."""


def moments(standard: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows, mean (0 of none) and variance (NaN of fewer than two) of each feature of (row, feature)."""
    seen = np.isfinite(standard)
    n = seen.sum(axis=0).astype(np.float64)
    mean = np.where(seen, standard, 0).sum(axis=0) / np.maximum(n, 1)
    squares = np.where(seen, standard - mean, 0) ** 2
    return n, mean, np.where(n > 1, squares.sum(axis=0) / np.maximum(n - 1, 1), np.nan)


def between_sites(n: Floats, means: Floats, variances: Floats) -> Between:
    """Learn how sites lie about each other, by moments less what sampling explains.

    Args:
        n: Rows, (site, feature).
        means: (site, feature), in pooled SDs.
        variances: (site, feature), in pooled variances; NaN where unknown.
    """
    log_variances, errors = _log_variance(n, variances)
    of_mean = np.where(np.isnan(variances), 1.0, variances) / np.maximum(n, 1)
    of_location = _spread_over_sites(np.where(n > 0, means, np.nan), of_mean)
    return Between(*of_location, *_spread_over_sites(log_variances, errors))


def estimate_unseen(between: Between, standard: Floats) -> tuple[Floats, Floats]:
    """Estimate location and variance of a site from its rows (row, feature); without any, what is assumed of any site.

    Mean and ln variance are weighted against `between` by the inverse of their sampling variances, so they move
    towards the site's own the more rows it has and the more the known sites differ.
    """
    n, mean, variance = moments(standard)
    own = _log_variance(n, variance)
    estimate = np.exp(_shrunk(*own, between.log_variance, between.log_variance_variance))
    own_mean = np.where(n > 0, mean, np.nan), estimate / np.maximum(n, 1)
    return _shrunk(*own_mean, between.location, between.location_variance), estimate


def measure_extrapolation(
    site: str, between: Between, standard: Floats, outside: tuple[float, ...], n_known: int
) -> Extrapolation:
    """Say how far a site with the rows `standard` (row, feature) lies from the `n_known` sites of the fit."""
    n, mean, variance = moments(standard)
    log_variance, error = _log_variance(n, variance)
    of_mean = estimate_unseen(between, standard)[1] / np.maximum(n, 1)
    location_sd = (mean - between.location) / np.sqrt(between.location_variance + of_mean)
    log_scale_sd = (log_variance - between.log_variance) / np.sqrt(between.log_variance_variance + error)
    location_sd[n == 0] = log_scale_sd[n == 0] = np.nan
    far = (np.abs(location_sd) > FAR) | (np.abs(log_scale_sd) > FAR)
    share = float(far[n > 0].mean()) if (n > 0).any() else 0.0
    because = _because(len(standard), share, outside, n_known)
    return Extrapolation(site, len(standard), location_sd, log_scale_sd, share, outside, because)


def _spread_over_sites(estimates: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Mean over sites, and the variance of one more site about it: between sites, and of that mean itself."""
    told = np.isfinite(estimates)
    k = np.maximum(told.sum(axis=0), 1)
    mean = np.where(told, estimates, 0).sum(axis=0) / k
    squares = np.where(told, estimates - mean, 0) ** 2
    sampling = np.where(told, errors, 0).sum(axis=0) / k
    own = np.maximum(squares.sum(axis=0) / np.maximum(k - 1, 1) - sampling, 0)
    measured = told.sum(axis=0) > 1
    of_all = own[measured].mean() if measured.any() else 0.0
    shared = ((k - 1) * own + POOLED_SITES * of_all) / (k - 1 + POOLED_SITES)
    return mean, np.maximum(shared, LEAST_VARIANCE) * (1 + 1 / k)


def _log_variance(n: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Unbiased ln of a variance, and the variance of that; NaN and 0 where there is none.

    Source:
        Mean and variance of ln(chi-squared / degrees of freedom) to the third order in 1 / degrees of freedom:
        Bartlett & Kendall 1946, J. R. Stat. Soc. Suppl. 8(1):128-138, doi:10.2307/2983618.
    """
    told = (n > 1) & (variance > 0)
    degrees = np.where(told, n - 1, 1)
    log_variance = np.log(np.where(told, variance, 1)) + 1 / degrees + 1 / (3 * degrees**2)
    error = 2 / degrees + 2 / degrees**2 + 4 / (3 * degrees**3)
    return np.where(told, log_variance, np.nan), np.where(told, error, 0)


def _shrunk(estimate: Floats, error: Floats, prior: Floats, prior_variance: Floats) -> Floats:
    """Mean of the product of two normal distributions; the prior where there is no estimate."""
    weight = prior_variance / (prior_variance + error)
    return np.where(np.isnan(estimate), prior, prior + weight * (estimate - prior))


def _because(n_rows: int, share: float, outside: tuple[float, ...], n_known: int) -> str:
    told = [f"{share:.0%} of features lie beyond {FAR:g} between-site SDs of the {n_known} known sites"]
    if n_rows < FEW_ROWS:
        told.append(f"{n_rows} row{'s' if n_rows > 1 else ''} say little, so it is taken to be much like those")
    if any(outside):
        worst = int(np.argmax(outside))
        told.append(f"covariate {worst} is outside the fitted range in {outside[worst]:.0%} of rows")
    return "; ".join(told) + "."
