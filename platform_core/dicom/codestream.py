"""What a compressed frame says of its own size, before any decoder believes it.

Sources: ITU-T T.81 and T.87 (SOF markers of JPEG and JPEG-LS), ISO/IEC 15444-1 A.5.1 (SIZ of JPEG 2000).
"""

import struct

FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""SOF0 to SOF15 and SOF55, without DHT, JPG and DAC."""
BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
"""TEM, RSTn and SOI carry no length."""

JP2_BOX, SIZ = b"jP  ", b"\xff\x4f\xff\x51"
"""A JP2 file, which the standard does not allow here and decoders take; SOC and SIZ, which begin the codestream."""
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def is_whole(encoded: bytes) -> bool:
    """Whether fragments follow one another to the delimiter (PS3.5 annex A.4); decoders fill up what is cut off."""
    at = 0
    while at + 8 <= len(encoded):
        tag, length = encoded[at : at + 4], struct.unpack_from("<I", encoded, at + 4)[0]
        if tag == DELIMITER:
            return True
        if tag != ITEM:
            return False
        at += 8 + length
    return False


def is_cut(frame: bytes) -> bool:
    """Whether a JPEG or JPEG-LS frame lacks its end-of-image marker; decoders fill up the rest and say nothing."""
    return frame[:2] == b"\xff\xd8" and not frame[-64:].rstrip(b"\x00").endswith(b"\xff\xd9")


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream states; None if it states none."""
    if frame[4:8] == JP2_BOX:
        frame = frame[max(frame.find(SIZ), 0) :]
    if frame[:4] == SIZ:
        return _size_of_jpeg2000(frame)
    return _size_of_jpeg(frame) if frame[:2] == b"\xff\xd8" else None


def _size_of_jpeg2000(frame: bytes) -> tuple[int, int] | None:
    if len(frame) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    return bottom - top, right - left


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in BARE_MARKERS:
            at += 2
        elif marker in FRAME_MARKERS:
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return rows, columns
        else:
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None
