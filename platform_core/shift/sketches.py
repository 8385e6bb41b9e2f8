"""Sketches: what one day of one site adds, and sums of them. Never a scan, and never the history.

A sketch is counted on the reference's own edges, so that sketches of any days and sites add up. `out__sketch`
is append-only: the first write of a day holds its counts; when a late scan, a corrected revision, a merged
patient or a late label changes a day, one more row holds the DIFFERENCE. The sum over rows is therefore
always what the day is now known to be, readers need no rule but addition, and a repeated write adds nothing.

Writes of one site, recipe and reference are numbered; of two writers at the same time one lands and the
other looks again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import StorageUnavailable
from platform_core.manifest.schemas import SKETCH
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.histogram import count
from platform_core.shift.patient_days import EVER, Basis, PatientDays, feature_days, score_days
from platform_core.shift.references import Frozen, Row, fourier_seed, read_reference, vectors, whitening_of
from platform_core.shift.risk import Reals, Wholes
from platform_core.shift.vector_maps import fourier_terms, moment_terms
from platform_core.storage.tables import rows_of

HERE = "platform_core.shift"
MOST_DAYS = 366
"""Days that are counted at a time, so that a backlog of years needs no more memory than one."""
GAP_DAYS = 7
"""Days to restate that lie no further apart are read in one go."""
N_TRIES = 20
ROUNDING = 1e-9
"""Share of a sum below which a difference is rounding, not a correction."""

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

Key = tuple[str, date, date, str]
"""stratum, first day, last day, feature."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What one cell holds: patient-days and sums of them."""

    kind: str
    n: int
    sums: Reals
    """Counts per bin or class, or sums of terms; of a histogram then the sum and sum of squares of its values."""

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(self.kind, self.n + other.n, self.sums + other.sums)

    def __sub__(self, other: "Sketch") -> "Sketch":
        return Sketch(self.kind, self.n - other.n, self.sums - other.sums)

    def is_nothing(self, scale: Reals) -> bool:
        """Whether it holds no more than rounding of sums as large as `scale`."""
        return self.n == 0 and bool(np.all(np.abs(self.sums) <= ROUNDING * np.maximum(np.abs(scale), 1)))


Cells = dict[Key, Sketch]


def sketch_shard(workspace: Workspace, site: str, keys: Sequence[str], *, basis: Basis, run: str) -> StageCount:
    """Add the patient-days of some series to the sketches of their days.

    Refused with a reason: `no_reference_stratum`, a stratum that the reference has no edges for; `no_day`.
    """
    after = ("feature" if basis.model is None else "predict", basis.recipe)
    owed = set(pending(workspace, site, "sketch", recipe=basis.recipe, model=basis.reference, after=after))
    due = [key for key in keys if key in owed]
    frozen = read_reference(workspace, basis)
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
        return list(load(HERE, "sketch_days").run(db, site=site).column("day").to_pylist())


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


@dataclass(frozen=True, slots=True)
class Part:
    """What one stratum holds of one feature, day by day."""

    feature: str
    kind: str
    n: Wholes
    """Patient-days of each day."""
    sums: Reals
    """(days, terms)."""
    is_known: npt.NDArray[np.bool_]
    """Of each row, whether it was counted."""


def count_days(patient_days: PatientDays, frozen: Frozen) -> Cells:
    """The sketch of every stratum, day and feature that the reference knows; labels need no reference."""
    cells: Cells = {}
    strata = patient_days.stratum
    for stratum in sorted(set(strata.tolist())):
        chosen = np.flatnonzero(strata == stratum)
        here = PatientDays(patient_days.rows.take(chosen), patient_days.names, patient_days.classes)
        days, group = np.unique(here.day, return_inverse=True)
        for part in parts_of(here, frozen, stratum, group, len(days)):
            for i in np.flatnonzero(part.n):
                day = days[i].astype(object)
                cells[stratum, day, day, part.feature] = Sketch(part.kind, int(part.n[i]), part.sums[i])
    return cells


def parts_of(here: PatientDays, frozen: Frozen, stratum: str, group: Wholes, n_days: int) -> Iterator[Part]:
    """Every feature that the reference knows, and labels; rows are of one stratum, `group` the day of each."""
    known = frozen.of_stratum(stratum)
    for name in here.names:
        if name in known:
            yield _histogram(name, here.values(name), known[name], group, n_days)
    if here.classes is not None:
        yield _labels(here, group, n_days)
    members = known.get("features", {}).get("members") or ()
    for name, x in vectors(here, members).items():
        row, fourier = known.get(name), known.get(f"{name}_fourier")
        if row is None or fourier is None or x.shape[1] != len(whitening_of(row).centre):
            continue
        is_known = np.asarray(np.isfinite(x).all(axis=1), dtype=bool)
        z, day = whitening_of(row).apply(x[is_known]), group[is_known]
        n = np.bincount(day, minlength=n_days)
        yield Part(name, "moments", n, _add_up(moment_terms(z), day, n_days), is_known)
        terms = fourier_terms(z, fourier["map"][0], fourier_seed(frozen.basis, stratum, name))
        yield Part(f"{name}_fourier", "fourier", n, _add_up(terms, day, n_days), is_known)


def _histogram(name: str, values: Reals, row: Row, group: Wholes, n_days: int) -> Part:
    counts = count(values, np.asarray(row["edges"]), group, n_days)
    is_known = np.isfinite(values)
    sums = _add_up(np.stack([values, values**2], axis=1)[is_known], group[is_known], n_days)
    return Part(name, "histogram", counts.sum(axis=1), np.hstack([counts.astype(np.float64), sums]), is_known)


def _labels(here: PatientDays, group: Wholes, n_days: int) -> Part:
    """Counts of the negative class, the positive class, and of anything else that a reader wrote."""
    assert here.classes is not None
    places = {name: place for place, name in enumerate(here.classes)}
    labels = here.rows.column("label").to_pylist()
    place = np.array([-1 if label is None else places.get(label, 2) for label in labels], dtype=np.intp)
    is_known = place >= 0
    counts = np.bincount(group[is_known] * 3 + place[is_known], minlength=3 * n_days).reshape(n_days, 3)
    return Part("label", "labels", counts.sum(axis=1), counts.astype(np.float64), is_known)


def _add_up(terms: Reals, group: Wholes, n_groups: int) -> Reals:
    """Sums of rows per group, (groups, terms)."""
    sums = np.zeros((n_groups, terms.shape[1]))
    np.add.at(sums, group, terms)
    return sums


def cells_of(rows: pa.Table) -> Cells:
    """Rows of `out__sketch`, of one site, added up per cell."""
    cells: Cells = {}
    for row in rows.to_pylist():
        key = (row["stratum"], row["day"], row["last_day"], row["feature"])
        moments = [row["sum"], row["sum_squares"]] if row["kind"] == "histogram" else []
        added = Sketch(row["kind"], row["n"], np.asarray([*row["sketch"], *moments], dtype=np.float64))
        cells[key] = cells[key] + added if key in cells else added
    return cells


def difference_rows(present: Cells, wanted: Cells) -> list[Row]:
    """What must be added to what is present, in key order; nothing where they agree but for rounding."""
    rows = []
    for key in sorted(present.keys() | wanted.keys()):
        have, want = present.get(key), wanted.get(key)
        sketch = want or have
        assert sketch is not None
        nothing = Sketch(sketch.kind, 0, np.zeros_like(sketch.sums))
        added = (want or nothing) - (have or nothing)
        if not added.is_nothing(sketch.sums):
            rows.append(row_of(key, added))
    return rows


def row_of(key: Key, sketch: Sketch) -> Row:
    """One cell in the columns of `out__sketch`, without whose it is."""
    is_histogram = sketch.kind == "histogram"
    numbers = [float(number) for number in sketch.sums]
    return {
        "stratum": key[0],
        "day": key[1],
        "last_day": key[2],
        "feature": key[3],
        "kind": sketch.kind,
        "n": sketch.n,
        "sum": numbers[-2] if is_histogram else None,
        "sum_squares": numbers[-1] if is_histogram else None,
        "sketch": numbers[:-2] if is_histogram else numbers,
    }


def merge_cells(cells: Iterable[Sketch]) -> Sketch:
    """Their sum, in order."""
    return reduce(Sketch.__add__, cells)


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
