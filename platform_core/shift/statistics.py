"""Distances between two samples of many features, one `.sql` file each.

A file in `sql/` is a statistic if its header says that it reads `reference(feature, value)`
and `current(feature, value)` and returns `(feature, value)`. There is no step two. MMD is not
among them: it compares whole rows of an embedding, not one feature at a time (`mmd.py`).
"""

import re
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.catalog import Catalog
from platform_core.errors import EmptySample
from platform_core.queries import Query, connect, load
from platform_core.shift.contract import LONG, Statistic

HERE = "platform_core.shift"
READS = "reference(feature VARCHAR, value DOUBLE) current(feature VARCHAR, value DOUBLE)"
RETURNS = "feature VARCHAR, value DOUBLE"

OFFERED = {"bins": 10}
"""Parameters that a statistic may bind: equal-frequency bins of the reference."""


def statistic_of(query: Query) -> Statistic:
    """The statistic that a query computes; its unit is what the header's range names after the interval."""

    def compute(reference: pa.Table, current: pa.Table) -> pa.Table:
        _refuse_empty(reference, current)
        params = {name: OFFERED[name] for name in query.params}
        with connect({"reference": reference, "current": current}) as db:
            return query.run(db, **params).cast(LONG)

    return Statistic(name=query.name, unit=_unit(query), compute=compute)


def _refuse_empty(reference: pa.Table, current: pa.Table) -> None:
    """Raise `EmptySample` unless both samples hold the same features, at least one, and only finite numbers."""
    samples = {"reference": reference, "current": current}
    features = {name: set(rows.column("feature").to_pylist()) for name, rows in samples.items()}
    for name, rows in samples.items():
        missing = sorted((features["reference"] | features["current"]) - features[name])
        if missing or not rows.num_rows:
            raise EmptySample(f"{name} sample of {', '.join(missing) or 'any feature'}")
        is_finite = pc.fill_null(pc.is_finite(rows.column("value")), fill_value=False)
        if not pc.all(is_finite).as_py():
            raise EmptySample(f"{name} sample, finite values", rows.num_rows, pc.sum(is_finite).as_py())


def _unit(query: Query) -> str:
    found = re.match(r"[\[(][^\])]*[\])]\s*([^;]*)", query.header["range"])
    return (found and found.group(1)) or "1"


def _queries() -> list[Query]:
    names = sorted(file.name for file in files(HERE).joinpath("sql").iterdir() if file.name.endswith(".sql"))
    return [load(HERE, name.removesuffix(".sql")) for name in names]


STATISTICS: Catalog[Statistic] = Catalog(
    "statistic",
    [statistic_of(q) for q in _queries() if (q.header["reads"], q.header["returns"]) == (READS, RETURNS)],
)
