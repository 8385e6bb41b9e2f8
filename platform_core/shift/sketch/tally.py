"""The one inner loop of counting rows, in numba's part of Python. Imported only where rows are counted."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.core.types import Array, float64, int32, int64, void

BLOCK = 4096
"""Values worked on at a time, so that they stay in the fastest cache."""
_READ = Array(float64, 1, "C", readonly=True)
_SIGNATURE = [void(_READ, Array(int32, 1, "C", readonly=True), float64, float64, int32, int64[::1])]


def _tally(
    values: npt.NDArray[np.float64],
    start: npt.NDArray[np.int32],
    low: float,
    scale: float,
    n: int,
    counts: npt.NDArray[np.int64],
) -> None:
    """Add every finite value to its bin.

    Places first, then counts: the first loop has no branch, so that the processor works on several values at a time.

    Args:
        values: Of one feature.
        start: The place of each row's first bin, that below the range; negative for a row that is not counted.
        low: Where the range begins, in the feature's unit.
        scale: Bins per unit of the feature, above 0.
        n: Bins of the range.
        counts: Bins of every unit, n + 2 each, and a last one for all that is in no bin.
    """
    place = np.empty(BLOCK, np.int32)
    top, nowhere = np.float64(n), np.int32(counts.size - 1)
    for first in range(0, values.size, BLOCK):
        block, begins = values[first : first + BLOCK], start[first : first + BLOCK]
        for i in range(block.size):
            value, begin = block[i], begins[i]
            way = (value - low) * scale
            inside = way if way >= 0 else 0.0
            inside = inside if inside < top else top  # noqa: FURB136 - numba turns min and max into branches
            # by arithmetic and not by `if`, which would keep the loop from the processor's vectors
            shifted = begin + (np.int32(inside) + np.int32(1)) * np.int32(way >= 0)
            place[i] = shifted if (value - value == 0) & (begin >= 0) else nowhere
        for i in range(block.size):
            counts[np.uint64(place[i])] += 1  # unsigned: numba then does not ask whether it is below 0


def _compiled() -> Any:
    try:
        return njit(_SIGNATURE, nogil=True, error_model="numpy", cache=True)(_tally)
    except (RuntimeError, OSError, EOFError):  # no folder to keep it in
        return njit(_SIGNATURE, nogil=True, error_model="numpy")(_tally)


tally = _compiled()
