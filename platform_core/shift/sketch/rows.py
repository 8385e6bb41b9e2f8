"""Many rows at once: a wide table of features, counted on fine equal bins of each feature's own range.

For tables that are too long for patient-day sketches or have none: one pass over the columns, one batch in
memory, then the same statistics as on sketches. Every value counts as a row; whoever needs patient-days makes
them first.

Two ways that give the same counts. `count_rows` reads batches and counts them in one compiled loop (where numba is
missing, with NumPy at twice the cost). `count_rows_in_sql` asks DuckDB and nothing else, feature by feature, for
whoever has only an engine of SQL; it takes about three times as long.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from platform_core.queries import Connection, connect, load
from platform_core.shift.risk import Reals, Wholes
from platform_core.shift.sketch.statistics import N_COARSE, PAIRS, ROWS, SKIPPED, SketchComparison, binned_rows, stated

HERE = "platform_core.shift.sketch"
N_FINE = 1024
"""Equal bins of the reference's range: gaps are seen to a thousandth of it."""
BLOCK = 32_768
"""Values worked on at a time, so that they stay in the processor's cache."""
N_BATCH = 131_072
BUFFER_BYTES = 65_536
STRATUM = "all"
"""Rows have one stratum: strata are never mixed, so the caller has chosen one."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Equal bins of one feature; what lies beyond either end has a bin of its own."""

    low: float
    high: float
    n: int = N_FINE

    @property
    def scale(self) -> float:
        """Bins per unit of the feature; 0 for a constant one."""
        return self.n / (self.high - self.low) if self.high > self.low else 0.0


@dataclass(frozen=True)
class RowCounts:
    """Finite values of every site and feature per bin."""

    sites: tuple[str, ...]
    grids: Mapping[str, Grid]
    counts: Mapping[str, npt.NDArray[np.int64]]
    """By feature, (sites, bins + 2): below the range, the bins, above it."""


def reference_grids(reference: pa.Table, features: Sequence[str], *, n: int = N_FINE) -> dict[str, Grid]:
    """The range of each feature, 0.1st to 99.9th percentile of the reference; no grid without finite values."""
    grids = {}
    for name in features:
        values = np.asarray(reference.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)
        known = values[np.isfinite(values)]
        if known.size:
            low, high = np.quantile(known, [0.001, 0.999])
            grids[name] = Grid(float(low), float(high), n)
    return grids


def count_rows(source: ds.Dataset | pa.Table, grids: Mapping[str, Grid], *, by: str = "site") -> RowCounts:
    """Count a wide table in one pass; memory does not grow with its length.

    Args:
        source: One column per feature, and the column `by`.
        grids: Features to count, and their bins.
        by: The column of the unit that is compared; null is no unit.
    """
    places: dict[str, int] = {}
    found = {name: np.zeros(1, np.int64) for name in grids}
    data = ds.dataset(source) if isinstance(source, pa.Table) else source
    # reading ahead would take a GB and, on a busy machine, more processor time than the decoding itself
    scanner = data.scanner(
        [by, *grids],
        batch_size=N_BATCH,
        batch_readahead=0,
        fragment_readahead=0,
        use_threads=False,
        fragment_scan_options=None if isinstance(source, pa.Table) else _a_little_at_a_time(),
    )
    for batch in scanner.to_batches():
        unit = _units(batch.column(0), places)
        starts = {n: _starts(unit, n) for n in {grid.n for grid in grids.values()}}
        for name, grid in grids.items():
            found[name] = _grown(found[name], len(places) * (grid.n + 2) + 1)
            _count(batch.column(name).to_numpy(zero_copy_only=False), starts[grid.n], grid, found[name])
    sites = sorted(places)
    order = [places[site] for site in sites]
    counts = {name: each[:-1].reshape(-1, grids[name].n + 2)[order] for name, each in found.items()}
    return RowCounts(tuple(sites), dict(grids), counts)


def count_rows_in_sql(db: Connection, table: str, grids: Mapping[str, Grid], *, by: str = "site") -> RowCounts:
    """As `count_rows`, by DuckDB alone; `table` is a relation that `db` knows."""
    answers = {}
    for name, grid in grids.items():
        db.register("chosen", db.table(table).project(f"{_column(by, 'unit')}, {_column(name, 'value')}"))
        answers[name] = load(HERE, "row_counts").run(db, low=grid.low, scale=grid.scale, bins=grid.n)
    sites = sorted({unit for rows in answers.values() for unit in rows.column("unit").to_pylist()})
    counts = {name: _table(answers[name], sites, grid.n + 2) for name, grid in grids.items()}
    return RowCounts(tuple(sites), dict(grids), counts)


def compare_rows(counts: RowCounts, pairs: Iterable[tuple[str, str]], *, n_coarse: int = N_COARSE) -> SketchComparison:
    """PSI, Jensen-Shannon, Kolmogorov-Smirnov and Wasserstein of pairs of sites, the state to start from first.

    Coarse bins hold about equal shares of all rows together. Agreement with the rows' own statistics: see
    `ks.sql` and `wasserstein.sql`; a bin is 1/1024 of the range.
    """
    wanted = pa.Table.from_pylist([{"first": first, "second": second} for first, second in pairs], schema=PAIRS)
    totals = _totals(counts)
    tables = {"totals": totals.filter(pc.field("n") > 1), "pair": wanted, "reference": _bins(counts)}
    with connect(tables) as db:
        db.register("bins", load(HERE, "bins").run(db, bins=n_coarse))
        rows = stated(binned_rows(db), totals) if len(totals) else ROWS.empty_table()
        db.register("totals_of_all", totals)
        skipped = load(HERE, "skipped").run(db, least=2).cast(SKIPPED)
    return SketchComparison(rows, skipped)


def _a_little_at_a_time() -> ds.ParquetFragmentScanOptions:
    """Of a file, whole column chunks would be copied through memory first: a third more processor time, measured."""
    return ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=BUFFER_BYTES)


def _units(column: pa.Array, places: dict[str, int]) -> Wholes:
    """The place of each row's unit, in order of first appearance; -1 for null."""
    coded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    names = coded.dictionary.to_pylist()
    known = np.array([places.setdefault(str(name), len(places)) for name in names] or [-1], dtype=np.intp)
    codes = coded.indices
    if not codes.null_count:
        return np.asarray(known[codes.to_numpy()])
    found: Wholes = np.where(codes.is_valid(), known[codes.fill_null(0).to_numpy()], -1)
    return found


def _starts(unit: Wholes, n: int) -> npt.NDArray[np.int32]:
    """The place of each row's first bin among those of all units; -1 for a row of no unit."""
    starts: npt.NDArray[np.int32] = np.where(unit >= 0, unit * (n + 2), -1).astype(np.int32)
    return starts


def _grown(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Room for the bins of more units; the last place, of what is in no bin, begins anew."""
    return counts if size <= counts.size else np.append(counts[:-1], np.zeros(size - counts.size + 1, np.int64))


@cache
def compiled_tally() -> Any:
    """The compiled loop; None where numba is missing or does not go with this NumPy."""
    try:
        from platform_core.shift.sketch.tally import tally
    except ImportError:
        return None
    return tally


def _count(values: npt.NDArray[Any], start: npt.NDArray[np.int32], grid: Grid, counts: npt.NDArray[np.int64]) -> None:
    """Add one batch of one feature; arguments as in `tally.py`, but values of any number type."""
    tally = compiled_tally()
    if tally is not None and grid.scale:
        tally(np.ascontiguousarray(values, np.float64), start, grid.low, grid.scale, grid.n, counts)
        return
    for first in range(0, len(values), BLOCK):
        block, base = values[first : first + BLOCK], start[first : first + BLOCK]
        is_known = np.isfinite(block) & (base >= 0)
        way = np.empty(int(is_known.sum()), np.float64)
        bins_of(block[is_known], grid, way)
        cell = base[is_known] + 1 + way.astype(np.intp)
        counts += np.bincount(cell, minlength=counts.size)


def bins_of(values: Reals, grid: Grid, way: Reals) -> None:
    """Write the bin of each finite value into `way`: -1 below the range, 0, 1, ..., n above it.

    A bin begins with its lower edge. Of a constant, what equals it is in bin 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(values, grid.low, out=way, dtype=np.float64)
        way *= grid.scale or np.inf
    if not grid.scale:
        np.nan_to_num(way, copy=False, nan=0.0)
    np.floor(way, out=way)
    # before the cast, unlike in SQL: what no integer holds would wrap round, and within a block it costs little
    np.maximum(way, -1, out=way)
    np.minimum(way, grid.n if grid.scale else 1, out=way)


def _column(name: str, called: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}" AS {called}'


def _table(rows: pa.Table, sites: Sequence[str], n_bins: int) -> npt.NDArray[np.int64]:
    counts = np.zeros((len(sites), n_bins), np.int64)
    unit = np.searchsorted(np.asarray(sites, dtype=np.str_), np.asarray(rows.column("unit").to_pylist(), dtype=np.str_))
    counts[unit, rows.column("bin").to_numpy()] = rows.column("n").to_numpy()
    return counts


def _totals(counts: RowCounts) -> pa.Table:
    """One row per site and feature, as sketches have them."""
    rows = [
        {"unit": site, "feature": name, "n": int(each[i].sum()), "sketch": each[i].astype(np.float64).tolist()}
        for name, each in counts.counts.items()
        for i, site in enumerate(counts.sites)
        if each[i].any()
    ]
    fixed = {"stratum": STRATUM, "kind": "histogram"}
    return pa.Table.from_pylist([row | fixed for row in rows], schema=TOTALS)


def _bins(counts: RowCounts) -> pa.Table:
    """The edges, and the counts of all sites together, as a reference has them."""
    rows = [
        {
            "feature": name,
            "edges": np.linspace(grid.low, grid.high, grid.n + 1).tolist(),
            "n": int(counts.counts[name].sum()),
            "sketch": counts.counts[name].sum(axis=0).astype(np.float64).tolist(),
        }
        for name, grid in counts.grids.items()
        if counts.counts[name].any()
    ]
    fixed = {"stratum": STRATUM, "kind": "histogram"}
    return pa.Table.from_pylist([row | fixed for row in rows], schema=BINS)


TOTALS = pa.schema(
    [
        *((name, pa.string()) for name in ("unit", "stratum", "feature", "kind")),
        ("n", pa.int64()),
        ("sketch", pa.list_(pa.float64())),
    ]
)
BINS = pa.schema(
    [
        *((name, pa.string()) for name in ("stratum", "feature", "kind")),
        ("edges", pa.list_(pa.float64())),
        ("n", pa.int64()),
        ("sketch", pa.list_(pa.float64())),
    ]
)
