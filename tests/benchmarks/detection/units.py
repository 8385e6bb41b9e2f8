"""What the nightly watch makes of the images of a site: units, ranks, blocks, the alarm, in one pass over all nights.

Which images count is decided as the platform's SQL decides night by night (`series.sql`, `due.sql`); the test beside
this experiment runs both on the same images. Units, grid, tie-breaks, ranks, bets and wealth are the platform's own.
"""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core.shift.risk import Reals
from platform_core.shift.watch.alarms import SCANS_PER_CHECK
from platform_core.shift.watch.conformal import conformal_ranks, grid_of, tie_breaks
from platform_core.shift.watch.power import first_crossing
from platform_core.shift.watch.ranks import N_PER_GRID_ROW, RETURN_DAYS, VALUES, units_of
from platform_core.shift.watch.wealth import share
from tests.benchmarks.detection.nuisances import N_FEATURES, N_REFERENCE_DAYS, Scans, Wholes

FIRST_DAY = date(2026, 1, 5)


@dataclass(frozen=True, slots=True)
class Due:
    """One value per unit of one feature, in the order in which they are ranked."""

    key: Wholes
    night: Wholes
    value: Reals


def first_alarm(scans: Scans, alpha: float, name: str) -> tuple[float, int]:
    """The night of the first alarm, infinite if there is none, and how many features are watched by day."""
    is_reference = (scans.observed < N_REFERENCE_DAYS) & (scans.night < N_REFERENCE_DAYS)
    is_visit = is_new_visit(scans)
    reference = scans.only(is_reference & is_visit)
    units = {row["feature"]: row for row in units_of(as_values(reference)).to_pylist()}
    later = scans.only((scans.observed >= N_REFERENCE_DAYS) & is_visit)
    ranked: dict[int, list[tuple[Due, Reals]]] = {}
    for feature in range(N_FEATURES):
        unit = units[f"f{feature}"]
        n_values = unit["n_values"] if unit["unit"] == "day" else 0
        pool, new = due(reference, feature, n_values), due(later, feature, n_values)
        size = max(1, round(SCANS_PER_CHECK / unit["n_values"]))
        ranked.setdefault(size, []).append((new, rank(pool.value, new, f"f{feature}", name)))
    level = math.log(N_FEATURES / (alpha * share(0)))
    alarms = [night for size, streams in ranked.items() for night in _alarms(streams, size, level)]
    return min(alarms), sum(unit["unit"] == "day" for unit in units.values())


def _alarms(streams: list[tuple[Due, Reals]], size: int, level: float) -> list[float]:
    """The night at which each of some streams alarms, infinite if it does not."""
    n_ranks = [len(ranks) for _, ranks in streams]
    together = np.full((len(streams), max(n_ranks)), 0.5)  # what is filled up lies beyond the last block that counts
    for row, (_, ranks) in zip(together, streams, strict=True):
        row[: len(ranks)] = ranks
    blocks = first_crossing(together, size, level)
    ends = [(block + 1) * size for block in blocks]
    return [
        float(due.night[int(end) - 1]) if end <= n else math.inf
        for (due, _), end, n in zip(streams, ends, n_ranks, strict=True)
    ]


def rank(reference: Reals, new: Due, feature: str, name: str) -> Reals:
    """Conformal ranks among the reference, less the rows that set the grid, and all that came before."""
    sets_grid = np.arange(len(reference)) % N_PER_GRID_ROW == 0
    grid = grid_of(reference[sets_grid])
    pool, values = (np.rint(each / grid) * grid for each in (reference[~sets_grid], new.value))
    return conformal_ranks(pool, values, tie_breaks(map(series_key, new.key), feature, name))


def series_key(key: int) -> str:
    """Of an image, in an order that its number has too."""
    return f"{key:09d}"


def is_new_visit(scans: Scans) -> npt.NDArray[np.bool_]:
    """Images of patients who were not seen in the four weeks before, as far as is known the night that they come."""
    _, first, image_of = np.unique(patient_days(scans), return_index=True, return_inverse=True)
    patient, day, night = scans.patient[first], scans.observed[first], scans.night
    first_night = night[first]  # images are in order of arrival
    is_new = np.ones(len(scans.key), dtype=bool)
    for back in range(1, len(first)):
        before = image_of - back
        same = (before >= 0) & (patient[before] == scans.patient)
        if not same.any():
            break
        is_recent = scans.observed - day[before] <= RETURN_DAYS
        is_new &= ~(same & is_recent & (first_night[before] <= night))
    return is_new


def patient_days(scans: Scans) -> Wholes:
    """One number per patient and day observed, in order of patients and then of days."""
    return scans.patient * 100_000 + scans.observed + 1000


def due(scans: Scans, feature: int, n_per_day: int) -> Due:
    """The first image of every patient-day that has the feature; if `n_per_day`, the lower median of so many a day."""
    images = scans.only(np.isfinite(scans.values[:, feature]))
    _, first = np.unique(patient_days(images), return_index=True)  # images are in order of arrival
    images = images.only(np.isin(np.arange(len(images.key)), first))
    if n_per_day:
        return _day_medians(images, feature, n_per_day)
    order = np.lexsort((images.key, images.observed, images.arrived))
    return Due(images.key[order], images.night[order], images.values[order, feature])


def _day_medians(images: Scans, feature: int, n: int) -> Due:
    """A day is closed the night on which n of its patients are there; the n with the lowest keys stand for it."""
    found: list[tuple[float, int, int, int, float]] = []
    values, nights_of = images.values[:, feature], images.night
    order = np.lexsort((images.arrived, images.observed))
    starts = np.flatnonzero(np.diff(images.observed[order], prepend=images.observed[order[0]] - 1))
    for rows in np.split(order, starts[1:]):
        if len(rows) < n:
            continue
        night = nights_of[rows[n - 1]]
        there = rows[nights_of[rows] <= night]
        chosen = there[np.argsort(images.key[there])][:n]
        middle = chosen[np.lexsort((images.key[chosen], values[chosen]))[(n - 1) // 2]]
        last = float(images.arrived[chosen].max())
        found.append((last, images.observed[middle], images.key[middle], night, values[middle]))
    found.sort(key=lambda each: (each[3], *each[:3]))
    key, nights, value = (np.array([each[i] for each in found]) for i in (2, 3, 4))
    return Due(key.astype(np.int64), nights.astype(np.int64), value.astype(np.float64))


def as_values(scans: Scans) -> pa.Table:
    """Images as the watch reads them, in the columns of `VALUES`."""
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    keys = [series_key(key) for key in scans.key]
    about = {
        "series_key": keys,
        "revision": np.ones(len(keys), np.int64),
        "patient_key": [f"{patient:09d}" for patient in scans.patient],
        "observed_on": [FIRST_DAY + timedelta(days=int(day)) for day in scans.observed],
        "arrived_at": [start + timedelta(days=float(at)) for at in scans.arrived],
    }
    columns = [{"feature": [f"f{f}"] * len(keys), "value": scans.values[:, f]} for f in range(N_FEATURES)]
    return pa.concat_tables([pa.table(about | column, schema=VALUES) for column in columns])
