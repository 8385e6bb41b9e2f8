"""What the pixel element may carry beside pixels, and taking it out without touching one of them.

Plain pixels: bytes behind the last pixel, and overlays that old scanners kept in the unused high bits (PS3.5
section 8.1.2, retired in 2004). Compressed ones: whatever a frame holds beside its image (`compressed_bytes.py`).
"""

import struct
from itertools import accumulate

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from platform_core.dicom.compressed_bytes import clean_frame, clean_rle

ITEM = b"\xfe\xff\x00\xe0"


def clean_pixels(dataset: Dataset, syntax: UID) -> bytes:
    """The value of PixelData without what is no pixel.

    Raises:
        UnreadableScan: `undecodable` for compressed frames that cannot be followed to their end.
    """
    data: bytes = dataset.PixelData
    return _clean_fragments(dataset, data, syntax) if syntax.is_encapsulated else _clean_plain(dataset, data, syntax)


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


def _clean_fragments(dataset: Dataset, data: bytes, syntax: UID) -> bytes:
    """Items up to the sequence delimiter (which pydicom writes), of the lengths they had, so that offsets stay true."""
    table, *fragments = _items(data) or [b""]
    table = _offsets(table, len(data))
    n_pixels = int(dataset.Rows) * int(dataset.Columns)
    items = [table]
    for parts in _frames(table, fragments, int(dataset.get("NumberOfFrames") or 1)):
        frame = b"".join(parts)
        cleaned = clean_rle(frame, n_pixels) if syntax == RLELossless else clean_frame(frame)
        ends = list(accumulate(map(len, parts)))
        items += [cleaned[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return b"".join(map(_item, items))


def _items(data: bytes) -> list[bytes]:
    items, at = [], 0
    while at + 8 <= len(data) and data[at : at + 4] == ITEM:
        (length,) = struct.unpack_from("<I", data, at + 4)
        items.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return items


def _item(content: bytes) -> bytes:
    return ITEM + struct.pack("<I", len(content)) + content


def _frames(table: bytes, fragments: list[bytes], n_frames: int) -> list[list[bytes]]:
    """The fragments of each frame, told apart as our reader does it."""
    if len(fragments) == n_frames:
        return [[fragment] for fragment in fragments]
    if n_frames == 1:
        return [fragments]
    body = b"".join(map(_item, [table, *fragments]))
    return [list(parts) for parts in generate_fragmented_frames(body, number_of_frames=n_frames)]


def _offsets(table: bytes, n_bytes: int) -> bytes:
    """The table of where frames begin, which may be empty; anything else in its place becomes an empty one."""
    if len(table) % 4:
        return b""
    offsets = [offset for (offset,) in struct.iter_unpack("<I", table)]
    is_table = offsets[:1] in ([], [0]) and offsets == sorted(offsets) and all(offset < n_bytes for offset in offsets)
    return table if is_table else b""
