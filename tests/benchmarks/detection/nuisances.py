"""Sites at which nothing changes, and what goes on there all the same.

A site sends about 25 patients a day, eight features each: four normal, two with heavy tails, one skewed, one in
coarse steps. Exact copies of a study end at the door and corrections keep the rank that they have, so neither is here;
what is re-sent here comes under another key, some of it months later and without its date.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals

N_FEATURES, N_PER_DAY, N_REFERENCE_DAYS = 8, 25, 40
Wholes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuisance:
    """What a hospital does that is no shift."""

    images_per_patient: int = 1
    icc: float = 0.0
    """Of the patients of a day."""
    weekday_sd: float = 0.0
    """How far Saturdays and Sundays lie off, in standard deviations."""
    missing: float = 0.0
    """Share of values."""
    is_uneven: bool = False
    """Weekends have a third of the patients, and days vary as chance does."""
    returning: float = 0.0
    """Share of patients who were there the day before as well."""
    resent: float = 0.0
    """Share of images that come once more under another key: most within ten days, a fifth months later without
    date."""
    has_clocks: bool = False
    """Batches come up to three days late and in any order; on one day in fifty the clock is a day back (DST, midnight,
    time zone), and for a week of every year a console that was reset is 31 days back."""


ALL = Nuisance(
    images_per_patient=4, icc=0.05, weekday_sd=0.5, missing=0.1, is_uneven=True, resent=0.05, has_clocks=True
)
NUISANCES = {
    "nothing": Nuisance(),
    "four images": Nuisance(images_per_patient=4),
    "day effect": Nuisance(icc=0.05),
    "weekdays": Nuisance(weekday_sd=0.5, is_uneven=True),
    "missing": Nuisance(missing=0.1),
    "re-sent": Nuisance(resent=0.05),
    "clocks": Nuisance(has_clocks=True),
    "returning": Nuisance(returning=0.3),
    "all": ALL,
    "all, returning": replace(ALL, returning=0.3),
}
"""`all` are the six that the bar names; patients who come back are our own addition."""


@dataclass(frozen=True, slots=True)
class Scans:
    """Every image of a site, in the order in which they arrive."""

    key: Wholes
    """Of the series; the platform's are hashes, these are shuffled numbers."""
    patient: Wholes
    observed: Wholes
    """Day that the header tells, from 0; the reference is what was observed in the first 40 days, and has arrived."""
    arrived: Reals
    """Days from 0; its whole part is the night that takes the image in."""
    values: Reals
    """(images, features); NaN where missing."""

    @property
    def night(self) -> Wholes:
        """At the end of which day an image is taken in."""
        return np.floor(self.arrived).astype(np.int64)

    def only(self, rows: npt.NDArray[np.bool_]) -> "Scans":
        """Some of the images."""
        return Scans(self.key[rows], self.patient[rows], self.observed[rows], self.arrived[rows], self.values[rows])


def send(nuisance: Nuisance, rng: np.random.Generator, n_days: int) -> Scans:
    """All images that a site sends in so many days."""
    day = np.repeat(np.arange(n_days), _patients_per_day(nuisance, rng, n_days))
    n = len(day)
    patient, values = np.arange(n), _patient_values(rng, n)
    for back in np.flatnonzero((rng.random(n) < nuisance.returning) & (day > 0)):  # in order: some stay three days
        patient[back], values[back] = patient[back - N_PER_DAY // 3], values[back - N_PER_DAY // 3]
    values = math.sqrt(1 - nuisance.icc) * values
    values += math.sqrt(nuisance.icc) * rng.normal(size=(n_days, N_FEATURES))[day]
    values += nuisance.weekday_sd * (day % 7 >= 5)[:, None]
    copies = np.repeat(np.arange(n), nuisance.images_per_patient)
    images = Scans(copies, patient[copies], day[copies], day[copies] + 0.999 * rng.random(len(copies)), values[copies])
    if nuisance.images_per_patient > 1:
        images = replace(images, values=images.values + 0.05 * rng.normal(size=images.values.shape))
    images = _through_clocks(images, rng) if nuisance.has_clocks else images
    images = _send_again(images, nuisance.resent, rng) if nuisance.resent else images
    seen = _as_measured(images.values)
    seen[rng.random(seen.shape) < nuisance.missing] = np.nan
    images = replace(images, values=seen, key=rng.permutation(len(seen)))
    order = np.lexsort((images.key, images.arrived))
    return images.only(order[images.night[order] < n_days])  # type: ignore[arg-type]


def _patients_per_day(nuisance: Nuisance, rng: np.random.Generator, n_days: int) -> Wholes:
    if not nuisance.is_uneven:
        return np.full(n_days, N_PER_DAY)
    is_weekend = np.arange(n_days) % 7 >= 5
    return rng.poisson(np.where(is_weekend, N_PER_DAY / 3, N_PER_DAY)) + 1


def _patient_values(rng: np.random.Generator, n: int) -> Reals:
    """Normal, mean 0, variance 1, every two features correlated by .3."""
    own, common = rng.normal(size=(n, N_FEATURES)), rng.normal(size=(n, 1))
    return np.asarray(math.sqrt(0.7) * own + math.sqrt(0.3) * common, np.float64)


def _as_measured(values: Reals) -> Reals:
    """The same in other units: features 4 and 5 with heavy tails, 6 skewed, 7 in steps of half an SD."""
    seen = values.copy()
    seen[:, 4:6] = np.sinh(values[:, 4:6])
    seen[:, 6] = np.exp(values[:, 6])
    seen[:, 7] = np.rint(2 * values[:, 7]) / 2
    return seen


def _through_clocks(images: Scans, rng: np.random.Generator) -> Scans:
    n_days = int(images.observed.max()) + 1
    late = np.where(rng.random(n_days) < 0.1, rng.integers(1, 4, n_days), 0)
    back = (rng.random(n_days) < 0.02).astype(np.int64)
    for year in range(0, n_days, 365):
        first = year + int(rng.integers(N_REFERENCE_DAYS, 358))
        back[first : first + 7] = 31
    day = images.observed
    return replace(images, observed=day - back[day], arrived=images.arrived + late[day])


def _send_again(images: Scans, share: float, rng: np.random.Generator) -> Scans:
    again = np.flatnonzero(rng.random(len(images.key)) < share)
    is_undated = rng.random(len(again)) < 0.2
    wait = np.where(is_undated, rng.uniform(30, 300, len(again)), rng.uniform(0.1, 10, len(again)))
    arrived = images.arrived[again] + wait
    observed = np.where(is_undated, np.floor(arrived).astype(np.int64), images.observed[again])
    values = images.values[again] + 0.02 * rng.normal(size=(len(again), N_FEATURES))
    return Scans(
        np.append(images.key, images.key[again]),
        np.append(images.patient, images.patient[again]),
        np.append(images.observed, observed),
        np.append(images.arrived, arrived),
        np.concatenate([images.values, values]),
    )
