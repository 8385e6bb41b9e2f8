"""Files under a folder: what the kinds of source that live on disk have in common.

A link to a file inside the folder is that file; one to a folder inside is left out, because
the folder is listed where it lies. Two codes say what is listed but not opened:

    link_leads_out   a link to something outside the folder
    unreadable_path  this user may not read it, or its path is too long
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from heapq import nsmallest
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

from platform_core.errors import NoSuchPlace, PlatformError, SiteUnavailable, UnreadableScan
from platform_core.sources import archives
from platform_core.sources.contract import Item, Page
from platform_core.sources.paging import in_pages

NAMES_AT_ONCE = 50_000
"""Names of one folder that are held and sorted at once, some 20 MB; a larger folder is read several times."""
_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})
_NOT_A_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO})
_NO_TEXT = {0xDC80 + byte: 0x10F780 + byte for byte in range(128)}
"""Bytes of a name that are no UTF-8, as private characters: an address must be text that any database takes."""
_NO_TEXT_BACK = {there: here for here, there in _NO_TEXT.items()}

Unfold = Callable[[Item], Iterable[Item]]
_Entries = Iterator["os.DirEntry[str]"]


def list_files(
    root: Path, cursor: str = "", unfolded: Callable[[Item], Iterable[Item]] | None = None
) -> Iterator[Page]:
    """Every file under `root` by name, hidden ones left out; zip archives as their members.

    Args:
        root: The folder.
        cursor: As `in_pages`.
        unfolded: What else some files hold, as items; the file itself by default.

    Raises:
        NoSuchPlace: If `root` is no folder.
        SiteUnavailable: If a folder cannot be read now.
    """
    if not root.is_dir():
        raise NoSuchPlace(str(root), "a folder with scans", "correct `path` in the site's settings, or mount it")

    def items_of(file: Item) -> Iterable[Item]:
        if archives.is_archive(file.address) and not file.refusal:
            return archives.members(file, lambda: _opened(str(root), file.address))
        return (archives.plain(file),) if unfolded is None else unfolded(archives.plain(file))

    return in_pages(lambda behind: _items(str(root), behind), items_of, cursor)


def read_file(root: Path, address: str, n_bytes: int = -1) -> bytes:
    """The bytes of one file or member of an archive, or its first `n_bytes`.

    Raises:
        NoSuchPlace: If it is gone, or the address points out of the folder.
        UnreadableScan: If this user may not read it (`unreadable_path`), or if it is a member that must not or cannot
            be read (codes: `archives`).
        SiteUnavailable: If it cannot be read now.
    """
    folder = os.fspath(root)
    path, member = archives.split(address)
    if member:
        return archives.read_member(_opened(folder, path), member, n_bytes)
    try:
        with _open_inside(folder, address) as file:
            return file.read(n_bytes)
    except OSError as error:
        raise _trouble(error, "a file of the source") from None


def _items(root: str, behind: str) -> Iterator[Item]:
    return filter(None, (_item(root, prefix, entry) for prefix, entry in _walk(root, _name(behind))))


def _item(root: str, prefix: str, entry: "os.DirEntry[str]") -> Item | None:
    """What is listed of a directory entry; None for what is no file, or gone."""
    address = _address(prefix + entry.name)
    try:
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            return Item(f"{address}/", 0, facts.st_ctime_ns, refusal="unreadable_path")
        if stat.S_ISLNK(facts.st_mode):
            if not _is_inside(root, os.path.realpath(entry.path)):
                return Item(address, 0, facts.st_ctime_ns, refusal="link_leads_out")
            facts = entry.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _UNREADABLE:
            return Item(address, 0, 0, refusal="unreadable_path")
        raise SiteUnavailable("a file of the source", error.strerror or "cannot be read") from None
    return Item(address, facts.st_size, facts.st_ctime_ns) if stat.S_ISREG(facts.st_mode) else None


def _walk(root: str, behind: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Files and links behind a path, and folders that cannot be read, each with the path of its folder."""
    entries = _entries(root, behind.partition("/")[0])
    if entries is None:
        raise SiteUnavailable("the folder of the source", "this user may not read it")
    open_folders: list[tuple[str, _Entries, str]] = [("", entries, behind)]
    while open_folders:
        prefix, entries, behind = open_folders[-1]
        entry = next(entries, None)
        if entry is None:
            open_folders.pop()
            continue
        name, _, rest = behind.partition("/")
        if entry.name != name:
            rest = ""
        elif not rest:
            continue
        inner = _entries(entry.path, rest.partition("/")[0]) if entry.is_dir(follow_symlinks=False) else None
        if inner is None:
            yield prefix, entry
        else:
            open_folders.append((f"{prefix}{entry.name}/", inner, rest))


def _entries(folder: str, first: str) -> _Entries | None:
    """What lies in a folder, by name from `first` on, hidden names left out; None if it may not be read."""
    try:
        chunk, is_all = _some_entries(folder, first, "")
    except OSError as error:
        if error.errno in _UNREADABLE:
            return None
        raise SiteUnavailable("a folder of the source", error.strerror or "cannot be read") from None
    return iter(chunk) if is_all else _more_entries(folder, chunk)


def _more_entries(folder: str, chunk: list["os.DirEntry[str]"]) -> _Entries:
    is_all = False
    yield from chunk
    while not is_all:
        try:
            chunk, is_all = _some_entries(folder, "", chunk[-1].name)
        except OSError as error:
            raise SiteUnavailable("a folder of the source", error.strerror or "cannot be read") from None
        yield from chunk


def _some_entries(folder: str, first: str, behind: str) -> tuple[list["os.DirEntry[str]"], bool]:
    """At most `NAMES_AT_ONCE` entries by name, from `first` on and behind `behind`, and whether they are all."""
    by_name = attrgetter("name")
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        return [], True
    with found:
        some = (e for e in found if e.name >= first and e.name > behind and not e.name.startswith("."))
        chunk = list(islice(some, NAMES_AT_ONCE + 1))
        if len(chunk) <= NAMES_AT_ONCE:
            return sorted(chunk, key=by_name), True
        return nsmallest(NAMES_AT_ONCE, chain(chunk, some), key=by_name), False


def _opened(root: str, address: str) -> ZipFile:
    """An archive in the folder, kept open until this thread asks for another, or for a later state of it."""
    try:
        facts = Path(root, _name(address)).stat()
        key = (root, address, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        return archives.opened_once(key, lambda: _open_inside(root, address))
    except (FileNotFoundError, ValueError):
        raise _gone() from None
    except OSError as error:
        raise _trouble(error, "an archive of the source") from None


def _open_inside(root: str, address: str) -> BinaryIO:
    """Open a file, and make sure that what was opened lies in the folder.

    The check is of the open file, so that nothing can be put in its place between check and use.
    """
    path = f"{root}/{_name(address)}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
    except ValueError:
        raise _gone() from None
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise _gone() from None
        raise
    is_file, is_inside = stat.S_ISREG(os.fstat(handle).st_mode), _is_inside(root, _real_path(handle, path))
    if is_file and is_inside:
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise _gone() if is_inside else _outside()


def _real_path(handle: int, path: str) -> str:
    """Where an open file lies: one call on Linux, the long way elsewhere."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - Path doubles the cost of opening a file
    except FileNotFoundError:
        return os.path.realpath(path)


def _is_inside(root: str, real_path: str) -> bool:
    facts = os.stat(root)  # noqa: PTH116 - as above
    return real_path.startswith(_real_root(root, facts.st_dev, facts.st_ino))


@lru_cache(maxsize=64)
def _real_root(root: str, _device: int, _inode: int) -> str:
    return os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - with a separator behind it


def _trouble(error: OSError, what: str) -> PlatformError:
    """Rights concern one file, which must not stop the others; anything else may concern the whole place."""
    if error.errno in _UNREADABLE:
        return UnreadableScan("unreadable_path", f"{what}: this user may not read it")
    return SiteUnavailable(what, error.strerror or "cannot be read")


def _outside() -> NoSuchPlace:
    return NoSuchPlace("an address of the source", "a file inside the folder", "links must not lead out of it")


def _gone() -> NoSuchPlace:
    return NoSuchPlace("a file of the source", "a file that was listed", "run again")


def _address(path: str) -> str:
    return path if path.isascii() else path.translate(_NO_TEXT)


def _name(address: str) -> str:
    return address if address.isascii() else address.translate(_NO_TEXT_BACK)
