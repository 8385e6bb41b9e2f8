import csv
import io
import json
import warnings
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from platform_core.dicom.header import open_scan
from platform_core.errors import BadRequest
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.export import export_site
from platform_core.manifest.patients import merge_patients
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from tests.conftest import Ingest, WriteCT

PLANTED = [
    b"musterfrau",
    b"erika",
    b"4711",
    b"musterstadt",
    b"1.2.826.0.1.99",
    b"20260105",
    b"20260106",
    b"scans/",
    b"im000",
]


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def exported(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def manifest(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "manifest.csv").read_text())))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_an_accepted_series_leaves_without_its_patient(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    files = write_ct(folder / "Musterfrau")
    ingest(north)
    count = export_site(north, "north", out)
    assert (count.n_series, count.n_files, count.n_held, count.n_changed, count.n_refused) == (1, 4, 0, 0, 0)
    found = everything(out)
    leaks = [(name, word) for name, data in found.items() for word in PLANTED if word in (name.encode() + data).lower()]
    assert leaks == []
    pixels = {pydicom.dcmread(file).PixelData for file in files}
    assert {scan.PixelData for scan in exported(out)} == pixels


def test_the_manifest_lists_every_file_under_its_keys(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    write_ct(folder)
    ingest(north)
    export_site(north, "north", out)
    (row,) = current_series(north, "north").to_pylist()
    listed = manifest(out)
    assert {line["series_key"] for line in listed} == {row["series_key"]}
    assert {line["file"] for line in listed} == {name for name in everything(out) if name.endswith(".dcm")}
    assert {str(scan.PatientID) for scan in exported(out)} == {row["patient_key"]}
    audit = json.loads((out / "audit.json").read_text())
    assert audit["state"] == "done"
    assert audit["elements"]["pixels"] == audit["files"]["n_files"] == 4


def test_the_same_export_twice_gives_the_same_bytes(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, tmp_path: Path
) -> None:
    write_ct(folder)
    ingest(north)
    for name in ("a", "b", "b"):
        export_site(north, "north", tmp_path / name)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_what_is_in_quarantine_stays(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    write_ct(folder / "good")
    write_ct(folder / "bad", z_mm=(0, 2, 9), SeriesInstanceUID="1.2.826.0.1.99.2")
    assert ingest(north).n_quarantined == 3
    count = export_site(north, "north", out)
    assert (count.n_series, count.n_files) == (1, 4)


def test_a_key_of_no_accepted_series_is_an_error(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    write_ct(folder, z_mm=(0, 2, 9))
    ingest(north)
    key = north.lake.read("core__series").column("series_key")[0].as_py()
    with pytest.raises(BadRequest, match="no accepted series"):
        export_site(north, "north", out, keys=[key])
    assert not out.exists()


def test_only_the_named_series_leave_and_what_an_earlier_export_left_goes(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    write_ct(folder / "one")
    write_ct(folder / "two", SeriesInstanceUID="1.2.826.0.1.99.2", PatientID="HOSP-0815")
    ingest(north)
    assert export_site(north, "north", out).n_series == 2
    key = str(current_series(north, "north").column("series_key")[0])
    count = export_site(north, "north", out, keys=[key])
    assert (count.n_series, count.n_files, count.n_held) == (1, 4, 0)
    assert {line["series_key"] for line in manifest(out)} == {key}
    assert len(exported(out)) == 4


def test_a_file_that_has_changed_since_stays(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    files = write_ct(folder)
    ingest(north)
    files[0].write_bytes(files[0].read_bytes() + b"\x00\x00")
    files[1].unlink()
    count = export_site(north, "north", out)
    assert (count.n_files, count.n_changed) == (2, 2)


def test_copies_of_what_left_stay(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path) -> None:
    write_ct(folder / "a")
    write_ct(folder / "b")
    ingest(north)
    count = export_site(north, "north", out)
    assert (count.n_files, count.n_held) == (4, 4)


def test_studies_of_one_patient_share_offset_and_frame(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    frame = {"FrameOfReferenceUID": "1.2.826.0.1.7"}
    write_ct(folder / "one", StudyDate="20260105", **frame)
    later = {"StudyInstanceUID": "1.2.826.0.1.98", "SeriesInstanceUID": "1.2.826.0.1.98.1", "StudyDate": "20260205"}
    write_ct(folder / "two", **later, **frame)
    other = {"StudyInstanceUID": "1.2.826.0.1.97", "SeriesInstanceUID": "1.2.826.0.1.97.1", "PatientID": "HOSP-0815"}
    write_ct(folder / "three", **other, StudyDate="20260105")
    ingest(north)
    export_site(north, "north", out)
    by_patient: dict[str, set[str]] = {}
    for scan in exported(out):
        by_patient.setdefault(str(scan.PatientID), set()).add(scan.StudyDate)
    mine, theirs = sorted(by_patient.values(), key=len, reverse=True)
    first, second = sorted(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) for day in mine)
    assert (second - first).days == 31
    assert not mine & theirs
    assert len({scan.FrameOfReferenceUID for scan in exported(out) if "FrameOfReferenceUID" in scan}) == 1


def test_a_corrected_identity_leaves_as_one_patient(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    write_ct(folder / "one")
    write_ct(folder / "two", SeriesInstanceUID="1.2.826.0.1.99.2", PatientID="HOSP-0815")
    ingest(north)
    merge_patients(north, "north", "HOSP-0815", "HOSP-4711", run="r", at=datetime(2026, 3, 1, tzinfo=UTC))
    export_site(north, "north", out)
    assert len({(str(scan.PatientID), scan.StudyDate) for scan in exported(out)}) == 1


def test_plain_images_are_refused(workspace: Workspace, tmp_path: Path, out: Path) -> None:
    (tmp_path / "plain").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "plain" / "a.png")
    add_site(
        workspace, "plain", SiteSettings(quiet_s=0, source="image_folder", path=str(tmp_path / "plain"), modality="CR")
    )
    with pytest.raises(BadRequest, match="plain images"):
        export_site(open_workspace(workspace.uri), "plain", out)


def test_a_folder_that_holds_other_things_is_refused(north: Workspace, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(BadRequest, match="other files"):
        export_site(north, "north", out)
    assert (out / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("series", ["dicom2nifti/ge/fmri/001", "dicom2nifti/philips_enhanced/fmri/001"])
def test_a_real_series_goes_through_the_door_again_as_the_same_volume(
    series: str, workspace: Workspace, test_data: Path, tmp_path: Path, ingest: Ingest
) -> None:
    add_site(workspace, "north", SiteSettings(quiet_s=0, path=str(test_data / "dicom" / series)))
    add_site(workspace, "again", SiteSettings(quiet_s=0, path=str(tmp_path / "out")))
    workspace = open_workspace(workspace.uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ingest(workspace)
    export_site(workspace, "north", tmp_path / "out")
    ingest(workspace, "again")
    columns = ["volume_sha256", "stratum", "n_z", "n_t", "spacing_z_mm", "orientation", "manufacturer", "scanner_model"]
    north, again = (current_series(workspace, site).select(columns).to_pylist() for site in ("north", "again"))
    assert north
    assert sorted(map(repr, north)) == sorted(map(repr, again))


# -- the door


def test_a_uid_of_the_door_is_a_valid_one_and_tells_uids_and_keys_apart(north: Workspace) -> None:
    door = open_door(north)
    uids = {door.uid(f"1.2.3.{n}") for n in range(1000)}
    assert len(uids) == 1000
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 44 for uid in uids)
    other = Door(bytes(32), door.fingerprint, door.home)
    assert other.uid("1.2.3") != door.uid("1.2.3") == door.uid("1.2.3")


def test_patients_of_one_site_move_by_different_numbers_of_days(north: Workspace) -> None:
    door, day = open_door(north), date(2026, 1, 5)
    moved = {(day - door.shift_patient_date(f"{n:020x}", day)).days for n in range(500)}
    assert len(moved) > 400
    assert 366 <= min(moved) <= max(moved) <= 3652


def test_every_exported_file_opens_in_our_reader(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, out: Path
) -> None:
    files = write_ct(folder)
    ingest(north)
    export_site(north, "north", out)
    before = sorted((open_scan(file.read_bytes()).header for file in files), key=lambda h: h.frames[0].instance)
    after = sorted((open_scan(f.read_bytes()).header for f in out.rglob("*.dcm")), key=lambda h: h.frames[0].instance)
    assert after == before
