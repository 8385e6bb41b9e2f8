"""What becomes of files at the door, scenario by scenario, on series made by hand."""

import gzip
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset

from platform_core import layout
from platform_core.errors import BadSetting, LedgerOpen, NoSuchPlace, StorageUnavailable
from platform_core.imaging.nifti import volume_sha256
from platform_core.manifest.book import Book
from platform_core.manifest.door import open_door
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import arrival_counts, check_ledger, stage_counts
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
Slice = Callable[..., Dataset]

OTHER = "1.2.826.0.1.99.2"
AT = datetime(2026, 2, 1, tzinfo=UTC)


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workspace.lake.read(table).to_pylist()
    return found


def outcomes(workspace: Workspace) -> Counter[tuple[str, str | None]]:
    """The outcome in force of every arrival."""
    told = Counter[tuple[str, str | None]]()
    for row in arrival_counts(workspace).to_pylist():
        told[row["outcome"], row["reason"]] += row["n"]
    return told


def versions(workspace: Workspace) -> dict[str, int]:
    return {table: workspace.lake.version(table) for table in (layout.ARRIVAL, layout.SERIES, layout.STAGE)}


def save(file: Path, slice_: Dataset) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    slice_.save_as(file, enforce_file_format=True)


def test_a_series_becomes_a_volume_and_a_row(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    write_ct(folder / "deep" / "er")
    count = ingest(north)
    assert (count.n_in, count.n_accepted, count.n_series) == (4, 4, 1)
    (series,) = current_series(north, "north").to_pylist()
    assert (series["n_x"], series["n_y"], series["n_z"], series["n_t"]) == (6, 5, 4, 1)
    assert (series["spacing_x_mm"], series["spacing_y_mm"], series["spacing_z_mm"]) == (0.8, 0.7, 2.0)
    assert (series["geometry"], series["orientation"]) == ("regular", "LPS")
    assert series["stratum"] == "ct/chest/plain/smooth"
    assert series["patient_known"]
    volume = north.read_volume(series["volume_uri"])
    assert volume.voxels[:, 0, 0].tolist() == [-1024, -924, -824, -724]
    assert volume_sha256(volume) == series["volume_sha256"]
    assert stage_counts(north).to_pylist() == [
        {"site": "north", "stage": "ingest", "recipe": "native", "model": "", "outcome": "done", "reason": None, "n": 1}
    ]


def test_nothing_new_writes_nothing(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    write_ct(folder)
    (folder / "LICENSE").write_text("as you please")
    ingest(north)
    before, files = versions(north), sorted(Path(north.uri).rglob("*"))
    for _ in range(2):
        assert ingest(north).n_in == 0
    assert versions(north) == before
    assert sorted(Path(north.uri).rglob("*")) == files


def test_a_touched_file_is_not_new(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    files = write_ct(folder)
    ingest(north)
    before = versions(north)
    os.utime(files[0], (1, 1))
    assert discover(north, "north", run="r", at=AT).n_new == 0
    assert versions(north) == before


def test_a_lost_door_book_costs_work_and_no_second_series(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder)
    ingest(north)
    for file in open_door(north).home.glob("north.sqlite*"):
        file.unlink()
    assert ingest(north).n_accepted == 4
    assert len(rows(north, layout.SERIES)) == 1
    assert outcomes(north) == {("accepted", None): 4}


def test_a_door_book_without_its_tables_is_not_believed(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, tmp_path: Path
) -> None:
    """A workspace made anew with the same key must not find its scans known."""
    write_ct(folder)
    ingest(north)
    (Path(north.uri) / "lake").rename(tmp_path / "gone")
    assert ingest(open_workspace(north.uri)).n_accepted == 4


def test_a_shard_that_is_repeated_writes_nothing(north: Workspace, folder: Path, write_ct: WriteCT) -> None:
    write_ct(folder)
    found = discover(north, "north", run="r", at=AT)
    assert ingest_shard(north, "north", found.shards[0], run="r", at=AT).n_accepted == 4
    before = versions(north)
    assert ingest_shard(north, "north", found.shards[0], run="r", at=AT).n_in == 0
    assert versions(north) == before
    check_ledger(north, "north", "r", found.n_new)


def test_a_shard_that_is_left_out_opens_the_ledger(north: Workspace, folder: Path, write_ct: WriteCT) -> None:
    write_ct(folder)
    found = discover(north, "north", run="r", at=AT)
    with pytest.raises(LedgerOpen) as gap:
        check_ledger(north, "north", "r", found.n_new)
    assert (gap.value.n_in, gap.value.n_out) == (4, 0)


def test_whole_series_go_into_shards(north: Workspace, folder: Path, write_ct: WriteCT) -> None:
    for n in range(70):
        write_ct(folder / str(n), (0, 2), SeriesInstanceUID=f"1.2.3.{n}")
    found = discover(north, "north", run="r", at=AT)
    assert (found.n_listed, found.n_new, len(found.shards)) == (140, 140, 2)
    assert ingest_shard(north, "north", found.shards[0], run="r", at=AT).n_series == 64


def test_bad_files_beside_good_ones_are_named_and_stop_nothing(
    north: Workspace, folder: Path, write_ct: WriteCT, make_slice: Slice, ingest: Ingest
) -> None:
    write_ct(folder / "good")
    cut = write_ct(folder / "cut", SeriesInstanceUID=OTHER)[2]
    cut.write_bytes(cut.read_bytes()[:-10])
    (folder / "README.txt").write_text("not a scan")
    (folder / "broken.dcm").write_text("says it is a scan")
    (folder / "magic").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    (folder / "empty").write_bytes(b"")
    save(folder / "report", make_slice(0, (0, 0, 0), Modality="SR", SeriesInstanceUID="1.2.3"))
    count = ingest(north)
    assert (count.n_series, count.n_refused) == (1, 1)
    told = outcomes(north)
    assert told.pop(("accepted", None)) == 4
    assert told.pop(("quarantined", "truncated")) == 4
    assert told.pop(("ignored", "not_an_image")) == 1
    assert told.pop(("ignored", "not_dicom")) == 2
    assert told.total() == 2
    assert {outcome for outcome, _ in told} == {"quarantined"}


def test_a_missing_slice_is_quarantined_and_its_arrival_heals_it(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    files = write_ct(folder, (0, 2, 4, 6, 8))
    late = files[2].read_bytes()
    files[2].unlink()
    assert ingest(north).n_refused == 1
    assert outcomes(north) == {("quarantined", "missing_slices"): 4}
    (refused,) = rows(north, layout.SERIES)
    assert (refused["geometry"], refused["volume_uri"], refused["revision"]) == ("missing_slices", None, 1)
    files[2].write_bytes(late)
    count = ingest(north)
    assert (count.n_in, count.n_accepted, count.n_series, count.n_new_revisions) == (1, 1, 1, 1)
    assert outcomes(north) == {("accepted", None): 5}
    (healed,) = current_series(north, "north").to_pylist()
    assert (healed["series_key"], healed["revision"], healed["n_z"]) == (refused["series_key"], 2, 5)


def test_late_slices_make_a_new_revision_and_the_old_volume_stays(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, (0, 2, 4))
    ingest(north)
    (first,) = current_series(north, "north").to_pylist()
    write_ct(folder, (0, 2, 4, 6))
    assert ingest(north).n_new_revisions == 1
    (second,) = current_series(north, "north").to_pylist()
    assert (second["revision"], second["n_z"]) == (2, 4)
    assert north.read_volume(first["volume_uri"]).size[2] == 3
    assert stage_counts(north).to_pylist()[0]["n"] == 1


def test_a_late_slice_waits_if_the_earlier_ones_are_gone_from_the_source(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    """Alone it would replace a whole volume by one slice."""
    files = write_ct(folder, z_mm=(0, 2, 4, 6, 8))
    late = files[4].read_bytes()
    files[4].unlink()
    assert ingest(north).n_series == 1
    for file in files[:4]:
        file.unlink()
    files[4].write_bytes(late)
    count = ingest(north)
    assert (count.n_waiting, count.n_new_revisions) == (1, 0)
    assert [row["revision"] for row in north.lake.read(layout.SERIES).to_pylist()] == [1]


def test_a_late_slice_that_leaves_a_gap_leaves_the_sound_revision_in_force(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, (0, 2, 4))
    ingest(north)
    (folder / "IM0003").write_bytes(write_ct(folder.parent / "aside", (0, 2, 4, 8))[3].read_bytes())
    assert ingest(north).n_refused == 1
    (series,) = current_series(north, "north").to_pylist()
    assert (series["revision"], series["n_z"]) == (1, 3)
    assert outcomes(north) == {("accepted", None): 3, ("quarantined", "missing_slices"): 1}


def test_a_corrected_file_makes_a_new_revision(
    north: Workspace, folder: Path, write_ct: WriteCT, make_slice: Slice, ingest: Ingest
) -> None:
    files = write_ct(folder)
    ingest(north)
    corrected = make_slice(1, (-10, 5, 2), np.full((5, 6), 7), SOPInstanceUID="1.2.826.0.1.99.1.2")
    save(files[1], corrected)
    assert ingest(north).n_new_revisions == 1
    (series,) = current_series(north, "north").to_pylist()
    assert north.read_volume(series["volume_uri"]).voxels[1, 0, 0] == 7 - 1024


def test_an_equal_copy_is_a_duplicate(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    files = write_ct(folder)
    (folder / "copy").write_bytes(files[0].read_bytes())
    ingest(north)
    assert outcomes(north) == {("accepted", None): 4, ("duplicate", "same_pixels"): 1}
    (folder / "AAA").write_bytes(files[1].read_bytes())
    assert ingest(north).n_duplicate == 1
    assert outcomes(north) == {("accepted", None): 4, ("duplicate", "same_pixels"): 2}
    assert len(rows(north, layout.SERIES)) == 1


def test_copies_that_differ_are_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, make_slice: Slice, ingest: Ingest
) -> None:
    write_ct(folder)
    save(folder / "other", make_slice(1, (-10, 5, 2), np.full((5, 6), 7), SOPInstanceUID="1.2.826.0.1.99.1.2"))
    ingest(north)
    assert outcomes(north) == {("quarantined", "conflicting_copies"): 5}


def test_a_broken_copy_beside_a_sound_one_spoils_nothing(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    files = write_ct(folder)
    (folder / "copy").write_bytes(files[0].read_bytes()[:-9])
    ingest(north)
    assert outcomes(north) == {("accepted", None): 4, ("quarantined", "truncated"): 1}


def test_a_series_of_two_patients_is_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, make_slice: Slice, ingest: Ingest
) -> None:
    write_ct(folder, (0, 2))
    save(folder / "third", make_slice(2, (-10, 5, 4), PatientID="HOSP-0815"))
    ingest(north)
    assert outcomes(north) == {("quarantined", "conflicting_patients"): 3}


def test_parts_keep_their_keys_when_a_new_part_sorts_before_them(
    north: Workspace, folder: Path, make_slice: Slice, ingest: Ingest
) -> None:
    for place in range(2):
        save(folder / f"b{place}", make_slice(place, (0, 0, 2 * place), SeriesNumber=2))
    ingest(north)
    (before,) = current_series(north, "north").to_pylist()
    for place in range(3):
        save(folder / f"a{place}", make_slice(9 + place, (0, 0, 2 * place), SeriesNumber=1))
    count = ingest(north)
    assert (count.n_series, count.n_new_revisions) == (2, 0)
    after = {row["series_key"]: row for row in current_series(north, "north").to_pylist()}
    assert len(after) == 2
    assert after[before["series_key"]]["volume_sha256"] == before["volume_sha256"]


def test_patients_without_a_number_are_told_apart_by_study_and_marked(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    for n, study in enumerate(("1.1", "1.1", "1.2")):
        write_ct(folder / str(n), (0, 2), PatientID="", StudyInstanceUID=study, SeriesInstanceUID=f"1.2.3.{n}")
    ingest(north)
    found = rows(north, layout.SERIES)
    assert not any(row["patient_known"] for row in found)
    assert sorted(Counter(row["patient_key"] for row in found).values()) == [1, 2]


def test_sites_share_patients_only_through_an_issuer(
    workspace: Workspace, tmp_path: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    for site, issuer in (("a", "trust"), ("b", "trust"), ("c", None)):
        write_ct(tmp_path / "scans" / site, (0, 2))
        add_site(workspace, site, SiteSettings(quiet_s=0, path=str(tmp_path / "scans" / site), issuer=issuer))
    fresh = open_workspace(workspace.uri)
    for site in "abc":
        ingest(fresh, site)
    found = {row["site"]: row for row in rows(fresh, layout.SERIES)}
    assert found["a"]["patient_key"] == found["b"]["patient_key"] != found["c"]["patient_key"]
    assert found["a"]["series_key"] != found["b"]["series_key"]


def test_dates_move_by_whole_weeks(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    write_ct(folder / "a", (0, 2), SeriesInstanceUID="1.1", AcquisitionDate="20260106")
    write_ct(folder / "b", (0, 2), SeriesInstanceUID="1.2", AcquisitionDate="20260117")
    write_ct(folder / "c", (0, 2), SeriesInstanceUID="1.3", AcquisitionDate="00010101", StudyDate=None)
    ingest(north)
    found = rows(north, layout.SERIES)
    days = sorted(row["acquired_on"] for row in found if row["acquired_on"])
    assert [day.weekday() for day in days] == [1, 5]
    assert (days[1] - days[0]).days == 11
    assert days[1].year < 2026
    (unstated,) = (row for row in found if row["acquired_on"] is None)
    assert unstated["observed_on"] == open_door(north).shift_date("north", datetime(2026, 2, 1, tzinfo=UTC).date())


def test_a_scanner_whose_clock_runs_ahead_is_dated_by_the_day_of_arrival(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    """A scan of 2099 would be the site's latest period until 2099."""
    write_ct(folder / "a", (0, 2), SeriesInstanceUID="1.1", AcquisitionDate="20990101")
    write_ct(folder / "b", (0, 2), SeriesInstanceUID="1.2", AcquisitionDate="20260202")
    ingest(north)
    found = sorted(rows(north, layout.SERIES), key=lambda row: row["acquired_on"])
    moved = open_door(north).shift_date
    assert [row["observed_on"] for row in found] == [
        moved("north", datetime(2026, 2, day, tzinfo=UTC).date()) for day in (2, 1)
    ], "one day ahead is another time zone"
    assert found[1]["acquired_on"] == moved("north", datetime(2099, 1, 1, tzinfo=UTC).date()), "what it says is kept"


def test_radiographs_are_plain_images_of_their_own(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder, (0, 0), Modality="DX", ImagePositionPatient=None, ImageOrientationPatient=None, ViewPosition="PA")
    ingest(north)
    found = current_series(north, "north").to_pylist()
    assert [(row["geometry"], row["n_z"], row["spacing_x_mm"], row["view"]) for row in found] == [
        ("plain", 1, None, "PA")
    ] * 2
    assert sorted((row["part"], row["n_parts"]) for row in found) == [(0, 2), (1, 2)]


def test_a_file_that_is_gone_waits(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    files = write_ct(folder, (0, 2, 4))
    found = discover(north, "north", run="20260101T000000-a", at=AT)
    last = files[2].read_bytes()
    files[2].unlink()
    count = ingest_shard(north, "north", found.shards[0], run="20260101T000000-a", at=AT)
    assert (count.n_accepted, count.n_waiting) == (2, 1)
    check_ledger(north, "north", "20260101T000000-a", found.n_new)
    files[2].write_bytes(last)
    assert ingest(north).n_accepted == 1


def test_no_identity_is_found_in_the_workspace(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder / "Musterfrau, Erika" / "Thorax")
    write_ct(folder / "bad", (0, 2, 8), SeriesInstanceUID=OTHER)
    (folder / "letter to Erika.txt").write_text("Dear Mrs Musterfrau")
    ingest(north)
    secrets = [b"HOSP-4711", b"Musterfrau", b"Erika", b"Musterstadt", b"1.2.826.0.1.99", b"IM0000", b"20260106"]
    told = everything(Path(north.uri))
    assert len(told) > 8
    assert [(name, secret) for name, data in told.items() for secret in secrets if secret in data + name.encode()] == []


def everything(root: Path) -> dict[str, bytes]:
    """All files under a folder by name; tables and volumes as plain text."""
    told = {}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        data = file.read_bytes()
        if file.suffix == ".gz":
            data += gzip.decompress(data)
        if file.suffix == ".parquet":
            data += str(pq.read_table(file).to_pylist()).encode()
        told[str(file.relative_to(root))] = data
    return told


def test_a_missing_folder_is_said_to_be_missing(workspace: Workspace) -> None:
    add_site(workspace, "nowhere", SiteSettings(quiet_s=0, path="/no/such/place"))
    with pytest.raises(NoSuchPlace, match="/no/such/place: expected a folder with scans"):
        discover(open_workspace(workspace.uri), "nowhere", run="r", at=AT)


def test_an_empty_folder_has_nothing_to_list(north: Workspace) -> None:
    found = discover(north, "north", run="r", at=AT)
    assert (found.n_listed, found.n_new, found.shards) == (0, 0, ())
    check_ledger(north, "north", "r", 0)


def test_plain_images_need_a_stated_modality(workspace: Workspace, tmp_path: Path) -> None:
    add_site(workspace, "x", SiteSettings(quiet_s=0, source="image_folder", path=str(tmp_path)))
    with pytest.raises(BadSetting, match="modality"):
        discover(open_workspace(workspace.uri), "x", run="r", at=AT)


def test_a_series_that_is_still_arriving_waits_whole_and_keeps_its_arrivals(
    workspace: Workspace, folder: Path, write_ct: WriteCT
) -> None:
    add_site(workspace, "slow", SiteSettings(path=str(folder), quiet_s=60))
    here = open_workspace(workspace.uri)
    write_ct(folder / "a")
    write_ct(folder / "b", SeriesInstanceUID=OTHER)
    for minute, outcome in ((0, "waiting"), (2, "accepted")):
        at = datetime.now(UTC) + timedelta(minutes=minute)
        run = f"{at:%Y%m%dT%H%M%S}-m{minute}"
        found = discover(here, "slow", run=run, at=at)
        for shard in found.shards:
            ingest_shard(here, "slow", shard, run=run, at=at)
        check_ledger(here, "slow", run, found.n_new)
        assert {key[0] for key in outcomes(here)} == {outcome}
    assert outcomes(here).total() == 8


def test_a_discovery_that_breaks_off_and_is_repeated_closes_the_ledger(
    north: Workspace, folder: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an orchestrator does: the same call again, of the same run."""
    write_ct(folder)
    (folder / "LICENSE").write_text("as you please")
    with monkeypatch.context() as broken:
        broken.setattr(Book, "put_shards", _unavailable)
        with pytest.raises(StorageUnavailable):
            discover(north, "north", run="r", at=AT)
    found = discover(north, "north", run="r", at=AT)
    ingest_shard(north, "north", found.shards[0], run="r", at=AT)
    check_ledger(north, "north", "r", found.n_new)
    assert found.n_new == 5


def _unavailable(*_: object) -> None:
    raise StorageUnavailable("s3://somewhere", "503")
