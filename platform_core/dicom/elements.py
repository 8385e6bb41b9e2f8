"""Typed access to the elements of a DICOM file: nothing in here raises because a value is odd.

The slices of a series repeat most of their values, so each distinct value is decoded once.
"""

import math
import re
import struct
from functools import lru_cache

from pydicom.charset import decode_bytes, python_encoding

from platform_core.dicom.stream import LAST, PREFIX, Coding, Elements, read_elements
from platform_core.errors import UnreadableScan

MAGIC = slice(128, 132)
PLAUSIBLE_START = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
"""Groups 0008 and 0002 in either byte order: how a file without preamble begins."""
MAX_TEXT = 64
BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
"""Value representations that hold numbers as bytes, as `struct` spells them."""
EMPTY = Elements(b"", {}, Coding())

cached = lru_cache(maxsize=4096)


def claims_to_be_dicom(name: str, data: bytes) -> bool:
    """Whether somebody meant this file to be DICOM: it has the magic word, or its name says so."""
    return data[MAGIC] == PREFIX or name.lower().endswith((".dcm", ".dicom", ".ima"))


def may_be_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does, with or without preamble."""
    return data[MAGIC] == PREFIX or data[:2] in PLAUSIBLE_START


def parse(data: bytes, *, last: int = LAST) -> Elements:
    """The elements of a file, with or without preamble, up to the tag `last`.

    Raises:
        UnreadableScan: `not_dicom`, `unreadable_header` or `too_large`.
    """
    if not may_be_dicom(data):
        raise UnreadableScan("not_dicom", "expected a DICOM header, found something else")
    elements = read_elements(data, last=last)
    if len(elements.found) < 2:
        raise UnreadableScan("unreadable_header", "the DICOM header cannot be parsed")
    return elements


def text(elements: Elements, name: str) -> str:
    """A value as printable ASCII without surplus blanks, at most 64 characters; several are joined by `+`."""
    return _text(elements.raw(name))


def tokens(elements: Elements, name: str = "ImageType") -> tuple[str, ...]:
    """The values of a multi-valued text field, upper case."""
    return _tokens(elements.raw(name))


def uid(elements: Elements, name: str) -> str:
    """A UID; empty if it is not stated."""
    return elements.raw(name).decode("latin-1").strip("\x00 ")


def words(elements: Elements, name: str) -> str:
    """A text in the file's own character set, without blanks around it."""
    raw = elements.raw(name).strip(b"\x00 ")
    return raw.decode("ascii").strip() if raw.isascii() and b"\x1b" not in raw else _decoded(raw, _charsets(elements))


def number(elements: Elements, name: str) -> float | None:
    """A finite number, the first if there are several, else None."""
    found = _numbers_of(elements, name)
    return found[0] if found else None


def whole(elements: Elements, name: str) -> int | None:
    """A whole number, else None."""
    found = number(elements, name)
    return None if found is None else int(found)


def numbers(elements: Elements, name: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, else None."""
    found = _numbers_of(elements, name)
    return found if found is not None and len(found) == count else None


def shared_groups(elements: Elements) -> Elements:
    """What an enhanced multi-frame file says of all its frames; empty for a classic file."""
    return first_item(elements, "SharedFunctionalGroupsSequence")


def first_item(elements: Elements, sequence: str) -> Elements:
    """The first item of a sequence; empty if there is none."""
    items = elements.items(sequence, most=1)
    return items[0] if items else EMPTY


def group_of(shared: Elements, sequence: str, elements: Elements) -> Elements:
    """The first item of a functional group, or the elements themselves where a classic file keeps the field."""
    items = shared.items(sequence, most=1)
    return items[0] if items else elements


def _numbers_of(elements: Elements, name: str) -> tuple[float, ...] | None:
    raw = elements.raw(name)
    if not raw:
        return None
    kind = BINARY.get(elements.vr(name))
    return _spelt(raw) if kind is None else _packed(raw, elements.coding.order + kind)


@cached
def _spelt(raw: bytes) -> tuple[float, ...] | None:
    """Numbers written as text, separated by backslashes."""
    try:
        found = tuple(float(part) for part in raw.decode("latin-1").strip("\x00 ").split("\\"))
    except ValueError:
        return None
    return found if all(math.isfinite(value) for value in found) else None


@cached
def _packed(raw: bytes, kind: str) -> tuple[float, ...] | None:
    size = struct.calcsize(kind)
    found = tuple(float(value) for (value,) in struct.iter_unpack(kind, raw[: len(raw) // size * size]))
    return found if found and all(math.isfinite(value) for value in found) else None


@cached
def _text(raw: bytes) -> str:
    if b"\x1b" in raw:
        return ""  # an escape sequence: what follows is no ASCII, though its bytes look so (PS3.5 section 6.1.2.5)
    joined = "+".join(value.strip() for value in raw.decode("latin-1").split("\\") if value.strip("\x00 "))
    return re.sub(r"[^\x20-\x7e]+|\s+", " ", joined).strip()[:MAX_TEXT]


@cached
def _tokens(raw: bytes) -> tuple[str, ...]:
    return tuple(value.strip("\x00 ").upper() for value in raw.decode("latin-1").split("\\")) if raw else ()


def _charsets(elements: Elements) -> tuple[str, ...]:
    return tuple(python_encoding.get(name.strip("\x00 "), "latin-1") for name in _tokens_as_written(elements))


def _tokens_as_written(elements: Elements) -> list[str]:
    return elements.raw("SpecificCharacterSet").decode("latin-1").split("\\")


@cached
def _decoded(raw: bytes, charsets: tuple[str, ...]) -> str:
    """Text with bytes beyond ASCII; an unknown or wrong character set gives replacement characters, never an error."""
    try:
        return str(decode_bytes(raw, list(charsets), set())).strip()
    except Exception:  # noqa: BLE001 - codecs raise many kinds; the value must still give one key
        return raw.decode("latin-1").strip()
