"""The files of one model version, laid out as a MONAI bundle.

configs/metadata.json       what it is, what goes in and comes out, how scores are made
models/model.safetensors    weights; loading them runs no code
reference.parquet           the frozen list of series that it was trained on
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from platform_core.errors import BadInput
from platform_core.learn.calibrate import Platt
from platform_core.learn.data import Framing
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.registry import REFERENCE, read_reference
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import code_version
from platform_core.storage.objects import Objects

METADATA, WEIGHTS = "configs/metadata.json", "models/model.safetensors"


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
    """Store the bundle in a folder of its own content under `folder`; returns that folder, relative to the workspace.

    Two trainings that claim the same version can so never overwrite each other's weights.
    """
    import safetensors.torch

    weights = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.network.state_dict().items()}
    )
    sha256 = hashlib.sha256(weights).hexdigest()
    uri = f"{folder}/{sha256[:12]}"
    reference = BytesIO()
    pq.write_table(bundle.reference, reference)
    workspace.objects.put(f"{uri}/{WEIGHTS}", weights)
    workspace.objects.put(f"{uri}/{REFERENCE}", reference.getvalue())
    workspace.objects.put(f"{uri}/{METADATA}", json.dumps(_metadata(bundle, sha256), indent=2).encode())
    return uri


def read_bundle(workspace: Workspace, uri: str) -> Bundle:
    """Read a bundle back; its network is on the CPU in evaluation mode.

    Raises:
        BadInput: If a file is missing, or the weights are not those that were stored.
    """
    import safetensors.torch

    metadata = json.loads(_get(workspace.objects, f"{uri}/{METADATA}"))
    weights = _get(workspace.objects, f"{uri}/{WEIGHTS}")
    if hashlib.sha256(weights).hexdigest() != metadata["weights_sha256"]:
        raise BadInput(f"{uri}/{WEIGHTS}: these are not the weights that were stored; restore the file from a backup")
    framing = metadata["framing"]
    network = build_network(metadata["network"], len(framing["grid"]))
    network.load_state_dict(safetensors.torch.load(weights))
    return Bundle(
        network_name=metadata["network"],
        network=network.eval(),
        framing=Framing(grid=tuple(framing["grid"]), window=framing["window"] and tuple(framing["window"])),
        platt=Platt(**metadata["platt"]),
        reference=read_reference(workspace, uri),
        source_weights=SourceWeights(**started) if (started := metadata.get("source_weights")) else None,
    )


def _get(objects: Objects, path: str) -> bytes:
    try:
        return objects.get(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: a file of a registered model is missing; restore it from a backup") from error


def _metadata(bundle: Bundle, weights_sha256: str) -> dict[str, Any]:
    import monai
    import torch

    framing = bundle.framing
    channel = {"0": "intensity, window 0 to 1" if framing.window else "intensity, mean 0, standard deviation 1"}
    return {
        "version": "0.1.0",
        "code_version": code_version(),
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__,
        "task": "binary classification of one scan",
        "network": bundle.network_name,
        "weights_sha256": weights_sha256,
        "framing": asdict(framing),
        "platt": asdict(bundle.platt),
        "source_weights": bundle.source_weights and asdict(bundle.source_weights),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": 1,
                    "spatial_shape": list(framing.grid),
                    "dtype": "float32",
                    "channel_def": channel,
                }
            },
            "outputs": {"pred": {"type": "probabilities", "format": "logit", "num_channels": 1, "dtype": "float32"}},
        },
    }
