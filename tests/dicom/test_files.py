"""Header, rules and pixels, on files made by hand."""

from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from platform_core.dicom.elements import claims_to_be_dicom
from platform_core.dicom.header import open_scan
from platform_core.dicom.pixels import decode, in_units, stacked
from platform_core.dicom.rules import glance
from platform_core.errors import UnreadableScan

STORED = np.array([[-1000, 0, 40, 3000]], np.int16)


def coded(dataset: Any) -> Any:
    out = BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def reason_of(call: Any, *args: Any) -> Any:
    with pytest.raises(UnreadableScan) as refusal:
        call(*args)
    return refusal.value.reason


def test_identity_and_header_are_kept_apart(make_slice: Any) -> None:
    scan = open_scan(coded(make_slice(0, (0, 0, 0))))
    assert scan.identity.patient_id == "HOSP-4711"
    assert scan.identity.acquired_on == date(2026, 1, 6)
    told = repr(scan.header)
    for secret in ("HOSP", "Erika", "Muster", "1.2.826", "Thorax Erika"):
        assert secret not in told
    assert "HOSP" not in repr(scan.identity) + repr(scan)


def test_text_that_repeats_the_patient_is_dropped(make_slice: Any) -> None:
    scan = open_scan(
        coded(make_slice(0, (0, 0, 0), ManufacturerModelName="Scan for MUSTERFRAU", SoftwareVersions="v2"))
    )
    assert scan.header.scanner_model is None
    assert scan.header.software == "v2"


def test_free_text_in_the_body_part_is_dropped(make_slice: Any) -> None:
    assert open_scan(coded(make_slice(0, (0, 0, 0), BodyPartExamined="chest of Erika"))).header.body_part is None
    assert open_scan(coded(make_slice(0, (0, 0, 0), BodyPartExamined="Chest"))).header.body_part == "CHEST"


def test_a_file_without_preamble_is_read(make_slice: Any) -> None:
    without_preamble = coded(make_slice(0, (0, 0, 0)))[132:]
    assert open_scan(without_preamble).identity.patient_id == "HOSP-4711"
    assert glance(without_preamble).rule is None


def test_a_file_without_any_file_header_is_read(make_slice: Any) -> None:
    bare, slice_ = BytesIO(), make_slice(0, (0, 0, 0), STORED)
    del slice_.file_meta
    pydicom.dcmwrite(bare, slice_, implicit_vr=True, little_endian=True)
    scan = open_scan(bare.getvalue())
    np.testing.assert_array_equal(decode(scan)[0], STORED)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_byte_order_does_not_change_the_values(make_slice: Any, syntax: Any) -> None:
    slice_ = make_slice(0, (0, 0, 0), STORED)
    slice_.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        slice_.PixelData = STORED.astype(">i2").tobytes()
    np.testing.assert_array_equal(decode(open_scan(coded(slice_)))[0], STORED)


def test_ct_is_in_whole_hounsfield_units(make_slice: Any) -> None:
    scan = open_scan(coded(make_slice(0, (0, 0, 0), STORED)))
    frame = scan.header.frames[0]
    voxels = in_units(decode(scan), frame.slope, frame.intercept)
    assert voxels.dtype == np.int16
    assert voxels.ravel().tolist() == [-2024, -1024, -984, 1976]


def test_a_fractional_slope_gives_real_numbers() -> None:
    voxels = in_units(STORED, 0.5, 1.0)
    assert voxels.dtype == np.float32
    assert voxels.ravel().tolist() == [-499.0, 1.0, 21.0, 1501.0]


def test_large_unsigned_values_stay_whole() -> None:
    voxels = stacked([in_units(np.array([[0, 65535]], np.uint16), 1.0, 0.0)])
    assert voxels.dtype == np.uint16


def test_each_slice_has_its_own_slope() -> None:
    """PET rescales slice by slice."""
    voxels = stacked([in_units(STORED, slope, 0.0) for slope in (1.0, 2.0)])
    np.testing.assert_allclose(voxels[1], 2 * STORED)


def test_monochrome1_is_turned_over(make_slice: Any) -> None:
    values = np.array([[0, 4095]], np.int16)
    facts = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    assert decode(open_scan(coded(make_slice(0, (0, 0, 0), values, Modality="DX", **facts)))).ravel().tolist() == [
        4095,
        0,
    ]


def test_overlay_bits_above_the_stored_ones_are_cleared(make_slice: Any) -> None:
    values = np.array([[0x7FFF, 0x1001]], np.int16)
    facts = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    assert decode(open_scan(coded(make_slice(0, (0, 0, 0), values, **facts)))).ravel().tolist() == [0xFFF, 1]


def test_colour_is_refused(make_slice: Any) -> None:
    slice_ = make_slice(0, (0, 0, 0), PhotometricInterpretation="RGB", SamplesPerPixel=3)
    assert reason_of(decode, open_scan(coded(slice_))) == "colour"


def test_a_file_cut_anywhere_is_refused_or_unreadable_but_never_believed(make_slice: Any) -> None:
    data = coded(make_slice(0, (0, 0, 0)))
    for n_kept in range(0, len(data) - 1, 7):
        with pytest.raises(UnreadableScan):
            decode(open_scan(data[:n_kept]))


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({}, None),
        ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22"}, "not_an_image"),
        ({"Modality": "RTSTRUCT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen_save"),
        ({"Modality": "US"}, "other_modality"),
    ],
)
def test_what_is_no_scan_to_measure_is_set_aside_by_a_rule(make_slice: Any, facts: Any, rule: str | None) -> None:
    assert glance(coded(make_slice(0, (0, 0, 0), **facts))).rule == rule


def test_a_text_file_is_not_dicom() -> None:
    assert reason_of(glance, b"Licence: do as you please. " * 20) == "not_dicom"
    assert not claims_to_be_dicom("LICENSE", b"Licence")
    assert claims_to_be_dicom("broken.dcm", b"Licence")


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("Modality", "no_modality"),
        ("SOPInstanceUID", "no_instance_uid"),
        ("Rows", "no_matrix"),
        ("SeriesInstanceUID", "no_series_uid"),
    ],
)
def test_what_must_be_stated_is_asked_for(make_slice: Any, gone: Any, reason: str) -> None:
    slice_ = make_slice(0, (0, 0, 0))
    if gone == "SOPInstanceUID":
        slice_.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        slice_.SOPInstanceUID = ""
    else:
        delattr(slice_, gone)
    out = BytesIO()
    pydicom.dcmwrite(out, slice_)
    assert reason_of(open_scan, out.getvalue()) == reason


def test_frames_without_functional_groups_are_refused(make_slice: Any) -> None:
    slice_ = make_slice(0, (0, 0, 0), np.zeros((4, 2)), NumberOfFrames=2, Rows=2)
    assert reason_of(open_scan, coded(slice_)) == "multi_frame"


def test_an_enhanced_file_states_its_frames(make_slice: Any) -> None:
    """Shared functional groups, overruled by a frame's own."""
    slice_ = make_slice(0, (0, 0, 0), np.arange(24).reshape(6, 4), NumberOfFrames=3, Rows=2, Columns=4)
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(slice_, name)
    slice_.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            PixelMeasuresSequence={"PixelSpacing": [2.0, 1.0], "SliceThickness": 3.0},
            PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
        )
    ]
    slice_.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, 3 * k]},
            FrameContentSequence={"TemporalPositionIndex": 1},
            **(
                {"PixelValueTransformationSequence": {"RescaleSlope": 2, "RescaleIntercept": 0, "RescaleType": "HU"}}
                if k == 1
                else {}
            ),
        )
        for k in range(3)
    ]
    scan = open_scan(coded(slice_))
    assert [frame.position_mm for frame in scan.header.frames] == [(0, 0, 0), (0, 0, 3), (0, 0, 6)]
    assert [frame.slope for frame in scan.header.frames] == [1, 2, 1]
    assert scan.header.frames[0].spacing_mm == (1.0, 2.0)
    assert decode(scan).shape == (3, 2, 4)


def group(**sequences: Any) -> Any:
    whole = Dataset()
    for name, facts in sequences.items():
        item = Dataset()
        for key, value in facts.items():
            setattr(item, key, value)
        setattr(whole, name, [item])
    return whole
