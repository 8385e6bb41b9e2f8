"""Which models have seen a patient, and how their lists of scans are told without."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_core import layout
from platform_core.errors import BadInput
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace

How = Literal["trained", "descended", "calibrated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One model version that has seen a patient."""

    model: str
    """model@version."""
    alias: str
    how: How
    """A scan moved its weights; or those of a model that it comes from; or a label may have set its calibration."""
    rebuild: str
    """The command that makes its like without the patient."""


def seen_by(workspace: Workspace, keys: Collection[str], patients: Sequence[str]) -> list[Seen]:
    """Every version that has seen one of these series, in the order of names."""
    known = {ref.name: ref for ref in registry.models(workspace)}
    trained = {name for name, ref in known.items() if _lists(workspace, ref, keys)}
    validated = _validated(workspace, keys, patients)
    found = []
    for name, ref in known.items():
        how = _how(ref, known, trained, validated)
        if how is not None:
            found.append(Seen(model=name, alias=ref.alias, how=how, rebuild=_rebuild(ref)))
    return found


def shorten_references(workspace: Workspace, keys: Collection[str]) -> int:
    """Take series out of the frozen list of every model; returns the lists that were changed.

    The list's hash, as the registry has it, stays that of the list as it was.
    """
    n = 0
    for ref in registry.models(workspace):
        rows = _reference(workspace, ref)
        left = rows.filter(pc.invert(pc.is_in(rows.column("series_key"), pa.array(list(keys), pa.string()))))
        if left.num_rows == rows.num_rows:
            continue
        out = BytesIO()
        pq.write_table(left, out)
        workspace.objects.put(f"{ref.bundle_uri}/{registry.REFERENCE}", out.getvalue())
        n += 1
    return n


def _how(ref: ModelRef, known: dict[str, ModelRef], trained: set[str], validated: set[str]) -> How | None:
    if ref.name in trained:
        return "trained"
    parent = known.get(ref.parent or "")
    while parent is not None:
        if parent.name in trained:
            return "descended"
        parent = known.get(parent.parent or "")
    return "calibrated" if ref.model in validated else None


def _rebuild(ref: ModelRef) -> str:
    """Weights that start from nothing are trained anew; a fine-tuned version comes out of a run, if it is needed."""
    return f"sitedrift train {ref.model}" if ref.parent is None else f"sitedrift train {ref.model} && sitedrift run"


def _lists(workspace: Workspace, ref: ModelRef, keys: Collection[str]) -> bool:
    return not set(keys).isdisjoint(_reference(workspace, ref).column("series_key").to_pylist())


def _reference(workspace: Workspace, ref: ModelRef) -> pa.Table:
    """The frozen list; empty where the bundle has lost it."""
    try:
        return registry.read_reference(workspace, ref.bundle_uri)
    except BadInput:
        return pa.table({"series_key": pa.array([], pa.string())})


def _validated(workspace: Workspace, keys: Collection[str], patients: Sequence[str]) -> set[str]:
    """Targets whose calibration the patient's labels may have set."""
    split = workspace.settings.split
    if all(part_of(patient, split) != "validation" for patient in patients):
        return set()
    where = pc.field("series_key").isin(pa.array(sorted(keys), pa.string()))
    return set(workspace.lake.read(layout.LABEL, where, ["target"]).column("target").to_pylist())
