"""Histograms on the reference's own quantiles: where the bins end, and which bin a value is in.

A bin ends with its edge: bin i holds edge[i - 1] < value <= edge[i]. What lies at or below the first edge
and what lies above the last are bins of their own, so no value is lost, however far away. Not a number and
infinities are no values.
"""

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals, Wholes

N_BINS = 64
"""Fine bins between the outermost edges: a gap between distributions is seen to about 1/64 of the reference."""
TAIL = 0.001
"""Share of the reference beyond each outermost edge; distances in the feature's unit are cut there."""


def quantile_edges(values: Reals, n_bins: int = N_BINS) -> Reals:
    """Increasing edges, in the feature's unit, that cut finite values into bins of about equal share.

    Edges are values of the reference. A value that holds several quantiles (a constant or rounded feature)
    gets a bin of its own, so that what lies below it, equals it and lies above it are told apart.

    Returns:
        At least one edge; none for no values.
    """
    if not values.size:
        return np.empty(0)
    shares = np.concatenate([[TAIL], np.arange(1, n_bins) / n_bins, [1 - TAIL]])
    found, times = np.unique(np.quantile(values, shares, method="inverted_cdf"), return_counts=True)
    return np.unique(np.concatenate([found, np.nextafter(found[times > 1], -np.inf)]))


def count(values: Reals, edges: Reals, group: Wholes, n_groups: int) -> npt.NDArray[np.int64]:
    """How many finite values of each group are in each bin, (n_groups, edges + 1)."""
    n_bins = len(edges) + 1
    place = group * n_bins + np.searchsorted(edges, values, side="left")
    counted = np.bincount(place[np.isfinite(values)], minlength=n_groups * n_bins)
    return counted.reshape(n_groups, n_bins).astype(np.int64)
