"""Whether two sets of embeddings come from one population: maximum mean discrepancy.

Rows are patients, one each; permuting rows is only a fair test if they are.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals

MOST_ROWS = 500
"""Rows of each sample that are looked at; the kernel matrix of twice as many is 8 MB."""
N_PERMUTATIONS = 499


@dataclass(frozen=True, slots=True)
class MmdTest:
    """The squared discrepancy and the chance of one so large between two halves of one population."""

    value: float
    """Unbiased MMD squared, dimensionless: about 0 (also a little below) for one population, at most 2."""
    p: float
    low: float
    """95 % interval: the value less and plus 1.96 standard errors, by leaving out one patient at a time."""
    high: float


def mmd_test(reference: Reals, current: Reals, *, seed: int = 0) -> MmdTest:
    """Compare two samples of embeddings, each (patients, dimensions).

    Gaussian kernel exp(-|x - y|^2 / 2 l^2), where l is the median distance within the pooled
    sample; p by permuting patients. From more than `MOST_ROWS` rows a seeded draw is taken.

    Raises:
        EmptySample: If either sample has fewer than two rows.

    Source:
        Gretton et al. 2012, JMLR 13, 723-773, lemma 6 (the unbiased statistic) and section 8 (the median);
        the interval is the jackknife's of a statistic of two samples (Arvesen 1969, doi:10.1214/aoms/1177697287).
    """
    n_found = min(len(reference), len(current))
    if n_found < 2:
        raise EmptySample("embeddings of either sample", 2, n_found)
    rng = np.random.default_rng(seed)
    x, y = _at_most(reference, rng), _at_most(current, rng)
    kernel = _kernel(np.vstack([x, y]))
    is_current = np.arange(len(kernel)) >= len(x)
    shuffled = rng.permuted(np.tile(is_current, (N_PERMUTATIONS, 1)), axis=1)
    observed, *permuted = _mmd_squared(kernel, np.vstack([is_current, shuffled]))
    p = float((1 + np.sum(permuted >= observed)) / (1 + N_PERMUTATIONS))
    half_width = 1.96 * _standard_error(kernel, is_current)
    return MmdTest(float(observed), p, float(observed - half_width), float(observed + half_width))


def _at_most(rows: Reals, rng: np.random.Generator) -> Reals:
    if len(rows) <= MOST_ROWS:
        return rows
    return rows[rng.choice(len(rows), MOST_ROWS, replace=False)]


def _kernel(rows: Reals) -> Reals:
    """The Gaussian kernel between all pairs, 0 on the diagonal; (n, n)."""
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    off_diagonal = ~np.eye(len(rows), dtype=bool)
    median = float(np.median(distances[off_diagonal]))
    return np.asarray(np.exp(-distances / (2 * median or 1.0)) * off_diagonal, dtype=np.float64)


def _mmd_squared(kernel: Reals, is_current: Reals) -> Reals:
    """Unbiased MMD squared for every row of `is_current`, (splits, n), each a way to split the pooled sample."""
    y = is_current.astype(np.float64)
    x = 1 - y
    n_x, n_y = x[0].sum(), y[0].sum()
    within_x = np.einsum("sn,sn->s", x @ kernel, x) / (n_x * (n_x - 1))
    within_y = np.einsum("sn,sn->s", y @ kernel, y) / (n_y * (n_y - 1))
    across = np.einsum("sn,sn->s", x @ kernel, y) / (n_x * n_y)
    return np.asarray(within_x + within_y - 2 * across, dtype=np.float64)


def _standard_error(kernel: Reals, is_current: npt.NDArray[np.bool_]) -> float:
    """Of MMD squared, from its values without each row in turn; 0 with fewer than three rows of a sample."""
    groups = [~is_current, is_current]
    n = [float(group.sum()) for group in groups]
    if min(n) < 3:
        return 0.0
    # sums[i, b]: the kernel between row i and every row of sample b
    sums = np.stack([kernel[:, group].sum(axis=1) for group in groups], axis=1)
    total = np.array([[sums[a, b].sum() for b in (0, 1)] for a in groups])
    variance = 0.0
    for own, other in ((0, 1), (1, 0)):
        rows, m, k = groups[own], n[own] - 1, n[other]
        within = (total[own, own] - 2 * sums[rows, own]) / (m * (m - 1))
        across = (total[own, other] - sums[rows, other]) / (m * k)
        without = within + total[other, other] / (k * (k - 1)) - 2 * across
        variance += m / n[own] * float(((without - without.mean()) ** 2).sum())
    return float(np.sqrt(variance))
