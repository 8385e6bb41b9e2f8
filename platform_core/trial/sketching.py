"""A fleet by its sketches, on the series that the champion was trained on, as scanned."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.manifest.workspace import Workspace
from platform_core.shift.sketch.matrices import site_matrices
from platform_core.shift.sketch.patient_days import Basis
from platform_core.shift.sketch.references import freeze_reference, read_reference
from platform_core.shift.sketch.sketches import sum_sketches


def champion_basis(workspace: Workspace, target: str, *, run: str) -> Basis | None:
    """The basis of native features on the champion's reference, frozen now if it was not; None without a champion."""
    model = registry.champion(workspace, target)
    if model is None:
        return None
    basis = Basis(reference=model.name)
    if not len(read_reference(workspace, basis).rows):
        source = workspace.target(target).source_site
        trained_on = registry.read_reference(workspace, model.bundle_uri)
        keys = trained_on.filter(pc.field("site") == source).column("series_key").to_pylist()
        freeze_reference(workspace, source, basis=basis, run=run, keys=keys)
    return basis


def known_basis(workspace: Workspace, reference: str | None) -> Basis:
    """The basis of a reference that was frozen or taken in here; without a name, of the only one there is.

    Raises:
        BadRequest: If there is none, or several and no name.
    """
    rows = workspace.lake.read(layout.REFERENCE, pc.field("recipe") == layout.NATIVE, ["reference"])
    known = sorted(set(rows.column("reference").to_pylist()))
    chosen = [name for name in known if reference in (None, name)]
    if len(chosen) != 1:
        told = (
            ", ".join(known) or "none; `sitedrift run` freezes the champion's, `sitedrift sketch import` takes one in"
        )
        raise BadRequest(f"name one reference with --reference; known here: {told}")
    return Basis(reference=chosen[0])


def compare_fleet(
    workspace: Workspace, basis: Basis, *, statistic: str, feature: str | None = None
) -> list[dict[str, Any]]:
    """Every pair of sites, and each with the reference, by one statistic beyond chance; the furthest pair first.

    Args:
        workspace: Where sketches lie, its own and those taken in.
        basis: Which sketches.
        statistic: `ks`, `psi`, `jensen_shannon`, `wasserstein`, `mmd`, `coral` or `frechet`.
        feature: One feature; None: the mean over all features, for statistics that have one unit.
    """
    frozen = read_reference(workspace, basis)
    totals = pa.concat_tables([sum_sketches(workspace, basis), frozen.totals()], promote_options="default")
    matrices = site_matrices(totals, frozen, features=None if feature is None else [feature])
    pairs: dict[tuple[str, str, str], list[float]] = {}
    for row in (row for matrix in matrices if matrix.statistic == statistic for row in matrix.to_rows()):
        pairs.setdefault((str(row["stratum"]), str(row["first"]), str(row["second"])), []).append(
            float(str(row["value"]))
        )
    told = [
        {
            "stratum": stratum,
            "first": first,
            "second": second,
            statistic: sum(values) / len(values),
            "features": len(values),
        }
        for (stratum, first, second), values in pairs.items()
    ]
    return sorted(told, key=lambda row: -float(str(row[statistic])))
