"""Means over boxes of a stated size in mm, whatever the pixels; for several families."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def box_means(image: npt.NDArray[np.bool_] | Floats, step_y: float, step_x: float) -> Floats:
    """Means of (..., y, x) over boxes of `step_y` by `step_x` pixels, which need not be whole numbers.

    A pixel that two boxes share counts in both by its share, which smooths noise, and ties neighbours, more than
    whole pixels do. What is left over at the end is left out.
    """
    n_y, n_x = image.shape[-2:]
    along_x = image.astype(np.float32, copy=False) @ _shares(n_x, step_x).T
    means: Floats = _shares(n_y, step_y) @ along_x
    return means


@lru_cache(maxsize=32)
def _shares(n: int, step: float) -> Floats:
    """(box, pixel): the share that each pixel has in each box; rows add up to 1."""
    low = np.arange(int(n / step + 1e-6))[:, None] * step
    overlap = np.minimum(low + step, np.arange(n) + 1) - np.maximum(low, np.arange(n))
    shares: Floats = (np.clip(overlap, 0, None) / step).astype(np.float32)
    return shares
