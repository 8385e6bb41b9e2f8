"""Wealth of a gambler who bets that something has changed, and what it proves.

Pure arithmetic on arrays (..., bets): the nightly check, the simulations and the tests run these same lines.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals

Wholes = npt.NDArray[np.int64]
N_FIRST = 512
"""Blocks over which the first half of the weight is spent; each later half lasts twice as long."""


@dataclass(frozen=True, slots=True)
class Wealth:
    """What bets have won so far, each (..., bets), in nats."""

    log_e: Reals
    """Restarted at every block with spent weights: an e-process."""
    log_sr: Reals
    """Restarted at every block with weight 1: Shiryaev-Roberts."""
    log_peak: Reals
    """Since the start that was best so far (CUSUM)."""
    since: Wholes
    """That start, a block."""


def share(n_opened: int) -> float:
    """Share of alpha for a family of streams when a site has opened `n_opened` before: 1/2, 1/6, 1/12, ...; sum 1."""
    return 1 / ((n_opened + 1) * (n_opened + 2))


def log_spent(block: int) -> float:
    """Logarithm of the weight of a restart at a block; weights add up to 1 over all blocks."""
    epoch = _epoch(block)
    return -math.log(2) * (2 * epoch + 1) - math.log(N_FIRST)


def unspent(n_settled: int) -> float:
    """Weight that is left for restarts at block `n_settled` and later."""
    epoch = _epoch(n_settled)
    n_within = n_settled - N_FIRST * (2**epoch - 1)
    return float(2.0**-epoch - n_within * math.exp(log_spent(n_settled)))


def settle(before: Wealth | None, log_won: Reals, block: int) -> Wealth:
    """Add one block: every bet restarts at its beginning, and all starts win what the block pays.

    Args:
        before: Wealth at its beginning; None at the first.
        log_won: What each bet wins over it, (..., bets), nats.
        block: Its number.
    """
    if before is None:
        nothing = np.full(log_won.shape, -np.inf)
        before = Wealth(nothing, nothing, nothing, np.zeros(log_won.shape, np.int64))
    return Wealth(
        log_e=np.logaddexp(before.log_e, log_spent(block)) + log_won,
        log_sr=np.logaddexp(before.log_sr, 0.0) + log_won,
        log_peak=np.maximum(before.log_peak, 0.0) + log_won,
        since=np.where(before.log_peak > 0, before.since, block),
    )


def log_mixture(log_e: Reals, n_settled: int, log_weight: Reals) -> Reals:
    """E-value of one feature from the wealth of its bets, (..., bets) to (...), nats; `log_weight` as `log_weights`."""
    return np.asarray(np.logaddexp(log_sum(log_e + log_weight), math.log(unspent(n_settled))), np.float64)


def e_bh(e_values: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    """Names that may be reported together with a false discovery rate of at most alpha, largest first.

    For the page, never for an action. Valid under any dependence between the e-values.

    Source:
        Wang & Ramdas 2022, JRSS-B 84(3), doi:10.1111/rssb.12489.
    """
    order = sorted(e_values, key=lambda name: (-e_values[name], name))
    enough = [k for k, name in enumerate(order, start=1) if e_values[name] >= len(order) / (alpha * k)]
    return tuple(order[: max(enough, default=0)])


def log_sum(logs: Reals) -> Reals:
    """Logarithm of the sum over the last axis."""
    top = logs.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logs - top[..., None]).sum(axis=-1)), np.float64)


def _epoch(block: int) -> int:
    """0 for the first `N_FIRST` blocks, 1 for the next twice as many, and so on."""
    return (block // N_FIRST + 1).bit_length() - 1
