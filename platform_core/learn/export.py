"""A model version as one zip file that leaves the workspace: a MONAI bundle without any scan's or patient's key.

Equal models give equal bytes. The frozen list of series stays behind: its hash goes along, and how many scans of
each site were on it.
"""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import torch

from platform_core.errors import BadRequest, NoSuchPlace
from platform_core.learn.bundle import (
    FEWEST_TOLD,
    METADATA,
    WEIGHTS,
    described,
    read_bundle,
    read_metadata,
    read_weights,
)
from platform_core.learn.networks import Classifier
from platform_core.learn.registry import ModelRef, find, read_reference
from platform_core.manifest.serving import current_serving
from platform_core.manifest.workspace import Workspace

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can state."""
ONNX, SUMS = "models/model.onnx", "SHA256SUMS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A zip file and what it holds."""

    file: Path
    sha256: str
    n_bytes: int
    paths: tuple[str, ...]


def export_model(
    workspace: Workspace,
    model: str,
    file: Path,
    *,
    site: str | None = None,
    documents: Mapping[str, bytes] | None = None,
    onnx: bool = False,
) -> Exported:
    """Write `model@version` as a zip.

    Args:
        workspace: Where the model lies.
        model: `model@version`.
        file: The zip; there must be none yet.
        site: Whose recipe and calibration go along; None: those of the model's own training.
        documents: More files by their path in the bundle, the model card as `docs/README.md` among them.
        onnx: Also the network as ONNX.

    Raises:
        UnknownName: If there is no such model or site.
        BadRequest: If the file is there already or cannot be written, the site does not run the model, or ONNX is
            asked for and not installed.
        BadInput: If a file of the model is missing or was changed.
    """
    if file.exists():
        raise BadRequest(f"{file} is there already and is left as it is; choose another name")
    if not file.parent.is_dir():
        raise NoSuchPlace(str(file.parent), "a folder to write into", "make it, or choose another")
    ref = find(workspace, model)
    files = bundle_files(workspace, ref, site=site) | dict(documents or {})
    if onnx:
        files[ONNX] = _as_onnx(workspace, ref)
    data = zipped(files, folder=f"{ref.model}-{ref.version}")
    _put(file, data)
    return Exported(
        file=file, sha256=hashlib.sha256(data).hexdigest(), n_bytes=len(data), paths=tuple(sorted([*files, SUMS]))
    )


def bundle_files(workspace: Workspace, ref: ModelRef, *, site: str | None = None) -> dict[str, bytes]:
    """What leaves of a model version, by path in the bundle.

    Raises:
        UnknownName, BadRequest, BadInput: As `export_model`.
    """
    recipe, calibration = ref.recipe, ref.calibration
    if site is not None:
        workspace.site(site)
        serving = current_serving(workspace, site, ref.model)
        if serving is None or serving.model != ref.name:
            runs = serving.model if serving else "nothing"
            raise BadRequest(f"{site} does not run {ref.name} but {runs}; leave --site out, or export what it runs")
        recipe, calibration = serving.recipe, serving.calibration
    files = described(workspace, ref, recipe=recipe, calibration=calibration)
    files[METADATA] = _without_places(files[METADATA])
    kept = read_metadata(workspace, ref.bundle_uri)
    files[WEIGHTS] = read_weights(workspace, ref.bundle_uri, kept["weights_sha256"])
    files["configs/reference.json"] = json.dumps(counted_reference(workspace, ref), indent=2).encode()
    return files


def counted_reference(workspace: Workspace, ref: ModelRef) -> dict[str, object]:
    """The hash of the list of series that a version was trained on, and how many there were of each site."""
    n = Counter(read_reference(workspace, ref.bundle_uri).column("site").to_pylist())
    return {"sha256_start": ref.reference, "n_scans": {site: told_count(n[site]) for site in sorted(n)}}


def told_count(n: int) -> int | str:
    """A count that leaves the workspace."""
    return n if n >= FEWEST_TOLD else f"fewer than {FEWEST_TOLD}"


def zipped(files: Mapping[str, bytes], *, folder: str) -> bytes:
    """The files under one folder, with the hash of each in `SHA256SUMS`; equal files give equal bytes."""
    sums = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in sorted({**files, SUMS: sums.encode()}.items()):
            member = zipfile.ZipInfo(f"{folder}/{path}", LONG_AGO)
            member.create_system, member.external_attr = 3, 0o644 << 16
            member.compress_type = zipfile.ZIP_STORED if path.startswith("models/") else zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return out.getvalue()


def _without_places(metadata: bytes) -> bytes:
    """Of a file that the weights began with only the last part of its name leaves: its folder may name people."""
    facts = json.loads(metadata)
    if facts["source_weights"]:
        facts["source_weights"]["where"] = facts["source_weights"]["where"].rstrip("/").rpartition("/")[2]
    return json.dumps(facts, indent=2).encode()


def _put(file: Path, data: bytes) -> None:
    try:
        with file.open("xb") as out:
            out.write(data)
    except FileExistsError as error:
        raise BadRequest(f"{file} is there already and is left as it is; choose another name") from error
    except OSError as error:
        file.unlink(missing_ok=True)
        raise BadRequest(f"{file} cannot be written ({error.strerror}); choose another place") from error


def _as_onnx(workspace: Workspace, ref: ModelRef) -> bytes:
    """The network, framed volume to logit, for any number of scans at once."""
    if not all(map(find_spec, ("onnx", "onnxscript"))):
        raise BadRequest("--onnx needs the packages onnx and onnxscript: pip install onnx onnxscript")
    bundle = read_bundle(workspace, ref.bundle_uri)
    return _onnx_bytes(bundle.network, torch.zeros(2, 1, *bundle.framing.grid))


def _onnx_bytes(network: Classifier, shown: torch.Tensor) -> bytes:
    program = torch.onnx.export(
        network, (shown,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), input_names=["image"],
        output_names=["logit"], verbose=False,
    )  # fmt: skip
    assert program is not None, "with dynamo a program comes back"
    return bytes(program.model_proto.SerializeToString())
