"""What each feature is ranked among, so that a night costs what is new: counts up to a batch, and the rows since."""

from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import and_
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import POOL
from platform_core.manifest.stages import transaction
from platform_core.shift.risk import Reals
from platform_core.shift.watch.conformal import Wholes, tally
from platform_core.storage.tables import Lake, rows_of

Unit = Literal["patient_day", "day"]
UNITS = pa.schema([("feature", pa.string()), ("unit", pa.string()), ("n_values", pa.int64()), ("grid", pa.float64())])
NO_VALUES, NO_COUNTS = np.empty(0), np.empty(0, np.int64)
Count = tuple[int, Reals, Wholes]
"""Rows of the reference, each value once, and how many rows have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is ranked together and never mixed: one site, stratum and recipe, against one reference."""

    site: str
    stratum: str
    reference: str
    recipe: str = layout.NATIVE

    @property
    def rows(self) -> pc.Expression:
        """Which rows of `core__rank` are its own."""
        return reduce(and_, (pc.field(name) == value for name, value in asdict(self).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All that one feature is ranked among."""

    feature: str
    unit: Unit
    n_values: int
    grid: float
    n_reference: int
    value: Reals
    """Each value once, ascending."""
    n: Wholes
    """How many rows have it."""

    def with_values(self, new: Reals) -> "Pool":
        """The pool with more values in it."""
        value, n = tally(np.append(self.value, new), np.append(self.n, np.ones(len(new), np.int64)))
        return replace(self, value=value, n=n)


def read_counts(lake: Lake, scope: Scope) -> tuple[dict[str, Count], int]:
    """What was counted last, and up to which batch: per feature reference rows, values, and how often each came."""
    rows = lake.read(layout.POOL, scope.rows)
    last = pc.max(rows.column("batch")).as_py()
    if last is None:
        return {}, -2
    newest = rows.filter(pc.equal(rows.column("batch"), last)).to_pylist()
    counts = {row["feature"]: (row["n_reference"], np.array(row["value"]), np.array(row["n"])) for row in newest}
    return counts, last


def pools_of(counts: dict[str, Count], since: pa.Table, known: pa.Table) -> dict[str, Pool]:
    """The pool of each feature: what was counted, and what was ranked since."""
    ranked = since.filter(pc.is_valid(since.column("sequence")))
    values, n_reference = _arrays(ranked), rows_per_feature(ranked.filter(pc.less(ranked.column("sequence"), 0)))
    is_unit = pc.and_(pc.equal(known.column("batch"), -1), pc.equal(known.column("sequence"), -1))
    pools = {}
    for unit in known.filter(pc.fill_null(is_unit, fill_value=False)).select(UNITS.names).to_pylist():
        feature = unit["feature"]
        n_first, value, n = counts.get(feature, (n_reference.get(feature, 0), NO_VALUES, NO_COUNTS))
        pool = Pool(value=value, n=n, n_reference=n_first, **unit)
        pools[feature] = pool.with_values(values.get(feature, NO_VALUES))
    return pools


def write_pools(lake: Lake, scope: Scope, pools: dict[str, Pool], batch: int, run: str) -> None:
    """Write what was counted up to a batch, so that the next calls need not read it row by row."""
    rows = [
        asdict(scope)
        | {"feature": feature, "batch": batch, "run": run}
        | {"n_reference": pool.n_reference, "value": pool.value, "n": pool.n}
        for feature, pool in pools.items()
    ]
    lake.append(layout.POOL, rows_of(POOL, rows), transaction=transaction("pool", asdict(scope), batch))


def rows_per_feature(rows: pa.Table) -> dict[str, int]:
    """Rows per feature, in order of appearance."""
    counted = rows.group_by("feature", use_threads=False).aggregate([([], "count_all")])
    return {row["feature"]: row["count_all"] for row in counted.to_pylist()}


def _arrays(rows: pa.Table) -> dict[str, Reals]:
    """The values of each feature."""
    if not rows.num_rows:
        return {}
    feature = rows.column("feature").combine_chunks().dictionary_encode()
    code = np.asarray(feature.indices).astype(np.uint16)
    values = rows.column("value").to_numpy()[np.argsort(code, kind="stable")]
    ends = np.cumsum(np.bincount(code, minlength=len(feature.dictionary)))
    return dict(zip(feature.dictionary.to_pylist(), np.split(values, ends[:-1]), strict=True))
