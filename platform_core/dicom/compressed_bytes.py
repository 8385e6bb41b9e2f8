"""A compressed frame without what is no image in it: every byte of the image stays where it is, the rest becomes zero.

JPEG and JPEG-LS: comments, application segments beside what decoders read of them, and what lies behind the end.
JPEG 2000: comments and unknown segments, of the main header and of every tile part, the boxes of a JP2 file around it,
and what lies behind the end. RLE: what lies between, before and behind the runs. A frame whose layout cannot be
followed to its end is refused: nobody knows what it may hold.

Sources: ITU-T T.81 table B.1 (JPEG; JPEG-LS has the same), T.87 annex C, T.800 tables A.2 and I.2 (JPEG 2000 and JP2),
PS3.5 annex G (RLE).
"""

import re
import struct

from platform_core.dicom.codestream import FRAME_MARKERS, JP2_BOX, SIZ
from platform_core.errors import UnreadableScan

JPEG_START = b"\xff\xd8"
END, SCAN, RESTARTS, START = 0xD9, 0xDA, range(0xD0, 0xD8), 0xD8
DECODED = FRAME_MARKERS | {0xC4, 0xCC, SCAN, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xF8}
"""Frames, tables and scans of JPEG; the parameters of JPEG-LS."""
APPLICATIONS = {
    0xE0: {b"JFIF\x00": 14},
    0xE8: {b"mrfx": 5, b"SPIFF\x00": 30, b"\x00\x00\x00\x01\xff\xd8": 6},
    0xEE: {b"Adobe": 12},
}
"""How a segment begins that decoders read, and how many bytes of it they do: JFIF without its thumbnail, the colour
transform of JPEG-LS, SPIFF without its directory, Adobe's. All of these hold numbers alone."""
MARKER = re.compile(rb"\xff+([^\x00\xff])")
"""Any number of fill bytes may come before one."""
SCAN_END = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker in coded data: there 0xFF is followed by 00 (JPEG), by less than 80 (JPEG-LS), or restarts the coder."""

TILE, TILE_DATA, COMMENT = 0xFF90, 0xFF93, 0xFF64
TILE_START, STREAM_END = b"\xff\x90", b"\xff\xd9"
DECODED_2000 = frozenset({*range(0xFF50, 0xFF64), *range(0xFF70, 0xFF7A)})
"""Of parts 1, 2 and 15."""


def clean_frame(frame: bytes) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 frame of the same length.

    Raises:
        UnreadableScan: `undecodable` if it is none, or cannot be followed to its end.
    """
    if frame[4:8] == JP2_BOX:
        return clean_frame(_codestream(frame)).ljust(len(frame), b"\x00")
    if frame[:4] == SIZ:
        return _clean_jpeg2000(frame)
    if frame[:2] == JPEG_START:
        return _clean_jpeg(frame)
    raise _odd("is neither JPEG nor JPEG 2000")


def clean_rle(frame: bytes, n_pixels: int) -> bytes:
    """An RLE frame of the same length.

    Raises:
        UnreadableScan: `undecodable` if its runs do not lie one behind the other.
    """
    n_runs, *starts = struct.unpack("<16I", frame[:64].ljust(64, b"\x00"))
    starts = starts[:n_runs]
    if not 1 <= n_runs <= 15 or starts[0] < 64 or starts != sorted(starts) or starts[-1] >= len(frame):
        raise _odd("is no RLE")
    cleaned = bytearray(len(frame))
    struct.pack_into(f"<{1 + n_runs}I", cleaned, 0, n_runs, *starts)
    for start, stop in zip(starts, [*starts[1:], len(frame)], strict=True):
        end = _end_of_run(frame, start, stop, n_pixels)
        cleaned[start:end] = frame[start:end]
    return bytes(cleaned)


def _odd(what: str) -> UnreadableScan:
    return UnreadableScan("undecodable", f"a compressed frame {what}, so nobody knows what it may hold")


def _end_of_run(frame: bytes, at: int, stop: int, n_pixels: int) -> int:
    n_found = 0
    while at < stop and n_found < n_pixels:
        control = frame[at]
        n_found += control + 1 if control < 128 else (257 - control) % 129
        at += 2 + control if control < 128 else 1 + (control > 128)
    return min(at, stop)


def _clean_jpeg(frame: bytes) -> bytes:
    cleaned, at = bytearray(frame), 2
    while (found := MARKER.match(frame, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == END:
            return bytes(cleaned[:at]).ljust(len(frame), b"\x00")
        stop = _segment_end(frame, at)
        _blank(cleaned, at + _kept_bytes(marker, frame[at:stop]), stop)
        at = stop
        if marker == SCAN:
            ending = SCAN_END.search(frame, at)
            at = len(frame) if ending is None else ending.start()
    raise _odd("cannot be followed to its end")


def _kept_bytes(marker: int, segment: bytes) -> int:
    """How much of a segment stays, from its length field on."""
    if marker in DECODED:
        return len(segment)
    known = APPLICATIONS.get(marker, {})
    return 2 + next((n_read for name, n_read in known.items() if segment.startswith(name, 2)), 0)


def _segment_end(frame: bytes | bytearray, at: int) -> int:
    """Where a segment ends of which `at` is the length field."""
    (length,) = struct.unpack(">H", frame[at : at + 2].rjust(2, b"\x00"))
    if length < 2 or at + length > len(frame):
        raise _odd("has a segment of no length")
    return at + int(length)


def _blank(cleaned: bytearray, start: int, stop: int) -> None:
    cleaned[start:stop] = bytes(max(stop - start, 0))


def _clean_jpeg2000(frame: bytes) -> bytes:
    cleaned = bytearray(frame)
    at = _clean_header(cleaned, 2, until=TILE)
    while cleaned[at : at + 2] == TILE_START and at + 12 <= len(frame):
        (length,) = struct.unpack_from(">I", frame, at + 6)
        data_start = _clean_header(cleaned, at + 12, until=TILE_DATA)
        at = at + length if length else frame.find(STREAM_END, data_start)
        if at < data_start:
            raise _odd("has a tile of no length")
    if frame[at : at + 2] != STREAM_END and any(frame[at:]):
        raise _odd("cannot be followed to its end")
    return bytes(cleaned[: at + 2]).ljust(len(frame), b"\x00")


def _clean_header(cleaned: bytearray, at: int, *, until: int) -> int:
    """Clean the segments of a header; returns where its last marker stands."""
    while at + 4 <= len(cleaned):
        (marker,) = struct.unpack_from(">H", cleaned, at)
        if marker == until:
            return at
        if not 0xFF40 <= marker < 0xFF90:
            break
        stop = _segment_end(cleaned, at + 2)
        if marker not in DECODED_2000:
            _blank(cleaned, at + (6 if marker == COMMENT else 4), stop)
        at = stop
    raise _odd("cannot be followed through its header")


def _codestream(file: bytes) -> bytes:
    """The codestream in a JP2 file, which PS3.5 annex A.4.4 does not allow here and readers take."""
    at = 0
    while at + 8 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        start = at + 8
        if size == 1 and at + 16 <= len(file):
            (size,), start = struct.unpack_from(">Q", file, at + 8), at + 16
        stop = min(at + size, len(file)) if size else len(file)
        if stop < start or (kind == b"jp2h" and b"pclr" in file[start:stop]):
            break
        if kind == b"jp2c" and file[start : start + 4] == SIZ:
            return file[start:stop]
        at = stop
    raise _odd("is a JP2 file without a plain codestream")
