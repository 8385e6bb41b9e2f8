"""Sketches of some days without a patient: counted anew, and nothing left of how they were.

A difference is not enough: it IS the patient. So the rows of the days give way to new ones.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.learn import registry
from platform_core.manifest.schemas import SKETCH
from platform_core.manifest.workspace import Workspace
from platform_core.shift.sketch.cells import Cells, Sketch, cells_of, count_days, row_of
from platform_core.shift.sketch.patient_days import Basis, feature_days, score_days
from platform_core.shift.sketch.references import Row, read_reference
from platform_core.shift.sketch.sketches import next_entry
from platform_core.storage.tables import rows_of

if TYPE_CHECKING:
    from platform_core.storage.erasure import Chosen

OF_SCORES = ("score", "label", "embedding")


def recount(workspace: Workspace, site: str, days: Sequence[date], *, run: str, work: str) -> int:
    """Count the sketches of a site's days anew from what the tables hold now; returns the rows that gave way.

    `work` names the writes; the same work is done once.

    Cells of scores and labels are counted by the model that their reference names; where there is none by that name,
    those of these days are left out.
    """
    where = (pc.field("site") == site) & pc.field("day").isin(pa.array(days, pa.date32()))
    rows = workspace.lake.read(layout.SKETCH, where, ["recipe", "reference", "feature"]).to_pylist()
    bases = sorted({(row["recipe"], row["reference"]) for row in rows})
    scored = {(row["recipe"], row["reference"]) for row in rows if row["feature"].startswith(OF_SCORES)}
    found = [_basis(workspace, *names, is_scored=names in scored) for names in bases]
    return sum(_recount(workspace, site, days, basis, run, work) for basis in found)


def _basis(workspace: Workspace, recipe: str, reference: str, *, is_scored: bool) -> Basis:
    if is_scored:
        try:
            model = registry.find(workspace, reference)
            return Basis(reference=reference, recipe=recipe, target=model.model, model=model.name)
        except UnknownName:
            pass
    return Basis(reference=reference, recipe=recipe)


def _recount(workspace: Workspace, site: str, days: Sequence[date], basis: Basis, run: str, work: str) -> int:
    chosen: Chosen = {"site": [site], "recipe": [basis.recipe], "reference": [basis.reference], "day": days}

    def change(present: pa.Table) -> pa.Table:
        """An entry is always written, if only with nothing: numbers of entries must not come again."""
        about: Row = {"site": site, "recipe": basis.recipe, "reference": basis.reference, "run": run}
        about["entry"] = next_entry(workspace, site, basis)
        cells = _count(workspace, site, days, basis) or _nothing(cells_of(present))
        return rows_of(SKETCH, [about | row_of(key, sketch) for key, sketch in sorted(cells.items(), key=_by_key)])

    name = f"{work}/{site}/{basis.recipe}/{basis.reference}"
    return workspace.lake.replace(layout.SKETCH, chosen, change, transaction=name)


def _by_key(cell: tuple[object, Sketch]) -> str:
    return str(cell[0])


def _count(workspace: Workspace, site: str, days: Sequence[date], basis: Basis) -> Cells:
    frozen, cells = read_reference(workspace, basis), Cells()
    for day in days:
        for each in (
            feature_days(workspace, site, basis.recipe, days=(day, day)),
            score_days(workspace, site, basis, days=(day, day)),
        ):
            cells |= count_days(each, frozen)
    return cells


def _nothing(present: Cells) -> Cells:
    """One cell of those that were there, empty."""
    return {key: Sketch(cell.kind, 0, np.zeros_like(cell.sums)) for key, cell in list(present.items())[:1]}
