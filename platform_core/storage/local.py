"""Objects in a folder of this machine."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from platform_core.errors import StorageUnavailable
from platform_core.storage.objects import Stored

UNFINISHED = re.compile(r"\.put-[0-9a-f]+|.+#\d+")
"""Names of files that are still being written: ours, and those of deltalake beside its tables."""


@dataclass(frozen=True)
class LocalObjects:
    """Objects in a folder."""

    root: Path

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write to a temporary name, sync if it must survive a power cut, rename."""
        target = self.root / path
        with _unfinished(target, data, durable=durable) as temporary:
            temporary.replace(target)

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:
        """Write to a temporary name and link it to its own, which fails if that name is taken."""
        target = self.root / path
        with _unfinished(target, data, durable=durable) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
        return True

    def get(self, path: str) -> bytes:
        """Read one object."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except OSError as error:
            raise StorageUnavailable(path, str(error)) from error

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        return (self.root / path).is_file()

    def find(self, folder: str) -> Iterator[Stored]:
        """All objects below `folder`; one that goes away meanwhile is left out."""
        for file, facts in _files(self.root / folder):
            if not UNFINISHED.fullmatch(file.name):
                yield Stored(str(file.relative_to(self.root)), facts.st_size, _modified_at(facts))

    def list(self, folder: str) -> list[str]:
        """Paths below `folder`, sorted."""
        return sorted(found.path for found in self.find(folder))

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise StorageUnavailable(path, str(error)) from error

    def sweep(self, before: datetime) -> int:
        """Remove temporary files of processes that died."""
        left = [file for file, facts in _files(self.root) if _is_left(file, facts, before)]
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)


def _is_left(file: Path, facts: os.stat_result, before: datetime) -> bool:
    return UNFINISHED.fullmatch(file.name) is not None and _modified_at(facts) < before


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            try:
                yield file, file.stat()
            except FileNotFoundError:
                continue


def _modified_at(facts: os.stat_result) -> datetime:
    return datetime.fromtimestamp(facts.st_mtime, UTC)


@contextmanager
def _unfinished(target: Path, data: bytes, *, durable: bool) -> Iterator[Path]:
    """A temporary file beside `target` that holds the data; gone at the end, whatever became of it."""
    temporary = target.with_name(f".put-{secrets.token_hex(8)}")
    try:
        _make_folder(target.parent, durable=durable)
        _write(temporary, data, durable=durable)
        yield temporary
        if durable:
            _sync(target.parent)
    except OSError as error:
        raise StorageUnavailable(str(target), str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(file: Path, data: bytes, *, durable: bool) -> None:
    with file.open("xb") as out:
        out.write(data)
        out.flush()
        if durable:
            os.fsync(out.fileno())


def _make_folder(folder: Path, *, durable: bool) -> None:
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new if durable else []:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut, as `fsync(2)` of a file alone does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
