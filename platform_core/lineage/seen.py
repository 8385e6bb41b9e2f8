"""Which models and sites' calibrations have seen a patient, and how models' lists of scans are told without."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_core import layout
from platform_core.errors import BadInput
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import current_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

How = Literal["trained", "descended", "calibrated", "fitted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One model version, or one site's calibration of it, that has seen a patient."""

    model: str
    """model@version; site/target of a calibration that the site itself was given."""
    alias: str
    """`served` of a site's calibration."""
    how: How
    """A scan moved its weights; or those of a model that it comes from; or a label may have set its calibration; or a
    site's calibration, which is in force, may have been fitted to a label."""
    rebuild: str
    """The command that makes its like without the patient, or takes a site's calibration back."""


def seen_by(workspace: Workspace, keys: Collection[str], patients: Sequence[str]) -> list[Seen]:
    """Every version that has seen one of these series, in the order of names; then sites' calibrations."""
    known = {ref.name: ref for ref in registry.models(workspace)}
    trained = {name for name, ref in known.items() if _lists(workspace, ref, keys)}
    validated = _validated(workspace, keys, patients)
    found = []
    for name, ref in known.items():
        how = _how(ref, known, trained, validated)
        if how is not None:
            found.append(Seen(model=name, alias=ref.alias, how=how, rebuild=_rebuild(ref)))
    return found + _fitted(workspace, keys, patients)


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


def _fitted(workspace: Workspace, keys: Collection[str], patients: Sequence[str]) -> list[Seen]:
    """Calibrations in force that sites were given, if a label of the patient may have been among those fitted to.

    Decisions keep how many scans these were and a digest, no keys: every label of the decision's period may be one.
    """
    split = workspace.settings.split
    if all(part_of(patient, split) == "evaluation" for patient in patients):
        return []
    done = [row for row in decisions(workspace).to_pylist() if (row["action"], row["status"]) == ("calibrate", "done")]
    met = {(str(row["site"]), str(row["target"])) for row in done if _is_labelled_in(workspace, row, keys)}
    return [_calibration_of(site, target) for site, target in sorted(met) if _is_fitted(workspace, site, target)]


def _is_labelled_in(workspace: Workspace, decision: Mapping[str, Any], keys: Collection[str]) -> bool:
    """Whether one of these series lies in the stratum and period that a decision was about, and has a label."""
    found = workspace.lake.read(layout.FINDING, pc.field("finding_key") == decision["finding_key"]).to_pylist()
    if not found:
        return False
    inside = (
        pc.field("series_key").isin(pa.array(sorted(keys), pa.string()))
        & (pc.field("stratum") == found[0]["stratum"])
        & (pc.field("observed_on") >= found[0]["period_start"])
        & (pc.field("observed_on") <= found[0]["period_end"])
    )
    series = current_series(workspace, str(decision["site"])).filter(inside).column("series_key").to_pylist()
    where = pc.field("series_key").isin(pa.array(series, pa.string())) & (pc.field("target") == decision["target"])
    return bool(workspace.lake.read(layout.LABEL, where, ["target"]).num_rows)


def _is_fitted(workspace: Workspace, site: str, target: str) -> bool:
    """Only labels move a scale: where it is 1, what was fitted is not in force any more."""
    serving = current_serving(workspace, site, target)
    return serving is not None and serving.calibration.scale != 1


def _calibration_of(site: str, target: str) -> Seen:
    back = f"sitedrift model rollback {target} --site {site}"
    return Seen(model=f"{site}/{target}", alias="served", how="fitted", rebuild=back)
