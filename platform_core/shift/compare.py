"""Every statistic on every feature of two samples, and whether chance explains the distance."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from platform_core.shift.contract import LONG
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.statistics import STATISTICS

MIN_VALUES = 20
"""Patients of either sample who must have a feature for it to be compared."""
N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureShift:
    """One feature in two samples of patients."""

    feature: str
    distance: Estimate
    """Kolmogorov-Smirnov, [0, 1]."""
    p: float
    """Chance of such a distance if both samples come from one population."""
    before: float
    """Median of the first sample, in the feature's unit."""
    after: float
    """Median of the second."""
    moved_by: float
    """Wasserstein-1 distance, in the feature's unit."""
    n_before: int
    n_after: int
    values: Mapping[str, float | None]
    """Every statistic by name."""


def compare(
    before: pa.Table, after: pa.Table, statistics: Collection[str] = tuple(STATISTICS)
) -> tuple[FeatureShift, ...]:
    """Compare the features that both samples (in the columns of `LONG`) have, in name order.

    A feature that fewer than `MIN_VALUES` patients of either sample have is left out. `statistics` names those to
    compute; `ks` always is, here and not in SQL, as its place is needed for the interval.
    """
    first, second = by_feature(before), by_feature(after)
    shared = sorted(name for name in first.keys() & second.keys() if _is_known(first[name], second[name]))
    if not shared:
        return ()
    reference, current = long_table(first, shared), long_table(second, shared)
    found = {
        name: _values(statistic.compute(reference, current))
        for name, statistic in STATISTICS.items()
        if name in statistics and name != "ks"
    }
    return tuple(
        _shift(name, first[name], second[name], {statistic: values[name] for statistic, values in found.items()})
        for name in shared
    )


def by_feature(table: pa.Table) -> dict[str, Reals]:
    """The values of each feature of a long table."""
    names, place = np.unique(np.asarray(table.column("feature").to_pylist(), dtype=np.str_), return_inverse=True)
    values = np.asarray(table.column("value").to_numpy(), dtype=np.float64)[np.argsort(place, kind="stable")]
    ends = np.cumsum(np.bincount(place, minlength=len(names)))
    return dict(zip(names.tolist(), np.split(values, ends[:-1]), strict=True)) if len(names) else {}


def long_table(features: Mapping[str, Reals], names: Iterable[str]) -> pa.Table:
    """The named features as a long table."""
    rows = [(name, value) for name in names for value in features[name].tolist()]
    return pa.table({"feature": [name for name, _ in rows], "value": [value for _, value in rows]}, schema=LONG)


def ks_distance(before: Reals, after: Reals) -> Estimate:
    """The largest gap, and its 95 % interval by resampling patients at the value where the samples differ most.

    Resampling the maximum itself would sit too high, as it takes the largest of many noisy
    gaps. With one row per patient, resampling one gap is drawing two binomials. As the place
    is chosen by the data, the distance itself sits a little high (by .02 to .06 at 100 to 300
    patients) and the interval covers the truth in 86 to 92 % of simulated samples. It is the
    p-value, not this interval, that says whether there is a difference.

    Source:
        Raghavachari 1973, doi:10.1214/aos/1193342382 (the gap at its place is the distance's limit).
    """
    pooled = np.unique(np.concatenate([before, after]))
    f, g = (np.searchsorted(np.sort(x), pooled, side="right") / len(x) for x in (before, after))
    place = int(np.argmax(np.abs(f - g)))
    rng = np.random.default_rng(0)
    resampled = [
        rng.binomial(len(x), share, N_RESAMPLES) / len(x) for x, share in ((before, f[place]), (after, g[place]))
    ]
    gap = (resampled[0] - resampled[1]) * np.sign(f[place] - g[place])
    low, high = np.clip(np.percentile(gap, [2.5, 97.5]), 0, 1).tolist()
    distance = float(np.abs(f - g)[place])
    return Estimate(distance, min(low, distance), max(high, distance))


def _shift(name: str, before: Reals, after: Reals, values: Mapping[str, float | None]) -> FeatureShift:
    from scipy.stats import kstwo, wasserstein_distance

    distance = ks_distance(before, after)
    n_effective = max(round(len(before) * len(after) / (len(before) + len(after))), 1)
    return FeatureShift(
        feature=name,
        distance=distance,
        p=float(np.clip(kstwo.sf(distance.value, n_effective), 0, 1)),
        before=float(np.median(before)),
        after=float(np.median(after)),
        moved_by=float(wasserstein_distance(before, after)),
        n_before=len(before),
        n_after=len(after),
        values={"ks": distance.value} | dict(values),
    )


def _is_known(before: Reals, after: Reals) -> bool:
    return min(len(before), len(after)) >= MIN_VALUES


def _values(table: pa.Table) -> dict[str, float | None]:
    return dict(zip(table.column("feature").to_pylist(), table.column("value").to_pylist(), strict=True))
