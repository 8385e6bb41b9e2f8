"""What comes a second time: decided on anew, renamed, corrected. A part keeps its key, because labels lie on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from platform_core import layout
from platform_core.manifest.door import open_door
from platform_core.manifest.quarantine import replay
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from tests.conftest import save

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
Radiograph = Callable[..., Dataset]

DX = "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.fixture
def radiograph(make_slice: Callable[..., Dataset]) -> Radiograph:
    """Radiograph `n` of one series: an image, and so a part, of its own."""

    def make(n: int, **elements: Any) -> Dataset:
        pixels = np.random.default_rng(n).integers(0, 1000, (64, 64))
        return make_slice(n, (0, 0, 0), pixels, Modality="DX", SOPClassUID=DX, **elements)

    return make


def images(workspace: Workspace) -> dict[str, str]:
    """The image of each part that is in force."""
    return {row["series_key"]: row["voxels_sha256"] for row in current_series(workspace, "north").to_pylist()}


def test_parts_keep_their_keys_when_a_series_is_decided_on_again(
    north: Workspace, folder: Path, radiograph: Radiograph, ingest: Ingest
) -> None:
    save(folder / "b", radiograph(2))
    ingest(north)
    save(folder / "a", radiograph(1))
    ingest(north)
    before = images(north)
    save(folder / "c", radiograph(3, BurnedInAnnotation="YES"))
    ingest(north)
    assert replay(north, "north", reason="burned_in_stated") == 3
    ingest(north)
    assert images(north) == before
    assert len(north.lake.read(layout.SERIES)) == 3


def test_parts_keep_their_keys_when_their_files_come_again_under_other_names(
    north: Workspace, folder: Path, radiograph: Radiograph, ingest: Ingest
) -> None:
    """As when an archive numbers its files anew, because one more sorts before them."""
    for n in (2, 3):
        save(folder / f"IM{n - 1}", radiograph(n))
    ingest(north)
    before = images(north)
    for n in (1, 2, 3):
        save(folder / f"IM{n}", radiograph(n, StudyDescription="corrected"))
    ingest(north)
    after = images(north)
    assert {key: after[key] for key in before} == before
    assert len(after) == 3


def test_parts_keep_their_keys_when_the_door_book_is_lost(
    north: Workspace, folder: Path, radiograph: Radiograph, ingest: Ingest
) -> None:
    for n in (2, 1):
        save(folder / str(n), radiograph(n))
        ingest(north)
    before = images(north)
    for file in open_door(north).home.glob("north.sqlite*"):
        file.unlink()
    ingest(north)
    assert images(north) == before
    assert len(north.lake.read(layout.SERIES)) == 2


CORRECTED: dict[str, tuple[dict[str, Any], str]] = {
    "patient": ({"PatientID": "HOSP-0815"}, "patient_key"),
    "no patient any more": ({"PatientID": ""}, "patient_known"),
    "study": ({"StudyInstanceUID": "1.2.3.9"}, "study_key"),
    "day": ({"AcquisitionDate": "20260301"}, "acquired_on"),
    "body part": ({"BodyPartExamined": "HEAD"}, "body_part"),
    "machine": ({"ManufacturerModelName": "Scan 2"}, "scanner_model"),
    "kernel": ({"ConvolutionKernel": "B70f"}, "kernel"),
    "contrast": ({"ContrastBolusAgent": "Iohexol"}, "stratum"),
}


@pytest.mark.parametrize(("elements", "column"), CORRECTED.values(), ids=CORRECTED)
def test_a_corrected_header_makes_a_new_revision_of_the_same_series(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, elements: dict[str, Any], column: str
) -> None:
    write_ct(folder)
    ingest(north)
    (before,) = current_series(north, "north").to_pylist()
    write_ct(folder, **elements)
    count = ingest(north)
    assert (count.n_accepted, count.n_new_revisions) == (4, 1)
    (after,) = current_series(north, "north").to_pylist()
    assert (after["series_key"], after["revision"]) == (before["series_key"], 2)
    assert after[column] != before[column]
    assert (after["volume_sha256"], after["part"]) == (before["volume_sha256"], before["part"])
    assert north.read_volume(before["volume_uri"]).size == north.read_volume(after["volume_uri"]).size
    assert len(north.lake.read(layout.ARRIVAL)) == 8


def test_the_same_files_again_make_no_new_revision(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, StudyDescription="first", EchoTime="8.1", RepetitionTime="612.3")
    ingest(north)
    write_ct(folder, StudyDescription="second", EchoTime="8.1", RepetitionTime="612.3")
    count = ingest(north)
    assert (count.n_accepted, count.n_new_revisions) == (4, 0)
    assert len(north.lake.read(layout.SERIES)) == 1


@pytest.mark.parametrize("number", ["HOSP-0815", ""])
def test_copies_of_one_instance_that_name_two_patients_are_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, number: str
) -> None:
    write_ct(folder / "b")
    write_ct(folder / "a", PatientID=number)
    count = ingest(north)
    assert (count.n_accepted, count.n_duplicate, count.n_quarantined) == (0, 0, 8)
    assert {row["reason"] for row in north.lake.read(layout.ARRIVAL).to_pylist()} == {"conflicting_patients"}


def test_an_issuer_in_the_header_makes_no_other_patient(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    """Archives add it or spell it anew, scanners leave it out: in the key it would make two patients of one."""
    write_ct(folder / "a", IssuerOfPatientID="here")
    write_ct(folder / "b", IssuerOfPatientID="HERE&1.2.3&ISO")
    write_ct(folder / "c", SeriesInstanceUID="1.2.3")
    assert ingest(north).n_duplicate == 4
    assert len({row["patient_key"] for row in current_series(north, "north").to_pylist()}) == 1


def test_a_corrected_series_without_a_date_stays_in_the_period_in_which_it_came(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    undated = {"AcquisitionDate": None, "StudyDate": None}
    write_ct(folder, **undated)
    ingest(north)
    (before,) = current_series(north, "north").to_pylist()
    write_ct(folder, BodyPartExamined="HEAD", **undated)
    ingest(north)
    (after,) = current_series(north, "north").to_pylist()
    assert (after["revision"], after["acquired_on"], after["body_part"]) == (2, None, "HEAD")
    assert after["observed_on"] == before["observed_on"]
