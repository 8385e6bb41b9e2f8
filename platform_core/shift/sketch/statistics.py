"""Distances between sketches: what was counted, what chance alone would give, and an interval.

Every statistic of a finite sample is above 0 where nothing changed, the more so the smaller the sample. So
each comes with its mean under no change at these sample sizes (`expected`), with what is left (`excess`),
and with a 95 % interval for the distance of the populations. Intervals are by the delta method over
multinomial counts, with the spread that remains under no change added (`sketch_*.sql`); nothing is resampled, so
a check of thousands of features takes no longer than reading them.

What cannot be compared is skipped with a reason, and no number that is given is NaN.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core.queries import Connection, connect, load
from platform_core.shift.risk import Reals
from platform_core.shift.sketch.frechet import frechet_rows
from platform_core.shift.sketch.references import Frozen

HERE = "platform_core.shift.sketch"
N_COARSE = 10
"""Bins of the two divergences: more make their own noise."""
MIN_PATIENTS = 2
MANY = 100
"""Effective rows from which Stephens' correction of Kolmogorov's limit is as good as the exact distribution, and far
cheaper (1970, doi:10.1111/j.2517-6161.1970.tb00821.x)."""
Z = 1.959964
"""Standard normal quantile of a 95 % interval."""
BINNED = ("psi", "jensen_shannon", "ks", "wasserstein")
"""On histograms."""
IS_SUMMED = ("psi", "jensen_shannon", "coral", "frechet")
"""Sums of squares: chance adds its mean to them. To a gap or an area it adds less, the larger the shift."""

NAMES = ("first", "second", "stratum", "feature")
ROWS = pa.schema(
    [
        *((name, pa.string()) for name in (*NAMES, "statistic")),
        *((name, pa.float64()) for name in ("value", "expected", "excess", "low", "high", "evidence")),
        ("n_first", pa.int64()),
        ("n_second", pa.int64()),
    ]
)
"""`evidence` is the p-value, null where no distribution under no change is known."""
SKIPPED = pa.schema([*((name, pa.string()) for name in (*NAMES, "reason"))])
PAIRS = pa.schema([("first", pa.string()), ("second", pa.string())])


@dataclass(frozen=True, slots=True)
class SketchComparison:
    """Every statistic of every pair, and what could not be compared."""

    rows: pa.Table
    """In `ROWS`."""
    skipped: pa.Table
    """In `SKIPPED`; the reason is `no_values`, `few_values`, or `constant` (then only `wasserstein` is missing)."""


def compare_sketches(
    totals: pa.Table, frozen: Frozen, pairs: Iterable[tuple[str, str]], *, n_coarse: int = N_COARSE
) -> SketchComparison:
    """Compare pairs of units in every stratum and feature that the first of them has.

    Args:
        totals: What `sum_sketches` returned; for the reference itself as a unit, `Frozen.totals` appended to it.
        frozen: The reference on whose edges and maps they are.
        pairs: Units, the state to start from first.
        n_coarse: Bins of the divergences.
    """
    wanted = pa.Table.from_pylist([{"first": first, "second": second} for first, second in pairs], schema=PAIRS)
    usable = totals.filter(pc.field("n") >= MIN_PATIENTS)
    with connect({"totals": usable, "pair": wanted, "reference": frozen.rows, "spectrum": _spectra(frozen)}) as db:
        db.register("bins", load(HERE, "bins").run(db, bins=n_coarse))
        found = binned_rows(db)
        found["mmd"] = load(HERE, "mmd").run(db)
        found["coral"] = load(HERE, "coral").run(db)
        found["frechet"] = frechet_rows(usable, wanted)
        db.register("totals_of_all", totals)
        skipped = load(HERE, "skipped").run(db, least=MIN_PATIENTS).cast(SKIPPED)
    return SketchComparison(stated(found, totals), skipped)


def binned_rows(db: Connection) -> dict[str, pa.Table]:
    """The four statistics on histograms, named; `db` knows `totals`, `pair` and `bins`."""
    matched = load(HERE, "matched").run(db)
    db.register("matched", matched)
    db.register("compared", load(HERE, "compared").run(db))
    db.register("shares", load(HERE, "shares").run(db))
    names = matched.select(NAMES)
    found = {}
    for name in BINNED:
        rows = load(HERE, f"{name}").run(db)
        about = names.take(rows.column("comparison"))
        found[name] = pa.table({**dict(zip(NAMES, about.columns, strict=True)), **_columns(rows)})
    return found


def _columns(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: rows.column(name) for name in rows.column_names if name != "comparison"}


def stated(found: Mapping[str, pa.Table], totals: pa.Table) -> pa.Table:
    """Rows of `ROWS` from what the queries returned, in order of pair, stratum, feature and statistic."""
    counts = totals.select(["unit", "stratum", "feature", "n"]).to_pylist()
    n = {(row["unit"], row["stratum"], row["feature"]): row["n"] for row in counts}
    tables = [_stated(name, table, n) for name, table in found.items() if len(table)]
    rows = pa.concat_tables([ROWS.empty_table(), *tables])
    return rows.sort_by([(name, "ascending") for name in (*NAMES, "statistic")])


def _stated(name: str, table: pa.Table, n: Mapping[tuple[str, str, str], int]) -> pa.Table:
    value, expected, se = (_reals(table, column) for column in ("value", "expected", "se"))
    excess = np.maximum(value - expected, 0)
    low = np.maximum(value - expected - Z * se, 0)
    high = (excess if name in IS_SUMMED else np.maximum(value, 0)) + Z * se
    if name in ("ks", "jensen_shannon"):
        high = np.minimum(high, 1)
    first, second, stratum, feature = (table.column(column).to_pylist() for column in NAMES)
    return pa.table(
        {
            **{column: table.column(column) for column in NAMES},
            "statistic": [name] * len(table),
            "value": value,
            "expected": expected,
            "excess": excess,
            "low": low,
            "high": high,
            "evidence": _evidence(name, table, value),
            "n_first": [n[key] for key in zip(first, stratum, feature, strict=True)],
            "n_second": [n[key] for key in zip(second, stratum, feature, strict=True)],
        },
        schema=ROWS,
    )


def _evidence(name: str, table: pa.Table, value: Reals) -> pa.Array:
    """Chance of so large a value if both are of one population."""
    from scipy.special import kolmogorov
    from scipy.stats import chi2, kstwo

    if name not in ("psi", "jensen_shannon", "ks", "mmd"):
        return pa.nulls(len(table), pa.float64())
    degrees, scale = _reals(table, "degrees"), _reals(table, "scale")
    if name == "ks":
        n = np.maximum(np.round(degrees), 1)
        few = n <= MANY
        p = kolmogorov((np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)) * value)
        p[few] = kstwo.sf(np.minimum(value[few], 1), n[few].astype(int))
    else:
        shift = _reals(table, "shift") if name == "mmd" else 0.0
        p = np.where(degrees > 0, chi2.sf((value + shift) / scale, np.maximum(degrees, 1e-9)), 1.0)
    return pa.array(np.clip(p, 0, 1))


def _reals(table: pa.Table, column: str) -> Reals:
    return np.asarray(table.column(column).to_numpy(), dtype=np.float64)


def _spectra(frozen: Frozen) -> pa.Table:
    rows = frozen.rows.filter(pc.field("kind") == "fourier").to_pylist()
    columns: dict[str, Sequence[object]] = {name: [row[name] for row in rows] for name in ("stratum", "feature")}
    numbers = {name: [row["map"][place] for row in rows] for place, name in enumerate(SPECTRUM, start=1)}
    return pa.table(columns | numbers, schema=pa.schema([*TEXTS, *((name, pa.float64()) for name in SPECTRUM)]))


SPECTRUM = ("trace", "trace_squares", "top")
TEXTS = (("stratum", pa.string()), ("feature", pa.string()))
