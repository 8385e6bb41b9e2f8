"""Whole objects by relative path, in a folder or under an S3 prefix.

A put is atomic: a reader sees the old bytes or the new, never half. Tables are not
objects: they live in `tables.py`.
"""

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from platform_core.errors import StorageUnavailable


class Objects(Protocol):
    """Bytes by relative path."""

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write or replace one object, atomically; one that can be made again need not be durable."""

    def get(self, path: str) -> bytes:
        """Read one object; raises `FileNotFoundError` if there is none."""

    def exists(self, path: str) -> bool:
        """Whether the object is there."""

    def list(self, prefix: str) -> list[str]:
        """Paths of all objects under `prefix`, sorted."""

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""


@dataclass(frozen=True)
class LocalObjects:
    """Objects in a folder."""

    root: Path

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write to a temporary name, sync if it must survive a power cut, rename."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".put-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            Path(temporary).replace(target)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise StorageUnavailable(str(target), str(error)) from error

    def get(self, path: str) -> bytes:
        """Read one object."""
        return (self.root / path).read_bytes()

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        return (self.root / path).is_file()

    def list(self, prefix: str) -> list[str]:
        """Paths under `prefix`, sorted."""
        found = (self.root / prefix).rglob("*")
        return sorted(str(p.relative_to(self.root)) for p in found if p.is_file() and not p.name.startswith(".put-"))

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""
        (self.root / path).unlink(missing_ok=True)


@dataclass(frozen=True)
class S3Objects:
    """Objects under an S3 prefix; credentials and endpoint come from the environment, as boto3 reads them."""

    bucket: str
    prefix: str

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("s3")

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}".strip("/")

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002
        """Write or replace one object; S3 puts are atomic and durable."""
        self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data)

    def get(self, path: str) -> bytes:
        """Read one object."""
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(path))
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(path) from error
        return bytes(answer["Body"].read())

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(path), MaxKeys=1)
        return any(item["Key"] == self._key(path) for item in answer.get("Contents", []))

    def list(self, prefix: str) -> list[str]:
        """Paths under `prefix`, sorted, over all pages."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
        n_skip = len(self._key("")) + bool(self.prefix)
        return sorted(item["Key"][n_skip:] for page in pages for item in page.get("Contents", []))

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""
        self._client.delete_object(Bucket=self.bucket, Key=self._key(path))


def open_objects(uri: str) -> Objects:
    """The objects of a workspace, by the form of its URI."""
    if not uri.startswith("s3://"):
        return LocalObjects(Path(uri))
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Objects(bucket, prefix.strip("/"))
