"""Whether anything of a patient is left: every file of a workspace, unpacked and looked through."""

import re
from collections.abc import Collection, Iterator
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from platform_core import layout
from platform_core.storage.objects import Objects

WORDS = re.compile(rb"[0-9a-z]+")
NO_TEXT = (".nii.gz", ".safetensors", ".pt")
"""Voxels and weights: only their paths can hold a key."""


def find_traces(objects: Objects, words: Collection[str]) -> list[str]:
    """Paths of files that hold one of these words, in their name or content, in order.

    A word is a run of small letters and digits, as keys and hashes are. Parquet is read column by column.
    """
    wanted = {word.encode() for word in words}
    return [path for path in objects.list("") if wanted & _found(objects, path)] if wanted else []


def _found(objects: Objects, path: str) -> set[bytes]:
    found = set(WORDS.findall(path.encode()))
    if path.endswith(NO_TEXT) or path.startswith(f"{layout.VOLUMES}/"):
        return found
    try:
        data = objects.get(path)
    except FileNotFoundError:  # gone since it was listed
        return set()
    return found.union(*(WORDS.findall(text) for text in _texts(path, data)))


def _texts(path: str, data: bytes) -> Iterator[bytes]:
    yield data
    if path.endswith(".parquet"):
        try:
            file = pq.ParquetFile(BytesIO(data))
        except pa.ArrowException:
            return
        for batch in file.iter_batches(columns=_texts_of(file.schema_arrow)):
            yield str(batch.to_pylist()).encode()


def _texts_of(schema: pa.Schema) -> list[str]:
    """Columns that hold text at any depth."""
    return [field.name for field in schema if re.search(r"string|binary|dictionary", str(field.type))]
