"""A folder of all that can be wrong: nothing stops, each file ends once, the good scan beside them is taken in."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core import layout
from platform_core.manifest.ingest import Discovery, discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.workspace import Workspace
from tests.dicom import corpus
from tests.dicom.corpus import BY_NAME, CODINGS, Coding, depth
from tests.dicom.test_fuzz import BOMBS, changed

WriteCT = Callable[..., list[Path]]
OUTCOMES = {"accepted", "duplicate", "quarantined", "waiting", "ignored"}
REASON = re.compile(r"[a-z][a-z0-9_]+")
NAMES = (
    b"line\nbreak",
    b"#1!2",
    b"a!b.zip!c",
    b"\xff\xfe.dcm",
    b" ",
    b"%2e%2e",
    b"'; DROP",
    b"x" * 255,
    b"-rf",
    b"$(id)",
)
SPOILT_SEEDS = 60
LATER = datetime(2101, 1, 1, tzinfo=UTC)
"""Long after every file was written, so that none of them is still arriving."""
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workspace.lake.read(table).to_pylist()
    return found


def take_in(workspace: Workspace, run: str) -> Discovery:
    """Ingest once and close the ledger."""
    found = discover(workspace, "north", run=run, at=LATER)
    for shard in found.shards:
        ingest_shard(workspace, "north", shard, run=run, at=LATER)
    check_ledger(workspace, "north", run, found.n_new)
    return found


def scan(series: int, coding: Coding | None = None) -> bytes:
    """A sound file of a series of its own."""
    how, uid = depth(16, 16) if coding else depth(12, 16), f"{corpus.ROOT}.9.{series}"
    plane = corpus.noise((6, 8), how)
    if coding is None:
        return corpus.file_of(plane, how, SeriesInstanceUID=uid)
    return corpus.compressed_file([plane], coding, how, SeriesInstanceUID=uid)


@cache
def bad_files() -> tuple[bytes, ...]:
    return tuple(_bad_files())


def _bad_files() -> Iterator[bytes]:
    codings = [None, *(coding for coding in CODINGS if depth(16, 16) in coding.depths)]
    for seed in range(SPOILT_SEEDS):
        whole = scan(seed, codings[seed % len(codings)])
        rng = np.random.default_rng(seed)
        yield changed(whole, rng)
        yield scan(1000 + seed, codings[seed % len(codings)])[: int(rng.integers(0, len(whole)))]
    for name, build in BOMBS.items():
        if not name.startswith(("sound", "deflated zeros")):
            yield build()
    yield from (b"", b"\x00", bytes(1000), bytes(128) + b"DICM", b"PK\x03\x04" + bytes(40), b"\x1f\x8b" + bytes(40))


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    """The folder, full of bad files, odd names, links and pipes."""
    for number, data in enumerate(bad_files()):
        (folder / f"bad{number:04d}{('', '.dcm', '.zip')[number % 3]}").write_bytes(data)
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(scan(5000 + number))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(scan(7000))
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "self").symlink_to(folder / "self")
    (folder / "leads_out").symlink_to(outside / "secret")
    (folder / "folder_out").symlink_to(outside)
    (folder / "cycle").symlink_to(folder)
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder / "deep")
    os.mkfifo(folder / "pipe")
    return folder


def test_every_bad_file_ends_once_and_the_good_scan_is_taken_in(
    north: Workspace, spoilt: Path, write_ct: WriteCT
) -> None:
    write_ct(spoilt / "good")
    found = take_in(north, "r")
    arrivals = rows(north, layout.ARRIVAL)
    assert len(arrivals) == found.n_listed == found.n_new
    assert max(Counter(row["arrival_key"] for row in arrivals).values()) == 1
    assert {row["outcome"] for row in arrivals} <= OUTCOMES
    for row in arrivals:
        assert row["reason"] is None if row["outcome"] == "accepted" else REASON.fullmatch(row["reason"]), row
    assert len(arrivals) >= len(bad_files()) + len(NAMES) + 4
    good = [row for row in rows(north, layout.SERIES) if row["n_z"] == 4]
    assert [(row["n_files"], row["geometry"], row["n_x"]) for row in good] == [(4, "regular", 6)]
    assert sum(row["series_key"] == good[0]["series_key"] for row in arrivals) == 4


def test_what_lies_outside_the_folder_is_not_taken_in(north: Workspace, spoilt: Path) -> None:
    take_in(north, "r")
    before = {row["arrival_key"]: row for row in rows(north, layout.ARRIVAL)}
    reasons = Counter(row["reason"] for row in before.values())
    assert reasons["link_leads_out"] >= 1, reasons
    n_named = sum(row["outcome"] == "accepted" for row in before.values())
    assert n_named >= len(NAMES) - 2, "odd names hide sound scans"


def test_bad_files_are_known_the_second_time(north: Workspace, spoilt: Path, write_ct: WriteCT) -> None:
    write_ct(spoilt / "good")
    take_in(north, "first")
    before = rows(north, layout.ARRIVAL)
    assert take_in(north, "second").n_new == 0
    assert rows(north, layout.ARRIVAL) == before


@pytest.mark.parametrize("name", ["rle", "jpeg sv1", "jpeg-ls", "jpeg 2000", "htj2k"])
def test_a_cut_compressed_scan_is_quarantined_not_filled_up(north: Workspace, folder: Path, name: str) -> None:
    data = scan(1, BY_NAME[name])
    (folder / "cut").write_bytes(data[:-40])
    take_in(north, "r")
    assert [row["outcome"] for row in rows(north, layout.ARRIVAL)] == ["quarantined"]
