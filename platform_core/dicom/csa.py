"""The Siemens CSA header, read only as far as a mosaic needs it.

A mosaic shows all slices of a volume as tiles of one image; how many there are, and which
way the slices grow, stands in private elements.

Source: the layout of CSA1 and CSA2 as documented by nibabel, nipy.org/nibabel/dicom/siemens_csa.html.
"""

import math
import struct

from platform_core.dicom.stream import Elements

MAX_TAGS, MAX_ITEMS = 1000, 10_000
GROUP, IMAGE_HEADER = 0x0029, 0x10
CREATOR = b"SIEMENS CSA HEADER"


def mosaic_facts(elements: Elements) -> tuple[int, tuple[float, ...] | None]:
    """Slices in the mosaic (0 if it states none) and the direction in which they grow (LPS)."""
    facts = parse_csa(_image_header(elements), {"NumberOfImagesInMosaic", "SliceNormalVector"})
    try:
        n_tiles = int(facts.get("NumberOfImagesInMosaic", ["0"])[0])
        normal = tuple(float(v) for v in facts.get("SliceNormalVector", [])[:3])
    except (ValueError, IndexError):
        return 0, None
    return n_tiles, normal if len(normal) == 3 else None


def _image_header(elements: Elements) -> bytes:
    """The value of the private element, in whichever block of group 0029 Siemens reserved (PS3.5 section 7.8)."""
    for block in range(0x10, 0x100):
        creator = elements.raw_at(GROUP << 16 | block)
        if creator.strip(b"\x00 ") == CREATOR:
            return elements.raw_at(GROUP << 16 | block << 8 | IMAGE_HEADER)
    return b""


def tiles_per_side(n_tiles: int) -> int:
    """Tiles along each side of the square that holds `n_tiles`."""
    return math.isqrt(n_tiles - 1) + 1


def parse_csa(data: bytes, wanted: set[str]) -> dict[str, list[str]]:
    """The items of the wanted tags as text; empty for bytes that are no CSA header."""
    is_second = data[:4] == b"SV10"
    start = 8 if is_second else 0
    found: dict[str, list[str]] = {}
    try:
        n_tags, check = struct.unpack_from("<II", data, start)
        if check != 77 or not 0 < n_tags <= MAX_TAGS:
            return {}
        at = start + 8
        first_length: int | None = None
        for _ in range(n_tags):
            raw, n_values, _vr, _syngo, n_items, _check = struct.unpack_from("<64si4siii", data, at)
            at += 84
            name = raw.split(b"\x00", 1)[0].decode("ascii", "replace")
            items, at, first_length = _items(data, at, n_items, is_second=is_second, first_length=first_length)
            if name in wanted:
                found[name] = items[:n_values] if n_values else items
    except struct.error:
        return {}
    return found


def _items(
    data: bytes, at: int, n_items: int, *, is_second: bool, first_length: int | None
) -> tuple[list[str], int, int | None]:
    if not 0 <= n_items <= MAX_ITEMS:
        raise struct.error
    items = []
    for _ in range(n_items):
        sizes = struct.unpack_from("<4i", data, at)
        at += 16
        if first_length is None:
            first_length = sizes[0]
        # CSA1 states an item's length relative to the first length of the header
        length = sizes[1] if is_second else sizes[0] - first_length
        if length < 0 or at + length > len(data):
            raise struct.error
        value = data[at : at + length].split(b"\x00", 1)[0].decode("latin-1").strip()
        at += (length + 3) // 4 * 4
        if value:
            items.append(value)
    return items, at, first_length
