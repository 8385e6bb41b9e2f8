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
