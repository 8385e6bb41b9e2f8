"""Stored values to numbers with a meaning: HU for CT, the scanner's own units for the rest."""

from collections.abc import Sequence

import numpy as np
from pydicom.uid import UID, ExplicitVRBigEndian

from platform_core.dicom.csa import tiles_per_side
from platform_core.dicom.header import Header, Scan
from platform_core.errors import UnreadableScan
from platform_core.imaging.volume import Voxels

GREY = ("MONOCHROME1", "MONOCHROME2")


def decode(scan: Scan) -> Voxels:
    """The stored values of all planes of a file, (plane, y, x), integers; larger is brighter.

    Raises:
        UnreadableScan: `colour`, `no_pixels`, `truncated`, `bits` or `undecodable`.
    """
    header = scan.header
    if header.n_samples != 1 or header.photometric not in GREY:
        raise UnreadableScan("colour", "expected one grey value per pixel, found a colour image")
    if "PixelData" not in scan.dataset:
        raise UnreadableScan("no_pixels", "the file ends before its pixels, or has none")
    syntax = UID(header.transfer_syntax)
    stored: Voxels = _compressed(scan) if syntax.is_transfer_syntax and syntax.is_encapsulated else _plain(scan)
    if header.photometric == "MONOCHROME1":
        stored = _inverted(stored, header)
    return _tiles(stored[0], header) if header.n_tiles else stored


def in_units(planes: Sequence[Voxels], slopes: Sequence[float], intercepts: Sequence[float]) -> Voxels:
    """Rescale planes and stack them.

    Whole numbers stay whole (int16, or uint16 where they do not fit) if no slope differs
    from 1; else float32.
    """
    is_whole = all(slope == 1 for slope in slopes) and all(float(value).is_integer() for value in intercepts)
    stack = np.stack(planes)
    column = (-1, *([1] * (stack.ndim - 1)))
    if not is_whole:
        return np.asarray(stack * np.reshape(slopes, column) + np.reshape(intercepts, column), dtype=np.float32)
    if any(intercepts):
        stack = stack.astype(np.int32) + np.reshape(intercepts, column).astype(np.int32)
    return _smallest(stack)


def _smallest(stack: Voxels) -> Voxels:
    if stack.dtype == np.int16:
        return stack
    low, high = int(stack.min()), int(stack.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return stack.astype(kind)
    return stack.astype(np.float32)


def _plain(scan: Scan) -> Voxels:
    """Uncompressed pixels: the bytes as they lie."""
    header, data = scan.header, scan.dataset.PixelData
    if header.bits_allocated not in (8, 16, 32):
        raise UnreadableScan("bits", f"{header.bits_allocated} bits allocated per pixel")
    order = ">" if header.transfer_syntax == ExplicitVRBigEndian and header.bits_allocated > 8 else "<"
    kind = np.dtype(f"{order}{'i' if header.is_signed else 'u'}{header.bits_allocated // 8}")
    shape = _stored_shape(header)
    n_bytes = int(np.prod(shape)) * kind.itemsize
    if len(data) < n_bytes:
        raise UnreadableScan("truncated", f"expected {n_bytes} bytes of pixels, found {len(data)}")
    stored = np.frombuffer(data, kind, count=int(np.prod(shape))).reshape(shape)
    return _used_bits(stored.astype(kind.newbyteorder("=")), header)


def _used_bits(stored: Voxels, header: Header) -> Voxels:
    """Clear what old scanners keep in the unused high bits (overlays), and restore the sign."""
    n_unused = header.bits_allocated - header.bits_stored
    if n_unused <= 0:
        return stored
    return np.asarray(np.right_shift(np.left_shift(stored, n_unused), n_unused))


def _compressed(scan: Scan) -> Voxels:
    try:
        stored = np.asarray(scan.dataset.pixel_array)
    except Exception as error:  # decoders raise many kinds; any means that the pixels are lost
        raise UnreadableScan("undecodable", "the compressed pixels cannot be decoded") from error
    return stored.reshape(_stored_shape(scan.header))


def _stored_shape(header: Header) -> tuple[int, int, int]:
    if not header.n_tiles:
        return len(header.frames), header.n_rows, header.n_columns
    side = tiles_per_side(header.n_tiles)
    return 1, header.n_rows * side, header.n_columns * side


def _inverted(stored: Voxels, header: Header) -> Voxels:
    """MONOCHROME1 shows the least value white; here larger is brighter."""
    top = -1 if header.is_signed else 2**header.bits_stored - 1
    return (top - stored.astype(np.int32)).astype(stored.dtype)


def _tiles(image: Voxels, header: Header) -> Voxels:
    """Cut a mosaic (y, x) into its slices (z, y, x), row by row."""
    side = tiles_per_side(header.n_tiles)
    tiles = image.reshape(side, header.n_rows, side, header.n_columns).swapaxes(1, 2)
    return tiles.reshape(side * side, header.n_rows, header.n_columns)[: header.n_tiles]
