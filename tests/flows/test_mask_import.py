"""`sitedrift label import` of a segmentation: masks go in, bad rows are told, and the exit code says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from platform_core import layout
from platform_core.imaging.nifti import encode_volume
from platform_core.imaging.volume import Volume
from platform_core.manifest.masks import masks_in_force
from platform_core.manifest.workspace import Workspace
from tests.conftest import configured

TARGET = """
[target.lesion]
label = "lesion"
task = "segmentation"
modality = "CT"
source_site = "north"
network = "unet_tiny"
grid = [16, 16, 16]
"""


@pytest.fixture
def drawn(
    north: Workspace, folder: Path, write_ct: Callable[..., list[Path]], ingest: Callable[..., Any], tmp_path: Path
) -> Workspace:
    """Two scans that were taken in, and a mask of theirs beside the CSV."""
    for n in range(2):
        write_ct(folder / str(n), (0, 2), SeriesInstanceUID=f"1.2.{n}", PatientID=f"P-{n}")
    found = configured(north, TARGET)
    ingest(found)
    scan = found.read_volume(found.lake.read(layout.SERIES).to_pylist()[0]["volume_uri"])
    (tmp_path / "mask.nii.gz").write_bytes(encode_volume(Volume(np.ones(scan.voxels.shape, np.uint8), scan.geometry)))
    return found


def imported(workspace: Workspace, file: Path) -> Result:
    words = ["label", "import", str(file), "--site", "north", "--target", "lesion", "--workspace", workspace.uri]
    return CliRunner().invoke(app, words, catch_exceptions=False)


def test_masks_are_imported_like_labels(drawn: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "masks.csv"
    file.write_text("series_uid,mask_file\n1.2.0,mask.nii.gz\n1.2.1,mask.nii.gz\n", encoding="utf-8")
    told = imported(drawn, file)
    assert told.exit_code == 0
    assert "2 masks taken in" in told.output
    assert len(masks_in_force(drawn, "lesion", "north")) == 2


def test_a_row_that_cannot_be_used_needs_a_person(drawn: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "masks.csv"
    file.write_text("series_uid,mask_file\n1.2.0,mask.nii.gz\n1.2.1,gone.nii.gz\n", encoding="utf-8")
    told = imported(drawn, file)
    assert told.exit_code == 1
    assert "line 3 refused: mask_missing" in told.output
    assert "gone" not in told.output
    assert len(masks_in_force(drawn, "lesion", "north")) == 1
