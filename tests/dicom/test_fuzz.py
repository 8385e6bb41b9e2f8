"""Whatever the bytes are, reading them ends in a scan or in `UnreadableScan` with a stable reason, within bounds.

A failure prints the seed or the bytes at fault; `python -m tests.benchmarks.fuzz` looks longer.
"""

import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.dicom.header import open_scan
from platform_core.dicom.pixels import decode
from platform_core.dicom.rules import glance
from platform_core.dicom.stream import read_elements
from platform_core.errors import UnreadableScan
from tests.dicom import corpus
from tests.dicom.corpus import BIG, BY_NAME, DEFLATED, EXPLICIT, IMPLICIT, depth

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

GREY = depth(12, 16)
TRUTH = corpus.noise((6, 8), GREY)
PIXELS = b"\xe0\x7f\x10\x00"
MEMORY_BYTES = 3 << 30
"""Address space of a process that reads one bad file; the libraries alone reserve most of it."""
GROWTH_BYTES = 600 << 20
CPU_SECONDS = 5
SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
SPARE = 24
"""Bytes at the end of a file that may be missing without loss."""
REASON = re.compile(r"[a-z][a-z0-9_]{2,30}")


def outcome(data: bytes) -> str:
    """`read`, or the reason; any other exception is the failure that this file looks for."""
    ends = set()
    for call in (glance, lambda whole: decode(open_scan(whole))):
        try:
            call(data)
        except UnreadableScan as refusal:
            ends.add(refusal.reason)
    assert all(REASON.fullmatch(reason) for reason in ends), ends
    return min(ends, default="read")


def samples() -> dict[str, bytes]:
    """A file of every kind."""
    plain = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big": BIG, "deflated": DEFLATED}
    files = {name: corpus.file_of(TRUTH, GREY, syntax) for name, syntax in plain.items()}
    for name in ("rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"):
        how = depth(16, 16)
        files[name] = corpus.compressed_file([corpus.noise((6, 8), how)] * 2, BY_NAME[name], how)
    files["enhanced"] = corpus.file_of(np.stack([TRUTH] * 3), GREY)
    return files


SAMPLES = samples()


# --- cut and changed bytes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_at_any_byte_is_refused_or_whole(name: str) -> None:
    """The last bytes of some files hold no pixels: a delimiter, the end of a deflated block."""
    data = SAMPLES[name]
    truth = decode(open_scan(data))
    n_read = 0
    for n_kept in range(len(data)):
        if outcome(data[:n_kept]) == "read":
            np.testing.assert_array_equal(decode(open_scan(data[:n_kept])), truth)
            n_read += 1
    assert n_read < SPARE


@pytest.mark.parametrize("name", ["rle", "jpeg sv1", "jpeg lossless 6", "jpeg-ls", "jpeg 2000", "htj2k"])
def test_half_a_frame_is_refused_though_its_fragment_is_whole(name: str) -> None:
    """Decoders fill up the rest with zeros and say nothing."""
    how = depth(16, 16)
    code = BY_NAME[name].encode(corpus.noise((40, 30), how), how)
    for n_kept in range(0, len(code) * 9 // 10, 101):
        assert outcome(_wrapped(code[:n_kept], BY_NAME[name].syntax, Rows=40, Columns=30)) != "read", n_kept


@pytest.mark.parametrize("name", SAMPLES)
def test_changed_bytes_never_break_the_reader(name: str) -> None:
    data = SAMPLES[name]
    for seed in range(300):
        outcome(changed(data, np.random.default_rng(seed)))


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bytes set to anything, or a run of them taken out or doubled."""
    spoilt = bytearray(data)
    for at in rng.integers(0, len(spoilt), rng.integers(1, 9)):
        spoilt[at] = (0, 0xFF, int(rng.integers(0, 256)))[rng.integers(0, 3)]
    start, n = int(rng.integers(128, len(spoilt))), int(rng.integers(1, 40))
    kind = rng.integers(0, 4)
    if kind == 0:
        del spoilt[start : start + n]
    if kind == 1:
        spoilt[start:start] = spoilt[start : start + n]
    return bytes(spoilt)


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_word_are_read_or_refused(tail: bytes) -> None:
    outcome(bytes(128) + b"DICM" + tail)


@given(st.sampled_from([b"\x08\x00", b"\x00\x08", b"\x02\x00"]), st.binary(max_size=200))
def test_any_bytes_that_begin_like_a_header_are_read_or_refused(start: bytes, tail: bytes) -> None:
    outcome(start + tail)


@pytest.mark.parametrize("length", [1, 3, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFF, 0])
@pytest.mark.parametrize("name", ["implicit", "explicit", "big", "jpeg-ls", "enhanced"])
def test_a_lying_length_is_not_believed(name: str, length: int) -> None:
    """Of every element in turn."""
    data = SAMPLES[name]
    order = ">" if name == "big" else "<"
    elements = read_elements(data)
    for vr, start, _ in elements.found.values():
        width = 2 if vr in (b"UI", b"CS", b"DS", b"IS", b"LO", b"PN", b"DA", b"US") else 4
        if width == 2 and length > 0xFFFF:
            continue
        at = start - width
        outcome(data[:at] + struct.pack(order + ("H" if width == 2 else "I"), length) + data[start:])


# --- values ------------------------------------------------------------------------------------

NUMBERS = (
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "SliceThickness",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "EchoTime",
    "DiffusionBValue",
    "AcquisitionNumber",
)
ODD = (
    b"",
    b"\\",
    b"abc",
    b"nan",
    b"inf\\-inf",
    b"1e308",
    b"-1",
    b"0",
    b"1e999",
    b"\xff\xfe",
    b"9" * 40,
    b"1_0",
    b"0x10",
)


def with_value(name: str, value: bytes, vr: bytes = b"DS", base: str = "explicit") -> bytes:
    """A file whose element holds these bytes, whatever the standard says."""
    data = SAMPLES[base]
    value += b" " * (len(value) % 2)
    tag = pydicom.datadict.tag_for_keyword(name)
    assert tag is not None
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    place = read_elements(data).place(name)
    start, end = (place.start - 8, place.start + place.length) if place else (_before(data, tag),) * 2
    return data[:start] + head + value + data[end:]


def _before(data: bytes, tag: int) -> int:
    vr, start, _ = min((t, place) for t, place in read_elements(data).found.items() if t > tag)[1]
    return start - (12 if vr in (b"OB", b"OW", b"SQ", b"UN") else 8)


@pytest.mark.parametrize("name", NUMBERS)
def test_odd_numbers_are_read_or_refused(name: str) -> None:
    for value in ODD:
        for copies in (1, 2, 3, 6):
            outcome(with_value(name, b"\\".join([value] * copies)))


WORDS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("base", ["explicit", "rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"])
def test_odd_words_are_read_or_refused(name: str, base: str) -> None:
    for value in (0, 1, 2, 3, 7, 9, 12, 13, 16, 17, 31, 32, 33, 64, 255, 4096, 65535):
        outcome(with_value(name, struct.pack("<H", value), b"US", base))


@pytest.mark.parametrize("n_stated", [-1, 2, 3, 10**9, 10**18])
def test_frames_that_are_not_there_are_refused(n_stated: int) -> None:
    assert outcome(with_value("NumberOfFrames", str(n_stated).encode(), b"IS")) != "read" or n_stated < 1


@pytest.mark.parametrize(
    "text", ["PatientID", "PatientName", "SpecificCharacterSet", "Modality", "ImageType", "Manufacturer"]
)
def test_any_characters_are_read_or_refused(text: str) -> None:
    for charset in (
        b"",
        b"ISO_IR 192",
        b"ISO 2022 IR 87\\ISO 2022 IR 149",
        b"KLINGON",
        b"\xff\xfe",
        b"\\\\",
        b"ISO_IR 100\\x",
    ):
        data = with_value("SpecificCharacterSet", charset, b"CS")
        for value in (
            b"",
            b"\xff\xfe\x80",
            b"\x1b$B\x1b",
            b"\x1b",
            b"\xc3\x28",
            b"\x00\x00",
            b"^^^^=\\=",
            "Ärzte".encode("utf-16"),
        ):
            place = read_elements(data).place(text)
            if place is not None:
                at = place.start - 2
                body = value + b" " * (len(value) % 2)
                outcome(data[:at] + struct.pack("<H", len(body)) + body + data[place.start + place.length :])


@pytest.mark.parametrize("name", ["SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "PixelData"])
def test_each_thing_that_is_missing_has_a_reason_of_its_own(name: str) -> None:
    reasons = {
        "SOPInstanceUID": "no_instance_uid",
        "SeriesInstanceUID": "no_series_uid",
        "Modality": "no_modality",
        "Rows": "no_matrix",
        "PixelData": "no_pixels",
    }
    dataset = corpus.dataset_of(TRUTH, GREY)
    delattr(dataset, name)
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    out = BytesIO()
    pydicom.dcmwrite(out, dataset)
    assert outcome(out.getvalue()) == reasons[name]


# --- bombs: measured in a process of its own ---------------------------------------------------

CHILD = """
import json, os, resource
from tests.dicom.test_fuzz import BOMBS, CPU_SECONDS, MEMORY_BYTES, outcome

def explode(name):
    data = BOMBS[name]()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    limit = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = outcome(data)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([name, end, (after - before) << 10]), flush=True)

for name in BOMBS:
    if name.startswith("sound"):
        assert outcome(BOMBS[name]()) == "read", name
for name in BOMBS:
    if os.fork() == 0:
        try:
            explode(name)
        finally:
            os._exit(0)
    os.wait()
"""
"""Loads the decoders once, then reads each file in a fork that has little to lose."""


def bombs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Small files that claim to be large, by name; `sound` ones are none, and load the decoders."""
    wide: dict[str, Any] = {"Rows": 65535, "Columns": 65535}
    yield "sound", lambda: SAMPLES["explicit"]
    yield "plain claim", lambda: corpus.file_of(TRUTH, GREY, **wide)
    yield "plain claim of frames", lambda: with_value("NumberOfFrames", b"2147483647", b"IS", "enhanced")
    yield "deflated zeros", lambda: _deflated(SAMPLES["deflated"], 2 << 30)
    for name in ("rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"):
        yield f"sound {name}", partial(_bomb, name)
        yield f"{name} claimed by header", partial(_bomb, name, **wide)
        if name != "rle":
            yield f"{name} claimed by frame", partial(_bomb, name, _enlarged)
            yield (
                f"{name} claimed by frame in bits of rubbish",
                partial(_bomb, name, lambda code: b"\0\0" + _enlarged(code)),
            )
    yield "jpeg 2000 in a box", partial(_bomb, "jpeg 2000", lambda code: _boxed(_enlarged(code)))
    yield "sound jpeg 2000 in a box", partial(_bomb, "jpeg 2000", lambda code: _boxed(code, 6, 8))
    yield "jpeg 2000 of many components", partial(_bomb, "jpeg 2000", _many_components)
    yield "htj2k of many components", partial(_bomb, "htj2k", _many_components)
    runs = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\x00\x81\x00"
    yield "rle of two bytes", partial(_bomb, "rle", lambda _: runs, Rows=5000, Columns=5000)
    yield "nested items", lambda: _nested(10_000)
    yield "nested items without end", lambda: _nested(10_000, is_closed=False)
    yield "nested items of stated length", lambda: _nested_by_length(10_000)
    yield "items without end", lambda: _sequence(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 30)
    yield "many empty items", lambda: _sequence(b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 300_000 + SEQUENCE_END)


def _bomb(name: str, spoil: Callable[[bytes], bytes] = bytes, **elements: Any) -> bytes:
    coding, how = BY_NAME[name], depth(16, 16)
    return _wrapped(spoil(coding.encode(corpus.noise((6, 8), how), how)), coding.syntax, **elements)


def _nested_by_length(n: int) -> bytes:
    inner = b""
    for _ in range(n):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
        inner = b"\x00\x52\x30\x92SQ\x00\x00" + struct.pack("<I", len(item)) + item
    data = SAMPLES["explicit"]
    at = data.index(b"\xe0\x7f\x10\x00")
    return data[:at] + inner + data[at:]


def _wrapped(code: bytes, syntax: str, **elements: Any) -> bytes:
    how = depth(16, 16)
    dataset = corpus.dataset_of(corpus.noise((6, 8), how), how, syntax, **elements)
    corpus.wrap(dataset, [code])
    return corpus.coded(dataset)


def _enlarged(code: bytes) -> bytes:
    """The same code, its frame header changed to 60,000 x 60,000 pixels."""
    if code[:4] == b"\xff\x4f\xff\x51":
        return code[:8] + struct.pack(">2I", 60000, 60000) + code[16:24] + struct.pack(">2I", 60000, 60000) + code[32:]
    at = next(code.index(mark) for mark in (b"\xff\xc3", b"\xff\xf7") if mark in code)
    return code[: at + 5] + struct.pack(">2H", 60000, 60000) + code[at + 9 :]


def _boxed(code: bytes, n_rows: int = 60000, n_columns: int = 60000) -> bytes:
    """A codestream as a JP2 file, which DICOM does not allow and decoders take."""
    head = struct.pack(">II", 12, 0x6A502020) + b"\x0d\x0a\x87\x0a"
    kind = struct.pack(">I", 20) + b"ftypjp2 \x00\x00\x00\x00jp2 "
    image = struct.pack(">I", 22) + b"ihdr" + struct.pack(">IIHBBBB", n_rows, n_columns, 1, 15, 7, 0, 0)
    colour = struct.pack(">I", 15) + b"colr\x01\x00\x00\x00\x00\x00\x11"
    return head + kind + struct.pack(">I", 45) + b"jp2h" + image + colour + struct.pack(">I", 0) + b"jp2c" + code


def _many_components(code: bytes) -> bytes:
    """16,384 components of the stated size each."""
    n, parts = 16384, code[42:45]
    size = 38 + 3 * n
    return code[:4] + struct.pack(">H", size) + code[6:40] + struct.pack(">H", n) + parts * n + code[45:]


def _deflated(data: bytes, n_bytes: int) -> bytes:
    """The file with zeros without end in its pixels: 2 GiB in 2 MiB."""
    elements = read_elements(data)
    at = elements.data.index(PIXELS)
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = elements.data[:at] + PIXELS + b"OW\x00\x00" + struct.pack("<I", n_bytes)
    body = press.compress(head) + b"".join(press.compress(bytes(1 << 24)) for _ in range(n_bytes >> 24)) + press.flush()
    meta = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    return data[:meta] + body


def _sequence(items: bytes) -> bytes:
    """A sequence of undefined length where the functional groups are kept."""
    data = SAMPLES["explicit"]
    at = data.index(b"\x28\x00\x02\x00US")
    return data[:at] + b"\x00\x52\x30\x92SQ\x00\x00\xff\xff\xff\xff" + items + data[at:]


def _nested(n: int, *, is_closed: bool = True) -> bytes:
    start = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x00\x52\x30\x92SQ\x00\x00\xff\xff\xff\xff"
    end = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00" + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
    return _sequence(start * n + (end * n + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00" if is_closed else b""))


HARMLESS = ("nested items of stated length",)
BOMBS = dict(bombs())


@pytest.fixture(scope="module")
def blasts() -> dict[str, tuple[str, int]]:
    """Of each file, how reading it ended and by how many bytes the process grew; those that killed it are missing."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-800:]
    return {name: (end, growth) for name, end, growth in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", BOMBS)
def test_no_small_file_fills_the_memory_or_the_day(name: str, blasts: dict[str, tuple[str, int]]) -> None:
    end, growth = blasts[name]
    assert (end == "read") == (name.startswith("sound") or name in HARMLESS)
    assert growth < GROWTH_BYTES
