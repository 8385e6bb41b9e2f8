"""Files to volumes: geometry is what the file states in every kind of file, left is left, and nothing is invented."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813

from platform_core.dicom.geometry import arrange
from platform_core.dicom.grouping import Part, Plane, split_parts
from platform_core.dicom.header import Scan, open_scan
from platform_core.dicom.pixels import decode
from platform_core.errors import UnreadableScan
from tests.dicom import corpus
from tests.dicom.corpus import AXIAL, EXPLICIT, depth

GREY = depth(12, 16)
CT, ENHANCED_CT, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "2.1", "4.1"))
ORIENTATIONS = {
    "axial": AXIAL,
    "axial upside down": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "axial from above": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": (0.8, 0.6, 0.0, -0.36, 0.48, 0.8),
}
NO_CLASSIC: dict[str, Any] = dict.fromkeys(corpus.CLASSIC_GEOMETRY)
POSITIONS = ("HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR")
MARK_MM = (23.0, -11.0, 17.0)
"""A point off every plane of symmetry, LPS."""


def phantom(orientation: Sequence[float], n: tuple[int, int, int] = (6, 8, 10)) -> dict[float, Any]:
    """Slices (y, x) of a space whose value is 1000 + 10 x + 3 y + z of the place in mm, by place along the normal."""
    x, y = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(x, y)
    start = np.array(MARK_MM)
    slices = {}
    for k in range(n[0]):
        first = start + 2.5 * k * normal
        columns, rows = np.meshgrid(np.arange(n[2]), np.arange(n[1]))
        place = first + columns[..., None] * x * 1.0 + rows[..., None] * y * 1.5
        slices[2.5 * k] = (first, np.rint(1000 + value_at(place)).astype(GREY.dtype))
    return slices


def value_at(place_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Grows to the left most, then to the back, then to the head."""
    return np.asarray(place_mm @ np.array([10.0, 3.0, 1.0]))


def files_of(orientation: Sequence[float], **elements: Any) -> list[bytes]:
    return [
        corpus.file_of(
            pixels,
            GREY,
            EXPLICIT,
            SOPInstanceUID=f"{corpus.ROOT}.1.{k + 1}",
            InstanceNumber=k + 1,
            ImagePositionPatient=[round(float(v), 6) for v in first],
            ImageOrientationPatient=list(orientation),
            **elements,
        )
        for k, (first, pixels) in enumerate(phantom(orientation).values())
    ]


def planes_of(scans: Sequence[Scan]) -> list[Plane]:
    return [Plane(k, scan.header, frame) for k, scan in enumerate(scans) for frame in scan.header.frames]


def parts_of(files: Sequence[bytes]) -> tuple[list[Scan], list[Part]]:
    scans = [open_scan(data) for data in files]
    return scans, split_parts(planes_of(scans))


def voxels_of(scans: Sequence[Scan], part: Part) -> tuple[Any, Any]:
    """Affine (index x, y, z to LPS mm), and stored values (t, z, y, x)."""
    stack = arrange(part)
    decoded = [decode(scan) for scan in scans]
    planes = [[decoded[part[i].file][part[i].frame.index] for i in row] for row in stack.order]
    return stack.geometry.affine, np.array(planes)


def reason_of(files: Sequence[bytes]) -> str:
    with pytest.raises(UnreadableScan) as refusal:
        [arrange(part) for part in parts_of(files)[1]]
    return refusal.value.reason


def assert_is_the_phantom(affine: Any, voxels: Any) -> None:
    """Every voxel has the value of its place in the patient."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in voxels.shape), indexing="ij"), axis=-1)[..., ::-1]
    place = index @ affine[:3, :3].T + affine[:3, 3]
    assert np.abs(voxels - 1000 - value_at(place)).max() <= 0.51


# --- left is left ------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_voxel_lies_where_it_was_scanned(orientation: Sequence[float]) -> None:
    files = files_of(orientation)
    scans, parts = parts_of(files[::-1])
    affine, voxels = voxels_of(scans, parts[0])
    assert len(parts) == 1
    assert_is_the_phantom(affine, voxels[0])


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_places_are_those_of_simpleitk(orientation: Sequence[float], tmp_path: Path) -> None:
    files = files_of(orientation)
    for k, data in enumerate(files):
        (tmp_path / f"{k}.dcm").write_bytes(data)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    theirs = reader.Execute()
    scans, parts = parts_of(files)
    affine, voxels = voxels_of(scans, parts[0])
    values = sitk.GetArrayFromImage(theirs)
    for index in itertools.product((0, 9), (0, 7), (0, 5)):
        there = theirs.TransformContinuousIndexToPhysicalPoint([float(i) for i in index])
        mine = np.rint(np.linalg.inv(affine) @ [*there, 1])[:3].astype(int)
        np.testing.assert_allclose(affine[:3] @ [*mine, 1], there, atol=1e-3)
        assert voxels[0][tuple(mine[::-1])] == values[index[::-1]]


@pytest.mark.parametrize("position", POSITIONS)
def test_the_patients_position_moves_nothing(position: str) -> None:
    """LPS is of the patient, not of the table: PS3.3 C.7.3.1.1.2 is for people."""
    usual = voxels_of(*_single(files_of(AXIAL)))
    found = voxels_of(*_single(files_of(AXIAL, PatientPosition=position)))
    np.testing.assert_array_equal(found[0], usual[0])
    np.testing.assert_array_equal(found[1], usual[1])


def _single(files: Sequence[bytes]) -> tuple[list[Scan], Part]:
    scans, parts = parts_of(files)
    assert len(parts) == 1
    return scans, parts[0]


# --- enhanced ----------------------------------------------------------------------------------


def enhanced(orientation: Sequence[float], own: Any = lambda _: {}, **elements: Any) -> bytes:
    slices = list(phantom(orientation).values())
    groups = corpus.enhanced_groups([tuple(p) for p, _ in slices], orientation=orientation, own=own)
    facts: dict[str, Any] = NO_CLASSIC | groups | elements
    return corpus.file_of(np.stack([pixels for _, pixels in slices]), GREY, **facts)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize(("modality", "sop_class"), [("CT", ENHANCED_CT), ("MR", ENHANCED_MR)])
def test_an_enhanced_file_is_the_same_volume(orientation: Sequence[float], modality: str, sop_class: str) -> None:
    affine, voxels = voxels_of(*_single([enhanced(orientation, Modality=modality, SOPClassUID=sop_class)]))
    assert_is_the_phantom(affine, voxels[0])


def test_frames_in_any_order_are_put_in_place() -> None:
    slices = list(phantom(AXIAL).values())
    shuffled = [slices[k] for k in (3, 0, 5, 1, 4, 2)]
    groups = corpus.enhanced_groups([tuple(p) for p, _ in shuffled])
    facts: dict[str, Any] = NO_CLASSIC | groups
    data = corpus.file_of(np.stack([pixels for _, pixels in shuffled]), GREY, **facts)
    affine, voxels = voxels_of(*_single([data]))
    assert_is_the_phantom(affine, voxels[0])


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("PlanePositionSequence", "no_position"),
        ("PlaneOrientationSequence", "no_orientation"),
        ("PixelMeasuresSequence", "no_pixel_spacing"),
    ],
)
@pytest.mark.parametrize("has_classic", [False, True])
def test_an_enhanced_file_without_geometry_gets_none(gone: str, reason: str, has_classic: bool) -> None:
    """Readers invent an identity, or take one position at the top of the file for all frames."""
    slices = list(phantom(AXIAL).values())
    groups = corpus.enhanced_groups([tuple(p) for p, _ in slices])
    shared, frames = groups["SharedFunctionalGroupsSequence"], groups["PerFrameFunctionalGroupsSequence"]
    for group in (*shared, *frames):
        if gone in group:
            delattr(group, gone)
    facts: dict[str, Any] = groups if has_classic else NO_CLASSIC | groups
    assert reason_of([corpus.file_of(np.stack([pixels for _, pixels in slices]), GREY, **facts)]) == reason


@pytest.mark.parametrize("n_stated", [1, 5, 7, 4000])
def test_a_lie_about_the_number_of_frames_is_refused(n_stated: int) -> None:
    assert reason_of([enhanced(AXIAL, NumberOfFrames=n_stated)]) == "frame_count"


def test_more_frames_than_any_scan_has_are_refused_before_they_are_read() -> None:
    assert reason_of([enhanced(AXIAL, NumberOfFrames=(1 << 17) + 1)]) == "too_large"


# --- more than one volume ----------------------------------------------------------------------


def test_time_points_of_an_enhanced_file_become_an_axis() -> None:
    slices = list(phantom(AXIAL).values())
    places = [(t, k) for k in range(6) for t in range(3)]
    groups = corpus.enhanced_groups(
        [tuple(slices[k][0]) for _, k in places],
        own=lambda i: {"FrameContentSequence": {"TemporalPositionIndex": places[i][0] + 1}},
    )
    pixels = np.stack([slices[k][1] + 100 * t for t, k in places]).astype(GREY.dtype)
    data = corpus.file_of(pixels, GREY, **(NO_CLASSIC | groups))
    affine, voxels = voxels_of(*_single([data]))
    assert voxels.shape == (3, 6, 8, 10)
    for t in range(3):
        assert_is_the_phantom(affine, voxels[t].astype(int) - 100 * t)


@pytest.mark.parametrize(
    ("sequence", "keyword", "values"),
    [
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 500.0, 1000.0)),
        ("MREchoSequence", "EffectiveEchoTime", (10.0, 80.0)),
        ("FrameContentSequence", "StackID", ("1", "2")),
        ("MRImageFrameTypeSequence", "FrameType", (["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "PHASE"])),
    ],
)
def test_b_values_echoes_stacks_and_quantities_of_an_enhanced_file_are_volumes(
    sequence: str, keyword: str, values: Any
) -> None:
    slices = list(phantom(AXIAL).values())
    kinds = [value for value in values for _ in slices]
    groups = corpus.enhanced_groups(
        [tuple(p) for _ in values for p, _ in slices], own=lambda i: {sequence: {keyword: kinds[i]}}
    )
    pixels = np.stack([plane + 100 * n for n in range(len(values)) for _, plane in slices]).astype(GREY.dtype)
    facts: dict[str, Any] = NO_CLASSIC | groups | {"Modality": "MR", "SOPClassUID": ENHANCED_MR}
    scans, parts = parts_of([corpus.file_of(pixels, GREY, **facts)])
    assert len(parts) == len(values)
    for n, part in enumerate(parts):
        affine, voxels = voxels_of(scans, part)
        assert_is_the_phantom(affine, voxels[0].astype(int) - 100 * n)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"SeriesNumber": 1}, {"SeriesNumber": 2}),
        ({"ConvolutionKernel": "B31f"}, {"ConvolutionKernel": "B70f"}),
        ({"EchoTime": 10.0}, {"EchoTime": 80.0}),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 800.0}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE"]}),
    ],
)
def test_two_series_under_one_uid_are_told_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Interleaved and at the same places, so that only what is stated tells them apart."""
    pairs = zip(files_of(AXIAL, **one), files_of(AXIAL, **other), strict=True)
    scans, parts = parts_of([data for pair in pairs for data in pair])
    assert [len(part) for part in parts] == [6, 6]
    for part in parts:
        affine, voxels = voxels_of(scans, part)
        assert_is_the_phantom(affine, voxels[0])


def test_a_frame_of_an_enhanced_ct_states_its_own_quantity() -> None:
    own = {2: {"CTImageFrameTypeSequence": {"FrameType": ["DERIVED", "SECONDARY", "MPR", "NONE"]}}}
    data = enhanced(AXIAL, own=lambda k: own.get(k, {}), SOPClassUID=ENHANCED_CT)
    assert [frame.kind for frame in open_scan(data).header.frames] == ["", "", "MPR", "", "", ""]


def test_each_frame_keeps_its_own_rescale() -> None:
    """Per frame in the groups; per file in a classic series."""
    own = {2: {"PixelValueTransformationSequence": {"RescaleSlope": 3, "RescaleIntercept": -7, "RescaleType": "US"}}}
    frames = open_scan(enhanced(AXIAL, own=lambda k: own.get(k, {}))).header.frames
    assert [(frame.slope, frame.intercept) for frame in frames] == [(1, 0), (1, 0), (3, -7), (1, 0), (1, 0), (1, 0)]


# --- spacing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [[0.0, 1.0], [-1.5, 1.0], [1.5, -1.0]])
def test_a_spacing_that_is_not_above_zero_is_refused(spacing: list[float]) -> None:
    assert reason_of(files_of(AXIAL, PixelSpacing=spacing)) == "no_pixel_spacing"


def test_a_slice_thickness_below_zero_does_not_turn_the_stack_over() -> None:
    affine, voxels = voxels_of(*_single(files_of(AXIAL, SliceThickness=-2.5, SpacingBetweenSlices=-2.5)))
    assert_is_the_phantom(affine, voxels[0])
    assert reason_of(files_of(AXIAL, SliceThickness=-2.5)[:1]) == "slice_spacing_unknown"


@pytest.mark.parametrize("position", [[1e300, 0, 0], [0, 0, 1e39]])
def test_a_place_outside_this_world_is_refused(position: list[float]) -> None:
    files = files_of(AXIAL)
    files[2] = corpus.file_of(
        corpus.noise((8, 10), GREY), GREY, ImagePositionPatient=position, SOPInstanceUID="1.2.3", InstanceNumber=3
    )
    assert reason_of(files) in ("no_position", "missing_slices", "shifted_slices", "gantry_tilt", "uneven_spacing")
