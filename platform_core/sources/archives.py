"""Zip archives: their members are items of the source; `a.zip!b/c` is the member `b/c` of `a.zip`.

Nothing is ever unpacked to a disk, and an address is never used as a path, so that a name in
an archive can do no harm. What cannot be listed safely is one item, the archive, with a
refusal; a member that cannot be read safely is an item with a refusal. The codes:

    unreadable_archive       no zip, or its table of contents is torn or broken
    encrypted_archive        every member needs a password
    archive_bomb             more members or bytes than an archive of scans has, or packed more densely than
                             scans can be; also of one member
    encrypted_member         it needs a password
    member_too_large         more bytes than one DICOM file of an imaging study has
    unsafe_member_name       empty, absolute, with a drive, `..`, a backslash or a control character
    unsafe_member_kind       a link
    ambiguous_member         the archive holds two members of this name
    nested_archive           an archive in the archive: never opened
    unsupported_compression  neither stored nor deflated
    damaged_member           found when it is read: it is torn, or is not what the table of contents says
    ambiguous_name           a plain file whose name looks like a member (`x.zip!y`)
"""

import errno
import os
import re
import stat
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from platform_core.errors import NoSuchPlace, UnreadableScan
from platform_core.sources.contract import Item

MAX_MEMBERS = 100_000
"""A PET/CT study has some 5,000 slices, the largest 4D studies 50,000. One member costs 0.6 KB while listed."""
MAX_CONTENTS_BYTES = 24 * 2**20
"""Of the table of contents: `MAX_MEMBERS` with paths of 200 characters. It is read at once."""
MAX_MEMBER_BYTES = 2 * 2**30
"""One member lies in memory while it is read. Native pixels cannot exceed 4 GiB (DICOM PS3.5, 7.1: 32-bit lengths),
and the largest multi-frame CT and MR objects reach some 1 GiB."""
MAX_TOTAL_BYTES = 256 * 2**30
"""Unpacked: what a night can read at 10 MB/s."""
MAX_RATIO = 100
"""Unpacked over packed. CT and MR deflate 2 to 4 times, label maps some 50 times; deflate ends at 1032."""
FREE_BYTES = 64 * 2**20
"""Below this nothing is a bomb: a small blank image may deflate 1000 times."""

_MEMBER = re.compile(r"\.zip!", re.IGNORECASE | re.ASCII)
_ARCHIVE = re.compile(r"\.(zip|npz|tar|t?gz|tgz|bz2|xz|7z|rar)$", re.IGNORECASE | re.ASCII)
_UNSAFE = re.compile(r"^$|^[/~]|^[A-Za-z]:|\\|[\x00-\x1f]|(^|/)\.\.(/|$)")
_HIDDEN = re.compile(r"(^|/)(\.[^/]|__MACOSX/)")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Bits of the general purpose flag: encrypted, strongly, with its table of contents (APPNOTE 6.3.10, 4.4.4)."""
_BROKEN = (BadZipFile, zlib.error, struct.error, EOFError, LookupError, NotImplementedError, OSError, ValueError)
"""What `zipfile` raises where an archive lies; found by changing bytes at random."""
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_TAIL_BYTES = 22 + 65535
"""The end record with the longest comment it may carry."""


def is_archive(name: str) -> bool:
    """Whether a file is listed as its members."""
    return name[-4:].lower() == ".zip"


def split(address: str) -> tuple[str, str]:
    """The archive and the member that an address names; the member is empty for a plain file."""
    found = _MEMBER.search(address)
    return (address, "") if found is None else (address[: found.end() - 1], address[found.end() :])


def plain(item: Item) -> Item:
    """A file that is no archive; refused if its address would be read as that of a member."""
    return item if _MEMBER.search(item.address) is None else replace(item, refusal="ambiguous_name")


def members(archive: Item, opened: Callable[[], ZipFile]) -> Iterator[Item]:
    """What an archive holds, by name, hidden members and folders left out; itself with a refusal if it is not safe."""
    try:
        infos = sorted(opened().infolist(), key=lambda info: info.orig_filename)
    except UnreadableScan as error:
        yield replace(archive, refusal=error.reason)
        return
    except NoSuchPlace:
        return
    files = [info for info in infos if not info.filename.endswith("/")]
    if files and all(info.flag_bits & _ENCRYPTED for info in files):
        yield replace(archive, refusal="encrypted_archive")
        return
    names = Counter(info.orig_filename for info in files)
    for name, info in {info.orig_filename: info for info in files}.items():
        refusal = "ambiguous_member" if names[name] > 1 else _refusal(info)
        if refusal == "unsafe_member_name" or not _HIDDEN.search(name):
            yield Item(f"{archive.address}!{name}", info.file_size, archive.modified_ns, refusal=refusal)


def read_member(archive: ZipFile, name: str, n_bytes: int = -1) -> bytes:
    """The bytes of one member, or its first `n_bytes`; never more than the table of contents states.

    Raises:
        NoSuchPlace: If the archive holds no such member.
        UnreadableScan: If the member is refused or damaged; the reason is a code of the table above.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise NoSuchPlace("a member of an archive", "a member that was listed", "run again") from None
    refusal = _refusal(info)
    if refusal:
        raise UnreadableScan(refusal, "a member of an archive that is not opened")
    wanted = info.file_size + 1 if n_bytes < 0 else n_bytes
    try:
        with archive.open(info) as member:
            data = member.read(wanted)
    except _BROKEN as error:
        _pass_on_trouble_of_the_disk(error)
        raise UnreadableScan("damaged_member", f"a member of an archive: {type(error).__name__}") from None
    if n_bytes < 0 and len(data) != info.file_size:
        raise UnreadableScan("damaged_member", f"{len(data)} bytes where the archive states {info.file_size}")
    return data


class _Last(threading.local):
    """The archive that this thread opened last: its members are asked for one after the other."""

    key: Hashable = None
    archive: ZipFile | None = None


_LAST = _Last()


def opened_once(key: Hashable, open_file: Callable[[], BinaryIO]) -> ZipFile:
    """The archive, from the last call of this thread if that had the same key.

    Args:
        key: Tells one archive in one state from all others.
        open_file: A seekable file, positioned anywhere; closed with the archive.

    Raises:
        UnreadableScan: As `open_archive`.
    """
    own = (os.getpid(), key)  # a forked process must not share the position in the file
    if _LAST.archive is None or own != _LAST.key:
        forget()
        file = open_file()
        try:
            _LAST.archive = open_archive(file)
        except BaseException:
            file.close()
            raise
        _LAST.key = own
    return _LAST.archive


def forget() -> None:
    """Close the archive that this thread opened last."""
    archive, _LAST.archive, _LAST.key = _LAST.archive, None, None
    if archive is not None and archive.fp is not None:
        file = archive.fp
        archive.close()
        file.close()


def open_archive(file: BinaryIO) -> ZipFile:
    """Open an archive once its end record says that it is of a bearable size.

    Raises:
        UnreadableScan: `unreadable_archive` or `archive_bomb`.
    """
    try:
        n_members, n_bytes = _stated(file)
        if n_members > MAX_MEMBERS or n_bytes > MAX_CONTENTS_BYTES:
            raise UnreadableScan("archive_bomb", f"{n_members} members; at most {MAX_MEMBERS} are listed")
        archive = ZipFile(file)
    except _BROKEN as error:
        _pass_on_trouble_of_the_disk(error)
        raise UnreadableScan("unreadable_archive", f"no zip archive: {type(error).__name__}") from None
    _check_size(archive.infolist(), file.seek(0, os.SEEK_END))
    return archive


def _pass_on_trouble_of_the_disk(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # to seek before the beginning: the archive lies
        raise error


def _check_size(infos: list[ZipInfo], n_packed: int) -> None:
    """All members together; overlapping ones count as often as they are named."""
    total = sum(info.file_size for info in infos)
    if len(infos) > MAX_MEMBERS or total > MAX_TOTAL_BYTES or total > FREE_BYTES + MAX_RATIO * n_packed:
        detail = (
            f"{len(infos)} members of {total} bytes in {n_packed}; at most {MAX_RATIO} times, {MAX_TOTAL_BYTES} bytes"
        )
        raise UnreadableScan("archive_bomb", detail)


def _refusal(info: ZipInfo) -> str:
    """Why a member must not be read; empty if it may be."""
    rules = {
        "unsafe_member_name": _UNSAFE.search(info.orig_filename) is not None,
        "encrypted_member": bool(info.flag_bits & _ENCRYPTED),
        "nested_archive": _ARCHIVE.search(info.filename) is not None and not info.filename.lower().endswith(".nii.gz"),
        "unsupported_compression": info.compress_type not in {ZIP_STORED, ZIP_DEFLATED},
        "member_too_large": info.file_size > MAX_MEMBER_BYTES,
        "archive_bomb": info.file_size > FREE_BYTES + MAX_RATIO * info.compress_size,
        "unsafe_member_kind": stat.S_ISLNK(info.external_attr >> 16),
    }
    return next((code for code, is_so in rules.items() if is_so), "")


def _stated(file: BinaryIO) -> tuple[int, int]:
    """Number of members and bytes of the table of contents, as the end record states them.

    Source:
        PKWARE APPNOTE 6.3.10, sections 4.3.14 to 4.3.16.
    """
    n_file = file.seek(0, os.SEEK_END)
    file.seek(max(0, n_file - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise BadZipFile
    n_members, n_bytes = struct.unpack_from("<HI", tail, at + 10)
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR_64:
        (place,) = struct.unpack_from("<Q", tail, at - 12)
        if place + 56 > n_file:
            raise BadZipFile
        file.seek(place)
        record = file.read(56)
        if record[:4] != _END_64:
            raise BadZipFile
        n_members, n_bytes = struct.unpack_from("<QQ", record, 32)
    return n_members, n_bytes
