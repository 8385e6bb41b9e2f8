"""How far readers agree: the noise in labels, told where several have read the same series."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pyarrow.compute as pc

from platform_core.manifest.labels import ADJUDICATOR, read_readings
from platform_core.manifest.workspace import Workspace

Z = 1.96
"""95 % intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNoise:
    """Share of series read more than once on which the readings differ, [0, 1], lower is better."""

    value: float
    low: float
    """With `high`, the 95 % interval of Wilson 1927, doi:10.1080/01621459.1927.10502953."""
    high: float
    n: int
    """Series with several readings."""

    @property
    def sentence(self) -> str:
        """For the person at the terminal."""
        interval = f"[{self.low:.0%}, {self.high:.0%}]"
        return f"several readings of one series differ on {self.value:.0%} {interval} of {self.n} series"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPair:
    """Two readers on the series that both have read."""

    readers: tuple[str, str]
    """Pseudonyms."""
    n: int
    """Series."""
    n_differ: int
    kappa: float | None
    """Agreement beyond chance, [-1, 1], higher is better; None where both always say the same one thing.

    Cohen 1960, doi:10.1177/001316446002000104."""


def label_noise(workspace: Workspace, target: str, site: str) -> LabelNoise | None:
    """How often readers of the same series, by the same guideline, disagree; None if no series was read twice.

    An adjudicator, who has seen what others said, is no reader of his own.
    """
    readings = _readings(workspace, target, site)
    several = [values for values in readings.values() if len(values) > 1]
    if not several:
        return None
    n, n_differ = len(several), sum(len(set(values.values())) > 1 for values in several)
    low, high = _wilson(n_differ, n)
    return LabelNoise(value=n_differ / n, low=low, high=high, n=n)


def reader_pairs(workspace: Workspace, target: str, site: str) -> list[ReaderPair]:
    """Every two readers who share a series, those who share most first."""
    shared: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for values in _readings(workspace, target, site).values():
        for one, other in combinations(sorted(values), 2):
            shared[one, other].append((values[one], values[other]))
    pairs = [
        ReaderPair(readers=readers, n=len(both), n_differ=sum(a != b for a, b in both), kappa=cohen_kappa(both))
        for readers, both in shared.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.n, pair.readers))


def cohen_kappa(readings: Sequence[tuple[str, str]]) -> float | None:
    """Agreement of two readers beyond what their shares of each class make likely; None if chance alone is certain."""
    n = len(readings)
    one, other = Counter(a for a, _ in readings), Counter(b for _, b in readings)
    by_chance = sum(one[value] * other[value] for value in one) / n**2
    if by_chance >= 1:
        return None
    return (sum(a == b for a, b in readings) / n - by_chance) / (1 - by_chance)


def _readings(workspace: Workspace, target: str, site: str) -> dict[str, dict[str, str]]:
    """What each named or unnamed reader says of each series, by series and reader.

    Of a series that two guidelines were applied to, the later one's readings; where a reader contradicts himself in
    one file, each of his rows stands for a reader of its own.
    """
    rows = read_readings(workspace, target).filter(pc.field("site") == site).to_pylist()
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["is_last"] and row["reader"] != ADJUDICATOR:
            reader, values = row["reader"] or "", found[row["series_key"]]
            values[reader if reader not in values else f"{reader}/{len(values)}"] = row["value"]
    return found


def _wilson(k: int, n: int) -> tuple[float, float]:
    share, spread = k / n, Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
