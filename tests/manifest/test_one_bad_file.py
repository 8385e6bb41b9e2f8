"""One file that cannot be read, of whatever kind, is named in the ledger and stops nobody else."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from platform_core import layout
from platform_core.errors import UnreadableScan
from platform_core.manifest.book import Entry
from platform_core.manifest.export import export_site
from platform_core.manifest.ledger import arrival_counts
from platform_core.manifest.place import MANY, enter, fetch
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.sources.contract import Item

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
Forbid = Callable[[str, int], None]

OTHER = "1.2.826.0.1.99.2"


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Forbid:
    """Lets the system refuse to open files of a name; rights alone would not stop the owner of the machine."""

    def forbidden(name: str, code: int) -> None:
        real = os.open

        def opened(path: Any, *args: Any, **kwargs: Any) -> int:
            if str(path).endswith(name):
                raise OSError(code, os.strerror(code), path)
            return real(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", opened)

    return forbidden


def outcomes(workspace: Workspace) -> Counter[tuple[str, str | None]]:
    told = Counter[tuple[str, str | None]]()
    for row in arrival_counts(workspace).to_pylist():
        told[row["outcome"], row["reason"]] += row["n"]
    return told


def pack(archive: Path, members: Sequence[Path]) -> Path:
    with ZipFile(archive, "w") as packed:
        for file in members:
            packed.write(file, file.name)
    return archive


def flip(file: Path, at: bytes) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(at)] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_opened_is_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, forbid: Forbid, code: int
) -> None:
    write_ct(folder)
    (folder / "locked").write_bytes(b"?")
    forbid("/locked", code)
    assert ingest(north).n_series == 1
    assert outcomes(north) == {("accepted", None): 4, ("quarantined", "unreadable_path"): 1}
    assert ingest(north).n_in == 0


def test_a_file_that_may_be_opened_at_last_is_held_no_longer(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, forbid: Forbid
) -> None:
    (file,) = write_ct(folder, (0,))
    allowed = os.open
    forbid("/IM0000", errno.EACCES)
    ingest(north)
    monkeypatch.setattr(os, "open", allowed)
    assert outcomes(north) == {("quarantined", "unreadable_path"): 1}
    file.chmod(0o600)
    assert ingest(north).n_accepted == 1
    assert outcomes(north) == {("accepted", None): 1}


def test_an_archive_that_may_not_be_opened_is_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, forbid: Forbid, tmp_path: Path
) -> None:
    write_ct(folder)
    pack(folder / "locked.zip", write_ct(tmp_path / "aside", SeriesInstanceUID=OTHER))
    forbid("/locked.zip", errno.EACCES)
    assert ingest(north).n_series == 1
    assert outcomes(north) == {("accepted", None): 4, ("quarantined", "unreadable_path"): 1}


def test_a_file_that_is_still_given_its_rights_is_left_to_the_next_run(
    workspace: Workspace, folder: Path, write_ct: WriteCT, forbid: Forbid
) -> None:
    from platform_core.manifest.ingest import discover

    add_site(workspace, "slow", SiteSettings(path=str(folder), quiet_s=60))
    write_ct(folder, (0,))
    forbid("/IM0000", errno.EACCES)
    here, at = open_workspace(workspace.uri), datetime.now(UTC)
    assert discover(here, "slow", run="r", at=at).n_new == 0


def test_a_member_that_was_damaged_since_it_was_taken_in_is_quarantined(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, tmp_path: Path
) -> None:
    archive = pack(folder / "x.zip", write_ct(tmp_path / "aside"))
    ingest(north)
    flip(archive, b"ACME")
    write_ct(folder / "more", SeriesInstanceUID=OTHER)
    assert ingest(north).n_accepted == 4
    assert outcomes(north) == {("accepted", None): 8, ("quarantined", "damaged_member"): 1}
    assert len(current_series(north, "north")) == 2
    assert ingest(north).n_in == 0


def test_a_damaged_member_stays_when_the_others_are_exported(
    north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest, tmp_path: Path
) -> None:
    archive = pack(folder / "x.zip", write_ct(tmp_path / "aside"))
    ingest(north)
    flip(archive, b"ACME")
    count = export_site(north, "north", tmp_path / "out")
    assert (count.n_files, count.n_changed) == (3, 1)


def test_an_object_that_is_refused_among_many_leaves_the_others(north: Workspace, folder: Path) -> None:
    """A place that hands out a whole series at once, as a DICOMweb server does, breaks off at one that it refuses."""
    for n in range(MANY + 2):
        (folder / str(n)).write_bytes(b"%d" % n)

    def open_all(_: SiteSettings, items: Sequence[Item]) -> Iterator[tuple[Item, bytes]]:
        yield items[0], b"0"
        raise UnreadableScan("object_too_large", "one of the others")

    def open_one(_: SiteSettings, address: str) -> bytes:
        if address == "3":
            raise UnreadableScan("object_too_large", "this one")
        return (folder / address).read_bytes()

    place = enter(north, "north", "r", datetime(2026, 2, 1, tzinfo=UTC))
    place = replace(place, source=replace(place.source, open=open_one, open_all=open_all))
    entries = [Entry(address=str(n), n_bytes=1, modified_ns=0) for n in range(MANY + 2)]
    told = {entry.address: data for entry, data in fetch(place, entries)}
    assert isinstance(told.pop("3"), UnreadableScan)
    assert told == {str(n): b"%d" % n for n in range(MANY + 2) if n != 3}


@pytest.fixture
def images(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A site of plain images with one sound image."""
    folder = tmp_path / "images"
    folder.mkdir()
    index = tmp_path / "index.csv"
    index.write_text("file,patient_id,acquired_on\na.png,P1,0001-01-01\n")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    settings = SiteSettings(quiet_s=0, source="image_folder", path=str(folder), modality="DX", index=str(index))
    add_site(workspace, "images", settings)
    return open_workspace(workspace.uri)


def test_a_day_before_all_imaging_is_no_day(images: Workspace, ingest: Ingest) -> None:
    assert ingest(images, "images").n_accepted == 1
    (series,) = images.lake.read(layout.SERIES).to_pylist()
    assert (series["acquired_on"], series["patient_known"]) == (None, True)


@pytest.mark.parametrize("kind", ["objects", "torn", "no stack"])
def test_an_archive_of_images_that_cannot_be_read_is_quarantined(
    images: Workspace, tmp_path: Path, ingest: Ingest, kind: str
) -> None:
    file = tmp_path / "images" / "bad.npz"
    stacks: dict[str, Any] = {
        "objects": np.array([object(), 1], dtype=object),
        "torn": np.random.default_rng(1).integers(0, 255, (5, 64, 64), dtype=np.uint8),
        "no stack": np.uint8(7),
    }
    np.savez_compressed(file, train_images=stacks[kind])
    if kind == "torn":
        flip(file, file.read_bytes()[file.stat().st_size // 2 :][:8])
    assert ingest(images, "images").n_accepted == 1
    assert outcomes(images) == {("accepted", None): 1, ("quarantined", "unreadable_archive"): 1}
