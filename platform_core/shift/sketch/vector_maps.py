"""How vectors (an embedding, all features together) are mapped before they are summed.

Whitened principal components of the reference first: few, and of equal spread, so that sums of them say
little about one scan and compare across sites. Then, for the maximum mean discrepancy, random Fourier
features of the Gaussian kernel whose length is the reference's median distance.
"""

from dataclasses import dataclass

import numpy as np

from platform_core.provenance import number_of
from platform_core.shift.risk import Reals

MOST_COMPONENTS = 16
"""Moments and the Frechet distance want some 20 rows per component."""
N_FOURIER = 128
MOST_DISTANT = 1000
"""Rows whose distances give the kernel's length."""
FLOOR = 1e-6
"""Least variance of a component, as a share of the largest, that is not rounding."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """z = rows (x - centre): mean 0 and unit covariance on the reference."""

    centre: Reals
    """(dimensions,)."""
    rows: Reals
    """(components, dimensions)."""

    @classmethod
    def of(cls, x: Reals) -> "Whitening | None":
        """From finite rows (patient-days, dimensions); None where nothing varies."""
        spread = x.std(axis=0)
        scale = np.where(spread > 0, spread, 1)
        values, vectors = np.linalg.eigh(
            np.cov((x - x.mean(axis=0)) / scale, rowvar=False, bias=True).reshape(x.shape[1], -1)
        )
        kept = np.flatnonzero(values > max(FLOOR * values.max(), 0.0))[::-1][:MOST_COMPONENTS]
        if not kept.size:
            return None
        return cls(x.mean(axis=0), (vectors[:, kept] / np.sqrt(values[kept])).T / scale)

    @classmethod
    def from_list(cls, numbers: list[float], n_components: int) -> "Whitening":
        """What `to_list` gave."""
        table = np.asarray(numbers, dtype=np.float64).reshape(n_components + 1, -1)
        return cls(table[0], table[1:])

    def to_list(self) -> list[float]:
        """The centre, then row by row."""
        return [float(number) for number in np.vstack([self.centre, self.rows]).ravel()]

    def apply(self, x: Reals) -> Reals:
        """(rows, components) of (rows, dimensions)."""
        return np.asarray((x - self.centre) @ self.rows.T, dtype=np.float64)


def moment_terms(z: Reals) -> Reals:
    """z_1 .. z_d, then z_i z_j for i <= j row by row: (rows, d + d (d + 1) / 2)."""
    i, j = np.triu_indices(z.shape[1])
    return np.hstack([z, z[:, i] * z[:, j]])


def n_components(sketch_length: int) -> int:
    """The d of a sum of `moment_terms`."""
    return int((np.sqrt(9 + 8 * sketch_length) - 3) / 2)


def fourier_terms(z: Reals, length: float, seed: str) -> Reals:
    """Random features whose inner products are about exp(-|x - y|^2 / 2 length^2): (rows, 128), each row of norm 1.

    Source: Rahimi & Recht 2007, Random features for large-scale kernel machines, NIPS 20, section 3.
    """
    frequency = np.random.default_rng(number_of(seed)).normal(size=(z.shape[1], N_FOURIER // 2)) / length
    phase = z @ frequency
    return np.asarray(np.hstack([np.cos(phase), np.sin(phase)]) * np.sqrt(2 / N_FOURIER), dtype=np.float64)


def median_distance(z: Reals) -> float:
    """Between rows, of evenly taken ones if there are many; 1 where they all coincide."""
    few = z[:: max(len(z) // MOST_DISTANT, 1)]
    squares = (few**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * few @ few.T, 0)[np.triu_indices(len(few), 1)]
    return float(np.sqrt(np.median(apart))) if apart.size and np.median(apart) > 0 else 1.0


def spectrum(terms: Reals) -> tuple[float, float, float]:
    """Trace, trace of squares and largest eigenvalue of the rows' covariance: the null of the discrepancy."""
    values = np.maximum(np.linalg.eigvalsh(np.cov(terms, rowvar=False)), 0)
    return float(values.sum()), float((values**2).sum()), float(values.max())
