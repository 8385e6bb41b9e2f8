"""What a reference hands to every sketch: edges, maps, and its own counts. Frozen once, in `core__reference`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import REFERENCE
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Reals
from platform_core.shift.sketch.histogram import count, quantile_edges
from platform_core.shift.sketch.patient_days import Basis, PatientDays, feature_days, score_days
from platform_core.shift.sketch.vector_maps import (
    Whitening,
    fourier_terms,
    median_distance,
    moment_terms,
    n_components,
    spectrum,
)
from platform_core.storage.tables import rows_of

MIN_VALUES = 20
"""Patient-days of the reference without which a feature has no edges."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Frozen:
    """The rows of one reference and recipe."""

    basis: Basis
    rows: pa.Table
    """In the columns of `core__reference`."""

    @property
    def strata(self) -> list[str]:
        """Strata that it knows."""
        return sorted(set(self.rows.column("stratum").to_pylist()))

    def of_stratum(self, stratum: str) -> dict[str, Row]:
        """Its rows of one stratum by feature."""
        return {row["feature"]: row for row in self.rows.filter(pc.field("stratum") == stratum).to_pylist()}

    def totals(self) -> pa.Table:
        """Its own sketches, in the columns that `sum_sketches` returns; the unit is the reference's name."""
        kept = self.rows.select(["stratum", "feature", "kind", "n", "sum", "sum_squares", "sketch"])
        return kept.add_column(0, "unit", pa.array([self.basis.reference] * len(kept), pa.string()))


def freeze_reference(
    workspace: Workspace, site: str, *, basis: Basis, run: str, keys: Sequence[str] | None = None
) -> Frozen:
    """Take edges and maps from the reference's patient-days and keep them; a reference is frozen once.

    Args:
        workspace: Where it is read and written.
        site: The source site.
        basis: What the sketches will be made against.
        run: The run that asks.
        keys: The frozen list of series; None for all that there are.
    """
    kept = read_reference(workspace, basis)
    if len(kept.rows):
        return kept
    days = (
        feature_days(workspace, site, basis.recipe, keys=keys),
        score_days(workspace, site, basis, keys=keys),
    )
    rows = [row | {"run": run} for patient_days in days for row in reference_rows(patient_days, basis)]
    name = transaction("reference", basis.reference, basis.recipe)
    workspace.lake.append(layout.REFERENCE, rows_of(REFERENCE, rows), transaction=name)
    return read_reference(workspace, basis)


def read_reference(workspace: Workspace, basis: Basis) -> Frozen:
    """What was frozen; no rows if nothing was."""
    where = (pc.field("reference") == basis.reference) & (pc.field("recipe") == basis.recipe)
    rows = workspace.lake.read(layout.REFERENCE, where)
    return Frozen(basis, rows.sort_by([("stratum", "ascending"), ("feature", "ascending")]))


def reference_rows(patient_days: PatientDays, basis: Basis) -> Iterator[Row]:
    """The rows of every stratum; a feature with fewer than `MIN_VALUES` finite values has none."""
    strata = patient_days.stratum
    for stratum in sorted(set(strata.tolist())):
        chosen = np.flatnonzero(strata == stratum)
        here = PatientDays(patient_days.rows.take(chosen), patient_days.names, patient_days.classes)
        about = {"reference": basis.reference, "recipe": basis.recipe, "stratum": stratum}
        for name in here.names:
            yield from (about | row for row in _histogram(name, here.values(name)))
        members = usable_names(here)
        for name, x in vectors(here, members).items():
            told = {"members": members if name == "features" else None}
            yield from (about | told | row for row in _vector(name, x, fourier_seed(basis, stratum, name)))


def fourier_seed(basis: Basis, stratum: str, vector: str) -> str:
    """What the random frequencies of one vector are drawn from: the same at every site."""
    return f"{basis.reference}/{basis.recipe}/{stratum}/{vector}"


def vectors(patient_days: PatientDays, members: Sequence[str]) -> dict[str, Reals]:
    """What is compared as a whole, by name, (rows, dimensions); a row that lacks a number has NaN.

    `members` are the features that make up `features`; where one has no column there is no such vector.
    """
    if "embedding" in patient_days.rows.column_names:
        return {"embedding": patient_days.embedding()}
    return {"features": patient_days.matrix(members)} if members and set(members) <= set(patient_days.names) else {}


def usable_names(patient_days: PatientDays) -> list[str]:
    """Features that most patient-days have, sorted: one seldom measured would empty the vector of all."""
    found = {name: np.isfinite(patient_days.values(name)).mean() for name in patient_days.names}
    return sorted(name for name, share in found.items() if share > 0.5)


def _histogram(name: str, values: Reals) -> Iterator[Row]:
    known = values[np.isfinite(values)]
    if len(known) < MIN_VALUES:
        return
    edges = quantile_edges(known)
    yield {
        "feature": name,
        "kind": "histogram",
        "edges": edges.tolist(),
        "n": len(known),
        "sum": float(known.sum()),
        "sum_squares": float((known**2).sum()),
        "sketch": count(known, edges, np.zeros(len(known), np.intp), 1)[0].astype(np.float64).tolist(),
    }


def _vector(name: str, x: Reals, seed: str) -> Iterator[Row]:
    known = x[np.isfinite(x).all(axis=1)]
    whitening = Whitening.of(known) if len(known) >= MIN_VALUES and x.shape[1] else None
    if whitening is None:
        return
    z = whitening.apply(known)
    yield {
        "feature": name,
        "kind": "moments",
        "map": whitening.to_list(),
        "n": len(z),
        "sketch": moment_terms(z).sum(axis=0).tolist(),
    }
    length = median_distance(z)
    terms = fourier_terms(z, length, seed)
    yield {
        "feature": f"{name}_fourier",
        "kind": "fourier",
        "map": [length, *spectrum(terms)],
        "n": len(z),
        "sketch": terms.sum(axis=0).tolist(),
    }


def whitening_of(row: Row) -> Whitening:
    """The map of a `moments` row."""
    return Whitening.from_list(row["map"], n_components(len(row["sketch"])))
