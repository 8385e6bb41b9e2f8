"""Masks are taken in row by row: what cannot be used is told with its line and numbers, the others go on."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platform_core import layout
from platform_core.errors import NoSuchPlace, SchemaMismatch
from platform_core.imaging.nifti import encode_volume
from platform_core.imaging.volume import Geometry, Volume
from platform_core.lineage.plan import plan_withdrawal
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.labels import read_labels
from platform_core.manifest.masks import MaskCount, import_masks, masks_in_force
from platform_core.manifest.orphans import orphans
from platform_core.manifest.workspace import Workspace
from tests.conftest import configured

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
TARGET = """
[target.lesion]
label = "lesion"
task = "segmentation"
modality = "CT"
source_site = "north"
classes = ["nothing", "lesion"]
network = "unet_tiny"
grid = [16, 16, 16]
"""


@pytest.fixture
def scanned(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> Workspace:
    """A site with three series of two slices each, and a segmentation."""
    for n in range(3):
        uids = {"SeriesInstanceUID": f"1.2.{n}", "StudyInstanceUID": f"1.{n}", "PatientID": f"P{n}"}
        write_ct(folder / str(n), (0, 2), **uids)
    found = configured(north, TARGET)
    ingest(found)
    return found


@pytest.fixture
def volume(scanned: Workspace) -> Volume:
    """One of the scans: all three have the same grid."""
    return scanned.read_volume(scanned.lake.read(layout.SERIES).to_pylist()[0]["volume_uri"])


@pytest.fixture
def draw(volume: Volume, tmp_path: Path) -> Callable[..., str]:
    """Writes a mask and returns its name: one marked voxel, unless it is told otherwise."""

    def draw(name: str, *, value: float = 1, geometry: Geometry | None = volume.geometry, n_z: int = 2) -> str:
        voxels = np.zeros((n_z, *volume.voxels.shape[1:]), dtype=np.float32)
        voxels[0, 1, 2] = value
        (tmp_path / name).write_bytes(encode_volume(Volume(voxels, geometry)))
        return name

    return draw


@pytest.fixture
def give(scanned: Workspace, tmp_path: Path) -> Callable[..., MaskCount]:
    """Imports the text of a CSV as the masks of `north`."""

    def give(text: str, run: str = "r1") -> MaskCount:
        file = tmp_path / "masks.csv"
        file.write_text(text)
        return import_masks(scanned, "north", "lesion", file, run=run)

    return give


Give = Callable[..., MaskCount]
Draw = Callable[..., str]


def stored(workspace: Workspace) -> list[Volume]:
    return [workspace.read_volume(uri) for uri in masks_in_force(workspace, "lesion", "north").values()]


def test_a_mask_is_a_reading_of_its_series(give: Give, draw: Draw, scanned: Workspace, volume: Volume) -> None:
    count = give(f"series_uid,mask_file,reader\n1.2.0,{draw('a.nii.gz')},Dr Who\n1.2.1,,\n9.9,{draw('b.nii.gz')},\n")
    assert (count.n_rows, count.n_taken, count.n_not_stated, count.n_unknown, count.refused) == (3, 1, 1, 1, ())
    (row,) = scanned.lake.read(layout.LABEL).to_pylist()
    assert row["value"] == "lesion"
    assert "Who" not in row["reader"]
    (mask,) = stored(scanned)
    assert mask.geometry == volume.geometry
    assert np.argwhere(mask.voxels).tolist() == [[0, 1, 2]]
    assert list(read_labels(scanned, "lesion", "north").values()) == [1]


def test_each_bad_row_is_told_and_the_good_one_goes_in(
    give: Give, draw: Draw, tmp_path: Path, volume: Volume, scanned: Workspace
) -> None:
    assert volume.geometry is not None
    moved = Geometry(volume.geometry.spacing_mm, (99.0, 0.0, 0.0), volume.geometry.direction)
    (tmp_path / "torn.nii.gz").write_bytes(b"\x1f\x8bno")
    Image.fromarray(np.full((4, 4, 3), (9, 200, 30), dtype=np.uint8)).save(tmp_path / "colour.png")
    rows = [
        f"1.2.0,{draw('moved.nii.gz', geometry=moved)},",
        f"1.2.0,{draw('thin.nii.gz', n_z=1)},",
        f"1.2.0,{draw('three.nii.gz', value=3)},",
        f"1.2.0,{draw('nan.nii.gz', value=float('nan'))},",
        "1.2.0,nowhere.nii.gz,",
        "1.2.0,torn.nii.gz,",
        "1.2.0,colour.png,",
        f"1.2.0,{draw('denied.nii.gz')},nothing",
        f"1.2.1,{draw('good.nii.gz')},lesion",
    ]
    count = give("series_uid,mask_file,value\n" + "\n".join(rows))
    assert [(one.line, one.reason) for one in count.refused] == [
        (2, "other_grid"),
        (3, "other_grid"),
        (4, "unknown_values"),
        (5, "unknown_values"),
        (6, "mask_missing"),
        (7, "mask_unreadable"),
        (8, "mask_unreadable"),
        (9, "contradicts_value"),
    ]
    assert (count.n_taken, len(stored(scanned)), count.needs_a_person) == (1, 1, True)
    assert "99.0" in count.refused[0].detail
    assert "found 0, 3" in count.refused[2].detail
    assert not any(name in count.summary for name in ("moved", "nowhere", "torn", "1.2.0"))


def test_a_mask_whose_row_says_what_cannot_be_kept_is_refused(give: Give, draw: Draw, scanned: Workspace) -> None:
    name = draw("a.nii.gz")
    rows = (f"1.2.0,{name},0,", f"1.2.1,{name},-3,", f"1.2.1,{name},inf,", f"1.2.2,{name},1,Doe^Erika")
    count = give("series_uid,mask_file,sampling_probability,guideline\n" + "\n".join(rows) + f"\n1.2.2,{name},0.5,\n")
    assert [(one.line, one.reason) for one in count.refused] == [(n, "unusable_value") for n in (2, 3, 4, 5)]
    assert [row["sampling_probability"] for row in scanned.lake.read(layout.LABEL).to_pylist()] == [0.5]
    assert "Erika" not in count.summary


def test_an_empty_mask_says_that_nothing_is_there(give: Give, draw: Draw, scanned: Workspace) -> None:
    count = give(f"series_uid,mask_file,value\n1.2.0,{draw('empty.nii.gz', value=0)},nothing\n")
    assert (count.n_empty, count.by_value, count.refused) == (1, {"nothing": 1}, ())
    assert "1 masks are empty" in count.summary
    assert list(read_labels(scanned, "lesion", "north").values()) == [0]


def test_a_white_picture_means_foreground(give: Give, draw: Draw, scanned: Workspace) -> None:
    assert give(f"series_uid,mask_file\n1.2.0,{draw('white.nii.gz', value=255)}\n").n_taken == 1
    assert int(stored(scanned)[0].voxels.max()) == 1


def test_the_same_import_writes_nothing_and_a_new_mask_supersedes(give: Give, draw: Draw, scanned: Workspace) -> None:
    text = f"series_uid,mask_file,reader\n1.2.0,{draw('a.nii.gz')},x\n"
    assert give(text).n_written == 1
    assert give(text, run="r2").n_written == 0
    before = masks_in_force(scanned, "lesion", "north")
    draw("a.nii.gz", value=0)
    assert give(text, run="r3").n_written == 1
    after = masks_in_force(scanned, "lesion", "north")
    assert before.keys() == after.keys()
    assert before != after
    assert not stored(scanned)[0].voxels.any()


def test_the_adjudicators_mask_stands_above_a_later_one(give: Give, draw: Draw, scanned: Workspace) -> None:
    give(f"series_uid,mask_file,reader\n1.2.0,{draw('a.nii.gz')},adjudicator\n")
    give(f"series_uid,mask_file,reader\n1.2.0,{draw('b.nii.gz', value=0)},x\n", run="r2")
    assert stored(scanned)[0].voxels.any()


def test_a_later_mask_that_contradicts_the_label_in_force_is_not_in_force(
    give: Give, draw: Draw, scanned: Workspace
) -> None:
    file = draw("a.nii.gz")
    give(f"series_uid,mask_file,reader\n1.2.0,{file},x\n1.2.0,{file},y\n")
    give(f"series_uid,mask_file,reader\n1.2.0,{draw('b.nii.gz', value=0)},z\n", run="r2")
    assert list(read_labels(scanned, "lesion", "north").values()) == [1]
    (mask,) = stored(scanned)
    assert mask.voxels.any()


def test_readers_who_contradict_one_another_evenly_leave_no_mask(give: Give, draw: Draw, scanned: Workspace) -> None:
    give(f"series_uid,mask_file,reader\n1.2.0,{draw('a.nii.gz')},x\n1.2.0,{draw('b.nii.gz', value=0)},y\n")
    assert stored(scanned) == []


def test_missing_files_and_columns_are_named(give: Give, scanned: Workspace) -> None:
    with pytest.raises(SchemaMismatch, match="mask_file"):
        give("series_uid,value\n1.2.0,lesion\n")
    with pytest.raises(NoSuchPlace):
        import_masks(scanned, "north", "lesion", Path("/no/such.csv"), run="r")


def test_masks_are_no_orphans_and_are_withdrawn_with_their_patient(give: Give, draw: Draw, scanned: Workspace) -> None:
    at = datetime(2099, 1, 1, tzinfo=UTC)
    rows = "".join(f"1.2.{n},{draw(f'{n}.nii.gz')}\n" for n in range(3))
    assert give(f"series_uid,mask_file\n{rows}").n_taken == 3
    assert orphans(scanned, before=at) == []
    plan = plan_withdrawal(scanned, "north", "P1", run="w", at=at)
    assert withdraw(scanned, plan, at=at).has_ended
    left = [path for path in scanned.objects.list(layout.VOLUMES) if "/masks/" in path]
    assert sorted(left) == sorted(masks_in_force(scanned, "lesion", "north").values())
    assert len(left) == 2
