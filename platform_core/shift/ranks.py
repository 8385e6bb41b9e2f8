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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import and_
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.schemas import RANK
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import connect, load
from platform_core.shift.risk import Reals
from platform_core.storage.tables import Lake

HERE = "platform_core.shift"
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
UNITS = pa.schema([("feature", pa.string()), ("unit", pa.string()), ("n_values", pa.int64())])


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


def conformal_ranks(pool: Reals, values: Reals, tie_break: Reals) -> Reals:
    """Rank each value among the pool and the values before it.

    Args:
        pool: What came before, in any order, in the unit of the feature.
        values: New ones, in order of arrival.
        tie_break: (0, 1), one per value.

    Returns:
        Ranks in (0, 1): 0 is low, 1 is high.
    """
    earlier, ranks = np.sort(pool), np.empty(len(values))
    for start in range(0, len(values), N_AT_ONCE):
        part = slice(start, start + N_AT_ONCE)
        new = values[part]
        before = np.tri(len(new), k=-1, dtype=bool)
        n_below = np.searchsorted(earlier, new, "left")
        n_ties = np.searchsorted(earlier, new, "right") - n_below + (before & (new[:, None] == new)).sum(axis=1)
        n_below = n_below + (before & (new[:, None] > new)).sum(axis=1)
        n_earlier = len(earlier) + np.arange(len(new))
        ranks[part] = (n_below + tie_break[part] * (1 + n_ties)) / (n_earlier + 1)
        if part.stop < len(values):
            earlier = np.sort(np.concatenate([earlier, new]), kind="stable")
    return ranks


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
    groups = [rows for rows in _by_feature(due) if rows.num_rows >= MIN_REFERENCE]
    if not groups:
        return 0
    written = [
        _rank_rows(scope, rows, np.arange(-rows.num_rows, 0), tie_break=None, ranks=None, run=run) for rows in groups
    ]
    name = transaction("reference", asdict(scope))
    return workspace.lake.append(layout.RANK, pa.concat_tables(written), transaction=name)


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
    pool, reference, taken = _read_ranks(lake, scope, values)
    if not pool.num_rows:
        raise EmptySample(f"reference {scope.reference} of {scope.site}")
    due = _due(values, taken, reference.filter(pc.equal(reference.column("sequence"), -1)).select(UNITS.names))
    if not due.num_rows:
        return 0
    n_reference, earlier, written = _counts(reference), _arrays(pool), []
    for rows in _by_feature(due):
        feature = rows.column("feature")[0].as_py()
        tie_break = tie_breaks(rows.column("series_key").to_pylist(), feature, scope.reference)
        ranks = conformal_ranks(earlier[feature], rows.column("value").to_numpy(), tie_break)
        sequence = len(earlier[feature]) - n_reference[feature] + np.arange(rows.num_rows)
        written.append(_rank_rows(scope, rows, sequence, tie_break=tie_break, ranks=ranks, run=run))
    # the pool's size is in the name: of two runs that rank at once one lands, and the other ranks after it
    name = transaction("rank", asdict(scope), pool.num_rows)
    n_written = lake.append(layout.RANK, pa.concat_tables(written), transaction=name)
    return n_written or rank_new(workspace, scope, values, run=run)


def units_of(values: pa.Table) -> pa.Table:
    """The unit that each feature of a reference is to be watched in, in the columns of `UNITS`."""
    found = day_icc(values)
    sizes = [icc.n_per_day if icc.unit == "day" else 1 for icc in found]
    rows = [(icc.feature, icc.unit, size) for icc, size in zip(found, sizes, strict=True)]
    return pa.Table.from_pylist([dict(zip(UNITS.names, row, strict=True)) for row in rows], schema=UNITS)


def _read_ranks(lake: Lake, scope: Scope, values: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """What is ranked among: the pool's values, the reference's rows, and what of `values` has a rank already."""
    mine = scope.rows
    pool = lake.read(layout.RANK, mine, ["feature", "value"])
    reference = lake.read(layout.RANK, mine & (pc.field("sequence") < 0), [*UNITS.names, "sequence"])
    is_met = pc.field("observed_on").isin(pc.unique(values.column("observed_on")))
    corrected = values.filter(pc.greater(values.column("revision"), 1)).column("series_key")
    if len(corrected):  # a corrected series may have moved to another day
        is_met |= pc.field("series_key").isin(pc.unique(corrected))
    return pool, reference, lake.read(layout.RANK, mine & is_met, TAKEN.names)


def _due(values: pa.Table, taken: pa.Table, units: pa.Table) -> pa.Table:
    with connect({"observed": values, "taken": taken, "unit": units}) as db:
        return load(HERE, "ranks_due").run(db)


def _rank_rows(
    scope: Scope, rows: pa.Table, sequence: Any, *, tie_break: Reals | None, ranks: Reals | None, run: str
) -> pa.Table:
    n = rows.num_rows
    columns = {name: rows.column(name) for name in rows.column_names}
    columns |= {name: pa.repeat(value, n) for name, value in (asdict(scope) | {"run": run}).items()}
    columns["sequence"] = pa.array(sequence, pa.int64())
    columns["tie_break"] = pa.nulls(n, pa.float64()) if tie_break is None else pa.array(tie_break)
    columns["rank"] = pa.nulls(n, pa.float64()) if ranks is None else pa.array(ranks)
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
    feature = rows.column("feature").combine_chunks().dictionary_encode()
    code = np.asarray(feature.indices).astype(np.uint16)
    values = rows.column("value").to_numpy()[np.argsort(code, kind="stable")]
    ends = np.cumsum(np.bincount(code, minlength=len(feature.dictionary)))
    return dict(zip(feature.dictionary.to_pylist(), np.split(values, ends[:-1]), strict=True))
