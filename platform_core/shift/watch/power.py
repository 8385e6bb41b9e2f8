"""What a promise costs: how often it is wrong, and the smallest shift that a site's volume can reveal under it.

`smallest_shift` is a formula, quick enough for a status line; `simulated_delays` runs the ranks, bets and
wealth of the nightly check itself on normal values, and the tests hold the one against the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from platform_core.shift.risk import Reals
from platform_core.shift.watch.alarms import RUN_LENGTH, SCANS_PER_CHECK
from platform_core.shift.watch.bets import BETS, Bet, log_returns, log_weights
from platform_core.shift.watch.conformal import conformal_ranks
from platform_core.shift.watch.wealth import log_mixture, log_spent, log_sum, settle, share

LARGEST_SD = 3.0
"""A shift beyond this needs no test."""
N_STEPS = 40
"""Moments after the change at which the pool's mixture is worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Under which conditions a feature is watched."""

    alpha: float
    """Sites that ever raise a false alarm, at most."""
    n_features: int
    n_reference: int
    """Values of the reference (patient-days, or days where those are the unit)."""
    n_before: int = 0
    """Ranks of the site before the change."""
    n_opened: int = 0
    """Families of streams that the site opened before."""
    size: int = SCANS_PER_CHECK
    """Ranks per block."""

    @property
    def log_threshold(self) -> float:
        """That a feature's e-value must reach, nats."""
        return math.log(self.n_features / (self.alpha * share(self.n_opened)))


def false_alarms_per_year(alpha: float, n_sites: int) -> float:
    """False alarms of a fleet in any year, at most: the promise is for ever, so one year can only have less."""
    return alpha * n_sites


def false_signals_per_year(
    scans_per_year: float, *, size: int = SCANS_PER_CHECK, run_length: int = RUN_LENGTH
) -> float:
    """False signals of the quick detector per site, stratum and year, in the long run, at most.

    Each feature signals once in `run_length` x features blocks at most, on average.

    Source:
        Shin, Ramdas & Rinaldo 2022, arXiv:2203.03532: an e-detector runs at least its threshold on average.
    """
    return scans_per_year / size / run_length


def smallest_shift(n_scans: int, promise: Promise, *, power: float = 0.8) -> float | None:
    """The smallest shift of a feature's mean that an alarm reveals within so many scans of its beginning.

    For normal values; with other tails it is a guide. The bets' growth is worked out by quadrature while the shifted
    values enter the pool, its chance variation is taken as normal, and the leading bets are added up.

    Args:
        n_scans: Patient-days (or days where those are the unit) from the change on.
        promise: How the feature is watched.
        power: Chance of an alarm by then, (0, 1).

    Returns:
        Standard deviations of the feature, in (0, 3]; None if even 3 are not revealed.
    """
    low, high = 0.0, LARGEST_SD
    if not _is_revealed(high, n_scans, promise, power):
        return None
    while high - low > 0.002:
        middle = (low + high) / 2
        low, high = (low, middle) if _is_revealed(middle, n_scans, promise, power) else (middle, high)
    return high


def simulated_delays(
    shift: float, promise: Promise, *, n_after: int, n_streams: int, seed: int, spread: float = 1.0
) -> Reals:
    """Scans from a planted change to the alarm, per stream; infinite if none came, negative if it came before.

    Args:
        shift: Of the mean, in standard deviations.
        promise: How the feature is watched.
        n_after: Scans after the change.
        n_streams: Sites of one feature that changes.
        seed: Of the random numbers.
        spread: Factor on the standard deviation.
    """
    rng = np.random.default_rng(seed)
    n_site = promise.n_before + n_after
    ranks = np.empty((n_streams, n_site))
    for i in range(n_streams):
        values = rng.normal(size=n_site)
        values[promise.n_before :] = shift + spread * values[promise.n_before :]
        ranks[i] = conformal_ranks(rng.normal(size=promise.n_reference), values, rng.random(n_site))
    blocks = first_crossing(ranks, promise.size, promise.log_threshold)
    return (blocks + 1) * promise.size - promise.n_before


def first_crossing(ranks: Reals, size: int, log_threshold: float, bets: Sequence[Bet] = BETS) -> Reals:
    """The block at which each stream of ranks, (streams, ranks), passes a threshold; infinite if it never does."""
    n_blocks, log_weight = ranks.shape[1] // size, log_weights(bets)
    crossed, wealth = np.full(len(ranks), np.inf), None
    for block in range(n_blocks):
        log_won = log_returns(ranks[:, block * size : (block + 1) * size], bets).sum(axis=1)
        wealth = settle(wealth, log_won, block)
        is_up = log_mixture(wealth.log_e, block + 1, log_weight) >= log_threshold
        crossed[is_up & np.isinf(crossed)] = block
    return crossed


def _is_revealed(shift: float, n_scans: int, promise: Promise, power: float) -> bool:
    from scipy.special import ndtri

    mean, variance = _growth(shift, n_scans, promise)
    log_won = mean - ndtri(power) * np.sqrt(variance)
    # of the restarts, those within a block or two of the change count
    weight = log_spent((promise.n_before + n_scans) // promise.size) + math.log(2)
    return float(log_sum(log_won + log_weights(BETS))) + weight >= promise.log_threshold


def _growth(shift: float, n_scans: int, promise: Promise) -> tuple[Reals, Reals]:
    """Mean and variance of what each bet has won by the end, (bets,), nats."""
    from scipy.special import ndtr

    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    chance: Any = weights / weights.sum()
    at = (np.arange(N_STEPS)[:, None] + 0.5) * n_scans / N_STEPS
    value = shift + nodes
    earlier = promise.n_reference + promise.n_before
    rank = (earlier * ndtr(value) + at * ndtr(nodes)) / (earlier + at)
    won = log_returns(rank)
    mean = np.einsum("tnb,n->tb", won, chance)
    square = np.einsum("tnb,n->tb", won * won, chance)
    share_of = n_scans / N_STEPS
    return share_of * mean.sum(axis=0), share_of * (square - mean * mean).sum(axis=0)
