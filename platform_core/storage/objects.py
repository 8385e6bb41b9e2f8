"""Whole objects by relative path, in a folder or under an S3 prefix.

A put is atomic: a reader sees the old bytes or the new, never half. A create is atomic too:
of several at the same path one wins, and it alone is told so. Tables are not objects: they
live in `tables.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from platform_core.layout import is_remote


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as a listing tells of it."""

    path: str
    n_bytes: int
    modified_at: datetime
    """UTC, by the store's clock."""


class Objects(Protocol):
    """Bytes by relative path."""

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write or replace one object, atomically; one that can be made again need not be durable."""

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write one object if there is none at `path`; whether it was this call that wrote it."""

    def get(self, path: str) -> bytes:
        """Read one object; raises `FileNotFoundError` if there is none."""

    def exists(self, path: str) -> bool:
        """Whether the object is there."""

    def find(self, folder: str) -> Iterator[Stored]:
        """All objects below `folder` (the empty path: all there are), in no order."""

    def list(self, folder: str) -> list[str]:
        """Paths of all objects below `folder`, sorted."""

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""

    def sweep(self, before: datetime) -> int:
        """Remove what puts that never ended left behind before that time (UTC); returns how many."""


def open_objects(uri: str) -> Objects:
    """The objects of a workspace, by the form of its URI."""
    if is_remote(uri):
        from platform_core.storage.s3 import S3Objects

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return S3Objects(bucket, prefix.strip("/"))
    from platform_core.storage.local import LocalObjects

    return LocalObjects(Path(uri))
