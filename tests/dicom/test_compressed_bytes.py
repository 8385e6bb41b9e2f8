"""No text leaves inside compressed pixels, and no pixel changes on the way.

Names are planted wherever a frame may carry something beside its image. That the pixels stay is told by
decoding before and after.
"""

import io
import struct
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import generate_fragments

from platform_core.dicom.compressed_bytes import clean_frame, clean_rle
from platform_core.dicom.deidentify import Pseudonyms, deidentified
from platform_core.dicom.header import open_scan
from platform_core.dicom.pixels import decode
from platform_core.errors import UnreadableScan
from tests.dicom import corpus
from tests.dicom.corpus import CODINGS, LOSSY, Coding, Pixels, depth

NAME = b"Erika Musterfrau"
SIZE = (40, 33)
ALL = [*CODINGS, *LOSSY]
JPEGS = [coding for coding in ALL if "2" not in coding.name and coding.name != "rle" and "wide" not in coding.name]
WAVELETS = [corpus.BY_NAME[name] for name in ("jpeg 2000", "htj2k")]
RLE = corpus.BY_NAME["rle"]


def exported(data: bytes) -> bytes:
    out, _ = deidentified(data, Pseudonyms("p", lambda uid: f"2.25.{len(uid)}", lambda day: day - timedelta(days=9)))
    return out


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableScan) as refusal:
        exported(data)
    return refusal.value.reason


def frames_of(coding: Coding, n: int = 1) -> list[Pixels]:
    how = coding.depths[0]
    return [corpus.hill(SIZE, how) // np.array(k + 1, how.dtype) for k in range(n)]


def file_of(coding: Coding, codes: Sequence[bytes], pixels: Sequence[Pixels], **wrapping: Any) -> bytes:
    dataset = corpus.dataset_of(np.stack(pixels), coding.depths[0], coding.syntax)
    corpus.wrap(dataset, codes, **wrapping)
    return corpus.coded(dataset)


def assert_leaves_clean(coding: Coding, plant: Callable[[bytes], bytes], n_frames: int = 1, **wrapping: Any) -> None:
    pixels = frames_of(coding, n_frames)
    codes = [coding.encode(frame, coding.depths[0]) for frame in pixels]
    planted = [plant(code) for code in codes]
    assert all(NAME in code for code in planted)
    data = file_of(coding, planted, pixels, **wrapping)
    out = exported(data)
    assert not holds(out, NAME[-10:])
    assert not holds(out, NAME[:10])
    np.testing.assert_array_equal(decode(open_scan(out)), decode(open_scan(file_of(coding, codes, pixels))))
    assert [len(f) for f in fragments(out)] == [len(f) for f in fragments(data)]


def holds(data: bytes, text: bytes) -> bool:
    return text in data


def fragments(data: bytes) -> list[bytes]:
    return list(generate_fragments(pydicom.dcmread(io.BytesIO(data)).PixelData))


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


# --- JPEG and JPEG-LS --------------------------------------------------------------------------

JPEG_PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "comment": lambda code: code[:2] + segment(0xFE, NAME) + code[2:],
    "comment behind fill bytes": lambda code: code[:2] + b"\xff\xff\xff" + segment(0xFE, NAME) + code[2:],
    "long segment": lambda code: code[:2] + segment(0xE1, b"Exif\0\0" + bytes(40_000) + NAME + bytes(9000)) + code[2:],
    "no JFIF": lambda code: code[:2] + segment(0xE0, NAME) + code[2:],
    "thumbnail": lambda code: code[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0" + NAME) + code[2:],
    "no colour transform": lambda code: code[:2] + segment(0xE8, NAME) + code[2:],
    "behind Adobe's": lambda code: code[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + NAME) + code[2:],
    "reserved segment": lambda code: code[:2] + segment(0xFD, NAME) + code[2:],
    "comment behind the scan": lambda code: code[: code.rindex(b"\xff\xd9")] + segment(0xFE, NAME) + b"\xff\xd9",
    "behind the end": lambda code: code + NAME,
    "behind the end, with another end": lambda code: code + NAME + b"\xff\xd9",
}


@pytest.mark.parametrize("coding", JPEGS, ids=lambda coding: coding.name)
@pytest.mark.parametrize("n_fragments", [1, 4])
@pytest.mark.parametrize("plant", JPEG_PLANTS.values(), ids=JPEG_PLANTS)
def test_text_in_a_jpeg_frame_goes(plant: Callable[[bytes], bytes], n_fragments: int, coding: Coding) -> None:
    assert_leaves_clean(coding, plant, n_fragments=n_fragments)


def test_a_comment_between_two_scans_goes() -> None:
    """A progressive image has many scans, and segments between them."""
    pixels = corpus.hill(SIZE, depth(8, 8))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, progressive=True)
    code = out.getvalue()
    assert code.count(b"\xff\xda") > 2
    at = code.rindex(b"\xff\xc4")
    planted = code[:at] + segment(0xFE, NAME) + code[at:]
    baseline = corpus.BY_NAME["jpeg baseline"]
    clean = exported(file_of(baseline, [planted], [pixels]))
    assert not holds(clean, NAME)
    np.testing.assert_array_equal(decode(open_scan(clean)), decode(open_scan(file_of(baseline, [code], [pixels]))))


# --- JPEG 2000 ---------------------------------------------------------------------------------


def in_tile_header(code: bytes) -> bytes:
    """A comment in the header of the last tile part, whose stated length grows with it."""
    at = code.rindex(b"\xff\x90\x00\x0a")
    comment = segment(0x64, b"\0\1" + NAME)
    (length,) = struct.unpack_from(">I", code, at + 6)
    grown = struct.pack(">I", length + len(comment) if length else 0)
    return code[: at + 6] + grown + code[at + 10 : at + 12] + comment + code[at + 12 :]


def behind_size(content: bytes) -> Callable[[bytes], bytes]:
    def plant(code: bytes) -> bytes:
        end = 4 + struct.unpack_from(">H", code, 4)[0]
        return code[:end] + content + code[end:]

    return plant


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def wrapped(code: bytes, *, before: bytes = b"", behind: bytes = b"", is_open: bool = False) -> bytes:
    """A codestream as a JP2 file, which the standard does not allow in here and readers take."""
    rows, columns = struct.unpack_from(">II", code, 8)[::-1]
    size = struct.pack(">IIHBBBB", rows, columns, 1, code[40], 7, 0, 0)
    header = box(b"jp2h", box(b"ihdr", size) + box(b"colr", b"\1\0\0" + struct.pack(">I", 17)))
    stream = struct.pack(">I", 0) + b"jp2c" + code if is_open else box(b"jp2c", code)
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + header + before + stream + behind


WAVELET_PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "comment": behind_size(segment(0x64, b"\0\1" + NAME)),
    "unknown segment": behind_size(segment(0x7F, NAME)),
    "comment in a tile": in_tile_header,
    "behind the end": lambda code: code + NAME,
    "behind the end, with another end": lambda code: code + NAME + b"\xff\xd9",
    "box before": lambda code: wrapped(code, before=box(b"xml ", b"<patient>" + NAME + b"</patient>")),
    "box behind": lambda code: wrapped(code, behind=box(b"uuid", bytes(16) + NAME)),
    "behind the end of an open box": lambda code: wrapped(code + NAME, is_open=True),
}


@pytest.mark.parametrize("coding", WAVELETS, ids=lambda coding: coding.name)
@pytest.mark.parametrize("n_fragments", [1, 4])
@pytest.mark.parametrize("plant", WAVELET_PLANTS.values(), ids=WAVELET_PLANTS)
def test_text_in_a_jpeg_2000_frame_goes(plant: Callable[[bytes], bytes], n_fragments: int, coding: Coding) -> None:
    if coding.name == "htj2k" and plant is WAVELET_PLANTS["unknown segment"]:
        pytest.skip("the decoder takes no unknown segment here")
    assert_leaves_clean(coding, plant, n_fragments=n_fragments)


@pytest.mark.parametrize(("tile", "n_tiles"), [(None, 1), ((20, 11), 8), ((7, 7), 30)])
def test_every_tile_of_a_jpeg_2000_frame_stays(tile: tuple[int, int] | None, n_tiles: int) -> None:
    coding = corpus.BY_NAME["jpeg 2000"]
    pixels, out = corpus.noise(SIZE, coding.depths[0]), io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG2000", irreversible=False, no_jp2=True, tile_size=tile)
    code = out.getvalue()
    assert code.count(b"\xff\x90\x00\x0a") == n_tiles
    clean = exported(file_of(coding, [in_tile_header(code)], [pixels], n_fragments=3))
    assert not holds(clean, NAME)
    np.testing.assert_array_equal(decode(open_scan(clean))[0], pixels)


def test_a_jp2_file_with_a_palette_stays_behind() -> None:
    """Its codestream holds indices, not values."""
    coding, (pixels,) = corpus.BY_NAME["jpeg 2000"], frames_of(corpus.BY_NAME["jpeg 2000"])
    code = wrapped(coding.encode(pixels, coding.depths[0]))
    spoilt = code.replace(b"colr", b"pclr")
    assert reason_of(file_of(coding, [spoilt], [pixels])) == "undecodable"


# --- RLE ---------------------------------------------------------------------------------------


def behind_first_run(code: bytes) -> bytes:
    n, first, *rest = struct.unpack_from("<16I", code)
    planted = [start + len(NAME) if start else 0 for start in rest]
    at = rest[0] or len(code)
    return struct.pack("<16I", n, first, *planted) + code[64:at] + NAME + code[at:]


def before_first_run(code: bytes) -> bytes:
    n, *starts = struct.unpack_from("<16I", code)
    return struct.pack("<16I", n, *[s + len(NAME) if s else 0 for s in starts]) + NAME + code[64:]


RLE_PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "unused offsets": lambda code: code[:48] + NAME + code[64:],
    "before the first run": before_first_run,
    "behind the first run": behind_first_run,
    "behind the last run": lambda code: code + NAME,
}


@pytest.mark.parametrize("how", [depth(8, 8), depth(16, 16), depth(32, 32)], ids=str)
@pytest.mark.parametrize("plant", RLE_PLANTS.values(), ids=RLE_PLANTS)
def test_text_in_an_rle_frame_goes(plant: Callable[[bytes], bytes], how: corpus.Depth) -> None:
    coding = Coding(name="rle", syntax=RLE.syntax, encode=RLE.encode, depths=(how,))
    assert_leaves_clean(coding, plant)
    assert_leaves_clean(coding, plant, n_frames=3, table="empty")


# --- how frames are wrapped --------------------------------------------------------------------


@pytest.mark.parametrize("coding", ALL, ids=lambda coding: coding.name)
def test_a_frame_without_text_leaves_as_it_is(coding: Coding) -> None:
    """Save the comment in which encoders name themselves."""
    for how in coding.depths:
        data = corpus.compressed_file([corpus.hill(SIZE, how)], coding, how)
        before, after = b"".join(fragments(data)), b"".join(fragments(exported(data)))
        assert len(before) == len(after)
        changed = bytes(b for b, a in zip(before, after, strict=True) if b != a)
        assert not changed or b"OpenJP" in changed


@pytest.mark.parametrize("coding", [*JPEGS[:1], *WAVELETS, RLE], ids=lambda coding: coding.name)
@pytest.mark.parametrize("table", ["basic", "empty", "extended"])
@pytest.mark.parametrize("n_fragments", [1, 3])
def test_text_goes_however_frames_are_wrapped(coding: Coding, table: Any, n_fragments: int) -> None:
    if n_fragments > 1 and (table == "extended" or coding is RLE):
        pytest.skip("the standard allows one fragment per frame here")
    plants = RLE_PLANTS if coding is RLE else WAVELET_PLANTS if coding in WAVELETS else JPEG_PLANTS
    plant = plants.get("comment", plants.get("behind the last run"))
    assert plant is not None
    assert_leaves_clean(coding, plant, n_frames=3, table=table, n_fragments=n_fragments)


@pytest.mark.parametrize("content", [NAME * 4, b"\x00\x00\x01\xb3" + NAME, b"", b"GIF89a" + NAME])
@pytest.mark.parametrize("coding", [RLE, *WAVELETS[:1], *JPEGS[:1]], ids=lambda coding: coding.name)
def test_a_frame_of_no_known_layout_stays_behind(coding: Coding, content: bytes) -> None:
    assert reason_of(file_of(coding, [content], frames_of(coding))) == "undecodable"


@pytest.mark.parametrize("coding", ALL, ids=lambda coding: coding.name)
@settings(max_examples=40)
@given(data=st.data())
def test_a_spoilt_frame_is_refused_or_keeps_its_length(coding: Coding, data: st.DataObject) -> None:
    code = bytearray(coding.encode(frames_of(coding)[0], coding.depths[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(0, min(len(code) - 1, 300)))] = data.draw(st.integers(0, 255))
    spoilt = bytes(code[: data.draw(st.integers(0, len(code)) | st.just(len(code)))])
    try:
        clean = cleaned(coding, spoilt)
    except UnreadableScan:
        return
    assert len(clean) == len(spoilt)
    assert cleaned(coding, clean) == clean


def cleaned(coding: Coding, frame: bytes) -> bytes:
    return clean_rle(frame, SIZE[0] * SIZE[1]) if coding is RLE else clean_frame(frame)
