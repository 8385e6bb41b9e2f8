"""Conformal ranks as pure arithmetic: a value among all before it, its tie-break, and the grid that bounds a pool."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals

Wholes = npt.NDArray[np.int64]
SMALLEST, LARGEST = 1e-200, 1e200
"""Widths beyond which a grid is not made finer or coarser, so that no quotient overflows."""
N_AT_ONCE = 512
"""Values that are compared pair by pair before they are merged into the pool."""


def conformal_ranks(pool: Reals, values: Reals, tie_break: Reals, *, counts: Wholes | None = None) -> Reals:
    """Rank each value among the pool and the values before it.

    Args:
        pool: What came before, in any order, in the unit of the feature.
        values: New ones, in order of arrival.
        tie_break: (0, 1), one per value.
        counts: How often each value of the pool came; None for once.

    Returns:
        Ranks in (0, 1): 0 is low, 1 is high.
    """
    earlier, n_each = tally(pool, np.ones(len(pool), np.int64) if counts is None else counts)
    ranks = np.empty(len(values))
    for start in range(0, len(values), N_AT_ONCE):
        part = slice(start, start + N_AT_ONCE)
        new = values[part]
        before, up_to = np.tri(len(new), k=-1, dtype=bool), np.concatenate([[0], np.cumsum(n_each)])
        n_below = up_to[np.searchsorted(earlier, new, "left")]
        n_ties = up_to[np.searchsorted(earlier, new, "right")] - n_below
        n_ties = n_ties + (before & (new[:, None] == new)).sum(axis=1)
        n_below = n_below + (before & (new[:, None] > new)).sum(axis=1)
        n_earlier = up_to[-1] + np.arange(len(new))
        ranks[part] = (n_below + tie_break[part] * (1 + n_ties)) / (n_earlier + 1)
        if part.stop < len(values):
            more = np.ones(len(new), np.int64)
            earlier, n_each = tally(np.concatenate([earlier, new]), np.concatenate([n_each, more]))
    return ranks


def tally(values: Reals, counts: Wholes) -> tuple[Reals, Wholes]:
    """Each value once, ascending, and how often it came."""
    if not len(values) or bool((values[1:] > values[:-1]).all()):
        return values, counts
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    return ascending[first], np.add.reduceat(counts[order], first)


def grid_of(few: Reals) -> float:
    """The step of the grid that values are rounded to, a power of two, from a few rows that are ranked nowhere.

    It bounds the size of a pool. Ranks on a grid are exact, as its steps are ties; rows that set the grid and
    lay in the pool as well would not be exchangeable with what comes later.
    """
    width = float(few.max() / 2 - few.min() / 2) * 2 or 1e-3 * float(np.abs(few).max()) or 1.0
    return 2.0 ** (math.floor(math.log2(min(max(width, SMALLEST), LARGEST))) - 8)


def tie_breaks(keys: Iterable[str], feature: str, reference: str) -> Reals:
    """A number in (0, 1) per series that nobody chose: a hash of series, feature and reference."""
    about = f"\x1f{feature}\x1f{reference}".encode()
    drawn = [hashlib.blake2b(k.encode() + about, digest_size=8, person=b"sitedrift rank").digest() for k in keys]
    whole = np.frombuffer(b"".join(drawn), dtype="<u8") >> np.uint64(11)
    return (whole.astype(np.float64) + 0.5) / 2.0**53
