"""The parts of a multipart answer, one after the other as they come in (RFC 2046, section 5.1)."""

from collections.abc import Iterable, Iterator
from email.message import Message

from platform_core.errors import UnreadableScan

LARGEST_PART_BYTES = 4 * 2**30
"""Native pixels cannot exceed this: DICOM PS3.5, 7.1, 32-bit lengths."""
LARGEST_HEAD_BYTES = 64 * 2**10


class Torn(Exception):
    """The answer ended before its last boundary."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a content type names; empty if it is no multipart."""
    message = Message()
    message["Content-Type"] = content_type
    is_multipart = message.get_content_maintype() == "multipart"
    return str(message.get_param("boundary", "")).encode("latin-1", "replace") if is_multipart else b""


def read_parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    """The body of each part; holds no more than the largest and the chunk that ends it.

    Raises:
        Torn: If the answer ends early.
        UnreadableScan: `object_too_large`.
    """
    source, mark = iter(chunks), b"\r\n--" + boundary
    buffer = bytearray(b"\r\n")
    _cut(buffer, source, mark, LARGEST_HEAD_BYTES)
    while not _is_end(buffer, source):
        _cut(buffer, source, b"\r\n\r\n", LARGEST_HEAD_BYTES)
        yield _cut(buffer, source, mark, LARGEST_PART_BYTES)


def _cut(buffer: bytearray, source: Iterator[bytes], mark: bytes, limit: int) -> bytes:
    """What stands before `mark`; takes both out of the buffer."""
    seen = 0
    while (end := buffer.find(mark, seen)) < 0:
        seen = max(0, len(buffer) - len(mark) + 1)
        if len(buffer) > limit:
            raise UnreadableScan("object_too_large", f"one object of more than {limit} bytes")
        buffer += _next(source)
    with memoryview(buffer) as view:
        found = bytes(view[:end])
    del buffer[: end + len(mark)]
    return found


def _is_end(buffer: bytearray, source: Iterator[bytes]) -> bool:
    while len(buffer) < 2:
        buffer += _next(source)
    return buffer[:2] == b"--"


def _next(source: Iterator[bytes]) -> bytes:
    for chunk in source:
        return chunk
    raise Torn
