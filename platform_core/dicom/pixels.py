"""Stored values to numbers with a meaning: HU for CT, the scanner's own units for the rest.

Plain pixels are never copied before they are in units: a series of 100 MB passes the
processor's cache once. Compressed ones go through pydicom's decoders, after the size that
each frame claims was checked against the header's.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from platform_core.dicom.codestream import frame_size, is_cut, is_whole
from platform_core.dicom.csa import tiles_per_side
from platform_core.dicom.elements import whole
from platform_core.dicom.header import Header, Scan
from platform_core.dicom.stream import Place
from platform_core.errors import UnreadableScan
from platform_core.imaging.volume import Voxels

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")
"""It would log a stack trace for every frame that cannot be decoded, and values of elements."""
GREY = ("MONOCHROME1", "MONOCHROME2")
MAX_BYTES = 1 << 32
"""One file may not decode to more; the largest whole-body and 4D files seen in practice are below 2 GiB."""
FREE_BYTES, MAX_EXPANSION = 1 << 26, 2000
"""A small file may decode to 64 MiB, a larger one to 2000 times its size: blank JPEG 2000 frames come near that."""
DECODER, DECODER_OF = "pylibjpeg", {RLELossless: "pydicom"}
"""Asked alone: when one refuses, pydicom asks the next, and on broken frames gdcm aborts the process and pylibjpeg's
RLE panics past every `except Exception`."""
INT16 = np.iinfo(np.int16)


def decode(scan: Scan) -> Voxels:
    """The stored values of all planes of a file, (plane, y, x), integers; larger is brighter.

    May be a read-only view of the file's bytes.

    Raises:
        UnreadableScan: `colour`, `radiograph_frames`, `modality_lut`, `no_pixels`, `truncated`, `bits`, `too_large` or
            `undecodable`.
    """
    header = scan.header
    if header.n_samples != 1 or header.photometric not in GREY:
        raise UnreadableScan("colour", "expected one grey value per pixel, found a colour image")
    if header.is_projection and len(header.frames) > 1:
        raise UnreadableScan("radiograph_frames", f"{len(header.frames)} frames, where a radiograph has one")
    if scan.elements.items("ModalityLUTSequence", most=1):
        raise UnreadableScan("modality_lut", "a table, not a slope and intercept, gives the values their meaning")
    if scan.elements.place("PixelData") is None:
        raise UnreadableScan("no_pixels", "the file ends before its pixels, or has none")
    if not header.transfer_syntax:
        raise UnreadableScan("undecodable", "the transfer syntax is in no register, so nobody knows the byte order")
    stored = _compressed(scan) if UID(header.transfer_syntax).is_encapsulated else _plain(scan)
    if header.photometric == "MONOCHROME1" and header.is_projection:
        stored = _inverted(stored, header)
    return _tiles(stored[0], header) if header.n_tiles else stored


def in_units(stored: Voxels, slope: float, intercept: float, *, out: Voxels | None = None) -> Voxels:
    """Rescale stored values.

    Whole numbers stay whole (int16 where they fit) if the slope
    is 1; else float32.

    Args:
        stored: Integers, any shape.
        slope: Of this plane.
        intercept: Of this plane.
        out: Where int16 results may be written, of the same shape.
    """
    if slope != 1 or not float(intercept).is_integer():
        return np.asarray(stored * slope + intercept, dtype=np.float32)
    if stored.dtype.itemsize <= 2 and _fits_int16(stored, int(intercept)):
        # in 16 bits a sum that fits comes out right, whatever sign the bits were read with
        same = stored.view(np.int16) if stored.dtype.itemsize == 2 else stored.astype(np.int16)
        return np.asarray(np.add(same, np.int16(intercept), out=out))
    return stored if intercept == 0 else stored.astype(np.int64) + int(intercept)


def stacked(planes: Sequence[Voxels]) -> Voxels:
    """Planes in units as one array: int16 if all values fit, else uint16, else float32."""
    stack = np.stack(planes)
    if stack.dtype == np.int16:
        return stack
    if stack.dtype.kind == "f":
        return stack.astype(np.float32, copy=False)
    low, high = int(stack.min()), int(stack.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return stack.astype(kind)
    return stack.astype(np.float32)


def _fits_int16(stored: Voxels, intercept: int) -> bool:
    """Whether the sums fit; asked of the type first, of the values only where the type cannot tell."""
    if not INT16.min <= intercept <= INT16.max:
        return False
    limits = np.iinfo(stored.dtype)
    if limits.min + intercept >= INT16.min and limits.max + intercept <= INT16.max:
        return True
    return int(stored.min()) + intercept >= INT16.min and int(stored.max()) + intercept <= INT16.max


def _pixel_place(scan: Scan) -> Place:
    place = scan.elements.place("PixelData")
    assert place is not None
    return place


def _plain(scan: Scan) -> Voxels:
    """Uncompressed pixels, in place where every bit of them counts."""
    header, place = scan.header, _pixel_place(scan)
    if whole(scan.elements, "HighBit") not in (None, header.bits_stored - 1):
        raise UnreadableScan("bits", "the highest bit is not the last of those stored")
    if header.bits_allocated not in (8, 16, 32):
        raise UnreadableScan("bits", f"{header.bits_allocated} bits allocated per pixel")
    order = ">" if header.transfer_syntax == ExplicitVRBigEndian and header.bits_allocated > 8 else "<"
    kind = np.dtype(f"{order}{'i' if header.is_signed else 'u'}{header.bits_allocated // 8}")
    shape = _stored_shape(header)
    n_values, n_found = int(np.prod(shape)), min(place.length, len(scan.elements.data) - place.start)
    if n_found < n_values * kind.itemsize:
        raise UnreadableScan("truncated", f"expected {n_values * kind.itemsize} bytes of pixels, found {n_found}")
    if kind.itemsize == 1 and place.vr == b"OW" and header.transfer_syntax == ExplicitVRBigEndian:
        return _used_bits(_bytes_of_words(scan, kind, n_values).reshape(shape), header)
    stored = np.frombuffer(scan.elements.data, kind, count=n_values, offset=place.start).reshape(shape)
    return _used_bits(stored.astype(kind.newbyteorder("="), copy=False), header)


def _bytes_of_words(scan: Scan, kind: np.dtype[Any], n_values: int) -> Voxels:
    """8-bit pixels filed as big-endian words: each pair of bytes has changed places (PS3.5 section 8.1.1)."""
    place, n_words = _pixel_place(scan), -(-n_values // 2)
    if len(scan.elements.data) < place.start + 2 * n_words:
        raise UnreadableScan("truncated", f"expected {2 * n_words} bytes of pixels, found fewer")
    words = np.frombuffer(scan.elements.data, np.uint16, count=n_words, offset=place.start)
    return np.asarray(words.byteswap().view(kind)[:n_values])


def _used_bits(stored: Voxels, header: Header) -> Voxels:
    """Clear what old scanners keep in the unused high bits (overlays), and restore the sign."""
    n_unused = header.bits_allocated - header.bits_stored
    if n_unused <= 0:
        return stored
    if header.is_signed:
        return np.asarray(np.right_shift(np.left_shift(stored, n_unused), n_unused))
    used = np.bitwise_and(stored, stored.dtype.type((1 << header.bits_stored) - 1))
    return np.asarray(used.view(f"i{used.dtype.itemsize}"))


def _compressed(scan: Scan) -> Voxels:
    header, shape = scan.header, _stored_shape(scan.header)
    encoded = scan.elements.raw("PixelData")
    n_bytes = int(np.prod(shape)) * max(1, header.bits_allocated // 8)
    if n_bytes > MAX_BYTES or n_bytes > max(FREE_BYTES, MAX_EXPANSION * len(encoded)):
        raise UnreadableScan("too_large", f"{len(encoded)} compressed bytes claim to hold {n_bytes} bytes of pixels")
    try:
        return _decompressed(scan, encoded, shape)
    except UnreadableScan:
        raise
    except Exception as error:  # decoders raise many kinds; any means that the pixels are lost
        raise UnreadableScan("undecodable", "the compressed pixels cannot be decoded") from error


def _decompressed(scan: Scan, encoded: bytes, shape: tuple[int, int, int]) -> Voxels:
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    header, elements = scan.header, scan.elements
    offsets = elements.raw("ExtendedOffsetTable"), elements.raw("ExtendedOffsetTableLengths")
    options = {"extended_offsets": offsets} if all(offsets) else {}
    if not is_whole(encoded):
        raise UnreadableScan("truncated", "the compressed pixels end before their last fragment does")
    for frame in generate_frames(encoded, number_of_frames=shape[0], **options):
        found = frame_size(frame)
        if is_cut(frame):
            raise UnreadableScan("truncated", "a compressed frame ends before its image does")
        if found is None and header.transfer_syntax != RLELossless:
            raise UnreadableScan("undecodable", "a compressed frame does not state its size")
        if found is not None and found != shape[1:]:
            raise UnreadableScan("undecodable", f"a compressed frame of {found} pixels, where {shape[1:]} are stated")
    values, _ = get_decoder(UID(header.transfer_syntax)).as_array(
        encoded,
        raw=True,
        rows=shape[1],
        columns=shape[2],
        number_of_frames=shape[0],
        samples_per_pixel=1,
        photometric_interpretation=header.photometric,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
        pixel_representation=int(header.is_signed),
        pixel_keyword="PixelData",
        decoding_plugin=DECODER_OF.get(UID(header.transfer_syntax), DECODER),
        **options,
    )
    decoded = np.asarray(values).reshape(shape)
    is_as_allocated = decoded.dtype.itemsize * 8 == header.bits_allocated
    return _used_bits(decoded, header) if is_as_allocated else decoded


def _stored_shape(header: Header) -> tuple[int, int, int]:
    if not header.n_tiles:
        return len(header.frames), header.n_rows, header.n_columns
    side = tiles_per_side(header.n_tiles)
    return 1, header.n_rows * side, header.n_columns * side


def _inverted(stored: Voxels, header: Header) -> Voxels:
    """A radiograph in MONOCHROME1 shows the least value white; here larger is brighter.

    Of CT and MR it says only how to show them: their values mean what slope and intercept make of them.
    """
    top = -1 if header.is_signed else 2**header.bits_stored - 1
    return (top - stored.astype(np.int32)).astype(stored.dtype)


def _tiles(image: Voxels, header: Header) -> Voxels:
    """Cut a mosaic (y, x) into its slices (z, y, x), row by row."""
    side = tiles_per_side(header.n_tiles)
    tiles = image.reshape(side, header.n_rows, side, header.n_columns).swapaxes(1, 2)
    return tiles.reshape(side * side, header.n_rows, header.n_columns)[: header.n_tiles]
