"""Weights that others have made, read as tensors by name. Nothing in such a file is ever run.

Taken: PyTorch files (`torch.load(weights_only=True)`), safetensors, and MONAI bundles as a folder or zip, of which
only the weights are opened: a bundle's configs may name any code. What fits a network is `transplant.py`'s business.
"""

import hashlib
import pickle
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch

from platform_core.errors import StorageUnavailable, UnusableWeights
from platform_core.manifest.workspace import Workspace
from platform_core.storage.objects import Objects, open_objects

Tensors = dict[str, torch.Tensor]

IN_BUNDLE = ("models/model.safetensors", "models/model.pt")
"""Where a MONAI bundle keeps its weights; the safer format first."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
"""Under which a training script stores the network beside its optimizer, in order of preference."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "encoder.")
"""What wrappers (data parallel, compile, a training class) put before every name."""
MOST_BYTES = 4 * 2**30
"""More than the weights of any network here with its optimizer; a small file that claims more is a bomb."""
TIMEOUT_S = 60.0
MOST_SECONDS = 1800.0
"""For a whole file: 4 GiB at 20 Mbit per second. A server that drips would hold a worker for ever."""
CHUNK_BYTES = 2**20
PICKLE = b"\x80"
"""First byte of every pickle of protocol 2 or later."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Tensors of one file by their names, without what wrappers put before them."""

    where: str
    """As errors name it: without user, password or query."""
    sha256: str
    """Of the file's bytes."""
    tensors: Tensors


def find_checkpoint(workspace: Workspace, place: str, *, sha256: str | None = None) -> Checkpoint:
    """Fetch and read the weights at a place.

    Args:
        workspace: To whose root a relative path belongs.
        place: A path, s3:// or https://; a folder is taken for a MONAI bundle.
        sha256: What the file must hash to; None: anything.

    Raises:
        UnusableWeights: If there is no such file, it is not the one that was meant, or it cannot be read safely.
        StorageUnavailable: If the store or server did not answer.
    """
    where = _without_secrets(place)
    data = _download(place, where) if place.startswith(("http://", "https://")) else _from_store(workspace, place)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise UnusableWeights(where, "changed", f"expected sha256 {sha256}, found {found}; fetch the right file")
    return Checkpoint(where=where, sha256=found, tensors=read_checkpoint(data, where))


def read_checkpoint(data: bytes, where: str) -> Tensors:
    """Tensors by name from the bytes of a file, on the CPU.

    Raises:
        UnusableWeights: If it holds more than tensors and plain values (`unsafe`), cannot be read (`damaged`), unpacks
            to too much (`too_large`), or holds no weights (`other_architecture`).
    """
    if len(data) > MOST_BYTES:
        raise _too_large(where)
    if _is_zip(data):
        data = _unpacked(data, where)
    found = _read_safetensors(data, where) if _is_safetensors(data) else _read_torch(data, where)
    tensors = {_bare(name): tensor for name, tensor in _named_tensors(found).items()}
    if not tensors:
        detail = "it holds no weights by name; a file of a network's `state_dict()` is needed"
        raise UnusableWeights(where, "other_architecture", detail)
    return tensors


def _from_store(workspace: Workspace, place: str) -> bytes:
    objects, path = _located(workspace, place)
    for candidate in (path, *(f"{path}/{name}" for name in IN_BUNDLE)):
        if objects.exists(candidate):
            return objects.get(candidate)
    detail = f"there is no such file, nor a bundle folder with {' or '.join(IN_BUNDLE)}; correct the path"
    raise UnusableWeights(place, "missing", detail)


def _located(workspace: Workspace, place: str) -> tuple[Objects, str]:
    """The store that a place is in, and its path there."""
    place = str(Path(place).expanduser()) if place.startswith("~") else place.rstrip("/")
    if not place.startswith(("s3://", "/")):
        return workspace.objects, place
    folder, _, name = place.rpartition("/")
    return open_objects(folder or "/"), name


def _download(url: str, where: str) -> bytes:
    if not url.startswith("https://"):
        raise UnusableWeights(where, "missing", "weights are fetched over https only; change http:// to https://")
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - https, and checked after redirects
            if not str(answer.url).startswith("https://"):
                raise UnusableWeights(where, "missing", "the server sends on to an address that is not https")
            data = _whole(answer, where)
    except HTTPError as error:
        if error.code < 500:
            raise UnusableWeights(where, "missing", f"the server answers {error.code}; correct the address") from error
        raise StorageUnavailable(where, f"the server answers {error.code}") from error
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise StorageUnavailable(where, f"{reason}; or fetch the file by hand and name its path") from error
    return data


def _whole(answer: Any, where: str) -> bytes:
    """All that the server sends, if it sends what it said, and in time."""
    began, parts, n_bytes = time.monotonic(), [], 0
    while n_bytes <= MOST_BYTES and (part := answer.read1(CHUNK_BYTES)):
        parts.append(part)
        n_bytes += len(part)
        if time.monotonic() - began > MOST_SECONDS:
            told = f"{n_bytes} bytes came in {MOST_SECONDS / 60:.0f} minutes"
            raise StorageUnavailable(where, f"{told}; or fetch the file by hand and name its path")
    stated = answer.headers.get("Content-Length")
    if stated is not None and n_bytes < min(int(stated), MOST_BYTES):
        raise StorageUnavailable(where, f"the connection ended after {n_bytes} of {stated} bytes")
    return b"".join(parts)


def _without_secrets(place: str) -> str:
    if not place.startswith(("http://", "https://")):
        return place
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def _is_zip(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04"


def _is_safetensors(data: bytes) -> bool:
    """Eight bytes of length, then JSON; a pickle begins otherwise."""
    return 0 < int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{"


def _unpacked(data: bytes, where: str) -> bytes:
    """The weights in the zip of a bundle; a PyTorch file is a zip too, and comes back as it is."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            _refuse_unfit(archive, where)
            if any(name.endswith("/data.pkl") for name in names):
                return data
            wanted = [name for ending in IN_BUNDLE for name in names if f"/{name}".endswith(f"/{ending}")]
            if wanted:
                return _opened(archive.read(wanted[0]), where)
    except UnusableWeights:
        raise
    except Exception as error:  # the parser of hostile bytes raises whatever it likes
        raise _damaged(where, error) from error
    raise UnusableWeights(where, "other_architecture", f"the zip holds none of {', '.join(IN_BUNDLE)}")


def _opened(inner: bytes, where: str) -> bytes:
    """The weights of a bundle, which may be a zip of PyTorch's, but not another bundle."""
    if _is_zip(inner):
        with zipfile.ZipFile(BytesIO(inner)) as archive:
            _refuse_unfit(archive, where)
    return inner


def _refuse_unfit(archive: zipfile.ZipFile, where: str) -> None:
    """Bombs, and TorchScript, which is a program beside its weights."""
    if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
        raise _too_large(where)
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise _unsafe(where, "a TorchScript program")


def _read_safetensors(data: bytes, where: str) -> object:
    import safetensors.torch

    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the parser of hostile bytes raises whatever it likes
        raise _damaged(where, error) from error


def _read_torch(data: bytes, where: str) -> object:
    try:
        return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        is_pickle = _is_zip(data) or data.startswith(PICKLE)
        raise (_unsafe(where, "more than tensors") if is_pickle else _damaged(where, error)) from error
    except Exception as error:  # the parser of hostile bytes raises whatever it likes
        raise _damaged(where, error) from error


def _named_tensors(found: object) -> Tensors:
    """The mapping of names to tensors: the file itself, or what one of the usual wrappers holds."""
    if not isinstance(found, Mapping):
        return {}
    if any(isinstance(value, torch.Tensor) for value in found.values()):
        return {str(name): value for name, value in found.items() if _is_plain(value)}
    inner = (found[name] for name in WRAPPERS if name in found)
    return next((tensors for tensors in map(_named_tensors, inner) if tensors), {})


def _is_plain(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _bare(name: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return _bare(name.removeprefix(prefix)) if prefix else name


def _unsafe(where: str, what: str) -> UnusableWeights:
    detail = (
        f"it holds {what}, and reading that could run code, so it is refused; "
        "where you trust the file, save the network's state_dict() as safetensors"
    )
    return UnusableWeights(where, "unsafe", detail)


def _damaged(where: str, error: Exception) -> UnusableWeights:
    return UnusableWeights(where, "damaged", f"it cannot be read ({type(error).__name__}); fetch it again")


def _too_large(where: str) -> UnusableWeights:
    return UnusableWeights(where, "too_large", f"it takes more than {MOST_BYTES >> 30} GiB; no network here does")
