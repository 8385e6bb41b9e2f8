"""Where every new patient-day lies among the reference and all that came before it: its conformal rank.

    p = (#{earlier < v} + U (1 + #{earlier = v})) / (#earlier + 1)

The pool of earlier values is the reference AND the site's own past. While nothing changes, the
ranks of a feature are uniform on (0, 1) and independent, exactly, for a reference of any size and
for ever; ranks against the reference alone are not, and sooner or later betray its sampling error.

The unit is the patient-day: one value per patient, stratum and day, never the image, and none of a patient who was
there a few days ago (`RETURN_DAYS`). Where the days of the reference differ more than patients of one day explain
(`day_icc`), the unit is the day.

A rank is computed once, in order of arrival (first taken in, then day observed, then key), and never
again: what comes late gets the next place, and a corrected series keeps the rank that it has. All that a
rank depends on lies in `core__rank`, the reference's rows included (their sequence is below 0), so
`ranks_audit.sql` can give every one of them again.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import and_
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.schemas import POOL, RANK
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import connect, load
from platform_core.shift.risk import Reals
from platform_core.storage.tables import Lake, rows_of

HERE = "platform_core.shift"
Wholes = npt.NDArray[np.int64]
MATERIAL_CLUSTERING = 0.2
"""Variance that the likeness of a day's patients adds to the mean of a day, above which days are ranked, not patients.

It is (patients per day - 1) x intraclass correlation: .008 at 25 a day, .05 at 5. What lies below keeps the promise
(`tests/benchmarks/false_alarms.py`); a correlation of .05 at 25 a day breaks it in one site of four.
"""
RETURN_DAYS = 28
"""A patient who was seen within so many days before is no new observation.

If three patients in ten were there the day before as well, one site in four would alarm without a shift.
"""
MIN_REFERENCE = 10
"""Patient-days, or days, of a feature without which it is not watched: among fewer, a shift soon is the pool itself."""
N_PER_GRID_ROW = 20
"""One reference row in so many sets the grid."""
N_BATCHES = 32
"""Calls after which the pools are counted anew."""
N_AT_ONCE = 512
"""Values that are compared pair by pair before they are merged into the pool."""

Unit = Literal["patient_day", "day"]

VALUES = pa.schema(
    [
        ("series_key", pa.string()),
        ("revision", pa.int64()),
        ("patient_key", pa.string()),
        ("observed_on", pa.date32()),
        ("arrived_at", pa.timestamp("us", tz="UTC")),
        ("feature", pa.string()),
        ("value", pa.float64()),
    ]
)
"""One value of one series, finite."""
TAKEN = pa.schema(
    [("series_key", pa.string()), ("feature", pa.string()), ("observed_on", pa.date32()), ("sequence", pa.int64())]
)
UNITS = pa.schema([("feature", pa.string()), ("unit", pa.string()), ("n_values", pa.int64()), ("grid", pa.float64())])
NO_VALUES, NO_COUNTS = np.empty(0), np.empty(0, np.int64)


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
class DayIcc:
    """How alike the patient-days of one day are."""

    feature: str
    icc: float | None
    """Intraclass correlation of the ranks of the values, (-1, 1]; None if no day has two patients."""
    n: int
    """Patient-days."""
    n_days: int
    n_per_day: int
    """Lower quartile of patient-days per day."""

    @property
    def unit(self) -> Unit:
        """What may be counted as one observation of the feature."""
        added = (self.icc or 0.0) * (self.n / self.n_days - 1)
        return "day" if added > MATERIAL_CLUSTERING else "patient_day"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
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


def conformal_ranks(pool: Reals, values: Reals, tie_break: Reals, *, counts: Wholes | None = None) -> Reals:
    """Rank each value among the pool and the values before it.

    Args:
        pool: What came before, in any order, in the unit of the feature.
        values: New ones, in order of arrival.
        tie_break: (0, 1), one per value.
        counts: How often each value of the pool came; None for once.

    Returns:
        Ranks in (0, 1): 0 is low, 1 is high.
    """
    earlier, n_each = tally(pool, np.ones(len(pool), np.int64) if counts is None else counts)
    ranks = np.empty(len(values))
    for start in range(0, len(values), N_AT_ONCE):
        part = slice(start, start + N_AT_ONCE)
        new = values[part]
        before, up_to = np.tri(len(new), k=-1, dtype=bool), np.concatenate([[0], np.cumsum(n_each)])
        n_below = up_to[np.searchsorted(earlier, new, "left")]
        n_ties = up_to[np.searchsorted(earlier, new, "right")] - n_below
        n_ties = n_ties + (before & (new[:, None] == new)).sum(axis=1)
        n_below = n_below + (before & (new[:, None] > new)).sum(axis=1)
        n_earlier = up_to[-1] + np.arange(len(new))
        ranks[part] = (n_below + tie_break[part] * (1 + n_ties)) / (n_earlier + 1)
        if part.stop < len(values):
            more = np.ones(len(new), np.int64)
            earlier, n_each = tally(np.concatenate([earlier, new]), np.concatenate([n_each, more]))
    return ranks


def tally(values: Reals, counts: Wholes) -> tuple[Reals, Wholes]:
    """Each value once, ascending, and how often it came."""
    if not len(values):
        return values, counts
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    return ascending[first], np.add.reduceat(counts[order], first)


def grid_of(few: Reals) -> float:
    """The step of the grid that values are rounded to, a power of two, from a few rows that are ranked nowhere.

    It bounds the size of a pool. Ranks on a grid are exact, as its steps are ties; rows that set the grid and
    lay in the pool as well would not be exchangeable with what comes later.
    """
    width = float(np.ptp(few)) or 1e-3 * float(np.abs(few).max()) or 1.0
    return 2.0 ** (math.floor(math.log2(width)) - 8)


def tie_breaks(keys: Iterable[str], feature: str, reference: str) -> Reals:
    """A number in (0, 1) per series that nobody chose: a hash of series, feature and reference."""
    about = f"\x1f{feature}\x1f{reference}".encode()
    drawn = [hashlib.blake2b(k.encode() + about, digest_size=8, person=b"sitedrift rank").digest() for k in keys]
    whole = np.frombuffer(b"".join(drawn), dtype="<u8") >> np.uint64(11)
    return (whole.astype(np.float64) + 0.5) / 2.0**53


def day_icc(values: pa.Table) -> list[DayIcc]:
    """How much the days of a reference differ, per feature, in name order; `values` in the columns of `VALUES`."""
    with connect({"observed": values}) as db:
        return [DayIcc(**row) for row in load(HERE, "ranks_day_icc").run(db).to_pylist()]


def feature_days(workspace: Workspace, site: str, stratum: str, keys: Sequence[str], recipe: str) -> pa.Table:
    """The features of some series and of all others of their days and stratum, in the columns of `VALUES`."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE, layout.FEATURE]) as db:
        if set(db.table(layout.FEATURE).columns) <= set(workspace.lake.schemas[layout.FEATURE].names):
            return VALUES.empty_table()
        db.register("chosen", pa.table({"series_key": pa.array(keys, pa.string())}))
        db.register("wanted", load(HERE, "ranks_series").run(db, site=site, stratum=stratum, return_days=RETURN_DAYS))
        return load(HERE, "ranks_features").run(db, site=site, recipe=recipe).cast(VALUES)


def score_days(
    workspace: Workspace, site: str, stratum: str, keys: Sequence[str], *, model: str, recipe: str
) -> pa.Table:
    """The scores of some series and of all others of their days and stratum, as the feature `score`."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE, layout.PREDICTION]) as db:
        db.register("chosen", pa.table({"series_key": pa.array(keys, pa.string())}))
        db.register("wanted", load(HERE, "ranks_series").run(db, site=site, stratum=stratum, return_days=RETURN_DAYS))
        return load(HERE, "ranks_scores").run(db, site=site, model=model, recipe=recipe).cast(VALUES)


def open_reference(workspace: Workspace, scope: Scope, values: pa.Table, *, run: str) -> int:
    """Write the reference's own rows, once: the first of the pool, and which unit each feature is watched in.

    A feature with fewer than `MIN_REFERENCE` patient-days (or days) in the reference is not watched.

    Args:
        workspace: Where it is written.
        scope: What is to be ranked; a name that has rows already is frozen, and nothing is written.
        values: The reference, from whichever site, in the columns of `VALUES`.
        run: The run.

    Returns:
        Rows written.
    """
    due = _due(values, TAKEN.empty_table(), units_of(values))
    written = [_reference_rows(scope, rows, run) for rows in _by_feature(due) if rows.num_rows >= MIN_REFERENCE]
    if not written:
        return 0
    return workspace.lake.append(
        layout.RANK, pa.concat_tables(written), transaction=transaction("reference", asdict(scope))
    )


def rank_new(workspace: Workspace, scope: Scope, values: pa.Table, *, run: str) -> int:
    """Rank every patient-day (or day) that has no rank yet, once and for all.

    Call it after features and predictions are written, with `feature_days` or `score_days` of
    what is new. Features that the reference was not opened with are left out.

    Args:
        workspace: Where ranks are read and written.
        scope: What they are ranked among.
        values: New values with all others of their days, in the columns of `VALUES`.
        run: The run.

    Returns:
        Ranks written.

    Raises:
        EmptySample: If `open_reference` has written no row for this scope.
    """
    lake = workspace.lake
    streams, batch = _read_pools(lake, scope)
    if not streams:
        raise EmptySample(f"reference {scope.reference} of {scope.site}")
    due = _due(values, _read_taken(lake, scope, values), _unit_table(streams))
    if not due.num_rows:
        return 0
    written = [
        _new_rows(scope, rows, streams[rows.column("feature")[0].as_py()], batch, run) for rows in _by_feature(due)
    ]
    # the batch is in the name: of two runs that rank at once one lands, and the other ranks after it
    n_written = lake.append(
        layout.RANK, pa.concat_tables(written), transaction=transaction("rank", asdict(scope), batch)
    )
    if not n_written:
        return rank_new(workspace, scope, values, run=run)
    if batch % N_BATCHES == N_BATCHES - 1:
        _write_pools(lake, scope, run)
    return n_written


def units_of(values: pa.Table) -> pa.Table:
    """The unit that each feature of a reference is to be watched in, in the columns of `UNITS`, without a grid yet."""
    found = day_icc(values)
    sizes = [icc.n_per_day if icc.unit == "day" else 1 for icc in found]
    rows = [{"feature": i.feature, "unit": i.unit, "n_values": n} for i, n in zip(found, sizes, strict=True)]
    return pa.Table.from_pylist(rows, schema=UNITS)


def _read_pools(lake: Lake, scope: Scope) -> tuple[dict[str, _Pool], int]:
    """The pool of each feature, from the last count and what was ranked since, and the number of the next batch."""
    is_first = scope.rows & (pc.field("batch") == -1) & (pc.field("sequence") == -1)
    units = lake.read(layout.RANK, is_first, UNITS.names).to_pylist()
    counted, last = _read_counts(lake, scope)
    is_since = scope.rows & (pc.field("batch") > last) & pc.field("sequence").is_valid()
    since = lake.read(layout.RANK, is_since, ["feature", "value", "sequence", "batch"])
    values, n_reference = _arrays(since), _counts(since.filter(pc.less(since.column("sequence"), 0)))
    pools = {}
    for unit in units:
        feature = unit["feature"]
        before = counted.get(feature, (n_reference.get(feature, 0), NO_VALUES, NO_COUNTS))
        new = values.get(feature, NO_VALUES)
        value, n = tally(np.append(before[1], new), np.append(before[2], np.ones(len(new), np.int64)))
        pools[feature] = _Pool(value=value, n=n, n_reference=before[0], **unit)
    newest = pc.max(since.column("batch")).as_py()
    return pools, (last if newest is None else newest) + 1


def _read_counts(lake: Lake, scope: Scope) -> tuple[dict[str, tuple[int, Reals, Wholes]], int]:
    """What was counted last, and up to which batch: per feature reference rows, values, and how often each came."""
    rows = lake.read(layout.POOL, scope.rows)
    last = pc.max(rows.column("batch")).as_py()
    if last is None:
        return {}, -2
    newest = rows.filter(pc.equal(rows.column("batch"), last)).to_pylist()
    counts = {row["feature"]: (row["n_reference"], np.array(row["value"]), np.array(row["n"])) for row in newest}
    return counts, last


def _write_pools(lake: Lake, scope: Scope, run: str) -> None:
    """Count every pool, so that the next calls need not read what it holds."""
    pools, next_batch = _read_pools(lake, scope)
    rows = [
        {
            "feature": p.feature,
            "batch": next_batch - 1,
            "n_reference": p.n_reference,
            "value": p.value,
            "n": p.n,
            "run": run,
        }
        | asdict(scope)
        for p in pools.values()
    ]
    lake.append(layout.POOL, rows_of(POOL, rows), transaction=transaction("pool", asdict(scope), next_batch))


def _read_taken(lake: Lake, scope: Scope, values: pa.Table) -> pa.Table:
    """What of the days of `values` has a rank already, in the columns of `TAKEN`."""
    is_met = pc.field("observed_on").isin(pc.unique(values.column("observed_on")))
    corrected = values.filter(pc.greater(values.column("revision"), 1)).column("series_key")
    if len(corrected):  # a corrected series may have moved to another day
        is_met |= pc.field("series_key").isin(pc.unique(corrected))
    return lake.read(layout.RANK, scope.rows & is_met, TAKEN.names)


def _unit_table(pools: dict[str, _Pool]) -> pa.Table:
    rows = [{"feature": pool.feature, "unit": pool.unit, "n_values": pool.n_values} for pool in pools.values()]
    return pa.Table.from_pylist(rows, schema=UNITS.remove(UNITS.get_field_index("grid")))


def _reference_rows(scope: Scope, rows: pa.Table, run: str) -> pa.Table:
    """The rows of one feature's reference on their grid; those that set it have no place in the sequence."""
    sets_grid = np.arange(rows.num_rows) % N_PER_GRID_ROW == 0
    grid = grid_of(rows.column("value").to_numpy()[sets_grid])
    place = np.cumsum(~sets_grid) - 1 - (~sets_grid).sum()
    sequence = pa.array(place, pa.int64(), mask=sets_grid)
    return _rank_rows(scope, rows, {"sequence": sequence, "batch": -1, "grid": grid, "run": run})


def _new_rows(scope: Scope, rows: pa.Table, pool: _Pool, batch: int, run: str) -> pa.Table:
    """The rows of one feature with their ranks."""
    tie_break = tie_breaks(rows.column("series_key").to_pylist(), pool.feature, scope.reference)
    values = np.rint(rows.column("value").to_numpy() / pool.grid) * pool.grid
    ranks = conformal_ranks(pool.value, values, tie_break, counts=pool.n)
    sequence = int(pool.n.sum()) - pool.n_reference + np.arange(rows.num_rows)
    more = {"sequence": sequence, "batch": batch, "grid": pool.grid, "run": run}
    return _rank_rows(scope, rows, more | {"tie_break": tie_break, "rank": ranks})


def _due(values: pa.Table, taken: pa.Table, units: pa.Table) -> pa.Table:
    with connect({"observed": values, "taken": taken, "unit": units}) as db:
        return load(HERE, "ranks_due").run(db)


def _rank_rows(scope: Scope, rows: pa.Table, more: dict[str, Any]) -> pa.Table:
    """Rows of `core__rank`: values on the grid; a single fact is of all rows, one that is not told is null."""
    n, facts = rows.num_rows, asdict(scope) | more
    columns = {name: rows.column(name) for name in rows.column_names}
    columns["value"] = pa.array(np.rint(columns["value"].to_numpy() / more["grid"]) * more["grid"])
    for field in RANK:
        if field.name not in columns:
            fact = facts.get(field.name)
            is_column = isinstance(fact, np.ndarray | pa.Array)
            columns[field.name] = pa.array(fact, field.type) if is_column else pa.repeat(pa.scalar(fact, field.type), n)
    return pa.table({name: columns[name] for name in RANK.names}, schema=RANK)


def _by_feature(rows: pa.Table) -> list[pa.Table]:
    """Rows that are in order of feature, one table per feature."""
    found, first = [], 0
    for n in _counts(rows).values():
        found.append(rows.slice(first, n).combine_chunks())
        first += n
    return found


def _counts(rows: pa.Table) -> dict[str, int]:
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
