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
`audit.sql` can give every one of them again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.schemas import RANK
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import connect, load
from platform_core.shift.watch.conformal import conformal_ranks, grid_of, tie_breaks
from platform_core.shift.watch.pools import (
    NO_VALUES,
    UNITS,
    Pool,
    Scope,
    Unit,
    pools_of,
    read_counts,
    rows_per_feature,
    write_pools,
)
from platform_core.storage.tables import Lake

HERE = "platform_core.shift.watch"
MATERIAL_CLUSTERING, POSSIBLE_CLUSTERING = 0.2, 0.5
"""Variance that the likeness of a day's patients adds to the mean of a day: above the first, or if the second lies
within two standard errors, days are ranked and not patients.

It is (patients per day - 1) x intraclass correlation: .008 at 25 a day, .05 at 5. With patients ranked at .2,
0 of 60 and 1 of 80 sites without a shift alarmed; with a correlation of .05 at 25 a day, 8 of 12. One feature
that is taken for harmless breaks a site's promise, so a reference must have the days to show that it is.
"""
RETURN_DAYS = 28
"""A patient who was seen within so many days before is no new observation.

With three patients in ten who were there the day before as well, 5 of 20 sites without a shift alarmed.
"""
MIN_REFERENCE = 10
"""Patient-days, or days, of a feature without which it is not watched: among fewer, a shift soon is the pool itself."""
N_PER_GRID_ROW = 20
"""One reference row in so many sets the grid."""
N_BATCHES = 32
"""Calls after which the pools are counted anew."""


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
        if self.icc is None or self.n_days < MIN_REFERENCE:  # nothing to tell it from
            return "patient_day"
        per_day = self.n / self.n_days
        added, error = self.icc * (per_day - 1), math.sqrt(2 * (1 - 1 / per_day) / (self.n_days - 1))
        is_alike = added <= MATERIAL_CLUSTERING and added + 2 * error <= POSSIBLE_CLUSTERING
        return "patient_day" if is_alike else "day"


def day_icc(values: pa.Table) -> list[DayIcc]:
    """How much the days of a reference differ, per feature, in name order; `values` in the columns of `VALUES`."""
    with connect({"observed": values}) as db:
        return [DayIcc(**row) for row in load(HERE, "day_icc").run(db).to_pylist()]


def features_of_days(workspace: Workspace, site: str, stratum: str, keys: Sequence[str], recipe: str) -> pa.Table:
    """The features of some series and of all others of their days and stratum, in the columns of `VALUES`."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE, layout.FEATURE]) as db:
        if set(db.table(layout.FEATURE).columns) <= set(workspace.lake.schemas[layout.FEATURE].names):
            return VALUES.empty_table()
        db.register("chosen", pa.table({"series_key": pa.array(keys, pa.string())}))
        db.register("wanted", load(HERE, "series").run(db, site=site, stratum=stratum, return_days=RETURN_DAYS))
        return load(HERE, "features").run(db, site=site, recipe=recipe).cast(VALUES)


def scores_of_days(
    workspace: Workspace, site: str, stratum: str, keys: Sequence[str], *, model: str, recipe: str
) -> pa.Table:
    """The scores of some series and of all others of their days and stratum, as the feature `score`."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE, layout.PREDICTION]) as db:
        db.register("chosen", pa.table({"series_key": pa.array(keys, pa.string())}))
        db.register("wanted", load(HERE, "series").run(db, site=site, stratum=stratum, return_days=RETURN_DAYS))
        return load(HERE, "scores").run(db, site=site, model=model, recipe=recipe).cast(VALUES)


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
    due = _due_rows(values, TAKEN.empty_table(), units_of(values))
    written = [_reference_rows(scope, rows, run) for rows in _by_feature(due) if rows.num_rows >= MIN_REFERENCE]
    if not written:
        return 0
    return workspace.lake.append(
        layout.RANK, pa.concat_tables(written), transaction=transaction("reference", asdict(scope))
    )


def rank_new(workspace: Workspace, scope: Scope, values: pa.Table, *, run: str) -> int:
    """Rank every patient-day (or day) that has no rank yet, once and for all.

    Call it after features and predictions are written, with `features_of_days` or `scores_of_days` of
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
    return int(rank_rows(workspace, scope, values, run=run).num_rows)


def rank_rows(workspace: Workspace, scope: Scope, values: pa.Table, *, run: str) -> pa.Table:
    """As `rank_new`; the rows of `core__rank` that were written, all of one batch."""
    lake = workspace.lake
    counts, last = read_counts(lake, scope)
    known = _read_ranks(lake, scope, values, last)
    pools = pools_of(counts, known.filter(pc.greater(known.column("batch"), last)), known)
    if not pools:
        raise EmptySample(f"reference {scope.reference} of {scope.site}")
    due = _due(values, known.select(TAKEN.names), pools)
    if not due.num_rows:
        return RANK.empty_table()
    batch = max(last, pc.max(known.column("batch")).as_py()) + 1
    by_feature = {rows.column("feature")[0].as_py(): rows for rows in _by_feature(due)}
    written = [_new_rows(scope, rows, pools[feature], batch, run) for feature, rows in by_feature.items()]
    # the batch is in the name: of two runs that rank at once one lands, and the other ranks after it
    name = transaction("rank", asdict(scope), batch)
    rows = pa.concat_tables(written)
    if not lake.append(layout.RANK, rows, transaction=name):
        return rank_rows(workspace, scope, values, run=run)
    if batch % N_BATCHES == N_BATCHES - 1:
        new = {rows.column("feature")[0].as_py(): rows.column("value").to_numpy() for rows in written}
        write_pools(lake, scope, {f: pool.with_values(new.get(f, NO_VALUES)) for f, pool in pools.items()}, batch, run)
    return rows


def units_of(values: pa.Table) -> pa.Table:
    """The unit that each feature of a reference is to be watched in, in the columns of `UNITS`, without a grid yet."""
    found = day_icc(values)
    sizes = [icc.n_per_day if icc.unit == "day" else 1 for icc in found]
    rows = [{"feature": i.feature, "unit": i.unit, "n_values": n} for i, n in zip(found, sizes, strict=True)]
    return pa.Table.from_pylist(rows, schema=UNITS)


def _read_ranks(lake: Lake, scope: Scope, values: pa.Table, last: int) -> pa.Table:
    """What was ranked after batch `last`, each feature's row -1 with its unit, and what `values` may meet again."""
    is_met = pc.field("observed_on").isin(pc.unique(values.column("observed_on")))
    corrected = values.filter(pc.greater(values.column("revision"), 1)).column("series_key")
    if len(corrected):  # a corrected series may have moved to another day
        is_met |= pc.field("series_key").isin(pc.unique(corrected))
    is_unit = (pc.field("batch") == -1) & (pc.field("sequence") == -1)
    columns = ["series_key", "feature", "observed_on", "sequence", "batch", "value", "unit", "n_values", "grid"]
    return lake.read(layout.RANK, scope.rows & ((pc.field("batch") > last) | is_unit | is_met), columns)


def _reference_rows(scope: Scope, rows: pa.Table, run: str) -> pa.Table:
    """The rows of one feature's reference on their grid; those that set it have no place in the sequence."""
    sets_grid = np.arange(rows.num_rows) % N_PER_GRID_ROW == 0
    grid = grid_of(rows.column("value").to_numpy()[sets_grid])
    place = np.cumsum(~sets_grid) - 1 - (~sets_grid).sum()
    sequence = pa.array(place, pa.int64(), mask=sets_grid)
    return _rank_rows(scope, rows, {"sequence": sequence, "batch": -1, "grid": grid, "run": run})


def _new_rows(scope: Scope, rows: pa.Table, pool: Pool, batch: int, run: str) -> pa.Table:
    """The rows of one feature with their ranks."""
    tie_break = tie_breaks(rows.column("series_key").to_pylist(), pool.feature, scope.reference)
    values = np.rint(rows.column("value").to_numpy() / pool.grid) * pool.grid
    ranks = conformal_ranks(pool.value, values, tie_break, counts=pool.n)
    sequence = int(pool.n.sum()) - pool.n_reference + np.arange(rows.num_rows)
    more = {"sequence": sequence, "batch": batch, "grid": pool.grid, "run": run}
    return _rank_rows(scope, rows, more | {"tie_break": tie_break, "rank": ranks})


def _due(values: pa.Table, taken: pa.Table, pools: dict[str, Pool]) -> pa.Table:
    units = [{"feature": pool.feature, "unit": pool.unit, "n_values": pool.n_values} for pool in pools.values()]
    return _due_rows(values, taken, pa.Table.from_pylist(units, schema=UNITS.remove(UNITS.get_field_index("grid"))))


def _due_rows(values: pa.Table, taken: pa.Table, units: pa.Table) -> pa.Table:
    with connect({"observed": values, "taken": taken, "unit": units}) as db:
        return load(HERE, "due").run(db)


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
    for n in rows_per_feature(rows).values():
        found.append(rows.slice(first, n).combine_chunks())
        first += n
    return found
