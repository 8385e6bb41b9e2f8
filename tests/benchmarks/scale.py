"""How many rows can be compared, and what a night costs: ours, DuckDB's bare scan, pandas with SciPy, Evidently.

    python -m tests.benchmarks.scale [--rows 2000000] [--rounds 3] [--evidently VENV/bin/python]

Makes a wide Parquet table of normal numbers (8 sites, 30 features; 240 bytes a row) and compares seven sites with
the first by PSI, Jensen-Shannon, Kolmogorov-Smirnov and Wasserstein. Everybody runs in a process of its own, in
turns; printed are medians of CPU seconds (user and system, all threads, without imports) and peak memory, from the
file to the numbers; the bins are the reference's, made before. What
would take too long is given fewer rows or features, and scaled; the line says so.

Then the sketches of 50 sites and 30 features over one year and over ten: what a nightly check costs.

Evidently needs an environment of its own: `python -m venv V && V/bin/pip install evidently "pandas<3"`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
N_SITES, N_FEATURES = 8, 30
CHUNK = 250_000
FEATURES = [f"f{i:02d}" for i in range(N_FEATURES)]
SITES = [f"s{i}" for i in range(N_SITES)]
PAIRS = [(SITES[0], site) for site in SITES[1:]]
PANDAS_ROWS = 200_000
HOSPITALS, PERIOD, NIGHTS = 50, 28, 6
"""Sketches: hospitals, days of a period, nights since small files were last merged."""
BINS = 66


def main() -> None:
    """Make the rows, let everybody take turns, print; then the nights."""
    options = _asked()
    if options.one:
        print(json.dumps(measured(options.one, Path(options.file), options.count)))
        return
    with tempfile.TemporaryDirectory(prefix="sitedrift-scale-", dir=options.folder) as folder:
        rows_part(Path(folder), options)
        if not options.rows_only:
            for years in (1, 10):
                night_part(Path(folder), years, options.rounds)


def _asked() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", type=int, default=2_000_000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--evidently", help="the Python of an environment that has Evidently")
    asked.add_argument(
        "--evidently-features", type=int, default=1, help="features that Evidently is given; scaled to 30"
    )
    asked.add_argument("--folder", help="where the files lie meanwhile; default: the system's")
    asked.add_argument("--rows-only", action="store_true")
    for hidden in ("--one", "--file"):
        asked.add_argument(hidden, help=argparse.SUPPRESS)
    asked.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    return asked.parse_args()


def rows_part(folder: Path, options: argparse.Namespace) -> None:
    """Everybody on the same rows, then our slope."""
    file = write_rows(folder / "rows.parquet", options.rows)
    small = write_rows(folder / "small.parquet", max(options.rows // 4, 1))
    print(
        f"{options.rows:,} rows x {N_FEATURES} features x {N_SITES} sites, {file.stat().st_size / 1e9:.1f} GB Parquet;"
    )
    print(f"four statistics of {len(PAIRS)} pairs of sites; medians of {options.rounds} rounds in turns, CPU seconds\n")
    crew = {"DuckDB, bare scan": ("scan", file), "sitedrift": ("ours", file), "sitedrift, SQL alone": ("sql", file)}
    taken = {name: [] for name in (*crew, "sitedrift, a quarter")}  # type: dict[str, list[dict[str, float]]]
    for _ in range(options.rounds):
        for name, (one, where) in crew.items():
            taken[name].append(child(one, where))
        taken["sitedrift, a quarter"].append(child("ours", small))
    scan, ours = (_median(taken[name]) for name in ("DuckDB, bare scan", "sitedrift"))
    for name in crew:
        _print(name, _median(taken[name]), scan, ours, taken[name])
    share = options.rows / min(PANDAS_ROWS, options.rows)
    pandas = child("pandas", file, min(PANDAS_ROWS, options.rows))
    _print(
        "pandas + SciPy", pandas["cpu_s"] * share, scan, ours, [pandas], f"{share:.0f} x that of {PANDAS_ROWS:,} rows"
    )
    evidently(options, file, scan, ours)
    near = f"{pandas['ks']:.5f} of KS, {pandas['w1']:.5f} SD of W1"
    print(f"\nlargest difference from SciPy on {PANDAS_ROWS:,} rows: {near}")
    quarter = _median(taken["sitedrift, a quarter"])
    slope = (ours - quarter) / (options.rows - options.rows // 4) * 1e6
    told = f"a billion rows would take {slope * 1000 / 60:.0f} CPU minutes and the same memory"
    print(f"slope {slope:.3f} CPU s per million rows from {options.rows // 4:,} rows on; extrapolated: {told}")


def evidently(options: argparse.Namespace, file: Path, scan: float, ours: float) -> None:
    """Evidently on the same rows, all of them, of a few features."""
    if not options.evidently:
        print("  Evidently: not measured; give the Python of an environment that has it with --evidently")
        return
    try:
        found = child("evidently", file, options.evidently_features, python=options.evidently)
    except subprocess.CalledProcessError as error:
        print(f"  Evidently could not be run: {(error.stderr or '').strip().splitlines()[-1:]}")
        return
    share = N_FEATURES / options.evidently_features
    note = f"{share:.0f} x that of {options.evidently_features} features, all rows"
    _print(f"Evidently {found['version']}", found["cpu_s"] * share, scan, ours, [found], note)


def _median(taken: list[dict[str, float]]) -> float:
    return statistics.median(each["cpu_s"] for each in taken)


def _print(name: str, cpu_s: float, scan: float, ours: float, taken: list[dict[str, Any]], note: str = "") -> None:
    peak = max(each["peak_mb"] for each in taken)
    told = f"  {name:22s} {cpu_s:9.2f} s   {cpu_s / scan:7.2f} x the scan   {cpu_s / ours:7.1f} x ours"
    print(f"{told}   peak {peak:5.0f} MB   {note}")


def write_rows(file: Path, n_rows: int) -> Path:
    """Normal numbers, site by site a little further away; sites are mixed, as scans arrive."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("site", pa.dictionary(pa.int32(), pa.string())), *((name, pa.float64()) for name in FEATURES)])
    with pq.ParquetWriter(file, schema, use_dictionary=["site"]) as out:
        for start in range(0, n_rows, CHUNK):
            n = min(CHUNK, n_rows - start)
            site = rng.integers(N_SITES, size=n).astype(np.int32)
            numbers = [rng.normal(size=n) + 0.01 * site for _ in FEATURES]
            codes = pa.DictionaryArray.from_arrays(site, pa.array(SITES))
            out.write_table(pa.table([codes, *numbers], schema=schema))
    return file


def child(one: str, file: Path, count: int = 0, python: str = sys.executable) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    command = [python, str(Path(__file__)), "--one", one, "--file", str(file), "--count", str(count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def measured(one: str, file: Path, count: int) -> dict[str, Any]:
    """What a contender costs, and what it found."""
    run = CREW[one](file, count)
    before = _used()
    found = run() or {}
    return {"cpu_s": _used() - before, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, **found}


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


Run = Callable[[], dict[str, Any] | None]


def scan(file: Path, _: int) -> Run:
    """Every value of the columns once, per site; DuckDB answers a minimum from the file's statistics alone."""
    import duckdb

    db = duckdb.connect()
    sums = ", ".join(f"sum({name})" for name in FEATURES)

    def run() -> None:
        db.sql(f"SELECT site, {sums} FROM '{file}' GROUP BY site").fetchall()

    return run


def _grids(file: Path) -> dict[str, Any]:
    """As they are frozen with a reference: once, not nightly."""
    from platform_core.shift.sketch.rows import reference_grids

    first = pq.ParquetFile(file).read_row_group(0)
    return reference_grids(first.filter(pa.compute.equal(first.column("site"), SITES[0])), FEATURES)


def ours(file: Path, _: int) -> Run:
    """One pass, counted in one compiled loop."""
    import scipy.stats  # noqa: F401 - its import is nobody's work

    from platform_core.shift.sketch.rows import compare_rows, compiled_tally, count_rows

    compiled_tally()
    grids = _grids(file)

    def run() -> None:
        assert len(compare_rows(count_rows(ds.dataset(file), grids), PAIRS).rows) == 4 * N_FEATURES * len(PAIRS)

    return run


def sql(file: Path, _: int) -> Run:
    """Feature by feature in DuckDB."""
    import scipy.stats  # noqa: F401 - its import is nobody's work

    from platform_core.queries import connect
    from platform_core.shift.sketch.rows import compare_rows, count_rows_in_sql

    db = connect({})
    db.sql(f"CREATE VIEW wide AS FROM '{file}'")
    grids = _grids(file)

    def run() -> None:
        assert len(compare_rows(count_rows_in_sql(db, "wide", grids), PAIRS).rows) == 4 * N_FEATURES * len(PAIRS)

    return run


def with_pandas(file: Path, n_rows: int) -> Run:
    """As a notebook would: groups, histograms, SciPy's exact distances; and how far ours are from them."""
    from scipy.stats import ks_2samp, wasserstein_distance

    from platform_core.shift.sketch.rows import compare_rows, count_rows

    table = ds.dataset(file).head(n_rows)
    grids = _grids(file)
    near = {
        (r["second"], r["feature"], r["statistic"]): r["value"]
        for r in _near(compare_rows(count_rows(table, grids), PAIRS))
    }

    def run() -> dict[str, float]:
        import pandas as pd

        frame = table.to_pandas()
        assert isinstance(frame, pd.DataFrame)
        groups = dict(list(frame.groupby("site", observed=True)))
        apart: dict[str, list[float]] = {"ks": [], "w1": []}
        for first, second in PAIRS:
            for name in FEATURES:
                x, y = groups[first][name].to_numpy(), groups[second][name].to_numpy()
                edges = np.quantile(x, np.linspace(0, 1, 11)[1:-1])
                p, q = (np.bincount(np.searchsorted(edges, each), minlength=10) / len(each) for each in (x, y))
                _ = np.sum((q - p) * np.log(q / p)), np.sum(p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)))
                apart["ks"].append(abs(ks_2samp(x, y, method="asymp").statistic - near[second, name, "ks"]))
                apart["w1"].append(abs(wasserstein_distance(x, y) - near[second, name, "wasserstein"]))
        return {name: max(values) for name, values in apart.items()}

    return run


def _near(comparison: Any) -> list[dict[str, Any]]:
    return list(comparison.rows.to_pylist())


def with_evidently(file: Path, n_features: int) -> Run:
    """The same four statistics of the same pairs."""
    import evidently  # type: ignore[import-not-found]
    from evidently import Report
    from evidently.metrics import ValueDrift  # type: ignore[import-not-found]

    chosen = FEATURES[:n_features]
    methods = ("psi", "jensenshannon", "ks", "wasserstein")
    report = Report([ValueDrift(column=name, method=method) for name in chosen for method in methods])

    def run() -> dict[str, Any]:
        frame = pq.read_table(file, columns=["site", *chosen]).to_pandas()
        groups = {site: group[chosen] for site, group in frame.groupby("site", observed=True)}
        for first, second in PAIRS:
            report.run(groups[second], groups[first]).dict()
        return {"version": evidently.__version__}

    return run


def night_part(folder: Path, years: int, rounds: int) -> None:
    """A history of sketches, and what is read of it every night."""
    place = folder / f"years{years}"
    write_history(place, years * 365)
    taken = [child("night", place, years * 365) for _ in range(rounds)]
    files, size = _live(place)
    cpu, wall = (statistics.median(each[name] for each in taken) for name in ("cpu_s", "wall_s"))
    peak = max(each["peak_mb"] for each in taken)
    told = (
        f"\n{years} years of {HOSPITALS} sites x {N_FEATURES} features ({size:.0f} MB in {files} files): nightly check"
    )
    print(f"{told} {wall:.2f} s, {cpu:.2f} CPU s, peak {peak:.0f} MB, {taken[0]['n']} distances", flush=True)


def _live(place: Path) -> tuple[int, float]:
    """Files of the table as it is now, and MB of them."""
    from platform_core import layout
    from platform_core.manifest.schemas import SCHEMAS
    from platform_core.storage.tables import Lake

    files = Lake(f"{place}/{layout.LAKE}", SCHEMAS).dataset(layout.SKETCH).files
    return len(files), sum((place / layout.LAKE / layout.SKETCH / file).stat().st_size for file in files) / 1e6


def write_history(place: Path, n_days: int) -> None:
    """Every site's backlog by years, merged `NIGHTS` nights ago; since then it wrote one small file a night."""
    from platform_core import layout
    from platform_core.manifest.schemas import REFERENCE, SCHEMAS, SKETCH
    from platform_core.storage.tables import Lake, rows_of

    lake = Lake(f"{place}/{layout.LAKE}", SCHEMAS)
    counts = np.random.default_rng(0).poisson(20 / BINS, size=(n_days, N_FEATURES, BINS)).astype(np.float64)
    about = {"reference": "model@1", "recipe": "native", "stratum": "ct", "kind": "histogram", "run": "r"}
    edges = np.linspace(-3, 3, BINS - 1).tolist()
    reference = [about | {"feature": name, "edges": edges, "n": 66 * 30, "sketch": [30.0] * BINS} for name in FEATURES]
    lake.append(layout.REFERENCE, rows_of(REFERENCE, reference), transaction="reference")
    old = [*range(0, n_days - NIGHTS, 365), n_days - NIGHTS]
    recent = range(n_days - NIGHTS, n_days + 1)
    for spans in (list(pairwise(old)), list(pairwise(recent))):
        for first, last in spans:
            sites = [_sketch_rows(counts[first:last], first, f"h{i:02d}", first, SKETCH) for i in range(HOSPITALS)]
            lake.append(layout.SKETCH, pa.concat_tables(sites), transaction=str(first))
        if spans[-1][1] < n_days:
            lake.compact(layout.SKETCH)


def _sketch_rows(counts: np.ndarray, first: int, site: str, entry: int, schema: pa.Schema) -> pa.Table:
    flat = counts.reshape(-1, BINS)
    n = len(flat)
    day = pa.array(np.datetime64(FIRST_DAY) + first + np.repeat(np.arange(len(counts)), N_FEATURES))
    columns = {
        **{name: [text] * n for name, text in FIXED.items()},
        "site": [site] * n,
        "day": day,
        "last_day": day,
        "feature": FEATURES * len(counts),
        "n": flat.sum(axis=1).astype(np.int64),
        "sum": flat.sum(axis=1),
        "sum_squares": flat.sum(axis=1),
        "sketch": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * BINS), flat.ravel()),
        "entry": [entry] * n,
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


FIRST_DAY = date(2016, 1, 1)
FIXED = {"stratum": "ct", "recipe": "native", "reference": "model@1", "kind": "histogram", "run": "r"}


def night(place: Path, n_days: int) -> Run:
    """The period of every site against the reference."""
    import scipy.stats  # noqa: F401 - its import is nobody's work

    from platform_core.manifest.workspace import Workspace
    from platform_core.shift.sketch.patient_days import Basis
    from platform_core.shift.sketch.references import read_reference
    from platform_core.shift.sketch.sketches import sum_sketches
    from platform_core.shift.sketch.statistics import compare_sketches

    workspace, basis = Workspace(str(place)), Basis(reference="model@1")
    last = FIRST_DAY + timedelta(days=n_days - 1)

    def run() -> dict[str, Any]:
        started = time.monotonic()
        frozen = read_reference(workspace, basis)
        current = sum_sketches(workspace, basis, days=(last - timedelta(days=PERIOD - 1), last))
        totals = pa.concat_tables([frozen.totals().cast(current.schema), current])
        rows = compare_sketches(totals, frozen, [(basis.reference, f"h{i:02d}") for i in range(HOSPITALS)]).rows
        return {"wall_s": time.monotonic() - started, "n": len(rows)}

    return run


CREW: dict[str, Callable[[Path, int], Run]] = {
    "scan": scan,
    "ours": ours,
    "sql": sql,
    "pandas": with_pandas,
    "evidently": with_evidently,
    "night": night,
}

if __name__ == "__main__":
    began = time.monotonic()
    main()
    if "--one" not in sys.argv:
        print(f"\n{time.monotonic() - began:.0f} s in all")
