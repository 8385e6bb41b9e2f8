"""Sketches: what one day of one site adds, and sums of them. Never a scan, and never the history.

A sketch is counted on the reference's own edges, so that sketches of any days and sites add up. `out__sketch`
is append-only: the first write of a day holds its counts; when a late scan, a corrected revision, a merged
patient or a late label changes a day, one more row holds the DIFFERENCE. The sum over rows is therefore
always what the day is now known to be, readers need no rule but addition, and a repeated write adds nothing.

Writes of one site, recipe and reference are numbered; of two writers at the same time one lands and the
other looks again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import StorageUnavailable
from platform_core.manifest.schemas import SKETCH
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.risk import Reals
from platform_core.shift.sketch.cells import cells_of, count_days, difference_rows
from platform_core.shift.sketch.patient_days import EVER, Basis, feature_days, score_days
from platform_core.shift.sketch.references import Frozen, Row, read_reference
from platform_core.storage.tables import rows_of

HERE = "platform_core.shift.sketch"
MOST_DAYS = 366
"""Days that are counted at a time, so that a backlog of years needs no more memory than one."""
GAP_DAYS = 7
"""Days to restate that lie no further apart are read in one go."""
N_TRIES = 20
UNIT = ("site", "stratum", "feature")
ORDER = ("day", "last_day", "entry")
ADDED = ("kind", "n", "sum", "sum_squares", "sketch")
TOTALS = pa.schema(
    [
        *((name, pa.string()) for name in ("unit", "stratum", "feature", "kind")),
        ("n", pa.int64()),
        ("sum", pa.float64()),
        ("sum_squares", pa.float64()),
        ("sketch", pa.list_(pa.float64())),
    ]
)


def sketch_shard(workspace: Workspace, site: str, keys: Sequence[str], *, basis: Basis, run: str) -> StageCount:
    """Add the patient-days of some series to the sketches of their days.

    Refused with a reason: `no_reference_stratum`, a stratum that the reference has no edges for; `no_day`. Before
    the reference is frozen nothing is due.
    """
    frozen = read_reference(workspace, basis)
    if not len(frozen.rows):
        return StageCount(site=site, stage="sketch")
    after = ("feature" if basis.model is None else "predict", basis.recipe)
    owed = set(pending(workspace, site, "sketch", recipe=basis.recipe, model=basis.reference, after=after))
    due = [key for key in keys if key in owed]
    restate_days(workspace, site, days_of(workspace, site, due), basis=basis, run=run)
    strata = set(frozen.strata)
    verdicts = [
        Verdict(series_key=row["series_key"], revision=row["revision"], reason=_reason(row, strata))
        for row in series_rows(workspace, site, due)
    ]
    return record_stage(workspace, site, "sketch", verdicts, run=run, recipe=basis.recipe, model=basis.reference)


def _reason(series: Mapping[str, Any], strata: set[str]) -> str | None:
    if series["observed_on"] is None:
        return "no_day"
    return None if series["stratum"] in strata else "no_reference_stratum"


def days_of(workspace: Workspace, site: str, keys: Sequence[str]) -> list[date]:
    """The days that some series lie on, or lay on in an earlier revision."""
    with workspace.lake.connect([layout.SERIES]) as db:
        db.register("chosen", pa.table({"series_key": pa.array(keys, pa.string())}))
        return list(load(HERE, "days").run(db, site=site).column("day").to_pylist())


def restate_days(workspace: Workspace, site: str, days: Iterable[date], *, basis: Basis, run: str) -> int:
    """Write what the sketches of some days lack; returns the rows written, 0 if they are right.

    Also for what changes a day without a new series: a label, a merged patient.

    Raises:
        StorageUnavailable: If other writers were always first.
    """
    frozen = read_reference(workspace, basis)
    return sum(_restate(workspace, site, span, frozen, run) for span in _spans(days))


def _restate(workspace: Workspace, site: str, days: tuple[date, date], frozen: Frozen, run: str) -> int:
    basis = frozen.basis
    for _ in range(N_TRIES):
        entry = next_entry(workspace, site, basis)
        present = cells_of(read_sketches(workspace, basis, sites=[site], days=days))
        counted = [
            feature_days(workspace, site, basis.recipe, days=days),
            score_days(workspace, site, basis, days=days),
        ]
        wanted = {key: cell for each in counted for key, cell in count_days(each, frozen).items()}
        rows = difference_rows(present, wanted)
        if not rows or append_entry(workspace, site, rows, basis=basis, entry=entry, run=run):
            return len(rows)
    raise StorageUnavailable(layout.SKETCH, f"{site}: {N_TRIES} times another writer was first")


def append_entry(workspace: Workspace, site: str, rows: list[Row], *, basis: Basis, entry: int, run: str) -> int:
    """Write rows as the site's entry of this number; returns how many, 0 if the number is taken."""
    about = {"site": site, "recipe": basis.recipe, "reference": basis.reference, "entry": entry, "run": run}
    name = f"sketch/{site}/{basis.recipe}/{basis.reference}/{entry}"
    return workspace.lake.append(layout.SKETCH, rows_of(SKETCH, [about | row for row in rows]), transaction=name)


def next_entry(workspace: Workspace, site: str, basis: Basis) -> int:
    """The number of the site's next write."""
    entries = workspace.lake.read(layout.SKETCH, _where(basis, [site], EVER), ["entry"]).column("entry")
    return 0 if not len(entries) else int(pc.max(entries).as_py()) + 1


def read_sketches(
    workspace: Workspace, basis: Basis, *, sites: Sequence[str] | None = None, days: tuple[date, date] = EVER
) -> pa.Table:
    """Rows of `out__sketch` whose days lie wholly within first and last day; files of other days are not opened."""
    return workspace.lake.read(layout.SKETCH, _where(basis, sites, days))


def _where(basis: Basis, sites: Sequence[str] | None, days: tuple[date, date]) -> pc.Expression:
    where = (
        (pc.field("recipe") == basis.recipe)
        & (pc.field("reference") == basis.reference)
        & (pc.field("day") >= pa.scalar(days[0]))
        & (pc.field("last_day") <= pa.scalar(days[1]))
    )
    return where if sites is None else where & pc.field("site").isin(pa.array(sites, pa.string()))


def sum_sketches(
    workspace: Workspace, basis: Basis, *, sites: Sequence[str] | None = None, days: tuple[date, date] = EVER
) -> pa.Table:
    """The sum over days of every site, stratum and feature.

    Cells of merged days that reach beyond the window are left out.

    Returns:
        unit (the site), stratum, feature, kind, n, sum, sum_squares, sketch.
    """
    return add_up(workspace.lake.read(layout.SKETCH, _where(basis, sites, days), [*UNIT, *ORDER, *ADDED]))


def add_up(added: pa.Table) -> pa.Table:
    """Rows of `out__sketch` summed per site, stratum and feature, always in the order of day and entry.

    Not in SQL: sums of floats must be the same bit for bit however the rows lie in files, and an ordered
    sum over unnested lists takes a database ten times as long.
    """
    rows = added.sort_by([(name, "ascending") for name in (*UNIT, *ORDER)])
    names = list(zip(*(rows.column(name).to_pylist() for name in UNIT), strict=True))
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    if not starts:
        return pa.Table.from_pylist([], schema=TOTALS)
    n = np.add.reduceat(rows.column("n").to_numpy(), starts)
    moments = [np.add.reduceat(_filled(rows.column(name)), starts) for name in ("sum", "sum_squares")]
    sketches = _sums_of_lists(rows.column("sketch").combine_chunks(), starts)
    kinds = rows.column("kind").take(pa.array(starts)).to_pylist()
    is_histogram = np.array([kind == "histogram" for kind in kinds])
    found = {name: [names[i][place] for i in starts] for place, name in enumerate(("unit", "stratum", "feature"))}
    nulls = {
        name: pa.array(total, mask=~is_histogram) for name, total in zip(("sum", "sum_squares"), moments, strict=True)
    }
    table = pa.table({**found, "kind": kinds, "n": n, **nulls, "sketch": sketches}, schema=TOTALS)
    return table.filter(pc.field("n") > 0)


def _filled(column: pa.ChunkedArray) -> Reals:
    return np.asarray(column.fill_null(0.0).to_numpy(), dtype=np.float64)


def _sums_of_lists(lists: pa.ListArray, starts: Sequence[int]) -> list[Reals]:
    """The sum of the lists of each group, place by place; lists of a group are of one length."""
    flat = np.asarray(lists.flatten().to_numpy(), dtype=np.float64)
    offsets = np.asarray(lists.offsets.to_numpy(), dtype=np.intp)
    offsets = offsets - offsets[0]
    ends = [*starts[1:], len(lists)]
    return [
        flat[offsets[first] : offsets[last]].reshape(last - first, -1).sum(axis=0)
        for first, last in zip(starts, ends, strict=True)
    ]


def _spans(days: Iterable[date]) -> list[tuple[date, date]]:
    """First and last day of runs that leave out no more than `GAP_DAYS` and are no longer than `MOST_DAYS`."""
    spans: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        first, last = spans[-1] if spans else (day, date.min)
        if spans and day - last <= timedelta(days=GAP_DAYS) and day - first < timedelta(days=MOST_DAYS):
            spans[-1] = (first, day)
        else:
            spans.append((day, day))
    return spans
