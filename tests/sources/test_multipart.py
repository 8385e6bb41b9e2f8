from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnreadableScan
from platform_core.sources import multipart
from platform_core.sources.multipart import Torn, boundary_of, read_parts

MARK = b"abc"
bodies = st.lists(st.binary(max_size=60).map(lambda data: data.replace(b"--abc", b"--abd")), max_size=5)


def wire(parts: list[bytes], head: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"".join(b"\r\n--abc\r\n" + head + b"\r\n" + part for part in parts)[2:] + b"\r\n--abc--\r\n"


def in_chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@given(bodies.filter(bool), st.integers(1, 70))
def test_parts_come_as_they_were_sent_however_the_answer_is_cut_into_chunks(parts: list[bytes], size: int) -> None:
    assert list(read_parts(in_chunks(wire(parts), size), MARK)) == parts
    assert list(read_parts(in_chunks(wire(parts, head=b""), size), MARK)) == parts
    assert list(read_parts(in_chunks(b"a preamble\r\n" + wire(parts) + b"an epilogue", size), MARK)) == parts


@given(bodies.filter(bool), st.data())
def test_an_answer_that_ends_early_is_torn_and_gives_only_whole_parts(parts: list[bytes], data: st.DataObject) -> None:
    whole = wire(parts)
    cut = data.draw(st.integers(0, len(whole) - len(b"--\r\n") - 1))
    found: list[bytes] = []
    with pytest.raises(Torn):
        found.extend(read_parts(in_chunks(whole[:cut], 7), MARK))  # keeps what came before
    assert found == parts[: len(found)]


def test_a_part_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "LARGEST_PART_BYTES", 1000)
    n_sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal n_sent
        yield b"--abc\r\n\r\n"
        while True:
            n_sent += 100
            yield bytes(100)

    with pytest.raises(UnreadableScan, match="object_too_large"):
        list(read_parts(endless(), MARK))
    assert n_sent < 1500


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=x-1', b"x-1"),
        ('Multipart/Related; boundary="a b"; type="application/dicom"', b"a b"),
        ("application/dicom", b""),
        ("", b""),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary
