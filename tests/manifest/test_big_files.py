"""Files that are no scans are told by their beginning: a disk image among the scans must not fill the memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest import discovery
from platform_core.manifest import place as places
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
MIB = 1 << 20


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of files that were read whole."""
    told: list[str] = []
    source = SOURCES["folder"]

    def read(settings: SiteSettings, address: str) -> bytes:
        told.append(address)
        return source.open(settings, address)

    monkeypatch.setattr(places, "SOURCES", {"folder": replace(source, open=read)})
    return told


def sparse(file: Path, n_bytes: int, head: bytes = b"") -> None:
    with file.open("wb") as out:
        out.write(head)
        out.truncate(n_bytes)


@pytest.mark.parametrize(
    ("name", "head", "outcome"),
    [
        ("disk.img", b"", ("ignored", "not_dicom")),
        ("disk.dcm", b"", ("quarantined", "not_dicom")),
        ("report", bytes(128) + b"DICM", ("quarantined", "unreadable_header")),
    ],
)
def test_a_large_file_that_is_no_scan_is_not_read_whole(
    north: Workspace, folder: Path, ingest: Ingest, opened: list[str], name: str, head: bytes, outcome: tuple[str, str]
) -> None:
    sparse(folder / name, discovery.HASHED_BYTES + 1, head)
    ingest(north)
    (row,) = north.lake.read(layout.ARRIVAL).to_pylist()
    assert (row["outcome"], row["reason"], row["n_bytes"]) == (*outcome, discovery.HASHED_BYTES + 1)
    assert opened == ([] if not head else [name])
    assert ingest(north).n_in == 0


def test_a_small_file_that_is_no_scan_is_told_by_its_bytes(
    north: Workspace, folder: Path, ingest: Ingest, opened: list[str]
) -> None:
    """Else a changed one could not be told from a touched one."""
    (folder / "LICENSE").write_text("as you please")
    ingest(north)
    (row,) = north.lake.read(layout.ARRIVAL).to_pylist()
    assert (row["reason"], len(row["content_sha256"]), opened) == ("not_dicom", 64, ["LICENSE"])
