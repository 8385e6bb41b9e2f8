"""The files of one model version: a MONAI bundle, which `monai.bundle` loads and runs.

configs/metadata.json       what it is, in MONAI's schema, and what this platform needs to predict with it
configs/inference.json      from a file to a probability, with MONAI alone
configs/harmonize.json      the same from a native volume, where this platform is installed
configs/recipe.json         the fitted recipe
configs/calibration.json    from logit to probability
docs/README.md, LICENSE     how to run it, until a model card takes its place; whose it is
models/model.pt             weights by MONAI's names; read with weights_only, so that loading them runs no code
reference.parquet           the frozen list of series that it was trained on; never exported
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from platform_core.errors import BadInput, UnknownName
from platform_core.harmonize.stage import written_recipe
from platform_core.learn.bundle_configs import (
    SCHEMA,
    Answers,
    data_format,
    harmonizing_config,
    inference_config,
    is_repeated,
)
from platform_core.learn.calibrate import Platt
from platform_core.learn.data import Framing
from platform_core.learn.networks import Classifier, build_network, public_names
from platform_core.learn.registry import REFERENCE, ModelRef, models, read_reference
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import code_version
from platform_core.storage.objects import Objects

METADATA, WEIGHTS = "configs/metadata.json", "models/model.pt"
INFERENCE, HARMONIZE = "configs/inference.json", "configs/harmonize.json"
RECIPE, CALIBRATION = "configs/recipe.json", "configs/calibration.json"
KEPT = (
    "code_version",
    "monai_version",
    "pytorch_version",
    "network",
    "weights_sha256",
    "framing",
    "platt",
    "source_weights",
    "table_versions",
)
"""Of the metadata, what was true when the weights were made."""
LICENSE, README = "LICENSE", "docs/README.md"
RIGHTS = """The weights and documents in this folder belong to the operators of the workspace {name!r}.
Nobody but they can license them; this file grants nothing. Sitedrift, the program that wrote them, is under the
Apache License 2.0, and so is MONAI.
"""
START = """# {name}

    pip install monai nibabel fire
    python -m monai.bundle run --config_file configs/inference.json --image scan.nii.gz --output answers.json

It takes {takes}.
`sitedrift model card {name}` puts its model card here.
"""
NOT_STATED = "Not stated."
FEWEST_TOLD = 10
"""Smaller counts leave as `fewer than 10`: the least cell that health statistics commonly publish (proposed)."""
NATIVE_VOLUMES = "native volumes: inference.json does what the recipe does"
HARMONIZED_VOLUMES = (
    "volumes that recipe.json has harmonized; where Sitedrift is installed, "
    "--config_file \"['configs/inference.json','configs/harmonize.json']\" takes native ones"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWeights:
    """The file that a model's weights began with."""

    where: str
    sha256: str
    share: float
    """Of its layers and the network's that matched."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """Everything that prediction needs."""

    network_name: str
    network: Classifier
    framing: Framing
    platt: Platt
    reference: pa.Table
    """site, series_key, revision."""
    source_weights: SourceWeights | None = None


def write_bundle(workspace: Workspace, bundle: Bundle, folder: str) -> str:
    """Store what predicts, in a folder of its own content under `folder`; returns that folder, as `bundle_uri`.

    Two trainings that claim the same version can so never overwrite each other's weights. `describe` adds the rest.
    """
    weights = _weights(bundle)
    sha256 = hashlib.sha256(weights).hexdigest()
    uri = f"{folder}/{sha256[:12]}"
    reference = BytesIO()
    pq.write_table(bundle.reference, reference)
    workspace.objects.put(f"{uri}/{WEIGHTS}", weights)
    workspace.objects.put(f"{uri}/{REFERENCE}", reference.getvalue())
    workspace.objects.put(f"{uri}/{METADATA}", _json(_kept(workspace, bundle, sha256)))
    return uri


def describe(workspace: Workspace, ref: ModelRef) -> None:
    """Add to a stored bundle what MONAI and a reader need: metadata, inference, recipe, calibration.

    Raises:
        BadInput: If a file of the model is missing or was changed.
    """
    for path, data in described(workspace, ref, recipe=ref.recipe, calibration=ref.calibration).items():
        workspace.objects.put(f"{ref.bundle_uri}/{path}", data)


def described(workspace: Workspace, ref: ModelRef, *, recipe: str, calibration: Calibration) -> dict[str, bytes]:
    """All files but weights and reference by path, for a recipe and calibration that the model is served with.

    Raises:
        BadInput: If a file of the model is missing.
    """
    kept = read_metadata(workspace, ref.bundle_uri)
    answers = Answers(
        network=kept["network"],
        framing=_framing(kept["framing"]),
        platt=Platt(**kept["platt"]),
        calibration=calibration,
    )
    steps = _steps(workspace, recipe)
    takes_native = steps is not None and is_repeated(steps, answers.framing)
    takes = NATIVE_VOLUMES if takes_native else HARMONIZED_VOLUMES
    ours = {name: kept.get(name) for name in KEPT}
    files: dict[str, Any] = {
        METADATA: _monai_metadata(workspace, ref, answers) | ours | {"takes": takes},
        INFERENCE: inference_config(answers),
        RECIPE: {"recipe": recipe, "steps": steps},
        CALIBRATION: {**asdict(answers.platt), **asdict(calibration)},
    }
    if steps is not None and not takes_native:
        files[HARMONIZE] = harmonizing_config()
    told = {LICENSE: RIGHTS.format(name=workspace.settings.name), README: START.format(name=ref.name, takes=takes)}
    return {path: _json(facts) for path, facts in files.items()} | {path: text.encode() for path, text in told.items()}


def read_metadata(workspace: Workspace, uri: str) -> dict[str, Any]:
    """What `configs/metadata.json` of a bundle says.

    Raises:
        BadInput: If the file is missing.
    """
    facts: dict[str, Any] = json.loads(_get(workspace.objects, f"{uri}/{METADATA}"))
    return facts


def read_bundle(workspace: Workspace, uri: str) -> Bundle:
    """Read a bundle back; its network is on the CPU in evaluation mode.

    Raises:
        BadInput: If a file is missing, or the weights are not those that were stored.
    """
    metadata = read_metadata(workspace, uri)
    weights = read_weights(workspace, uri, metadata["weights_sha256"])
    framing = _framing(metadata["framing"])
    network = build_network(metadata["network"], len(framing.grid))
    names = public_names(metadata["network"], len(framing.grid))
    found = torch.load(BytesIO(weights), map_location="cpu", weights_only=True)
    network.load_state_dict({names[public]: tensor for public, tensor in found.items()})
    return Bundle(
        network_name=metadata["network"],
        network=network.eval(),
        framing=framing,
        platt=Platt(**metadata["platt"]),
        reference=read_reference(workspace, uri),
        source_weights=SourceWeights(**started) if (started := metadata.get("source_weights")) else None,
    )


def read_weights(workspace: Workspace, uri: str, sha256: str) -> bytes:
    """The weights' file of a bundle as it was stored.

    Raises:
        BadInput: If it is missing, or is another one.
    """
    data = _get(workspace.objects, f"{uri}/{WEIGHTS}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{uri}/{WEIGHTS}: these are not the weights that were stored; restore the file from a backup")
    return data


def _weights(bundle: Bundle) -> bytes:
    """The network's tensors by the names that MONAI gives them; equal tensors give equal bytes."""
    ours = bundle.network.state_dict()
    names = public_names(bundle.network_name, len(bundle.framing.grid))
    out = BytesIO()
    torch.save({public: ours[key].detach().cpu().contiguous() for public, key in names.items()}, out)
    return out.getvalue()


def _get(objects: Objects, path: str) -> bytes:
    try:
        return objects.get(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: a file of a registered model is missing; restore it from a backup") from error


def _framing(facts: Mapping[str, Any]) -> Framing:
    return Framing(grid=tuple(facts["grid"]), window=facts["window"] and tuple(facts["window"]))


def _kept(workspace: Workspace, bundle: Bundle, weights_sha256: str) -> dict[str, Any]:
    """What prediction and lineage need, beyond MONAI's schema."""
    import monai

    return {
        "code_version": code_version(),
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__),
        "network": bundle.network_name,
        "weights_sha256": weights_sha256,
        "framing": asdict(bundle.framing),
        "platt": asdict(bundle.platt),
        "source_weights": bundle.source_weights and asdict(bundle.source_weights),
        "table_versions": {table: n for table, n in sorted(workspace.lake.versions().items()) if n >= 0},
    }


def _monai_metadata(workspace: Workspace, ref: ModelRef, answers: Answers) -> dict[str, Any]:
    """What MONAI's schema asks for."""
    import nibabel
    import numpy as np

    target = workspace.target(ref.model)
    negative, positive = target.classes
    sites = ", ".join(sorted(ref.metrics))
    return {
        "schema": SCHEMA,
        "version": _version(ref.version),
        "changelog": _changelog(workspace, ref),
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": nibabel.__version__},
        "name": ref.name,
        "task": f"Binary {target.task} of one scan: {target.label}, {positive} against {negative}",
        "description": f"{answers.network} for {target.modality}, made by {ref.strategy} "
        f"{f'from {ref.parent}' if ref.parent else 'at the source site'}; a score is a log likelihood ratio",
        "authors": f"The operators of {workspace.settings.name}",
        "copyright": f"The operators of {workspace.settings.name}; see LICENSE",
        "data_source": f"Scans of {sites or target.source_site}, which are not distributed",
        "data_type": "nibabel",
        "image_classes": f"one channel, {target.modality}",
        "label_classes": f"0 {negative}, 1 {positive}",
        "pred_classes": f"one logit of {positive}{' per voxel' if target.task == 'segmentation' else ''}",
        "eval_metrics": {site: _told(found) for site, found in ref.metrics.items()},
        "intended_use": target.intended_use or NOT_STATED,
        "out_of_scope": target.out_of_scope or NOT_STATED,
        "references": [],
        "network_data_format": data_format(answers.network, answers.framing),
    }


def _told(found: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a site's held-out scans, if they are not too few to say anything."""
    is_told = found.get("n_held_out", 0) >= FEWEST_TOLD
    return {name: found[name] for name in ("log_loss", "auroc", "dice") if is_told and name in found}


def _changelog(workspace: Workspace, ref: ModelRef) -> dict[str, str]:
    """Each version that this one comes from, the newest first."""
    known = {one.name: one for one in models(workspace, ref.model)} | {ref.name: ref}
    told: dict[str, str] = {}
    step: ModelRef | None = ref
    while step is not None:
        parent = f" from version {step.parent.partition('@')[2]}" if step.parent else ""
        told[_version(step.version)] = f"{step.strategy}{parent}, {step.created_at:%B %Y}"
        step = known.get(step.parent or "")
    return told


def _version(number: int) -> str:
    return f"{number}.0.0"


def _steps(workspace: Workspace, recipe: str) -> list[dict[str, Any]] | None:
    """The fitted steps; None where the table has them no more."""
    try:
        steps: list[dict[str, Any]] = json.loads(written_recipe(workspace, recipe))
    except UnknownName:
        return None
    return steps


def _json(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, indent=2).encode()
