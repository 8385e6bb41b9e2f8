"""Late files of a series whose earlier files are gone, come back or lie elsewhere: none is lost or waits for ever."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]


def depth(workspace: Workspace) -> list[int]:
    return [row["n_z"] for row in current_series(workspace, "north").to_pylist()]


def test_a_late_file_that_is_touched_while_it_waits_is_taken_in_when_the_earlier_ones_are_back(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, tmp_path: Path
) -> None:
    files = write_ct(folder)
    ingest(north)
    files[0].rename(tmp_path / "away")
    late = write_ct(tmp_path / "aside", (0, 2, 4, 6, 8))[4].rename(folder / "late")
    assert ingest(north).n_waiting == 1
    (tmp_path / "away").rename(files[0])
    late.write_bytes(late.read_bytes())
    os.utime(late, (1, 1))
    assert ingest(north).n_accepted == 1
    assert depth(north) == [5]


def test_a_file_that_was_gone_before_it_was_read_holds_nothing_up(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    """As an upload under another name that is renamed when it is done."""
    files = write_ct(folder)
    upload = folder / "IM0003.part"
    upload.write_bytes(files[3].read_bytes())
    for n in range(2):
        run, at = f"20260101T00000{n}-gone", datetime(2026, 1, 1 + n, tzinfo=UTC)
        found = discover(north, "north", run=run, at=at)
        upload.unlink(missing_ok=True)
        for shard in found.shards:
            ingest_shard(north, "north", shard, run=run, at=at)
        check_ledger(north, "north", run, found.n_new)
    write_ct(folder, (0, 2, 4, 6, 8))
    assert ingest(north).n_waiting == 0
    assert depth(north) == [5]


def test_a_renamed_folder_holds_nothing_up(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> None:
    write_ct(folder / "a")
    ingest(north)
    (folder / "a").rename(folder / "b")
    count = ingest(north)
    assert (count.n_accepted, count.n_waiting, count.n_new_revisions) == (4, 0, 0)
    write_ct(folder / "b", (0, 2, 4, 6, 8))
    assert ingest(north).n_new_revisions == 1
    assert depth(north) == [5]


def test_a_corrected_series_in_place_of_the_one_that_was_removed_holds_nothing_up(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest
) -> None:
    write_ct(folder / "a")
    ingest(north)
    for file in (folder / "a").iterdir():
        file.unlink()
    write_ct(folder / "b", BodyPartExamined="HEAD")
    assert ingest(north).n_new_revisions == 1
    (series,) = current_series(north, "north").to_pylist()
    assert (series["body_part"], series["n_z"]) == ("HEAD", 4)


@pytest.mark.parametrize("n_back", [0, 2, 3])
def test_a_part_of_a_series_in_place_of_all_of_it_still_waits(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, n_back: int
) -> None:
    files = write_ct(folder / "a")
    ingest(north)
    write_ct(folder / "b", (0, 2, 4, 6, 8))
    for file in (*files, *sorted((folder / "b").iterdir())[n_back:4]):
        file.unlink()
    count = ingest(north)
    assert (count.n_waiting, count.n_new_revisions) == (n_back + 1, 0)
    assert [row["n_z"] for row in north.lake.read(layout.SERIES).to_pylist()] == [4]
