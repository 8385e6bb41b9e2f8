"""Who is asked for a label, by chances that are known exactly. Pure: numbers in, chances out.

Every patient keeps one random number for good, and is drawn once a chance is above it. Chances only grow, so whoever
was drawn stays drawn, and the recorded chance is that of having been drawn by now, whichever way and how often
drawings were added: an estimate that weighs by its inverse is unbiased.

Source:
    Brewer, Early & Joyce 1972, Selecting several samples from a single population, Australian Journal of Statistics
    14(3) (permanent random numbers); Brewer, Early & Hanif 1984, Poisson, modified Poisson and collocated sampling,
    Journal of Statistical Planning and Inference 10(1) (numbers spread evenly, so that the count keeps to its mean).
"""

from collections.abc import Sequence

import numpy as np

from platform_core.provenance import number_of
from platform_core.shift.risk import Reals

AT_RANDOM = 0.5
"""Share of an informed drawing that is uniform: no chance falls below half of the uniform one, and no weight
rises above twice the mean. Near-even chances often give the tightest intervals (arXiv:2604.18569)."""
LAST_BISECTION = 100
N_AT_ONCE = 1024
"""Rows of distances that are held in memory together."""


def random_numbers(keys: Sequence[str], seed: str) -> Reals:
    """A number in (0, 1) for each key, uniform each and spread evenly over all of them; equal seeds, equal numbers."""
    order = sorted(range(len(keys)), key=lambda i: number_of(f"{seed}/{keys[i]}"))
    places = np.empty(len(keys))
    places[order] = np.arange(len(keys))
    offset = (number_of(f"{seed}/offset") + 0.5) / 2**64
    return (places + offset) / max(len(keys), 1)


def raised(so_far: Reals, shares: Reals, n_more: int) -> Reals:
    """Chances that draw `n_more` patients more on average, none below what it was.

    Args:
        so_far: Chance of each to have been drawn by now, [0, 1].
        shares: What each is given of a drawing, above 0, in any unit.
        n_more: Patients; all of them are drawn where there are no more.

    Returns:
        max(so_far, min(1, level * share)) for the one level that comes to `n_more`.
    """
    missing = float(n_more)
    if missing >= float((1 - so_far).sum()):
        return np.ones_like(so_far)

    def chances(level: float) -> Reals:
        return np.maximum(so_far, np.minimum(1.0, level * shares))

    low, high = 0.0, 1.0 / float(shares.min())
    for _ in range(LAST_BISECTION):
        middle = (low + high) / 2
        is_enough = float((chances(middle) - so_far).sum()) >= missing
        low, high = (low, middle) if is_enough else (middle, high)
    return chances(high)


def informed_shares(probability: Reals, novelty: Reals) -> Reals:
    """Shares of a drawing, half of it uniform, half proportional to uncertainty times novelty; they sum to 1.

    Args:
        probability: Calibrated, of the positive class; NaN where a scan has no score: it counts as a middling one.
        novelty: Distance to what is labelled, in any unit; NaN likewise.

    Source:
        Zrnic & Candes 2024, arXiv:2403.03208, section 4 (uncertainty 2 min(p, 1 - p), mixed with uniform draws).
    """
    told = 2 * np.minimum(probability, 1 - probability) * novelty
    is_known = np.isfinite(told)
    told = np.where(is_known, told, np.median(told[is_known]) if is_known.any() else 0.0)
    even = np.full(len(told), 1 / max(len(told), 1))
    return even if told.sum() <= 0 else AT_RANDOM * even + (1 - AT_RANDOM) * told / told.sum()


def distances(embedding: Reals, labelled: Reals) -> Reals:
    """Euclidean distance of each row to the nearest labelled one; 1 for all where either side has no dimensions.

    Args:
        embedding: (scans, dimensions).
        labelled: (labelled scans, dimensions).

    Source:
        Sener & Savarese 2018, arXiv:1708.00489 (distance to the nearest labelled point as what is new about a scan).
    """
    if not len(labelled) or not embedding.shape[1] or embedding.shape[1] != labelled.shape[1]:
        return np.ones(len(embedding))
    norms = (labelled**2).sum(axis=1)
    nearest = [
        (norms - 2 * rows @ labelled.T).min(axis=1) + (rows**2).sum(axis=1)
        for rows in np.array_split(embedding, len(embedding) // N_AT_ONCE + 1)
    ]
    return np.asarray(np.sqrt(np.maximum(np.concatenate(nearest), 0.0)), dtype=np.float64)
