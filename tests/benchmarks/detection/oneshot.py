"""M2: how often does the onboarding test tell that a site's scanner is another one, or that more patients are ill?

2,000 labelled reference patients and n of the site, all features as scanned and the model's score, one look. Patients
of both are drawn anew, without replacement, from the pool; no patient is in both. Beside it, of the same numbers:
Kolmogorov-Smirnov tests at 5 % shared by Bonferroni, any PSI above 0.2, and Evidently's default.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from platform_core.shift.onboarding import one_shot
from platform_core.shift.scored_patients import ScoredPatients
from tests.benchmarks.detection.operators import HELD_OUT, NONE, PREVALENCE, PREVALENCES, SCANNER_OPERATORS, STRENGTHS
from tests.benchmarks.detection.pool import Pool, Rows, World, load_pool
from tests.benchmarks.detection.practice import evidently_flags, ks_flags, psi
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate, total

M2 = FROZEN["m2"]
METRIC = "M2"
METHODS = {
    "ks": "KS, Bonferroni over features",
    "psi": "any PSI > 0.2",
    "evidently": "Evidently's default: half of the features drift",
}


def cells(*, is_quick: bool) -> list[Cell]:
    """Every world at every number of scans, and the untouched one more often; the held-out family in full runs only."""
    sizes = M2["quick_n"] if is_quick else M2["n"]
    n_cells = 1 if is_quick else M2["cells"]
    worlds: list[World] = [
        (name, s) for name in SCANNER_OPERATORS for s in STRENGTHS if name != HELD_OUT or not is_quick
    ]
    plan = [(name_of(world, n), world, n, PREVALENCE) for world in worlds for n in sizes]
    plan += [(name_of(NONE, n), NONE, n, PREVALENCE) for n in sizes]
    plan += [(name_of(("prevalence", 1), n), NONE, n, PREVALENCES[1]) for n in sizes]
    return [
        Cell(metric=METRIC, name=name, index=i, run=partial(_run, world, n, prevalence, is_quick))
        for name, world, n, prevalence in plan
        for i in range(n_cells)
    ]


def name_of(world: World, n: int) -> str:
    """`psf 1, 25 scans`."""
    return f"{world[0]} {world[1]}, {n} scans"


def _run(world: World, n: int, prevalence: float, is_quick: bool, seed: int) -> Numbers:
    pool, found = pool_of(is_quick), dict.fromkeys(("one_shot", *METHODS), 0.0)
    n_repeated = M2["null_repetitions" if world == NONE and prevalence == PREVALENCE else "repetitions"]
    for i in range(n_repeated):
        rng = np.random.default_rng([seed, i])
        site = pool.pick(rng, n, prevalence, np.arange(pool.n_of(world)))
        reference = pool.pick(rng, min(M2["n_reference"], len(pool.y) - 2 * n), PREVALENCE, pool.without(site))
        before, after = patients(pool, NONE, reference), patients(pool, world, site)
        told = one_shot(before, after, alpha=FROZEN["alpha"]["site"], seed=seed + i)
        found["one_shot"] += told.is_different
        for method, flag in flags(before, after).items():
            found[method] += flag
    return found | {"n": float(n_repeated)}


def patients(pool: Pool, world: World, rows: Rows) -> ScoredPatients:
    """Rows of the pool as the onboarding test takes them."""
    return ScoredPatients(
        features=pool.features, values=pool.values[world][rows], score=pool.score[world][rows], y=pool.y[rows]
    )


def flags(before: ScoredPatients, after: ScoredPatients) -> Mapping[str, bool]:
    """What ordinary practice says of the same patients; features that few have are left out, as by the test."""
    columns = [np.column_stack([side.values, np.asarray(side.score)]).T for side in (before, after)]
    pairs = [(b[np.isfinite(b)], np.sort(a[np.isfinite(a)])) for b, a in zip(*columns, strict=True)]
    pairs = [(b, a) for b, a in pairs if min(len(b) / len(before), len(a) / len(after)) >= M2["least_known"]]
    alpha = FROZEN["alpha"]["site"] / len(pairs)
    practice = FROZEN["practice"]
    return {
        "ks": any(ks_flags(a[None], b, alpha)[0] for b, a in pairs),
        "psi": any(psi(a[None], b, practice["psi_bins"])[0] > practice["psi"] for b, a in pairs),
        "evidently": np.mean([evidently_flags(a[None], b)[0] for b, a in pairs]) >= M2["evidently_share"],
    }


@cache
def pool_of(is_quick: bool) -> Pool:
    """The rendered pool, read once."""
    return load_pool(quick=is_quick)


def lines(rows: Sequence[Row]) -> list[Line]:
    """Power over all worlds, per family, the size, and the change of prevalence."""
    mine = of_metric(rows, METRIC)
    sizes = sorted({int(row.cell.split(", ")[1].split()[0]) for row in mine})
    found: list[Line] = []
    for n in sizes:
        of_n = [row for row in mine if row.cell.endswith(f", {n} scans")]
        shifted = [row for row in of_n if row.cell.split()[0] in SCANNER_OPERATORS]
        bar = M2["bars"].get(str(n))
        found.append(_power(shifted, f"one-shot power at 5 %, {n} scans, mean over scanner operators", bar))
        found += [_power(of_name(shifted, name), f"  {name}, {n} scans") for name in SCANNER_OPERATORS]
        found.append(_power(of_name(of_n, "none"), f"one-shot size, {n} scans: no shift"))
        is_asked = n == M2["prevalence_n"]
        what = f"one-shot power at 5 %, {n} scans, prevalence .30 to .45"
        found.append(_power(of_name(of_n, "prevalence"), what, M2["prevalence_bar"] if is_asked else None))
    return [line for line in found if line.n]


def of_name(rows: Sequence[Row], name: str) -> list[Row]:
    """Rows of one operator."""
    return [row for row in rows if row.cell.split()[0] == name]


def _power(rows: Sequence[Row], what: str, bar: float | None = None) -> Line:
    beside = {told: mean_share(rows, (method,)) for method, told in METHODS.items()} if rows else {}
    return mean_rate(METRIC, what, rows, ("one_shot",), bar=bar, beside=beside)


def mean_rate(metric: str, what: str, rows: Sequence[Row], names: Sequence[str], **more: object) -> Line:
    """The mean of the cells' rates, so that a cell that was drawn more often counts no more.

    The interval is Clopper and Pearson's for as many repetitions at that rate; operators that were applied to the same
    patients draw the same of them, so it is somewhat narrow.
    """
    n, share = total(rows, "n"), mean_share(rows, names)
    return replace(rate(metric, what, round(share * n) if n else 0, n, way="at least", **more), value=share)


def mean_share(rows: Sequence[Row], names: Sequence[str]) -> float:
    """Repetitions that ended with one of the names, as a share of each cell's, mean over cells; NaN without a row."""
    by_cell: dict[str, list[Row]] = {}
    for row in rows:
        by_cell.setdefault(row.cell, []).append(row)
    shares = [sum(total(its, name) for name in names) / total(its, "n") for its in by_cell.values()]
    return sum(shares) / len(shares) if shares else math.nan
