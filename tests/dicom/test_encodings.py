"""Every encoding of pixels gives back its array, and every header the elements that pydicom finds.

The array is the oracle, and pydicom's own reading beside it. Compressed frames come from
imagecodecs (`corpus.py`), not from what the platform decodes with.
"""

import hashlib
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from platform_core.dicom.elements import first_item
from platform_core.dicom.header import open_scan
from platform_core.dicom.pixels import decode, in_units
from platform_core.dicom.stream import Elements, read_elements
from platform_core.errors import UnreadableScan
from tests.dicom import corpus
from tests.dicom.corpus import BIG, CODINGS, DEFLATED, EXPLICIT, IMPLICIT, LOSSY, Coding, Depth, Pixels, depth

PLAIN = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big endian": BIG, "deflated": DEFLATED}
SIZE = (7, 9)
"""Odd on both sides, so that 8-bit pixels need padding."""
PIXEL_DATA = 0x7FE00010


def stored_in(data: bytes) -> Pixels:
    """What the platform reads, (plane, y, x)."""
    return decode(open_scan(data))


def assert_same(found: Pixels, truth: Pixels) -> None:
    """Compare values, whatever type they are kept in."""
    np.testing.assert_array_equal(found.astype(np.int64), truth.astype(np.int64))


def reason_of(call: Callable[..., object], *args: Any) -> str:
    with pytest.raises(UnreadableScan) as refusal:
        call(*args)
    return refusal.value.reason


# --- uncompressed ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", corpus.ALL_DEPTHS, ids=str)
@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
def test_plain_pixels_are_the_array(syntax: str, how: Depth) -> None:
    truth = corpus.noise(SIZE, how)
    data = corpus.file_of(truth, how, syntax)
    assert_same(stored_in(data)[0], truth)
    assert_same(pydicom.dcmread(BytesIO(data)).pixel_array, truth)


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("how", [depth(8, 8), depth(12, 16, is_signed=True)], ids=str)
def test_plain_frames_come_in_order(syntax: str, how: Depth) -> None:
    truth = corpus.noise((5, *SIZE), how)
    assert_same(stored_in(corpus.file_of(truth, how, syntax)), truth)


def test_bytes_of_a_big_endian_file_that_are_filed_as_bytes_are_not_swapped() -> None:
    """PS3.5 section 8.1.1: only words (OW) follow the byte order."""
    how = depth(8, 8)
    truth = corpus.noise((6, 8), how)
    data = corpus.file_of(truth, how, BIG, PixelData=truth.tobytes()).replace(
        b"\x7f\xe0\x00\x10OW", b"\x7f\xe0\x00\x10OB"
    )
    assert b"\x7f\xe0\x00\x10OB" in data
    assert_same(stored_in(data)[0], truth)


@given(
    st.sampled_from([(1, 8), (7, 8), (9, 16), (12, 16), (15, 16), (20, 32)]), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_what_lies_above_the_stored_bits_does_not_count(bits: tuple[int, int], signed: bool, seed: int) -> None:
    """Old scanners keep overlays there."""
    how = depth(*bits, is_signed=signed and bits[0] > 1)
    truth = corpus.noise((4, 6), how, seed)
    overlay = np.random.default_rng(seed).integers(0, 2 ** (how.allocated - how.stored), truth.shape, dtype=np.int64)
    mixed = corpus.bits32(truth, how.stored) | overlay << how.stored
    raw = mixed.astype(f"u{how.allocated // 8}")
    assert_same(stored_in(corpus.file_of(raw, how))[0], truth)


@pytest.mark.parametrize("how", [depth(8, 8), depth(12, 16), depth(12, 16, is_signed=True), depth(16, 16)], ids=str)
def test_monochrome1_is_the_same_image_turned_over(how: Depth) -> None:
    """The least value becomes the greatest: order is reversed, distances stay."""
    truth = corpus.noise(SIZE, how)
    found = stored_in(corpus.file_of(truth, how, PhotometricInterpretation="MONOCHROME1", Modality="DX"))[0]
    low, high = how.limits
    assert_same(found, high + low - truth.astype(np.int64))


def test_bytes_behind_the_pixels_do_not_count() -> None:
    how = depth(16, 16)
    truth = corpus.noise(SIZE, how)
    assert_same(stored_in(corpus.file_of(truth, how, PixelData=truth.tobytes() + bytes(64)))[0], truth)


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
def test_missing_pixels_are_never_made_up(syntax: str) -> None:
    how = depth(16, 16)
    truth = corpus.noise(SIZE, how)
    data = corpus.file_of(truth, how, syntax, PixelData=truth.tobytes()[:-2])
    assert reason_of(stored_in, data) == "truncated"


# --- transfer syntax ---------------------------------------------------------------------------


UNREGISTERED = {
    "private, of another byte order": "1.2.840.113619.5.2",
    "a name": "MUSTERMANN^ERIKA^19",
    "a class": "1.2.840.10008.5.1.4.1.1.2",
    "beyond the register": "1.2.840.10008.1.2.4.999",
}


@pytest.mark.parametrize("syntax", UNREGISTERED.values(), ids=UNREGISTERED)
def test_pixels_of_an_unregistered_transfer_syntax_are_refused(syntax: str) -> None:
    """Nobody knows their byte order; read as little endian they would be wrong and look right."""
    assert reason_of(stored_in, in_syntax(syntax)) == "undecodable"


@pytest.mark.parametrize("syntax", UNREGISTERED.values(), ids=UNREGISTERED)
def test_the_header_names_registered_transfer_syntaxes_alone(syntax: str) -> None:
    assert open_scan(in_syntax(syntax)).header.transfer_syntax == ""
    assert open_scan(in_syntax(EXPLICIT)).header.transfer_syntax == EXPLICIT


def in_syntax(stated: str) -> bytes:
    """An explicit little-endian file that states this transfer syntax."""
    how = depth(16, 16)
    dataset = corpus.dataset_of(corpus.noise(SIZE, how), how)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.3." + "4" * (len(stated) - 6))
    out = BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return out.getvalue().replace(dataset.file_meta.TransferSyntaxUID.encode(), stated.encode())


# --- colour ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photometric", "n_samples"), [("RGB", 3), ("YBR_FULL", 3), ("YBR_FULL_422", 3), ("PALETTE COLOR", 1), ("RGB", 1)]
)
def test_colour_is_refused_for_a_stated_reason(photometric: str, n_samples: int) -> None:
    how = depth(8, 8)
    data = corpus.file_of(
        corpus.noise(SIZE, how),
        how,
        SamplesPerPixel=n_samples,
        PlanarConfiguration=0 if n_samples > 1 else None,
        PhotometricInterpretation=photometric,
        PixelData=bytes(SIZE[0] * SIZE[1] * n_samples + 1),
    )
    assert reason_of(stored_in, data) == "colour"


# --- compressed --------------------------------------------------------------------------------


def lossless_cases() -> list[Any]:
    return [pytest.param(coding, how, id=f"{coding.name}, {how}") for coding in CODINGS for how in coding.depths]


@pytest.mark.parametrize(("coding", "how"), lossless_cases())
def test_lossless_codings_give_the_array(coding: Coding, how: Depth) -> None:
    frames = [corpus.noise(SIZE, how, seed) for seed in (1, 2, 3)]
    assert_same(stored_in(corpus.compressed_file(frames, coding, how)), np.stack(frames))


@pytest.mark.parametrize("coding", LOSSY, ids=lambda coding: coding.name)
def test_lossy_codings_stay_within_their_tolerance(coding: Coding) -> None:
    for how in coding.depths:
        truth = corpus.hill((40, 33), how)
        found = stored_in(corpus.compressed_file([truth], coding, how))[0]
        assert np.abs(found.astype(np.int64) - truth).max() <= coding.tolerance


@pytest.mark.parametrize("name", ["rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"])
@pytest.mark.parametrize("table", ["basic", "empty", "extended"])
@pytest.mark.parametrize("n_fragments", [1, 3])
def test_frames_are_found_however_they_are_wrapped(name: str, table: Any, n_fragments: int) -> None:
    """Without a table, several fragments per frame are told apart by their markers; RLE forbids them (PS3.5 A.4.2)."""
    if n_fragments > 1 and (table == "extended" or (name == "rle" and table == "empty")):
        pytest.skip("the standard allows one fragment per frame here")
    coding, how = corpus.BY_NAME[name], depth(16, 16)
    frames = [corpus.noise(SIZE, how, seed) for seed in (1, 2, 3)]
    data = corpus.compressed_file(frames, coding, how, table=table, n_fragments=n_fragments)
    assert_same(stored_in(data), np.stack(frames))


@pytest.mark.parametrize("name", ["rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"])
def test_one_frame_may_lie_in_many_fragments_without_a_table(name: str) -> None:
    coding, how = corpus.BY_NAME[name], depth(16, 16)
    truth = corpus.noise((30, 20), how)
    assert_same(stored_in(corpus.compressed_file([truth], coding, how, table="empty", n_fragments=9))[0], truth)


@pytest.mark.parametrize("name", ["jpeg sv1", "jpeg-ls", "jpeg 2000", "rle"])
def test_compressed_monochrome1_is_turned_over(name: str) -> None:
    coding, how = corpus.BY_NAME[name], depth(12, 16)
    truth = corpus.noise(SIZE, how)
    data = corpus.compressed_file([truth], coding, how, PhotometricInterpretation="MONOCHROME1", Modality="DX")
    assert_same(stored_in(data)[0], 4095 - truth.astype(np.int64))


@pytest.mark.parametrize("name", ["jpeg 2000", "jpeg-ls", "jpeg sv1 wide", "rle", "htj2k"])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_codestream_may_hold_more_bits_than_are_stored(name: str, is_signed: bool) -> None:
    """Writers encode 12 stored bits as 16, and signed ones as two's complement or with a sign of their own."""
    how, wide = depth(12, 16, is_signed=is_signed), depth(16, 16, is_signed=is_signed)
    truth = corpus.noise(SIZE, how)
    coding = corpus.BY_NAME[name]
    data = corpus.compressed_file([truth], coding, wide, BitsStored=12, HighBit=11)
    assert_same(stored_in(data)[0], truth)


@pytest.mark.parametrize("name", ["jpeg 2000", "htj2k"])
def test_signed_pixels_in_a_codestream_without_signs_keep_their_bits(name: str) -> None:
    """Seen in the wild: two's complement in an unsigned codestream."""
    how = depth(16, 16, is_signed=True)
    truth = corpus.noise(SIZE, how)
    coding = corpus.BY_NAME[name]
    code = coding.encode(truth.view(np.uint16), depth(16, 16))
    dataset = corpus.dataset_of(truth, how, coding.syntax)
    corpus.wrap(dataset, [code])
    assert_same(stored_in(corpus.coded(dataset))[0], truth)


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
def test_a_frame_too_few_is_refused(coding: Coding) -> None:
    how = coding.depths[0]
    dataset = corpus.dataset_of(np.stack([corpus.noise(SIZE, how)] * 3), how, coding.syntax)
    corpus.wrap(dataset, [coding.encode(corpus.noise(SIZE, how), how)] * 2)
    assert reason_of(stored_in, corpus.coded(dataset)) in ("undecodable", "truncated")


@pytest.mark.parametrize("coding", [*CODINGS, *LOSSY], ids=lambda coding: coding.name)
def test_a_frame_of_another_size_is_refused(coding: Coding) -> None:
    """RLE states no size: too few pixels are noticed, and what comes behind the last counts as little as elsewhere."""
    how = coding.depths[0]
    larger = [] if coding.syntax == corpus.RLE else [(SIZE[0], SIZE[1] + 1), (SIZE[1], SIZE[0]), (300, 200)]
    for size in [(SIZE[0] - 1, SIZE[1]), (SIZE[0], SIZE[1] - 1), *larger]:
        dataset = corpus.dataset_of(corpus.noise(SIZE, how), how, coding.syntax)
        corpus.wrap(dataset, [coding.encode(corpus.hill(size, how), how)])
        assert reason_of(stored_in, corpus.coded(dataset)) == "undecodable", size


# --- real files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_files(test_data: Path) -> list[Path]:
    files = [path for path in sorted((test_data / "dicom").rglob("*")) if path.is_file() and is_dicom(path)]
    assert len(files) > 55
    return files


def is_dicom(path: Path) -> bool:
    try:
        pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return False
    return True


def test_one_image_in_nine_encodings_has_one_hash(test_data: Path) -> None:
    hashes, syntaxes = set(), set()
    for path in sorted((test_data / "dicom" / "dcm_qa_ts").rglob("*")):
        if path.is_file() and is_dicom(path):
            scan = open_scan(path.read_bytes())
            syntaxes.add((scan.header.transfer_syntax, path.name))
            hashes.add(hashlib.sha256(decode(scan).astype("<i4").tobytes()).hexdigest())
    assert len(syntaxes) == 9
    assert len(hashes) == 1


def test_every_element_of_real_files_is_found_with_its_bytes(real_files: list[Path]) -> None:
    n_checked = 0
    for path in real_files:
        data = path.read_bytes()
        n_checked += check(read_elements(data), pydicom.dcmread(path))
    assert n_checked > 4000


def check(ours: Elements, theirs: Dataset) -> int:
    """Compare all elements, and those within sequences; returns how many."""
    n = 0
    for tag in theirs.keys():  # noqa: SIM118 - a dataset iterates over values
        if tag > PIXEL_DATA:
            continue
        assert int(tag) in ours.found, f"{tag} is not found"
        n += 1 + _check_value(ours, theirs, int(tag))
    standard = {tag for tag in ours.found if tag >> 16 != 2}
    assert standard == {int(tag) for tag in theirs.keys() if tag <= PIXEL_DATA}  # noqa: SIM118
    return n


def _check_value(ours: Elements, theirs: Dataset, tag: int) -> int:
    raw, name = theirs.get_item(tag), pydicom.datadict.keyword_for_tag(tag)
    found = ours.raw_at(tag)
    value: Any = getattr(raw, "value", None)
    if tag == PIXEL_DATA and ours.found[tag][2] != len(value or b""):
        assert found.startswith(value)
    elif isinstance(value, bytes):
        assert found == value, f"{tag:08x} differs"
    if not name or theirs[tag].VR != "SQ":
        return 0
    mine, items = ours.items(name), theirs[tag].value
    assert len(mine) == len(items), f"items of {name}"
    return sum(check(one, other) for one, other in zip(mine, items, strict=True))


def test_plain_real_pixels_are_those_of_pydicom(real_files: list[Path]) -> None:
    n_checked = 0
    for path in real_files:
        try:
            scan = open_scan(path.read_bytes())
            found = decode(scan)
        except UnreadableScan:
            continue
        if scan.header.n_tiles:
            continue
        truth = pydicom.dcmread(path).pixel_array
        assert_same(found, truth.reshape(found.shape))
        n_checked += 1
    assert n_checked > 40


# --- sequences made by hand --------------------------------------------------------------------


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("is_open", [False, True])
def test_items_are_found_by_length_and_by_delimiter(syntax: str, is_open: bool) -> None:
    inner = corpus.group(ReferencedImageSequence={"ReferencedSOPInstanceUID": "1.2.3", "ReferencedFrameNumber": 4})
    outer = Dataset()
    outer.SourceImageSequence = [inner, Dataset(), inner]
    outer["SourceImageSequence"].is_undefined_length = is_open
    for item in outer.SourceImageSequence:
        item.is_undefined_length_sequence_item = is_open
    dataset = corpus.dataset_of(corpus.noise(SIZE, depth(8, 8)), depth(8, 8), syntax)
    dataset.ReferencedSeriesSequence = [outer]
    data = corpus.coded(dataset)
    assert check(read_elements(data), pydicom.dcmread(BytesIO(data))) > 25


def test_no_more_items_are_read_than_are_asked_for() -> None:
    """A sequence of a million empty items is short; to find the first takes none of the others."""
    groups = corpus.enhanced_groups([(0, 0, 3 * k) for k in range(5)])
    data = corpus.file_of(corpus.noise((5, *SIZE), depth(8, 8)), depth(8, 8), **groups)
    elements = read_elements(data)
    whole = elements.items("PerFrameFunctionalGroupsSequence")
    assert len(whole) == 5
    assert elements.items("PerFrameFunctionalGroupsSequence", most=2) == whole[:2]
    assert first_item(elements, "PerFrameFunctionalGroupsSequence") == whole[0]


def test_a_sequence_of_unknown_type_is_read_as_implicit_little_endian() -> None:
    """PS3.5 section 6.2.2, note 2: so archives pass on private sequences that they do not know."""
    inner = struct.pack("<HHI", 0x0008, 0x1150, 6) + b"1.2.3\x00"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
    value = item + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    element = b"\x09\x00\x10\x10UN\x00\x00\xff\xff\xff\xff" + value
    data = corpus.file_of(corpus.noise(SIZE, depth(8, 8)), depth(8, 8))
    at = data.index(b"\x10\x00\x10\x00")
    whole = data[:at] + b"\x09\x00\x10\x00LO\x04\x00ACME" + element + data[at:]
    assert stored_in(whole).shape == (1, *SIZE)
    assert read_elements(whole).raw_at(0x00091010) == value
    assert check(read_elements(whole), pydicom.dcmread(BytesIO(whole))) > 25


# --- what stored values mean -------------------------------------------------------------------


def in_units_of(data: bytes) -> Pixels:
    """The one plane of a file in the units of its modality."""
    scan = open_scan(data)
    (frame,) = scan.header.frames
    return np.asarray(in_units(decode(scan), frame.slope, frame.intercept)[0])


def test_hounsfield_units_do_not_depend_on_how_they_are_shown() -> None:
    """The rescale comes first; MONOCHROME1 is for the display alone: PS3.4 annex N.2."""
    how = depth(12, 16)
    truth = corpus.noise(SIZE, how)
    data = corpus.file_of(truth, how, PhotometricInterpretation="MONOCHROME1", RescaleIntercept="-1024")
    assert_same(in_units_of(data), truth.astype(np.int64) - 1024)


@pytest.mark.parametrize("name", ["RescaleIntercept", "RescaleSlope"])
@pytest.mark.parametrize("spelt", [b"-1024,", b"-1 024", b"minus ", b"nan   ", b"1e9999", b"\\-1024"])
@pytest.mark.parametrize("is_enhanced", [False, True])
def test_a_rescale_that_is_no_number_is_refused_not_passed_over(name: str, spelt: bytes, is_enhanced: bool) -> None:
    data = rescaled(name, "12.345", is_enhanced=is_enhanced)
    assert data.count(b"12.345") == 1
    assert reason_of(open_scan, data.replace(b"12.345", spelt)) == "bad_rescale"


@pytest.mark.parametrize("spelt", [None, "", "      "])
@pytest.mark.parametrize("is_enhanced", [False, True])
def test_a_rescale_that_is_not_stated_leaves_the_values(spelt: str | None, is_enhanced: bool) -> None:
    for name in ("RescaleIntercept", "RescaleSlope"):
        data = rescaled(name, "12.345" if spelt else spelt, is_enhanced=is_enhanced)
        frame = open_scan(data.replace(b"12.345", (spelt or "").encode())).header.frames[0]
        assert (frame.slope, frame.intercept) == (1.0, 0.0)


def rescaled(name: str, value: str | None, *, is_enhanced: bool) -> bytes:
    """A file of which one element of the rescale holds this."""
    how = depth(12, 16)
    if not is_enhanced:
        stated: dict[str, Any] = {name: value}
        return corpus.file_of(corpus.noise(SIZE, how), how, **stated)
    other = {"RescaleSlope": "RescaleIntercept", "RescaleIntercept": "RescaleSlope"}[name]
    facts = {other: int(other == "RescaleSlope")} | ({} if value is None else {name: value})
    own = {0: {"PixelValueTransformationSequence": facts}}
    groups = corpus.enhanced_groups([(0, 0, 0), (0, 0, 3)], own=lambda k: own.get(k, {}))
    elements: dict[str, Any] = dict.fromkeys(corpus.CLASSIC_GEOMETRY) | groups
    return corpus.file_of(corpus.noise((2, *SIZE), how), how, **elements)


def test_a_rescale_by_table_is_not_passed_over() -> None:
    """A modality look-up table stands where slope and intercept would (PS3.3 C.11.1)."""
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "HU"
    table.LUTData = np.array([0, 100, 900, 1000], "<u2").tobytes()
    how = depth(8, 8)
    gone: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None, "ModalityLUTSequence": [table]}
    data = corpus.file_of(np.array([[0, 1], [2, 3]], how.dtype), how, **gone)
    assert reason_of(stored_in, data) == "modality_lut"


def test_values_in_the_high_bits_are_refused_not_cut() -> None:
    """Old files keep 12 bits at the top of 16: what looks unused there is the value."""
    how = depth(12, 16)
    high = (corpus.noise(SIZE, how) << 4).astype(how.dtype)
    assert reason_of(stored_in, corpus.file_of(high, how, HighBit=15)) == "bits"


@pytest.mark.parametrize("allocated", [1, 12, 24, 64])
def test_depths_that_images_do_not_have_are_refused(allocated: int) -> None:
    how = depth(16, 16)
    stored = min(allocated, 16)
    facts: dict[str, Any] = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": stored - 1}
    assert reason_of(stored_in, corpus.file_of(corpus.noise(SIZE, how), how, **facts)) == "bits"


@pytest.mark.parametrize(("name", "kind"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_real_numbers_are_not_taken_for_whole_ones(name: str, kind: Any) -> None:
    how = depth(16, 16)
    facts: dict[str, Any] = {"PixelData": None, name: np.ones(SIZE, kind).tobytes()}
    data = corpus.file_of(corpus.noise(SIZE, how), how, **facts)
    assert reason_of(stored_in, data) == "no_pixels"


@pytest.mark.parametrize("name", ["rle", "jpeg sv1 wide", "jpeg-ls"])
def test_overlays_in_compressed_pixels_do_not_count(name: str) -> None:
    coding, how, wide = corpus.BY_NAME[name], depth(12, 16), depth(16, 16)
    truth = corpus.noise(SIZE, how)
    mixed = (truth | np.random.default_rng(3).integers(0, 16, SIZE) << 12).astype(np.uint16)
    dataset = corpus.dataset_of(mixed, how, coding.syntax)
    corpus.wrap(dataset, [coding.encode(mixed, wide)])
    assert_same(stored_in(corpus.coded(dataset))[0], truth)


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
def test_an_icon_is_not_the_image(syntax: str) -> None:
    how = depth(16, 16)
    truth = corpus.noise(SIZE, how)
    small, icon = corpus.dataset_of(corpus.noise((4, 4), depth(8, 8)), depth(8, 8)), Dataset()
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"):
        setattr(icon, name, getattr(small, name))
    assert_same(stored_in(corpus.file_of(truth, how, syntax, IconImageSequence=[icon]))[0], truth)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102"], ids=["mpeg-2", "mpeg-4"])
def test_moving_pictures_are_refused(syntax: str) -> None:
    how = depth(8, 8)
    dataset = corpus.dataset_of(corpus.noise(SIZE, how), how, syntax)
    corpus.wrap(dataset, [b"\x00\x00\x01\xb3" + bytes(60)])
    assert reason_of(stored_in, corpus.coded(dataset)) == "undecodable"


@pytest.mark.parametrize("coding", [coding for coding in CODINGS if "htj2k" not in coding.name], ids=lambda c: c.name)
def test_the_corpus_is_what_another_reader_makes_of_it(coding: Coding, tmp_path: Path) -> None:
    """SimpleITK reads through GDCM, which has no HTJ2K and needs the stored bits to fill 8, 16 or 32, or 12 of 16."""
    for how in coding.depths:
        if (how.stored, how.allocated) in ((8, 8), (12, 16), (16, 16), (32, 32)):
            truth = corpus.noise((37, 29), how)  # GDCM refuses RLE of a few dozen pixels of noise
            file = tmp_path / "image.dcm"
            file.write_bytes(corpus.compressed_file([truth], coding, how))
            assert_same(sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0], truth)
