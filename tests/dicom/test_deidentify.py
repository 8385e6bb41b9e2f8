import base64
import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, JPEGLosslessSV1, MRImageStorage

from platform_core.dicom import confidentiality
from platform_core.dicom.confidentiality import kept_keywords, rule_of, table
from platform_core.dicom.csa import parse_csa
from platform_core.dicom.deidentify import Pseudonyms, deidentified
from platform_core.dicom.header import open_scan
from platform_core.dicom.identifiers import identifiers_of
from platform_core.dicom.mosaic import mosaic_header
from platform_core.dicom.pixels import decode
from platform_core.errors import UnreadableScan
from tests.conftest import ct_slice

OFFSET = timedelta(days=1234)
PATIENT = "0123456789abcdef0123"
DATA = Path(__file__).parents[1] / "data" / "dicom"
REAL = sorted(DATA.rglob("*.dcm"))
TEXT = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "UT": 10240, "UC": 10240, "AE": 16, "CS": 16, "UR": 100}


def pseudonyms() -> Pseudonyms:
    def uid(uid: str) -> str:
        return f"2.25.{int.from_bytes(hashlib.sha256(uid.encode()).digest()[:15])}"

    return Pseudonyms(PATIENT, uid, lambda day: day - OFFSET)


def encoded(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def cleaned(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(deidentified(encoded(dataset), pseudonyms())[0]))


def slice_with(**elements: Any) -> Dataset:
    return ct_slice(0, (1.0, 2.0, 3.0), **elements)


def traces(out: bytes, value: str) -> list[str]:
    """The forms in which a value is found: as text of one or two bytes, and in base64 at any place."""
    low = out.lower()
    forms = {coding: value.lower().encode(coding) for coding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")}
    found = [name for name, form in forms.items() if form in low]
    for shift in range(3):
        middle = base64.b64encode(b"x" * shift + value.encode())[4:-4]
        found += ["base64"] if len(middle) >= 6 and middle in out else []
    return found


# -- the table


def test_the_table_agrees_with_rows_read_in_another_copy_of_it() -> None:
    expected = {
        "PatientName": "Z",
        "PatientID": "Z/D",
        "AccessionNumber": "Z",
        "AcquisitionDateTime": "X/Z/D",
        "StudyInstanceUID": "U",
        "ConcatenationUID": "U",
        "ReferencedImageSequence": "X/Z/U*",
        "ReferencedStudySequence": "X/Z",
        "ReferencedPerformedProcedureStepSequence": "X/Z/D",
        "RequestedProcedureDescription": "X/Z",
        "ProtocolName": "X/D",
        "PatientAge": "X",
        "PersonName": "D",
        "ContentSequence": "D",
        "DeviceSerialNumber": "X/Z/D",
        "DetectorID": "X/D",
        "ROIInterpreter": "Z",
        "RequestAttributesSequence": "X",
        "ContrastBolusAgent": "Z/D",
    }
    found = {name: table()[tag_for_keyword(name)].basic for name in expected}
    assert found == expected
    assert table()[tag_for_keyword("RecordedRTControlPointDateTime")].is_moved
    assert not table()[tag_for_keyword("PatientBirthDate")].is_moved


def test_nothing_is_kept_by_list_that_the_table_names() -> None:
    assert [name for name in kept_keywords() if tag_for_keyword(name) in table()] == []


def test_free_text_of_the_standard_is_kept_only_where_a_scanner_writes_it() -> None:
    passing = {"text", "number", "time", "class", "recurse", "uid"}
    found = {
        keyword_for_tag(tag)
        for tag in DicomDictionary
        if dictionary_VR(tag) in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "AE") and rule_of(tag) in passing
    }
    assert found == set(confidentiality.TEXTS)


@pytest.mark.parametrize("tag", [0x50000010, 0x501E3000, 0x60000022, 0x60004000, 0x60103000])
def test_curves_and_overlays_are_graphics(tag: int) -> None:
    assert rule_of(tag) == "graphics"


# -- planted identities

names = st.from_regex(r"[A-Z][b-df-hj-np-tv-z][aeiou][b-df-hj-np-tv-z]{3}[a-z]{1,4}", fullmatch=True)
numbers = st.integers(10**8, 10**9 - 1).map(str)
days = st.dates(date(1920, 1, 1), date(1990, 12, 31))
SWEPT = [
    tag
    for tag in DicomDictionary
    if 0x0008 <= tag >> 16 < 0x7FE0
    and dictionary_VR(tag) in {*TEXT, "PN", "DA", "DT", "DS", "IS", "UI", "SQ", "OB", "UN"}
    and keyword_for_tag(tag) not in {"SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "SpecificCharacterSet"}
]


def planted(tag: int, family: str, given_: str, number: str, born: str) -> Any:
    vr = dictionary_VR(tag)
    values: dict[str, Any] = {
        "PN": f"{family}^{given_}",
        "DA": born,
        "DT": f"{born}101112",
        "DS": number,
        "IS": number,
        "UI": f"1.2.826.0.1.{number}.{born}",
        "OB": f"{family} {number}".encode(),
        "UN": f"{given_} {born}".encode(),
    }
    forms = (f"{family}, {given_} {number}", f"{given_}_{family}", number, family.upper(), f"seen {given_}")
    return values[vr] if vr in values else forms[tag % len(forms)][: TEXT[vr]]


def plant(dataset: Dataset, tags: list[int], who: tuple[str, str, str, str], depth: int = 0) -> None:
    for tag in tags:
        vr = dictionary_VR(tag)
        if vr != "SQ":
            dataset.add_new(tag, vr, planted(tag, *who))
        elif depth < 1:
            item = Dataset()
            plant(item, [t for t in tags if t != tag][depth::97], who, depth + 1)
            dataset.add_new(tag, "SQ", [item])


@settings(max_examples=3, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(family=names, given_=names, number=numbers, born=days)
def test_an_identity_in_every_element_of_the_standard_leaves_no_trace(
    family: str, given_: str, number: str, born: date
) -> None:
    who = (family, given_, number, f"{born:%Y%m%d}")
    scan = slice_with()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plant(scan, SWEPT, who)
        out, audit = deidentified(encoded(scan), pseudonyms())
    assert {value: traces(out, value) for value in who} == {value: [] for value in who}
    assert audit.counts["unlisted"] > 1000


@settings(max_examples=50, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    family=names,
    number=numbers,
    tags=st.lists(st.sampled_from([t for t in SWEPT if rule_of(t) not in ("unlisted", "remove")]), max_size=20),
    element=st.integers(0x1000, 0x10FF),
    group=st.sampled_from([0x0009, 0x0019, 0x0029, 0x2001, 0x7053]),
    creator=st.sampled_from(["SIEMENS CSA HEADER", "SIEMENS MR HEADER", "GEMS_PARM_01", "ACME 1.1"]),
    vr=st.sampled_from(["LO", "UN", "OB", "LT", "PN", "IS"]),
)
def test_an_identity_in_nested_kept_and_private_elements_leaves_no_trace(
    family: str, number: str, tags: list[int], element: int, group: int, creator: str, vr: str
) -> None:
    who = (family, family.swapcase(), number, "19340607")
    inner, middle, scan = Dataset(), Dataset(), slice_with(PatientName=f"{family}^X", PatientID=number)
    plant(inner, tags, who)
    middle.PixelMeasuresSequence = [inner]
    scan.PerFrameFunctionalGroupsSequence = [middle]
    value: Any = number if vr == "IS" else f"{family} {number}"
    scan.add_new((group, 0x0010), "LO", creator)
    scan.add_new((group, element), vr, value.encode() if vr in ("UN", "OB") else value)
    scan.add_new((group, 0x0011), "LO", family)
    scan.add_new((group, 0x1101), "LO", family)
    scan.preamble = family.encode().ljust(128, b"\x00")
    scan.add_new(0xFFFCFFFC, "OB", number.encode() + b" ")
    scan.file_meta.SourceApplicationEntityTitle = family.upper()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out, _ = deidentified(encoded(scan), pseudonyms())
    assert {value: traces(out, value) for value in (family, number)} == {family: [], number: []}
    assert out[:128] == bytes(128)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Müller^Jörg", "Scanner MUELLER"),
        ("Müller^Jörg", "Scan-Mu ller"),
        ("Müller^Jörg", "jorg 3T"),
        ("Łukasz^Zięba", "zieba_lukasz"),
        ("Li^Bo", "Scan of LI"),
        ("Sørensen^Åse", "SOERENSEN"),
    ],
)
def test_a_text_that_repeats_a_name_in_another_spelling_goes(name: str, text: str) -> None:
    scan = slice_with(PatientName=name, SpecificCharacterSet="ISO_IR 192", ManufacturerModelName=text)
    assert "ManufacturerModelName" not in cleaned(scan)


def test_short_names_do_not_take_innocent_words_with_them() -> None:
    scan = slice_with(PatientName="Li^Al", Manufacturer="Philips Medical Systems", InstitutionName="Medical Center")
    assert cleaned(scan).Manufacturer == "Philips Medical Systems"


@pytest.mark.parametrize("text", ["Doe^John", "unit 20190412", "Zürich 3", "x" * 65])
def test_a_text_that_no_scanner_writes_goes(text: str) -> None:
    assert "Manufacturer" not in cleaned(slice_with(Manufacturer=text, SpecificCharacterSet="ISO_IR 192"))


@pytest.mark.parametrize(
    "text", ["23.4.1951", "23/04/1951", "4-23-1951", "1951-04-23", "* 23 Apr 1951", "Apr 23, 1951"]
)
def test_a_birthday_in_another_spelling_goes(text: str) -> None:
    scan = slice_with(PatientBirthDate="19510423", SoftwareVersions=text)
    assert "SoftwareVersions" not in cleaned(scan)


@pytest.mark.parametrize("number", ["83659217", "+83659217", "083659217", "83659217.0", "8365921.7E1", "19510423.0"])
def test_an_identifying_number_in_another_spelling_goes(number: str) -> None:
    scan = slice_with(PatientID="83659217", PatientBirthDate="19510423", TableHeight=number)
    assert "TableHeight" not in cleaned(scan)


def test_numbers_that_only_resemble_an_identifying_one_stay() -> None:
    scan = slice_with(PatientID="83659217", TableHeight="83659.217", SliceLocation="1e-30")
    assert (cleaned(scan).TableHeight, cleaned(scan).SliceLocation) == (83659.217, 1e-30)


def test_identifiers_of_sequences_count_too() -> None:
    inner = Dataset()
    inner.PersonName = "Quagmire^Glen"
    inner.PersonAddress = "12 Spooner Street"
    scan = slice_with(ManufacturerModelName="Model Quagmire", ReferencedStudySequence=[inner])
    assert identifiers_of(scan).are_in("at spooner")
    assert "ManufacturerModelName" not in cleaned(scan)


def test_an_element_that_lies_about_its_type_goes() -> None:
    scan = slice_with(KVP=None)
    scan.add_new(tag_for_keyword("KVP"), "LO", "120")
    out, audit = deidentified(encoded(scan), pseudonyms())
    assert "KVP" not in pydicom.dcmread(io.BytesIO(out))
    assert audit.counts["wrong_type"] == 1


@pytest.mark.parametrize("name", ["NumberOfStudyRelatedInstances", "ZoomFactor", "ReferencedFrameNumber"])
def test_a_number_that_no_list_names_goes(name: str) -> None:
    assert name not in cleaned(slice_with(**{name: "7"}))


def test_sequences_end_at_a_bounded_depth() -> None:
    deepest = Dataset()
    deepest.Rows = 3
    for _ in range(30):
        outer = Dataset()
        outer.MREchoSequence = [deepest]
        deepest = outer
    clean = cleaned(slice_with(MREchoSequence=[deepest]))
    depth = 0
    while "MREchoSequence" in clean:
        clean, depth = clean.MREchoSequence[0], depth + 1
    assert depth == 8


# -- what replaces and what stays


def test_the_patient_becomes_a_pseudonym_and_the_file_says_what_was_done() -> None:
    clean = cleaned(slice_with(PatientBirthDate="19501231", DeidentificationMethod="by Erika Musterfrau"))
    assert clean.PatientName == clean.PatientID == PATIENT
    assert not clean.PatientBirthDate
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "Basic Profile" in clean.DeidentificationMethod
    codes = [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113107", "113108", "113111"]


def test_dates_move_together_and_times_of_day_stay() -> None:
    scan = slice_with(AcquisitionDateTime="20260106113045.250+0100", StudyTime="113045", SeriesDate="2026.01.07")
    clean = cleaned(scan)
    assert clean.StudyDate == f"{date(2026, 1, 5) - OFFSET:%Y%m%d}"
    assert clean.SeriesDate == f"{date(2026, 1, 7) - OFFSET:%Y%m%d}"
    assert clean.AcquisitionDateTime == f"{date(2026, 1, 6) - OFFSET:%Y%m%d}113045.250"
    assert clean.StudyTime == "113045"


@pytest.mark.parametrize("day", ["00010203", "20261399", "soon", "2026"])
def test_a_date_that_cannot_be_moved_does_not_leave(day: str) -> None:
    assert not cleaned(slice_with(StudyDate=day)).StudyDate


@pytest.mark.parametrize(
    ("age", "expected"), [("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("018M", "018M"), ("old", None)]
)
def test_ages_are_capped(age: str, expected: str | None) -> None:
    assert cleaned(slice_with(PatientAge=age)).get("PatientAge") == expected


@pytest.mark.parametrize(("agent", "expected"), [("Ultravist for Erika", "CONTRAST"), ("NONE", None), ("", None)])
def test_a_contrast_agent_becomes_a_word(agent: str, expected: str | None) -> None:
    assert cleaned(slice_with(ContrastBolusAgent=agent)).get("ContrastBolusAgent") == expected


def test_a_coded_contrast_agent_becomes_the_same_word() -> None:
    assert cleaned(slice_with(ContrastBolusAgentSequence=[Dataset()])).ContrastBolusAgent == "CONTRAST"


def test_unlisted_terms_go_and_leave_the_place_of_the_others() -> None:
    clean = cleaned(slice_with(ImageType=["ORIGINAL", "PRIMARY", "SMITH", "MOSAIC"], BodyPartExamined="SMITHS ARM"))
    assert list(clean.ImageType) == ["ORIGINAL", "PRIMARY", "OTHER", "MOSAIC"]
    assert "BodyPartExamined" not in clean


def test_uids_change_alike_in_all_files_and_registered_ones_stay() -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CTImageStorage, "1.2.826.0.1.99.1.1"
    one = cleaned(slice_with(SOPInstanceUID="1.2.826.0.1.99.1.1"))
    other = cleaned(slice_with(SOPInstanceUID="1.2.826.0.1.99.1.2", ReferencedImageSequence=[reference]))
    found = other.ReferencedImageSequence[0]
    assert found.ReferencedSOPInstanceUID == one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID
    assert found.ReferencedSOPClassUID == other.SOPClassUID == CTImageStorage
    assert (one.StudyInstanceUID, one.SeriesInstanceUID) == (other.StudyInstanceUID, other.SeriesInstanceUID)
    assert one.StudyInstanceUID != "1.2.826.0.1.99"


def test_a_class_of_no_register_is_refused() -> None:
    scan = slice_with()
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = "1.2.3.4711"
    with pytest.raises(UnreadableScan, match="unknown_class"):
        deidentified(encoded(scan), pseudonyms())


def test_safe_private_numbers_stay_with_their_creator() -> None:
    scan = slice_with(SOPClassUID=MRImageStorage)
    block = scan.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "CS", "MUSTERFRAU")
    clean = cleaned(scan)
    kept = [(element.tag, element.value) for element in clean if element.tag.is_private]
    assert kept == [(0x00190010, "SIEMENS MR HEADER"), (0x0019100C, 1000)]


def test_the_same_file_twice_gives_the_same_bytes() -> None:
    data = encoded(slice_with())
    assert deidentified(data, pseudonyms()) == deidentified(data, pseudonyms())


SOUND = encoded(slice_with(PatientName="Quagmire^Glen", ReferencedStudySequence=[Dataset()]))


@settings(max_examples=200, phases=[Phase.generate])
@given(cut=st.integers(0, len(SOUND)), flips=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=6))
def test_spoilt_bytes_leave_clean_or_not_at_all(cut: int, flips: list[tuple[int, int]]) -> None:
    spoilt = bytearray(SOUND[: cut if cut % 2 else len(SOUND)])
    for place, value in flips:
        if place < len(spoilt):
            spoilt[place] = value
    try:
        out, _ = deidentified(bytes(spoilt), pseudonyms())
    except UnreadableScan:
        return
    assert not traces(out, "Quagmire")


# -- beside the pixels


def test_bytes_behind_the_last_pixel_go() -> None:
    scan = slice_with()
    plain = scan.PixelData
    scan.PixelData = plain + b"Musterfrau"
    assert cleaned(scan).PixelData == plain


@pytest.mark.parametrize("is_signed", [0, 1])
def test_overlays_in_unused_bits_go_and_the_values_stay(is_signed: int) -> None:
    values = np.arange(-15, 15, dtype=np.int16).reshape(5, 6) * 9 if is_signed else np.arange(30, dtype=np.int16)
    scan = slice_with(BitsStored=12, HighBit=11, PixelRepresentation=is_signed)
    scan.PixelData = (values.astype(np.uint16) & 0x0FFF | 0x4000).astype("<u2").tobytes()
    out, _ = deidentified(encoded(scan), pseudonyms())
    stored = np.frombuffer(pydicom.dcmread(io.BytesIO(out)).PixelData, "<i2")
    assert stored.tolist() == values.ravel().tolist()


def test_a_comment_in_a_jpeg_stream_goes_and_the_pixels_stay() -> None:
    file = next(file for file in REAL if pydicom.dcmread(file).file_meta.TransferSyntaxUID == JPEGLosslessSV1)
    scan = pydicom.dcmread(file)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 16) + b"Musterfrau Erika"
    at = scan.PixelData.index(b"\xff\xd8") + 2
    (length,) = struct.unpack_from("<I", scan.PixelData, at - 6)
    head = scan.PixelData[: at - 6] + struct.pack("<I", length + len(comment))
    scan.PixelData = head + b"\xff\xd8" + comment + scan.PixelData[at:]
    data = encoded(scan)
    assert traces(data, "Musterfrau")
    out, _ = deidentified(data, pseudonyms())
    assert not traces(out, "Musterfrau")
    assert np.array_equal(decode(open_scan(out)), decode(open_scan(file.read_bytes())))


def test_text_in_place_of_the_offset_table_goes() -> None:
    file = next(file for file in REAL if pydicom.dcmread(file).file_meta.TransferSyntaxUID == JPEGLosslessSV1)
    scan = pydicom.dcmread(file)
    (length,) = struct.unpack_from("<I", scan.PixelData, 4)
    table = b"Erika Musterfrau"
    scan.PixelData = scan.PixelData[:4] + struct.pack("<I", len(table)) + table + scan.PixelData[8 + length :]
    out, _ = deidentified(encoded(scan), pseudonyms())
    assert not traces(out, "Musterfrau")
    assert np.array_equal(decode(open_scan(out)), decode(open_scan(file.read_bytes())))


# -- real scans


def one_of_each() -> Iterator[Path]:
    """A file of each real series, and every file of the nine encodings."""
    seen = set()
    for file in REAL:
        if file.parent not in seen or "dcm_qa_ts" in file.parts:
            seen.add(file.parent)
            yield file


def identifying(dataset: Dataset) -> set[str]:
    """Values that the table names, long enough not to turn up by chance."""
    found: set[str] = set()
    for element in dataset.iterall():
        row = table().get(int(element.tag))
        if row is None or element.VR not in ("PN", "LO", "SH", "LT", "ST", "UI", "DA", "UT") or row.is_moved:
            continue
        values = element.value if element.VM > 1 else [element.value]
        found |= {str(value).strip() for value in values}
    return {value for value in found if len(value) >= 6}


@pytest.mark.parametrize("file", list(one_of_each()), ids=lambda file: "-".join(file.relative_to(DATA).parts[1:]))
def test_a_real_scan_keeps_its_pixels_and_geometry_and_loses_who_it_was(file: Path) -> None:
    data = file.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = identifying(pydicom.dcmread(file))
        out, _ = deidentified(data, pseudonyms())
    before, after = open_scan(data), open_scan(out)
    assert after.header == before.header
    assert np.array_equal(decode(after), decode(before))
    header = out.replace(pydicom.dcmread(io.BytesIO(out)).PixelData, b"")
    assert values
    assert [number for number, value in enumerate(sorted(values)) if traces(header, value)] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(element.value is not ... for element in pydicom.dcmread(io.BytesIO(out)).iterall())


def test_a_mosaic_keeps_of_its_private_header_only_how_the_slices_lie() -> None:
    file = DATA / "dcm_qa_nih/In/20180918Si/mr_0003/epi_pe_ap-00001.dcm"
    out, _ = deidentified(file.read_bytes(), pseudonyms())
    kept = [element for element in pydicom.dcmread(io.BytesIO(out)) if element.tag.group == 0x0029]
    facts = parse_csa(kept[1].value, {"NumberOfImagesInMosaic", "SliceNormalVector", "tPatientName"})
    assert set(facts) == {"NumberOfImagesInMosaic", "SliceNormalVector"}
    assert len(kept[1].value) < 400


@pytest.mark.parametrize(
    ("count", "normal"),
    [(["35"], ["0", "0", "Erika"]), (["Erika"], ["0", "0", "1"]), ([], ["0", "0", "1"]), (["4"], [])],
)
def test_a_mosaic_header_holds_numbers_or_nothing(count: list[str], normal: list[str]) -> None:
    assert mosaic_header({"NumberOfImagesInMosaic": count, "SliceNormalVector": normal}) is None


def test_simpleitk_reads_the_same_picture(tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813 - its usual name

    file = DATA / "dicom2nifti/ge/fmri/001/IM-0001-0001-0001.dcm"
    (tmp_path / "clean.dcm").write_bytes(deidentified(file.read_bytes(), pseudonyms())[0])
    before, after = sitk.ReadImage(str(file)), sitk.ReadImage(str(tmp_path / "clean.dcm"))
    assert np.array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))
    assert (before.GetOrigin(), before.GetSpacing(), before.GetDirection()) == (
        after.GetOrigin(),
        after.GetSpacing(),
        after.GetDirection(),
    )
