"""A folder of plain images: PNG, JPEG, NIfTI, and the members of NumPy archives.

An archive holds one stack of images per split under `<split>_images`, as MedMNIST does;
image 17 of the split `train` of `x.npz` has the address `x.npz#train/17`. The path of a
site may name a folder, one archive, or one split of an archive (`x.npz#val`).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from platform_core.errors import NoSuchPlace, UnreadableScan
from platform_core.imaging.volume import Voxels
from platform_core.settings import SiteSettings
from platform_core.sources.contract import Item, Page, Source
from platform_core.sources.files import list_files, read_file
from platform_core.sources.paging import in_pages

SUFFIX = "_images"
_BROKEN = (BadZipFile, zlib.error, struct.error, EOFError, LookupError, RuntimeError, OSError, ValueError, MemoryError)
"""What NumPy and `zipfile` raise where an archive is torn, needs a password, holds objects, or claims to be huge."""


def _pages(settings: SiteSettings, cursor: str) -> Iterator[Page]:
    root, archive, split = _place(settings)
    if archive is None:
        return list_files(root, cursor, lambda file: _unfolded(root, file))
    facts = (root / archive).stat()
    alone = Item(archive, facts.st_size, facts.st_mtime_ns)
    return in_pages(lambda behind: () if behind else (alone,), lambda _: _members(root, alone, split), cursor)


def _unfolded(root: Path, file: Item) -> Iterable[Item]:
    is_archive = file.address.endswith(".npz") and not file.refusal
    return _members(root, file, None) if is_archive else (file,)


def _open(settings: SiteSettings, address: str) -> bytes:
    """The bytes of an image; a member of an archive comes as one `.npy` array."""
    root, _, _ = _place(settings)
    stem, is_member, member = address.rpartition(".npz#")
    if not is_member:
        return read_file(root, address)
    archive = f"{stem}.npz"
    split, _, index = member.partition("/")
    try:
        stack = _stack(root / archive, (root / archive).stat().st_mtime_ns, f"{split}{SUFFIX}")
        image = stack[int(index)]
    except (FileNotFoundError, LookupError):
        raise NoSuchPlace("an image of an archive", "an image that was listed", "run again") from None
    except _BROKEN as error:
        raise UnreadableScan("damaged_member", f"an image of an archive: {type(error).__name__}") from None
    out = BytesIO()
    np.save(out, image, allow_pickle=False)
    return out.getvalue()


def _head(settings: SiteSettings, address: str, n_bytes: int) -> bytes:
    root, _, _ = _place(settings)
    return _open(settings, address)[:n_bytes] if ".npz#" in address else read_file(root, address, n_bytes)


def _place(settings: SiteSettings) -> tuple[Path, str | None, str | None]:
    """The folder that addresses start from; the one archive and split that the settings name."""
    text, _, split = settings.path.partition("#")
    path = Path(text).expanduser()
    if path.suffix != ".npz":
        return path, None, None
    if not path.is_file():
        raise NoSuchPlace(str(path), "an archive of images", "correct `path` in the site's settings")
    return path.parent, path.name, split or None


def _members(root: Path, file: Item, split: str | None) -> Iterator[Item]:
    archive, modified_ns = file.address, file.modified_ns
    names = _splits(root / archive, modified_ns)
    if not names:
        yield file
        return
    if split is not None and split not in names:
        raise NoSuchPlace(f"{archive}#{split}", f"one of the splits {', '.join(names)}", "correct `path`")
    is_broken = False
    for name in [split] if split is not None else names:
        try:
            stack = _stack(root / archive, modified_ns, f"{name}{SUFFIX}")
        except _BROKEN:
            is_broken = True
            continue
        for index in range(len(stack)):
            yield Item(f"{archive}#{name}/{index}", stack[index].nbytes, modified_ns)
    if is_broken:
        yield replace(file, refusal="unreadable_archive")


@lru_cache(maxsize=8)
def _splits(path: Path, modified_ns: int) -> tuple[str, ...]:  # noqa: ARG001 - a changed file is another entry
    """Splits of an archive; none if it is no archive of images."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(sorted(key.removesuffix(SUFFIX) for key in archive.files if key.endswith(SUFFIX)))
    except _BROKEN:
        return ()


@lru_cache(maxsize=4)
def _stack(path: Path, modified_ns: int, key: str) -> Voxels:  # noqa: ARG001 - a changed file is another entry
    """All images of one split, (image, y, x) or (image, y, x, channel)."""
    with np.load(path, allow_pickle=False) as archive:
        stack = np.asarray(archive[key])
    if not stack.ndim:
        raise ValueError(key)
    return stack


IMAGE_FOLDER = Source(name="image_folder", holds="image", pages=_pages, open=_open, head=_head)
