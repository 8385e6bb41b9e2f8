"""One cell of `out__sketch`: a site's stratum, day and feature, counted on the reference's edges."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core.shift.risk import Reals, Wholes
from platform_core.shift.sketch.histogram import count
from platform_core.shift.sketch.patient_days import PatientDays
from platform_core.shift.sketch.references import Frozen, Row, fourier_seed, vectors, whitening_of
from platform_core.shift.sketch.vector_maps import fourier_terms, moment_terms

ROUNDING = 1e-9
"""Share of a sum below which a difference is rounding, not a correction."""


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
