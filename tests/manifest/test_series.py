"""What becomes one volume and what is told apart: whole series through the door, all taken in at once.

Each case is a series of its own under one SeriesInstanceUID; what the door made of it is looked
up by its key. Where SimpleITK can read the series too, it is the oracle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from platform_core import layout
from platform_core.imaging.volume import Volume
from platform_core.manifest.door import open_door
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from tests.conftest import new_workspace
from tests.dicom import corpus
from tests.dicom.corpus import depth

SITE, RUN = "north", "20260301T000000-series"
AT = datetime(2101, 1, 1, tzinfo=UTC)
GREY = depth(12, 16)
STEP_MM = 3.0
MANY_PARTS = 8
ENHANCED_CT, TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.13.1.3"
REPORT, SCREEN = "1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.7"

Files = dict[str, bytes]
"""The files of one case under their paths below its folder."""
numbers = count(1)


def slice_of(case: str, k: int, seed: int | None = None, **elements: Any) -> bytes:
    """Slice k of a classic stack, an instance of its own whenever it is made."""
    number = next(numbers)
    facts: dict[str, Any] = {
        "SeriesInstanceUID": uid_of(case),
        "SOPInstanceUID": f"{uid_of(case)}.{number}",
        "InstanceNumber": k + 1,
        "ImagePositionPatient": [0.0, 0.0, STEP_MM * k],
    }
    return corpus.file_of(corpus.noise((12, 14), GREY, number if seed is None else seed), GREY, **(facts | elements))


def enhanced_of(case: str, places: Sequence[int], **elements: Any) -> bytes:
    """An enhanced file with frames at these places."""
    number = next(numbers)
    groups = corpus.enhanced_groups([(0.0, 0.0, STEP_MM * k) for k in places])
    facts: dict[str, Any] = dict.fromkeys(corpus.CLASSIC_GEOMETRY) | groups
    facts |= {"SeriesInstanceUID": uid_of(case), "SOPInstanceUID": f"{uid_of(case)}.{number}"}
    pixels = corpus.noise((len(places), 12, 14), GREY, number)
    return corpus.file_of(pixels, GREY, **(facts | {"SOPClassUID": ENHANCED_CT} | elements))


def uid_of(case: str) -> str:
    return f"{corpus.ROOT}.5.{sorted(CASES).index(case)}"


def stack(case: str, prefix: str = "", n: int = 4, **elements: Any) -> Files:
    return {f"{prefix}{k}": slice_of(case, k, **elements) for k in range(n)}


def twice(case: str, one: dict[str, Any], other: dict[str, Any]) -> Files:
    """Two stacks at the same places, interleaved in the order of their names."""
    return {f"{k}{name}": slice_of(case, k, **facts) for k in range(4) for name, facts in (("a", one), ("b", other))}


def halves(case: str, one: dict[str, Any], other: dict[str, Any]) -> Files:
    """One stack, the lower half stated otherwise than the upper one."""
    return {str(k): slice_of(case, k, **(one if k < 2 else other)) for k in range(4)}


SLOPES = (1.0, 0.5, 2.25, 1.0)
STUDIES = {"StudyInstanceUID": "1.2.3.1"}, {"StudyInstanceUID": "1.2.3.2"}
PLACES = {"FrameOfReferenceUID": "1.2.4.1"}, {"FrameOfReferenceUID": "1.2.4.2"}
MODALITIES = {"Modality": "CT"}, {"Modality": "MR"}
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}

CASES: dict[str, Callable[[str], Files]] = {
    "two folders": lambda c: {f"{('left', 'right')[k % 2]}/{k}": slice_of(c, k) for k in range(6)},
    "own rescale": lambda c: {
        str(k): slice_of(c, k, RescaleSlope=str(slope), RescaleIntercept=str(-100 * k))
        for k, slope in enumerate(SLOPES)
    },
    "concatenation": lambda c: {
        str(n): enhanced_of(c, places, InstanceNumber=n, ConcatenationUID="1.2.5", InConcatenationNumber=n)
        for n, places in enumerate(((0, 1, 2), (3, 4, 5)), 1)
    },
    "scout among": lambda c: stack(c) | {"s": slice_of(c, 9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])},
    "report among": lambda c: stack(c) | {"r": slice_of(c, 9, Modality="SR", SOPClassUID=REPORT, PixelData=None)},
    "screen among": lambda c: stack(c) | {"s": slice_of(c, 9, SOPClassUID=SCREEN)},
    "dose among": lambda c: stack(c) | {"d": slice_of(c, 9, ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"])},
    "acquisitions": lambda c: twice(c, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    "temporal": lambda c: twice(c, {"TemporalPositionIdentifier": 2}, {"TemporalPositionIdentifier": 1}),
    "two matrices": lambda c: stack(c) | {f"{k}b": big_slice(c, k) for k in range(4)},
    "two series": lambda c: twice(c, {"SeriesNumber": 1}, {"SeriesNumber": 2}),
    "two patients": lambda c: twice(c, {"PatientID": "A-1"}, {"PatientID": "A-2"}),
    "two studies": lambda c: twice(c, *STUDIES),
    "two studies, half each": lambda c: halves(c, *STUDIES),
    "two frames of reference": lambda c: twice(c, *PLACES),
    "two frames of reference, half each": lambda c: halves(c, *PLACES),
    "two modalities": lambda c: twice(c, *MODALITIES),
    "two modalities, half each": lambda c: halves(c, *MODALITIES),
    "sent again": lambda c: {f"{k}{copy}": slice_of(c, k, seed=k + 1) for k in range(4) for copy in "ab"},
    "nothing tells time": lambda c: twice(c, {}, {}),
    "radiographs": lambda c: {str(k): slice_of(c, k, Modality=m, **NOWHERE) for k, m in enumerate(("DX", "CR"))},
    "tomosynthesis": lambda c: {
        "a": enhanced_of(c, range(6), Modality="MG", SOPClassUID=TOMOSYNTHESIS),
        "b": slice_of(c, 0, Modality="MG", **NOWHERE),
    },
}


def big_slice(case: str, k: int) -> bytes:
    number = next(numbers)
    pixels = corpus.noise((20, 24), GREY, number)
    return corpus.file_of(
        pixels,
        GREY,
        SeriesInstanceUID=uid_of(case),
        SOPInstanceUID=f"{uid_of(case)}.{number}",
        ImagePositionPatient=[0.0, 0.0, STEP_MM * k],
    )


@dataclass(frozen=True)
class Taken:
    """All cases as the door left them."""

    workspace: Workspace
    scans: Path

    def parts(self, case: str) -> list[dict[str, Any]]:
        """The rows of a case, part by part."""
        door = open_door(self.workspace)
        keys = [door.series_key(SITE, uid_of(case), part) for part in range(MANY_PARTS)]
        rows = {row["series_key"]: row for row in self.workspace.lake.read(layout.SERIES).to_pylist()}
        return [rows[key] for key in keys if key in rows]

    def volume(self, case: str) -> Volume:
        """The one volume of a case."""
        (row,) = self.parts(case)
        assert row["geometry"] == "regular"
        return self.workspace.read_volume(row["volume_uri"])

    def ends(self, case: str) -> list[tuple[str, str | None]]:
        """Outcome and reason of the files of a case that went into a series."""
        keys = {row["series_key"] for row in self.parts(case)}
        rows = self.workspace.lake.read(layout.ARRIVAL).to_pylist()
        return [(row["outcome"], row["reason"]) for row in rows if row["series_key"] in keys]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    root = tmp_path_factory.mktemp("series")
    for case, files in CASES.items():
        for name, data in files(case).items():
            file = root / "scans" / case / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    with new_workspace(root) as empty:
        add_site(empty, SITE, SiteSettings(quiet_s=0, path=str(root / "scans")))
        workspace = open_workspace(empty.uri)
        found = discover(workspace, SITE, run=RUN, at=AT)
        for shard in found.shards:
            ingest_shard(workspace, SITE, shard, run=RUN, at=AT)
        check_ledger(workspace, SITE, RUN, found.n_new)
        yield Taken(workspace, root / "scans")


def read_by_simpleitk(folder: Path) -> sitk.Image:
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.name)
    return read_files(files)


def read_files(files: Sequence[Path]) -> sitk.Image:
    """In real numbers: else it casts every slice to the type that suits the first."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


@pytest.mark.parametrize("case", ["two folders", "own rescale"])
def test_a_stack_is_the_volume_that_simpleitk_reads(taken: Taken, case: str) -> None:
    found, theirs = taken.volume(case), read_by_simpleitk(taken.scans / case)
    assert found.geometry is not None
    np.testing.assert_allclose(found.geometry.spacing_mm, theirs.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(found.geometry.origin_mm, theirs.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(found.geometry.direction, theirs.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(found.voxels, sitk.GetArrayFromImage(theirs), atol=1e-3)


def test_a_volume_in_several_enhanced_files_is_joined(taken: Taken) -> None:
    assert taken.volume("concatenation").size == (14, 12, 6)


@pytest.mark.parametrize("case", ["scout among", "report among", "screen among", "dose among"])
def test_what_is_set_aside_spoils_nothing_of_the_series_it_lies_in(taken: Taken, case: str) -> None:
    assert taken.volume(case).size == (14, 12, 4)


def test_what_is_set_aside_is_told_by_rule(taken: Taken) -> None:
    rows = taken.workspace.lake.read(layout.ARRIVAL).to_pylist()
    told = sorted(row["reason"] for row in rows if row["outcome"] == "ignored")
    assert told == ["localizer", "not_an_image", "screen_save", "secondary_capture"]


@pytest.mark.parametrize("case", ["acquisitions", "temporal"])
def test_what_states_its_time_becomes_a_fourth_axis(taken: Taken, case: str) -> None:
    """In the order stated, which in one of the cases is not that of the names."""
    found = taken.volume(case).voxels
    stacks = [[taken.scans / case / f"{k}{name}" for k in range(4)] for name in "ab"]
    singles = [sitk.GetArrayFromImage(read_files(files)) for files in stacks]
    if case == "temporal":
        singles.reverse()
    np.testing.assert_array_equal(found, np.stack(singles))


def test_two_sizes_under_one_uid_are_two_volumes(taken: Taken) -> None:
    rows = taken.parts("two matrices")
    assert sorted((row["n_x"], row["n_y"], row["n_z"], row["geometry"]) for row in rows) == [
        (14, 12, 4, "regular"),
        (24, 20, 4, "regular"),
    ]


def test_two_series_under_one_uid_are_two_volumes(taken: Taken) -> None:
    rows = taken.parts("two series")
    assert [(row["n_z"], row["n_t"], row["n_files"], row["geometry"]) for row in rows] == [(4, 1, 4, "regular")] * 2
    assert len({row["volume_sha256"] for row in rows}) == 2


def test_two_patients_under_one_uid_never_share_a_volume(taken: Taken) -> None:
    rows = taken.parts("two patients")
    is_told_apart = len(rows) == 2 and len({row["patient_key"] for row in rows}) == 2
    assert is_told_apart or {row["geometry"] for row in rows} == {"conflicting_patients"}


@pytest.mark.parametrize(
    "case",
    [
        "two studies",
        "two studies, half each",
        "two frames of reference",
        "two frames of reference, half each",
        "two modalities",
        "two modalities, half each",
    ],
)
def test_what_cannot_be_one_series_is_told_apart_or_refused(taken: Taken, case: str) -> None:
    """One series has one study, modality and frame of reference (PS3.3 A.1.2.3 and C.7.4.1): a UID was used twice.

    Positions in two frames of reference cannot be compared, so that a volume of both has no place.
    """
    rows = taken.parts(case)
    assert rows
    for row in rows:
        assert row["volume_uri"] is None or row["n_files"] == (2 if "half" in case else 4), row["n_t"]


@pytest.mark.parametrize("case", ["sent again", "nothing tells time"])
def test_time_is_never_made_up(taken: Taken, case: str) -> None:
    """Every place is taken twice, and neither a time, an acquisition nor an instance number tells one from the other.

    A series that was sent again under new instance UIDs looks like this.
    """
    (row,) = taken.parts(case)
    assert row["n_t"] in (None, 1), "copies of a slice are no time points"


def test_radiographs_are_images_of_their_own(taken: Taken) -> None:
    rows = taken.parts("radiographs")
    assert sorted((row["modality"], row["geometry"], row["n_z"], row["n_files"]) for row in rows) == [
        ("CR", "plain", 1, 1),
        ("DX", "plain", 1, 1),
    ]
    assert taken.ends("radiographs") == [("accepted", None)] * 2


def test_radiographs_of_several_frames_are_one_refused_part(taken: Taken) -> None:
    """Its slices are no radiographs of their own, and no volume to measure beside radiographs."""
    rows = taken.parts("tomosynthesis")
    assert sorted((row["geometry"], row["n_files"]) for row in rows) == [("plain", 1), ("radiograph_frames", 1)]
    assert sorted(taken.ends("tomosynthesis")) == [("accepted", None), ("quarantined", "radiograph_frames")]
