"""The Frechet distance of two embeddings' normal approximations. In Python: SQL has no eigenvalues."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core.shift.risk import Reals
from platform_core.shift.sketch.vector_maps import n_components

FOUND = pa.schema(
    [
        *((name, pa.string()) for name in ("first", "second", "stratum", "feature")),
        *((name, pa.float64()) for name in ("value", "expected", "se")),
    ]
)


def frechet_rows(totals: pa.Table, pairs: pa.Table) -> pa.Table:
    """For every pair, stratum and embedding with more rows than components on both sides; as a `.sql` returns it."""
    units: dict[str, list[dict[str, object]]] = {}
    for row in totals.filter(pc.field("kind") == "moments").to_pylist():
        units.setdefault(row["unit"], []).append(row)
    found = []
    for pair in pairs.to_pylist():
        others = {(row["stratum"], row["feature"]): row for row in units.get(pair["second"], [])}
        for row in units.get(pair["first"], []):
            other = others.get((row["stratum"], row["feature"]))
            distance = None if other is None else _distance(row, other)
            if distance is not None:
                value, expected, se = distance
                about = {"stratum": row["stratum"], "feature": row["feature"]}
                found.append(pair | about | {"value": value, "expected": expected, "se": se})
    return pa.Table.from_pylist(found, schema=FOUND)


def _distance(row: dict[str, object], other: dict[str, object]) -> tuple[float, float, float] | None:
    first, second = (_moments(each) for each in (row, other))
    return None if first is None or second is None else frechet(first, second)


def _moments(row: dict[str, object]) -> tuple[int, Reals, Reals] | None:
    """Patient-days, mean and covariance; None where the covariance cannot have full rank."""
    sums = np.asarray(row["sketch"], dtype=np.float64)
    n, d = int(str(row["n"])), n_components(len(sums))
    return None if n <= d + 1 else moments_of(n, sums)


def moments_of(n: int, sums: Reals) -> tuple[int, Reals, Reals]:
    """Rows, mean (d,) and unbiased covariance (d, d) from a sum of `moment_terms`."""
    d = n_components(len(sums))
    mean = sums[:d] / n
    products = np.zeros((d, d))
    products[np.triu_indices(d)] = sums[d:]
    products = products + np.triu(products, 1).T
    return n, mean, (products - n * np.outer(mean, mean)) / (n - 1)


def frechet(first: tuple[int, Reals, Reals], second: tuple[int, Reals, Reals]) -> tuple[float, float, float]:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), in reference variances; [0, inf), 0 on equal moments.

    Args:
        first: Rows, mean and covariance.
        second: The same of the other.

    Returns:
        The distance as counted; its mean where both are of one normal population, from its second-order
        expansion; and its standard error, delta method for normal rows plus the spread without a shift.

    Source:
        Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X.
    """
    (m, mean_1, cov_1), (n, mean_2, cov_2) = first, second
    c, gap = 1 / m + 1 / n, mean_1 - mean_2
    root, inverse = _roots(cov_1)
    middle, _ = _roots(root @ cov_2 @ root)
    value = float(gap @ gap + np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(middle))
    pooled = np.maximum(np.linalg.eigvalsh((m * cov_1 + n * cov_2) / (m + n)), 0)
    pair_means = c * _bures_means(pooled)
    expected = c * pooled.sum() + pair_means.sum()
    way = inverse @ middle @ inverse
    back = root @ np.linalg.pinv(middle) @ root
    slopes = [np.eye(len(gap)) - way, np.eye(len(gap)) - back]
    variance = 4 * gap @ (cov_1 / m + cov_2 / n) @ gap + sum(
        2 * np.trace(slope @ cov @ slope @ cov) / size
        for slope, cov, size in zip(slopes, (cov_1, cov_2), (m, n), strict=True)
    )
    left = 2 * c**2 * (pooled**2).sum() + 2 * (pair_means**2).sum()
    return max(value, 0.0), float(expected), float(np.sqrt(max(variance, 0.0) + left))


def _bures_means(values: Reals) -> Reals:
    """The part of each pair of eigenvalues i <= j in the mean of the covariances' distance, per unit of c."""
    i, j = np.triu_indices(len(values))
    a, b = values[i], values[j]
    total = a + b
    # |D_ij|^2 / (a + b) for i < j (both triangles), |D_ii|^2 / 4a on the diagonal, where |D_ii|^2 is 2 c a^2 on average
    off = np.divide(a * b, total, out=np.zeros_like(total), where=total > 0)
    return np.where(i == j, a / 2, off)


def _roots(matrix: Reals) -> tuple[Reals, Reals]:
    """The square root of a positive semidefinite matrix, and its pseudo-inverse."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    roots = np.sqrt(np.maximum(values, 0))
    inverse = np.divide(1, roots, out=np.zeros_like(roots), where=roots > 1e-9 * max(roots.max(), 1e-300))
    return vectors * roots @ vectors.T, vectors * inverse @ vectors.T
