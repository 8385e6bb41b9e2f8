"""What the pixel element may carry beside pixels, and taking it out without touching one of them.

Plain pixels: bytes behind the last pixel, and overlays that old scanners kept in the unused high bits. Compressed
ones: comments and application segments of the JPEG family, which are blanked in place so that offsets stay true,
and bytes behind the end of an image.

Sources: markers of ITU-T T.81 table B.1 (JPEG; JPEG-LS has the same) and T.800 table A.2 (JPEG 2000); overlays in
PS3.5 section 8.1.2, retired in 2004.
"""

import struct

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

ITEM = b"\xfe\xff\x00\xe0"
JPEG_START, JPEG2000_START, IMAGE_END = b"\xff\xd8", b"\xff\x4f", b"\xff\xd9"
COMMENT, SCAN = 0xFE, 0xDA
DECODED_SEGMENTS = frozenset({0xE0, 0xE8, 0xEE})
"""JFIF, the colour transform of JPEG-LS, Adobe's: decoders read them."""
JFIF_BYTES = 14
"""What JFIF states before its thumbnail."""
COMMENT_2000, TILE_2000 = 0x64, 0x90


def clean_pixels(dataset: Dataset, syntax: UID) -> bytes:
    """The value of PixelData without what is no pixel."""
    data: bytes = dataset.PixelData
    return _clean_fragments(data) if syntax.is_encapsulated else _clean_plain(dataset, data, syntax)


def _clean_plain(dataset: Dataset, data: bytes, syntax: UID) -> bytes:
    n_bits = int(dataset.BitsAllocated)
    n_values = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    n_values *= int(dataset.get("NumberOfFrames") or 1)
    if n_bits not in (8, 16, 32) or dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        return data
    pixels = data[: n_values * n_bits // 8]
    n_unused = n_bits - int(dataset.get("BitsStored") or n_bits)
    if 0 < n_unused < n_bits:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        pixels = _used_bits(pixels, np.dtype(f"{order}u{n_bits // 8}"), n_unused, bool(dataset.PixelRepresentation))
    return pixels + b"\x00" * (len(pixels) % 2)


def _used_bits(data: bytes, kind: "np.dtype[np.unsignedinteger]", n_unused: int, is_signed: bool) -> bytes:  # noqa: FBT001
    """Clear the unused high bits, unless they are only the sign of each value."""
    values = np.frombuffer(data, kind, count=len(data) // kind.itemsize)
    native = values.astype(kind.newbyteorder("="))
    low = native & native.dtype.type((1 << (8 * kind.itemsize - n_unused)) - 1)
    if not is_signed:
        return data if np.array_equal(low, native) else low.astype(kind).tobytes()
    signed = native.view(f"i{kind.itemsize}")
    extended = np.right_shift(np.left_shift(signed, n_unused), n_unused)
    is_clean = bool(np.all((native == low) | (signed == extended)))
    return data if is_clean else extended.astype(kind.newbyteorder("=").str.replace("u", "i")).astype(kind).tobytes()


def _clean_fragments(data: bytes) -> bytes:
    """Items up to the sequence delimiter (which pydicom writes), the segments in each that no decoder needs blanked."""
    parts, at, is_first = [], 0, True
    while at + 8 <= len(data) and data[at : at + 4] == ITEM:
        (length,) = struct.unpack_from("<I", data, at + 4)
        fragment = data[at + 8 : at + 8 + length]
        cleaned = _offsets(fragment, len(data)) if is_first else _clean_fragment(fragment)
        parts.append(ITEM + struct.pack("<I", len(cleaned)) + cleaned)
        at, is_first = at + 8 + length, False
    return b"".join(parts)


def _offsets(table: bytes, n_bytes: int) -> bytes:
    """The table of where frames begin, which may be empty; anything else in its place becomes an empty one."""
    if len(table) % 4:
        return b""
    offsets = [offset for (offset,) in struct.iter_unpack("<I", table)]
    is_table = offsets[:1] in ([], [0]) and offsets == sorted(offsets) and all(offset < n_bytes for offset in offsets)
    return table if is_table else b""


def _clean_fragment(fragment: bytes) -> bytes:
    if fragment[:2] not in (JPEG_START, JPEG2000_START):
        return fragment
    cleaned = bytearray(fragment)
    is_2000 = fragment[:2] == JPEG2000_START
    at = 2
    while at + 4 <= len(cleaned) and cleaned[at] == 0xFF:
        marker, length = cleaned[at + 1], struct.unpack_from(">H", cleaned, at + 2)[0]
        if marker == (TILE_2000 if is_2000 else SCAN) or length < 2:
            break
        keep = _kept_bytes(marker, length, is_2000=is_2000)
        stop = min(at + 2 + length, len(cleaned))
        start = min(at + 2 + keep, stop)
        cleaned[start:stop] = bytes(stop - start)
        at += 2 + length
    end = fragment.rfind(IMAGE_END)
    if end >= at:
        cleaned[end + 2 :] = bytes(len(cleaned) - end - 2)
    return bytes(cleaned)


def _kept_bytes(marker: int, length: int, *, is_2000: bool) -> int:
    """How much of a segment stays, from its length field on."""
    if is_2000:
        return 4 if marker == COMMENT_2000 else length
    if marker == COMMENT or (0xE0 <= marker <= 0xEF and marker not in DECODED_SEGMENTS):
        return 2
    return 2 + JFIF_BYTES if marker == 0xE0 else length
