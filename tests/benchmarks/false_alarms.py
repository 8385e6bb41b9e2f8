"""How often does a site at which nothing changes ever alarm? The promise, with the nuisances of a real hospital.

    python -m tests.benchmarks.false_alarms --quick
    python -m tests.benchmarks.false_alarms --sites 200 --checks 1000 --processes 2

Every site sends about 25 patients a day for `--checks` days; eight features, a reference of 40 days of its own. It is
checked every day by the platform's ranks, bets and wealth, and by two common practices in the same run: a two-sample
Kolmogorov-Smirnov test of the last 100 scans (Bonferroni over the features), and PSI > 0.2 on ten bins of them.
Rows go to a CSV as they come, so a run that was cut off goes on where it stopped. Intervals are Clopper-Pearson.
"""

import argparse
import csv
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core.shift.risk import Reals
from platform_core.shift.watch.conformal import conformal_ranks
from platform_core.shift.watch.power import first_crossing
from platform_core.shift.watch.ranks import VALUES, units_of
from platform_core.shift.watch.wealth import share

ALPHA = 0.05
N_FEATURES, N_REFERENCE_DAYS, N_PER_DAY, N_WINDOW = 8, 40, 25, 100
PSI_ALARM, N_BINS = 0.2, 10
COLUMNS = ("nuisance", "seed", "checks", "alarm_at", "ks_alarms", "psi_alarms", "day_features", "seconds")
METHODS = {"sequential, alpha .05 for ever": "alarm_at", "KS of the last 100": "ks_alarms", "PSI > 0.2": "psi_alarms"}
Wholes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scans:
    """Every image of a site, in order."""

    day: Wholes
    visit: Wholes
    """One patient on one day."""
    is_return: npt.NDArray[np.bool_]
    """The patient was there in the four weeks before."""
    values: Reals
    """(images, features); NaN where missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuisance:
    """What a hospital does that is no shift."""

    images_per_patient: int = 1
    icc: float = 0.0
    weekday_sd: float = 0.0
    """How far Saturdays and Sundays lie off, in standard deviations."""
    missing: float = 0.0
    volume: float = 0.0
    """0: as many every day; 1: weekends have a third, and days vary as chance does."""
    returning: float = 0.0
    """Share of patients who were there the day before as well."""


NUISANCES = {
    "none": Nuisance(),
    "four_images": Nuisance(images_per_patient=4),
    "day_effect": Nuisance(icc=0.05),
    "small_day_effect": Nuisance(icc=0.008),
    "weekday": Nuisance(weekday_sd=0.5),
    "missing": Nuisance(missing=0.1),
    "returning": Nuisance(returning=0.3),
    "all": Nuisance(images_per_patient=4, icc=0.05, weekday_sd=0.5, missing=0.1, volume=1.0),
}


def main() -> None:
    """Run the sites that the CSV lacks, then print the share of sites that ever alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--checks", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="20 sites per nuisance, 200 checks")
    parser.add_argument("--nuisances", nargs="+", choices=NUISANCES, default=list(NUISANCES))
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/false_alarms.csv"))
    args = parser.parse_args()
    n_sites, n_checks = (20, 200) if args.quick else (args.sites, args.checks)
    os.environ["OMP_NUM_THREADS"] = "1"
    known = {(row["nuisance"], int(row["seed"]), int(row["checks"])) for row in _read(args.out)}
    wanted = [(name, seed) for seed in range(n_sites) for name in args.nuisances if (name, seed, n_checks) not in known]
    with ProcessPoolExecutor(args.processes) as pool:
        for row in pool.map(partial(_watch, n_checks=n_checks), wanted, chunksize=4):
            _append(args.out, row)
    report([row for row in _read(args.out) if int(row["checks"]) == n_checks and int(row["seed"]) < n_sites])


def watch_site(name: str, seed: int, n_checks: int) -> dict[str, Any]:
    """One site that does not change, watched by all three."""
    started = time.monotonic()
    scans = send(NUISANCES[name], np.random.default_rng([seed, *name.encode()]), N_REFERENCE_DAYS + n_checks)
    is_reference = scans.day < N_REFERENCE_DAYS
    alarm_at, n_day_features = sequential(scans, is_reference, seed)
    ks, psi = windowed(scans, is_reference)
    return {
        "nuisance": name,
        "seed": seed,
        "checks": n_checks,
        "alarm_at": "" if math.isinf(alarm_at) else int(alarm_at),
        "ks_alarms": ks or "",
        "psi_alarms": psi or "",
        "day_features": n_day_features,
        "seconds": f"{time.monotonic() - started:.1f}",
    }


def send(nuisance: Nuisance, rng: np.random.Generator, n_days: int) -> Scans:
    """All images of a site; values have mean 0 and standard deviation 1 over all days but for weekends."""
    mean = np.full(n_days, float(N_PER_DAY))
    is_weekend = np.arange(n_days) % 7 >= 5
    if nuisance.volume:
        mean = rng.poisson(np.where(is_weekend, N_PER_DAY / 3, N_PER_DAY)).astype(float) + 1
    day = np.repeat(np.arange(n_days), mean.astype(int))
    n = len(day)
    own, common = rng.normal(size=(n, N_FEATURES)), rng.normal(size=(n, 1))
    patient = math.sqrt(0.7) * own + math.sqrt(0.3) * common
    is_return = (rng.random(n) < nuisance.returning) & (day > 0)
    for back in np.flatnonzero(is_return):  # in order: who stays two nights is seen on three days
        patient[back] = patient[back - N_PER_DAY]
    values = (
        math.sqrt(1 - nuisance.icc) * patient + math.sqrt(nuisance.icc) * rng.normal(size=(n_days, N_FEATURES))[day]
    )
    values += nuisance.weekday_sd * is_weekend[day, None]
    copies = np.repeat(np.arange(n), nuisance.images_per_patient)
    values = values[copies]
    if nuisance.images_per_patient > 1:
        values = values + 0.05 * rng.normal(size=values.shape)
    values[rng.random(values.shape) < nuisance.missing] = np.nan
    return Scans(day[copies], copies, is_return[copies], values)


def sequential(scans: Scans, is_reference: npt.NDArray[np.bool_], seed: int) -> tuple[float, int]:
    """The check at which the platform's own watch alarms, and how many features it watches by day."""
    units = {row["feature"]: row for row in units_of(_table(scans, is_reference & ~scans.is_return)).to_pylist()}
    level = math.log(N_FEATURES / (ALPHA * share(0)))
    alarms = []
    for feature in range(N_FEATURES):
        unit = units[f"f{feature}"]
        day, values = _patient_days(scans, feature)
        if unit["unit"] == "day":
            day, values = _day_medians(day, values, unit["n_values"])
        old = day < N_REFERENCE_DAYS
        rng = np.random.default_rng([seed, feature])
        ranks = conformal_ranks(values[old], values[~old], rng.random((~old).sum()))
        size = max(1, round(N_PER_DAY / unit["n_values"]))
        block = first_crossing(ranks[None], size, level)[0]
        alarms.append(math.inf if np.isinf(block) else day[~old][int(block + 1) * size - 1] - N_REFERENCE_DAYS)
    return min(alarms), sum(unit["unit"] == "day" for unit in units.values())


def windowed(scans: Scans, is_reference: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Checks at which KS, and at which PSI, of the last 100 images alarms in any feature."""
    is_up = [np.zeros(scans.day[-1] + 1 - N_REFERENCE_DAYS, dtype=bool) for _ in range(2)]
    critical = math.sqrt(-math.log(ALPHA / N_FEATURES / 2) / 2)
    for feature in range(N_FEATURES):
        known = np.isfinite(scans.values[:, feature])
        values, day = scans.values[known, feature], scans.day[known]
        reference = np.sort(values[is_reference[known]])
        ends = np.searchsorted(day, np.arange(N_REFERENCE_DAYS, scans.day[-1] + 1), "right")
        windows = np.sort(np.stack([values[end - N_WINDOW : end] for end in ends]), axis=1)
        at = np.searchsorted(reference, windows) / len(reference)
        steps = np.arange(N_WINDOW + 1) / N_WINDOW
        distance = np.maximum(abs(at - steps[1:]), abs(at - steps[:-1])).max(axis=1)
        is_up[0] |= distance > critical * math.sqrt(1 / N_WINDOW + 1 / len(reference))
        is_up[1] |= _psi(at) > PSI_ALARM
    return int(is_up[0].sum()), int(is_up[1].sum())


def report(rows: list[dict[str, str]]) -> None:
    """Print the share of sites that ever alarm, with 95 % intervals."""
    from scipy.stats import binomtest

    for name in NUISANCES:
        mine = [row for row in rows if row["nuisance"] == name]
        if not mine:
            continue
        days = np.mean([int(row["day_features"]) for row in mine])
        print(f"{name}: {len(mine)} sites, {mine[0]['checks']} checks, {days:.1f} of {N_FEATURES} features by day")
        for method, column in METHODS.items():
            n = sum(row[column] != "" for row in mine)
            interval = binomtest(n, len(mine)).proportion_ci()
            print(f"    {method:32} {n / len(mine):.3f} [{interval.low:.3f}, {interval.high:.3f}]")


def _watch(wanted: tuple[str, int], n_checks: int) -> dict[str, Any]:
    return watch_site(*wanted, n_checks)


def _table(scans: Scans, rows: npt.NDArray[np.bool_]) -> pa.Table:
    """The reference as the platform reads it."""
    days = [date(2026, 1, 5) + timedelta(days=int(day)) for day in scans.day[rows]]
    keys = [f"{i:08d}" for i in np.flatnonzero(rows)]
    about = {
        "series_key": keys,
        "revision": np.ones(len(keys), np.int64),
        "patient_key": [f"{p:08d}" for p in scans.visit[rows]],
        "observed_on": days,
        "arrived_at": [datetime(2026, 1, 5, tzinfo=UTC)] * len(keys),
    }
    columns = [{"feature": [f"f{f}"] * len(keys), "value": scans.values[rows, f]} for f in range(N_FEATURES)]
    return pa.concat_tables([pa.table(about | column, schema=VALUES) for column in columns])


def _patient_days(scans: Scans, feature: int) -> tuple[Wholes, Reals]:
    """Day and value of the first image of every patient that has the feature."""
    known = np.flatnonzero(np.isfinite(scans.values[:, feature]) & ~scans.is_return)
    _, first = np.unique(scans.visit[known], return_index=True)
    return scans.day[known[first]], scans.values[known[first], feature]


def _day_medians(day: Wholes, values: Reals, n: int) -> tuple[Wholes, Reals]:
    """The lower median of the first n patients of every day that has as many."""
    found, first, count = np.unique(day, return_index=True, return_counts=True)
    chosen = [
        (d, np.sort(values[at : at + n])[(n - 1) // 2]) for d, at, c in zip(found, first, count, strict=True) if c >= n
    ]
    return np.array([d for d, _ in chosen]), np.array([value for _, value in chosen])


def _psi(at: Reals) -> Reals:
    """PSI of each window, (windows, scans), from the share of the reference below each scan; half a count is added."""
    bins = np.minimum((at * N_BINS).astype(int), N_BINS - 1)
    counts = np.stack([(bins == b).sum(axis=1) for b in range(N_BINS)], axis=1)
    share_now = (counts + 0.5) / (N_WINDOW + 0.5 * N_BINS)
    return np.asarray(((share_now - 1 / N_BINS) * np.log(share_now * N_BINS)).sum(axis=1), np.float64)


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _append(file: Path, row: dict[str, Any]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if is_new:
            table.writeheader()
        table.writerow(row)


if __name__ == "__main__":
    main()
