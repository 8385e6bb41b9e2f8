"""Files under a folder: what the kinds of source that live on disk have in common."""

import os
from collections.abc import Iterator
from pathlib import Path

from platform_core.errors import NoSuchPlace, SiteUnavailable
from platform_core.sources.contract import Item, Page


def list_files(root: Path) -> Iterator[Page]:
    """Every file under `root`, hidden ones left out; a page per folder, so that memory stays flat.

    Raises:
        NoSuchPlace: If `root` is no folder.
    """
    if not root.is_dir():
        raise NoSuchPlace(str(root), "a folder with scans", "correct `path` in the site's settings, or mount it")
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        at = Path(folder).relative_to(root)
        items = (_item(folder, at, name) for name in sorted(files) if not name.startswith("."))
        yield Page(tuple(item for item in items if item is not None))


def _item(folder: str, at: Path, name: str) -> Item | None:
    path = Path(folder, name)
    try:
        facts = path.stat()
    except OSError:
        return None
    return Item((at / name).as_posix(), facts.st_size, facts.st_ctime_ns) if path.is_file() else None


def read_file(root: Path, address: str, n_bytes: int = -1) -> bytes:
    """The bytes of one file, or its first `n_bytes`.

    Raises:
        NoSuchPlace: If it is gone, or the address points out of the folder.
        SiteUnavailable: If it cannot be read now.
    """
    path = root / address
    if not path.resolve().is_relative_to(root.resolve()):
        raise NoSuchPlace("an address of the source", "a file inside the folder", "links must not lead out of it")
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(n_bytes) or b""
    except FileNotFoundError as error:
        raise NoSuchPlace("a file of the source", "a file that was listed", "run again") from error
    except OSError as error:
        raise SiteUnavailable("a file of the source", error.strerror or "cannot be read") from error
