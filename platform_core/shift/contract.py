"""What every shift statistic promises.

A statistic reads two long tables `reference(feature, value)` and `current(feature, value)`
and returns `(feature, value)`. It is 0 on identical samples. Each is one `.sql` file, which
`statistics.py` finds by its header.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

LONG = pa.schema([("feature", pa.string()), ("value", pa.float64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One distance between two samples of each feature."""

    name: str
    unit: str
    """`nats`, `bits`, `1`, or `reference SD`."""
    compute: Callable[[pa.Table, pa.Table], pa.Table]
    """(reference, current) in `LONG`, to `LONG`; raises `EmptySample` where a sample lacks a feature or a number."""
