"""Files under a folder: what the kinds of source that live on disk have in common."""

import os
from collections.abc import Iterator
from pathlib import Path

from platform_core.errors import NoSuchPlace, StorageUnavailable
from platform_core.sources.contract import Item


def list_files(root: Path) -> Iterator[Item]:
    """Every file under `root` in the order of its address, hidden ones left out.

    Raises:
        NoSuchPlace: If `root` is no folder.
    """
    if not root.is_dir():
        raise NoSuchPlace(str(root), "a folder with scans", "correct `path` in the site's settings, or mount it")
    yield from sorted(_walk(root), key=lambda item: item.address)


def _walk(root: Path) -> Iterator[Item]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if name.startswith(".") or not path.is_file():
                continue
            facts = path.stat()
            yield Item(path.relative_to(root).as_posix(), facts.st_size, facts.st_mtime_ns)


def read_file(root: Path, address: str) -> bytes:
    """The bytes of one file.

    Raises:
        NoSuchPlace: If it is gone, or the address points out of the folder.
        StorageUnavailable: If it cannot be read now.
    """
    path = root / address
    if not path.resolve().is_relative_to(root.resolve()):
        raise NoSuchPlace("an address of the source", "a file inside the folder", "links must not lead out of it")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NoSuchPlace("a file of the source", "a file that was listed", "run again") from error
    except OSError as error:
        raise StorageUnavailable("a file of the source", error.strerror or "cannot be read") from error
