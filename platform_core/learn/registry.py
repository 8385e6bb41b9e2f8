"""Which model versions there are and which one is in use; append-only, compare-and-swap.

One row of `out__model` is one event of one version: made, or given an alias. Nothing here
imports torch, so that `sitedrift model list` is quick; files are `bundle.py`'s business.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_core import layout
from platform_core.errors import BadInput, BadRequest, UnknownName
from platform_core.manifest.schemas import MODEL
from platform_core.manifest.serving import Calibration, Serving
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.storage.tables import rows_of

REFERENCE = "reference.parquet"
"""The frozen list of series that a version was trained on, in its bundle."""

Alias = Literal["champion", "challenger", "shadow", "adapted", "former", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """One version of one model, at its present alias."""

    model: str
    """The target that it serves."""
    version: int
    alias: Alias
    parent: str | None
    """model@version that it was trained from."""
    strategy: str
    reference: str
    """Hash of the frozen list of series that it was trained on."""
    recipe: str
    metrics: Mapping[str, Any]
    """Per site."""
    calibration: Calibration
    """What a site's first serving of it assumes: the source's prevalence."""
    bundle_uri: str
    created_at: datetime
    since: datetime
    """When it was given its alias."""
    epoch: int
    """Number of the model's event that gave it its alias."""
    training: Mapping[str, Any] | None = None
    """What making it cost: seconds, device, n_scan_passes, race_key, and the site that asked for it; None of a version
    that is older than this."""

    @property
    def name(self) -> str:
        """As predictions and servings name it: `lesion@3`."""
        return f"{self.model}@{self.version}"

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON-able values, times in ISO 8601."""
        times = {"created_at": self.created_at.isoformat(), "since": self.since.isoformat()}
        return {"name": self.name, **asdict(self), **times}


def calibration_under(ref: ModelRef, serving: Serving) -> Calibration:
    """What a site's calibration is once it runs another version; the threshold is the version's.

    What labels said of the site's scores goes on; but scores of a version that was made for the site are believed as
    they come, at the prevalence that the site assumes.
    """
    own = ref.calibration.moved_to(serving.calibration.prevalence)
    if (ref.training or {}).get("site") == serving.site:
        return own
    return replace(serving.calibration, threshold=own.threshold)


def models(workspace: Workspace, model: str | None = None) -> list[ModelRef]:
    """Every version at its present alias, by model and version; `model` narrows them to one target's."""
    with workspace.lake.connect([layout.MODEL]) as db:
        rows = load(__package__, "model_versions").run(db).to_pylist()
    return [_model_ref(row) for row in rows if model is None or row["model"] == model]


def find(workspace: Workspace, name: str) -> ModelRef:
    """The version named `model@version`.

    Raises:
        UnknownName: If there is none; lists those that exist.
    """
    known = {ref.name: ref for ref in models(workspace)}
    if name not in known:
        raise UnknownName("model", name, known)
    return known[name]


def champion(workspace: Workspace, target: str) -> ModelRef | None:
    """The version in use for the target; None before the first."""
    return _champion_of(_known(workspace, target)[0])


def read_reference(workspace: Workspace, bundle_uri: str) -> pa.Table:
    """The frozen list (site, series_key, revision) in a bundle.

    Raises:
        BadInput: If the file is missing.
    """
    try:
        data = workspace.objects.get(f"{bundle_uri}/{REFERENCE}")
    except FileNotFoundError as error:
        raise BadInput(f"{bundle_uri}/{REFERENCE} is missing; restore it from a backup") from error
    return pq.read_table(BytesIO(data))


def trained_on(workspace: Workspace, ref: ModelRef) -> set[tuple[str, str]]:
    """(site, series_key) of every scan that moved a weight of this version or of one that it comes from."""
    known = {other.name: other for other in models(workspace, ref.model)}
    seen: set[tuple[str, str]] = set()
    step: ModelRef | None = ref
    while step is not None:
        rows = read_reference(workspace, step.bundle_uri).to_pylist()
        seen |= {(row["site"], row["series_key"]) for row in rows}
        step = known.get(step.parent or "")
    return seen


def next_version(workspace: Workspace, model: str) -> int:
    """The number that the next version would get, from 1."""
    return max((ref.version for ref in models(workspace, model)), default=0) + 1


def register(workspace: Workspace, made: ModelRef, *, run: str) -> ModelRef:
    """Write a new version; its files must lie at `made.bundle_uri` already.

    Raises:
        BadRequest: If another version was registered, or an alias moved, since `made.epoch` was chosen.
    """
    _append(workspace, [made], run=run)
    return made


def alias(workspace: Workspace, ref: ModelRef, name: Alias, *, run: str, at: datetime) -> ModelRef:
    """Give one version an alias other than `champion`, which only `promote` and `rollback` give.

    Raises:
        BadRequest: If that is asked, or the present champion would lose its alias, or another event came between, or
            what was ever an adapted version, which is for one site, would become anything but refused.
    """
    known, epoch = _known(workspace, ref.model)
    present = known.get(ref.name, ref)
    if name == "champion" or present.alias == "champion":
        raise BadRequest(f"{ref.name}: only a promotion or a rollback changes who is champion")
    if name != "refused" and (name == "adapted" or was_adapted(workspace, ref)):
        raise BadRequest(f"{ref.name}: what was adapted to one site is for no other, and nothing else becomes adapted")
    changed = _renamed(present, name, epoch, at)
    _append(workspace, [changed], run=run)
    return changed


def promote(workspace: Workspace, ref: ModelRef, *, over: ModelRef | None, run: str, at: datetime) -> ModelRef:
    """Make a version the champion; the present one becomes `former`. Servings are not touched.

    Args:
        workspace: Where it counts.
        ref: The version to promote.
        over: The champion that it was judged against; None if there was none.
        run: The run that promotes.
        at: The moment, UTC.

    Raises:
        BadRequest: If `over` is not the champion any more, another event came between, or the version was ever adapted.
    """
    known, epoch = _known(workspace, ref.model)
    present = _champion_of(known)
    if (present and present.name) != (over and over.name):
        found = present.name if present else "none"
        raise BadRequest(f"{ref.name}: the champion is now {found}, not {over and over.name}; judge again")
    if present is not None and present.name == ref.name:
        return present
    refuse_adapted(workspace, ref)
    promoted = _renamed(ref, "champion", epoch, at)
    former = [] if present is None else [_renamed(present, "former", epoch, at)]
    _append(workspace, [promoted, *former], run=run)
    return promoted


def was_adapted(workspace: Workspace, ref: ModelRef) -> bool:
    """Whether the version has ever been an adaptation to one site's scans, whatever its alias is now."""
    where = (pc.field("model") == ref.model) & (pc.field("version") == ref.version) & (pc.field("alias") == "adapted")
    return bool(workspace.lake.read(layout.MODEL, where, ["epoch"]).num_rows)


def refuse_adapted(workspace: Workspace, ref: ModelRef) -> None:
    """Let a version pass that may become champion.

    Raises:
        BadRequest: If it was ever adapted to one site.
    """
    if was_adapted(workspace, ref):
        raise BadRequest(f"{ref.name} was adapted to one site's scans and is for no other; promote another version")


def rollback(workspace: Workspace, model: str, *, run: str, at: datetime) -> ModelRef:
    """Put the champion before the present one back; the present one becomes `refused`. Servings are not touched.

    Raises:
        BadRequest: If there is no former champion.
    """
    known, epoch = _known(workspace, model)
    present, wanted = _champion_of(known), _former_of(known)
    if present is None or wanted is None:
        raise _nothing_before(model)
    restored = _renamed(wanted, "champion", epoch, at)
    _append(workspace, [restored, _renamed(present, "refused", epoch, at)], run=run)
    return restored


def former(workspace: Workspace, model: str) -> ModelRef:
    """The version that a rollback would make champion.

    Raises:
        BadRequest: If there is none.
    """
    found = _former_of(_known(workspace, model)[0])
    if found is None:
        raise _nothing_before(model)
    return found


def next_epoch(workspace: Workspace, model: str) -> int:
    """The number of the next event of a model, from 0."""
    return _known(workspace, model)[1]


def _known(workspace: Workspace, model: str) -> tuple[dict[str, ModelRef], int]:
    """Versions by name and the number of the next event, of ONE look: two would let an event slip in between."""
    known = {ref.name: ref for ref in models(workspace, model)}
    return known, max((ref.epoch for ref in known.values()), default=-1) + 1


def _champion_of(known: Mapping[str, ModelRef]) -> ModelRef | None:
    return next((ref for ref in known.values() if ref.alias == "champion"), None)


def _former_of(known: Mapping[str, ModelRef]) -> ModelRef | None:
    formers = [ref for ref in known.values() if ref.alias == "former"]
    return max(formers, key=lambda ref: ref.epoch, default=None)


def _nothing_before(model: str) -> BadRequest:
    return BadRequest(f"{model}: there is no former champion to go back to; `sitedrift model list` shows all versions")


def _renamed(ref: ModelRef, name: Alias, epoch: int, at: datetime) -> ModelRef:
    return replace(ref, alias=name, epoch=epoch, since=at)


def _append(workspace: Workspace, events: list[ModelRef], *, run: str) -> None:
    """Write all rows of one event at once, if no other event has taken its number."""
    first = events[0]
    rows = [_row(event, run) for event in events]
    transaction = f"model/{first.model}/{first.epoch}"
    if not workspace.lake.append(layout.MODEL, rows_of(MODEL, rows), transaction=transaction):
        raise BadRequest(f"{first.model}: its models changed meanwhile; look again and repeat")


def _row(ref: ModelRef, run: str) -> dict[str, Any]:
    json_columns = {
        "metrics": json.dumps(ref.metrics, sort_keys=True, allow_nan=False),
        "calibration": json.dumps(asdict(ref.calibration), sort_keys=True),
        "training": None if ref.training is None else json.dumps(dict(ref.training), sort_keys=True, allow_nan=False),
    }
    return {**asdict(ref), **json_columns, "run": run}


def _model_ref(row: dict[str, Any]) -> ModelRef:
    is_json = ("metrics", "calibration", "training")
    columns = {name: row[name] for name in ModelRef.__dataclass_fields__ if name not in is_json}
    training = None if row["training"] is None else json.loads(row["training"])
    calibration = Calibration(**json.loads(row["calibration"]))
    return ModelRef(metrics=json.loads(row["metrics"]), calibration=calibration, training=training, **columns)
