"""Ways in which labels may be given otherwise: from the share of positives at a score to what it becomes."""

from collections.abc import Callable

from platform_core.shift.risk import Reals

Alternative = Callable[[Reals], Reals]


def _dropped(share: float) -> Alternative:
    """So many positives are now called negative."""
    return lambda p: p * (1 - share)


def _added(share: float) -> Alternative:
    """So many negatives are now called positive."""
    return lambda p: p + share * (1 - p)


def _flipped(share: float) -> Alternative:
    """So many of either class are called the other."""
    return lambda p: p + share * (1 - 2 * p)


def _faint_dropped(share: float) -> Alternative:
    """Positives are called negative, the likelier the less they look it."""
    return lambda p: p * (1 - share * (1 - p))


ALTERNATIVES = (
    *(_dropped(share) for share in (0.1, 0.25, 0.5)),
    *(_added(share) for share in (0.04, 0.12, 0.3)),
    *(_flipped(share) for share in (0.05, 0.15)),
    *(_faint_dropped(share) for share in (0.4, 0.8)),
)
"""What is bet on. They halve the labels that bets 1 + lambda g(s) (y - p) with fixed lambda and g need."""
