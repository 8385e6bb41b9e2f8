"""The elements of a DICOM file as they lie in its bytes (PS3.5 sections 7 and A).

Nothing is decoded here and nothing is copied: an element is a place. A library would give
every element a Python object, of which a night's listing needs four; this walk is what makes
discovery cheap (`tests/benchmarks/discovery.py`). It never follows a length out of the bytes,
never recurses, and gives up with `UnreadableScan`, whatever the bytes say.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID_dictionary

from platform_core.errors import UnreadableScan

PREFIX = b"DICM"
META_START = 132
DEFLATED, BIG_ENDIAN, IMPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
PLAIN_SYNTAXES = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED})
"""Those in which pixels lie as they are; in all others they are compressed."""
REGISTERED = frozenset(uid for uid, facts in UID_dictionary.items() if facts[1] == "Transfer Syntax")
TRANSFER_SYNTAX, PIXEL_DATA = 0x00020010, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LAST = 0xFFFFFFFF
MAX_DEPTH = 32
"""Sequences in sequences; enhanced multi-frame files need four."""
MAX_INFLATED = 1 << 28
"""Bytes that a deflated file may come to; the bound is what keeps a small file from filling the memory."""

LONG = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"))
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())


class Place(NamedTuple):
    """Where a value lies; `vr` is empty where the file does not state it."""

    vr: bytes
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Coding:
    """How elements are written."""

    is_little: bool = True
    is_explicit: bool = True

    @property
    def order(self) -> str:
        """Byte order as `struct` spells it."""
        return "<" if self.is_little else ">"


PLAIN = Coding()
NESTED_UNKNOWN = Coding(is_explicit=False)
"""What a sequence of unknown type is written in: PS3.5 section 6.2.2, note 2."""


class _Cut(Exception):
    """The bytes end within an element."""


@dataclass(frozen=True, slots=True, repr=False)
class Elements:
    """The elements of a file, or of one item of a sequence."""

    data: bytes
    found: dict[int, tuple[bytes, int, int]]
    """By tag, as in `Place`: a plain tuple costs a third of a named one, and there are a hundred to a file."""
    coding: Coding
    transfer_syntax: str = ""
    """Registered (PS3.6 annex A), or empty: the field may hold any text, and a private syntax any byte order."""
    is_cut: bool = False
    """The bytes end before the elements do."""

    def place(self, name: str) -> Place | None:
        """Where the value of a keyword lies."""
        found = self.found.get(tag_of(name))
        return None if found is None else Place(*found)

    def raw(self, name: str) -> bytes:
        """The bytes of a value; empty if it is not there."""
        return self.raw_at(tag_of(name))

    def raw_at(self, tag: int) -> bytes:
        """The bytes of the value of a tag."""
        found = self.found.get(tag)
        return b"" if found is None else self.data[found[1] : found[1] + found[2]]

    def vr(self, name: str) -> bytes:
        """The value representation as the file states it, else as the standard does."""
        found = self.place(name)
        return found.vr if found is not None and found.vr not in (b"", b"UN") else standard_vr(name)

    def items(self, name: str, *, most: int | None = None) -> list["Elements"]:
        """The items of a sequence, all or the first `most`; none if it is not there."""
        found = self.place(name)
        if found is None or not found.length:
            return []
        coding = NESTED_UNKNOWN if found.vr == b"UN" else self.coding
        return list(islice(_items(self.data, found.start, found.start + found.length, coding), most))


def read_elements(data: bytes, *, last: int = LAST) -> Elements:
    """Find the elements of a file, with or without preamble, up to the tag `last`.

    Bytes that end early are no error here: `is_cut` says so, and what was found counts.

    Raises:
        UnreadableScan: `unreadable_header` if sequences are nested beyond reason, `too_large` if deflated bytes are.
    """
    start = META_START if data[META_START - 4 : META_START] == PREFIX else 0
    meta: dict[int, tuple[bytes, int, int]] = {}
    at, is_cut = _walk(data, start, len(data), PLAIN, meta, last=0x0002FFFF)
    syntax = _uid_at(data, meta.get(TRANSFER_SYNTAX))
    if syntax == DEFLATED:
        data, at = _inflate(data[at:]), 0
        meta = {}
    coding = _coding(data, at, syntax)
    found: dict[int, tuple[bytes, int, int]] = meta
    if not is_cut:
        _, is_cut = _walk(data, at, len(data), coding, found, last=last)
    syntax = syntax or _usual_syntax(coding)
    return Elements(data, found, coding, syntax if syntax in REGISTERED else "", is_cut)


@lru_cache(maxsize=1024)
def tag_of(name: str) -> int:
    """The tag of a keyword of the standard."""
    tag: int | None = tag_for_keyword(name)
    assert tag is not None, name
    return tag


@lru_cache(maxsize=1024)
def standard_vr(name: str) -> bytes:
    """The value representation that the standard gives a keyword; the first, if it leaves a choice."""
    return str(dictionary_VR(tag_of(name)))[:2].encode()


def _coding(data: bytes, at: int, syntax: str) -> Coding:
    """As the transfer syntax says, unless the first element shows otherwise."""
    head = data[at : at + 6]
    is_little = head[:2] != b"\x00\x08" if not syntax else syntax != BIG_ENDIAN
    is_explicit = head[4:6] in SHORT or head[4:6] in LONG
    return Coding(is_little, is_explicit if head else syntax != IMPLICIT)


def _usual_syntax(coding: Coding) -> str:
    if not coding.is_little:
        return BIG_ENDIAN
    return EXPLICIT if coding.is_explicit else IMPLICIT


def _walk(
    data: bytes, at: int, end: int, coding: Coding, found: dict[int, tuple[bytes, int, int]], *, last: int = LAST
) -> tuple[int, bool]:
    """Note the place of every element up to `last`; returns where it stopped, and whether the bytes ended early."""
    short, long = struct.Struct(coding.order + "HH2sH").unpack_from, struct.Struct(coding.order + "I").unpack_from
    is_explicit = coding.is_explicit
    while at + 8 <= end:
        group, element, vr, length = short(data, at)
        tag = group << 16 | element
        if tag > last or tag == ITEM_END:
            return at, False
        start = at + 8
        if not is_explicit or (vr not in SHORT and vr not in LONG):
            vr, length = b"", long(data, at + 4)[0]
        elif vr in LONG:
            if start + 4 > end:
                return at, True
            length, start = long(data, start)[0], start + 4
        if tag == PIXEL_DATA:
            found[tag] = vr, start, end - start if length == UNDEFINED else length
            return end, False
        if length == UNDEFINED:
            try:
                at = _skip(data, start, end, NESTED_UNKNOWN if vr == b"UN" else coding)
            except _Cut:
                return at, True
            found[tag] = vr, start, at - start
            continue
        at = start + length
        if at > end:
            return start, True
        found[tag] = vr, start, length
    return at, False


def _skip(data: bytes, at: int, end: int, coding: Coding) -> int:
    """Where a value of undefined length ends, behind its delimiter; items and sequences in it are counted, not read."""
    inside = [coding]
    while inside:
        tag, vr, length, at = _element(data, at, end, inside[-1])
        if tag in (ITEM_END, SEQUENCE_END):
            inside.pop()
        elif length == UNDEFINED:
            inside.append(NESTED_UNKNOWN if vr == b"UN" else inside[-1])
        else:
            at += length
        if len(inside) > MAX_DEPTH:
            raise UnreadableScan("unreadable_header", f"sequences are nested more than {MAX_DEPTH} deep")
    return at


def _element(data: bytes, at: int, end: int, coding: Coding) -> tuple[int, bytes, int, int]:
    """Tag, value representation, length, and where the value begins."""
    if at + 8 > end:
        raise _Cut
    group, element, vr, length = struct.unpack_from(coding.order + "HH2sH", data, at)
    tag, start = group << 16 | element, at + 8
    if group == 0xFFFE or not coding.is_explicit or (vr not in SHORT and vr not in LONG):
        (length,) = struct.unpack_from(coding.order + "I", data, at + 4)
        return tag, b"", length, start
    if vr in LONG:
        if start + 4 > end:
            raise _Cut
        (length,) = struct.unpack_from(coding.order + "I", data, start)
        start += 4
    return tag, vr, length, start


def _items(data: bytes, at: int, end: int, coding: Coding) -> Iterator[Elements]:
    while at + 8 <= end:
        group, element, length = struct.unpack_from(coding.order + "HHI", data, at)
        if group << 16 | element != ITEM:
            return
        start = at + 8
        found: dict[int, tuple[bytes, int, int]] = {}
        stop = end if length == UNDEFINED else min(start + length, end)
        at, is_cut = _walk(data, start, stop, coding, found)
        at = at + 8 if length == UNDEFINED else start + length
        yield Elements(data, found, coding, is_cut=is_cut)


def _uid_at(data: bytes, place: tuple[bytes, int, int] | None) -> str:
    if place is None:
        return ""
    return data[place[1] : place[1] + place[2]].decode("latin-1").strip("\x00 ")


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, MAX_INFLATED)
    except zlib.error as error:
        raise UnreadableScan("unreadable_header", "the deflated elements cannot be inflated") from error
    if stream.unconsumed_tail:
        raise UnreadableScan("too_large", f"inflates to more than {MAX_INFLATED >> 20} MiB")
    return inflated
