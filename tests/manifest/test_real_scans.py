"""Every real series is accepted or quarantined with a reason, and what is claimed agrees with dcm2niix."""

# ruff: noqa: SIM905 - a list of names reads better as words
import csv
import gzip
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pydicom
import pytest

from platform_core import layout
from platform_core.imaging.volume import Volume
from platform_core.manifest.door import open_door
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import arrival_counts, check_ledger
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from tests.conftest import new_workspace

TOLERANCE_MM = 0.01
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
RUN = "20260101T000000-real"
AT = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE_VOXELS = 1024
"""Bytes of a NIfTI file that hold its header and our comment."""
IN_PARTS = "dcm_qa_ts/In"
REFUSED = {
    "dicom2nifti/failing/gantrytilting/001": "gantry_tilt",
    "dicom2nifti/failing/sliceincrement/001": "missing_slices",
}
"""What must not be claimed regular. dcm2niix writes these too, with a warning."""
SAME_SERIES = {
    "dicom2nifti/failing/slicecount/001": "dicom2nifti/generic/anatomical/001",
    "dicom2nifti/ge/anatomical/001_single_slice": "dicom2nifti/ge/anatomical/001_implicit",
}
"""Folders that hold copies of some slices of another folder's series: as one site they are that series."""

Row = dict[str, Any]


def table(test_data: Path, name: str) -> list[dict[str, str]]:
    with (test_data / "dicom" / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Workspace:
    """The whole folder as one site, taken in once."""
    root = tmp_path_factory.mktemp("real")
    with new_workspace(root) as empty:
        add_site(empty, "nih", SiteSettings(quiet_s=0, path=str(test_data / "dicom")))
        workspace = open_workspace(empty.uri)
        found = discover(workspace, "nih", run=RUN, at=AT)
        for shard in found.shards:
            ingest_shard(workspace, "nih", shard, run=RUN, at=AT)
        check_ledger(workspace, "nih", RUN, found.n_new)
        assert found.n_new == found.n_listed
        again = discover(workspace, "nih", run="20260102T000000-real", at=AT)
        assert (again.n_new, again.shards) == (0, ())
        object.__setattr__(workspace, "keys", series_keys(workspace, test_data))
    return workspace


def series_keys(workspace: Workspace, test_data: Path) -> dict[str, list[str]]:
    """Keys of the parts of every series in the index, by its folder."""
    door = open_door(workspace)
    return {
        row["path"]: [door.series_key("nih", row["series_uid"], part) for part in range(12)]
        for row in table(test_data, "index.csv")
    }


@pytest.fixture(scope="module")
def by_path(nih: Workspace) -> dict[str, list[Row]]:
    """Rows of `core__series` by the folder that their series came from, parts in order."""
    rows = {row["series_key"]: row for row in nih.lake.read(layout.SERIES).to_pylist()}
    keys: dict[str, list[str]] = nih.keys  # type: ignore[attr-defined]
    return {path: [rows[key] for key in found if key in rows] for path, found in keys.items()}


def test_every_series_is_accepted_or_quarantined_with_a_reason(by_path: dict[str, list[Row]]) -> None:
    assert len(by_path) >= 14
    for path, rows in by_path.items():
        expected = REFUSED.get(path, "regular")
        assert [row["geometry"] for row in rows] == [expected] * (9 if path == IN_PARTS else 1), path
        assert all((row["volume_uri"] is None) == (path in REFUSED) for row in rows)


def test_every_file_has_one_outcome(nih: Workspace, test_data: Path) -> None:
    n_files = sum(1 for file in (test_data / "dicom").rglob("*") if file.is_file() and not file.name.startswith("."))
    told = Counter({(row["outcome"], row["reason"]): row["n"] for row in arrival_counts(nih).to_pylist()})
    assert told.total() == n_files
    assert {key for key in told if key[0] in ("quarantined", "waiting")} <= {
        ("quarantined", reason) for reason in REFUSED.values()
    }
    assert {reason for outcome, reason in told if outcome == "ignored"} == {"not_dicom"}


def test_a_volume_lies_where_dcm2niix_puts_it(nih: Workspace, by_path: dict[str, list[Row]], test_data: Path) -> None:
    n_compared = 0
    for path, row, reference in pairs(by_path, test_data):
        volume = nih.read_volume(row["volume_uri"])
        data, affine = closest_ras(volume.voxels.T, LPS_TO_RAS @ affine_of(volume))
        shape = tuple(int(n) for n in reference["shape"].split("x"))
        blank, expected = closest_ras(np.zeros(shape, np.int8), np.array(json.loads(reference["affine"])))
        assert data.shape == blank.shape, path
        np.testing.assert_allclose(affine, expected, atol=TOLERANCE_MM, err_msg=path)
        n_compared += 1
    assert n_compared >= 20


def test_voxels_are_those_of_dcm2niix_or_of_the_published_truth(
    nih: Workspace, by_path: dict[str, list[Row]], test_data: Path
) -> None:
    n_compared = 0
    for path, row, reference in pairs(by_path, test_data):
        file = next((f for f in truths(test_data, path, reference["nifti"]) if f.is_file()), None)
        if file is None:
            continue
        truth = nib.load(file)
        expected, _ = closest_ras(np.asarray(truth.dataobj), truth.affine)
        volume = nih.read_volume(row["volume_uri"])
        data, _ = closest_ras(volume.voxels.T, LPS_TO_RAS @ affine_of(volume))
        scale = 1 if data.dtype.kind in "iu" else float(np.max(np.abs(data)))
        np.testing.assert_allclose(data, expected.reshape(data.shape), atol=1e-6 * scale, err_msg=path)
        n_compared += 1
    assert n_compared >= 6


def truths(test_data: Path, path: str, name: str) -> list[Path]:
    published = test_data / "dicom" / f"{path}_ground_truth.nii.gz"
    return [
        test_data / "ref_dcm2niix" / path / name,
        published,
        test_data / "dicom/dcm_qa_ts/Ref" / f"{name[1:2]}.nii",
    ][: 3 if path == IN_PARTS else 2]


def pairs(by_path: dict[str, list[Row]], test_data: Path) -> list[tuple[str, Row, dict[str, str]]]:
    """Regular parts with what dcm2niix made of the same files."""
    references: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in table(test_data, "refs.csv"):
        references[row["path"]].append(row)
    return [
        (path, row, reference)
        for path, rows in by_path.items()
        if path not in REFUSED and path not in SAME_SERIES
        for row, reference in zip(rows, references[path], strict=True)
    ]


def affine_of(volume: Volume) -> npt.NDArray[np.float64]:
    assert volume.geometry is not None
    return volume.geometry.affine


def closest_ras(data: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], Any]:
    """Data (x, y, z[, t]) and affine with axes flipped and permuted to the order that is nearest to RAS."""
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(data), affine))
    return np.asarray(image.dataobj), image.affine


def test_one_image_in_nine_files_and_eight_encodings_is_one_image(by_path: dict[str, list[Row]]) -> None:
    rows = by_path[IN_PARTS]
    assert len({row["series_key"] for row in rows}) == 9
    assert len({row["transfer_syntax"] for row in rows}) >= 7
    assert len({row["volume_sha256"] for row in rows}) == 1


def test_copies_in_other_encodings_are_duplicates(nih: Workspace, by_path: dict[str, list[Row]]) -> None:
    compressed = [rows for path, rows in by_path.items() if "compressed" in path]
    assert len({row["series_key"] for rows in compressed for row in rows}) == 1
    told = {row["outcome"]: row["n"] for row in arrival_counts(nih).to_pylist() if row["reason"] == "same_pixels"}
    assert told["duplicate"] >= 4 * (len(compressed) - 1)


def test_no_identity_of_the_files_is_found_in_the_workspace(nih: Workspace, test_data: Path) -> None:
    told = b"\n".join(everything(Path(nih.uri)))
    assert len(told) > 50_000
    found = {secret for secret in secrets(test_data / "dicom") if secret.encode() in told}
    assert found == set()


def secrets(root: Path) -> set[str]:
    """Identifying values of all files: numbers, names, UIDs, institutions, stations, serial numbers, addresses."""
    names = (
        "PatientID PatientName StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID InstitutionName "
        "InstitutionAddress StationName DeviceSerialNumber AccessionNumber OperatorsName ReferringPhysicianName "
        "SeriesDescription StudyDescription ProtocolName PatientBirthDate StudyDate"
    ).split()
    found: set[str] = set()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=names)
        except pydicom.errors.InvalidDicomError:
            continue
        found |= {str(dataset.get(name) or "").strip() for name in names} | {file.name}
    return {value for value in found if len(value) >= 6}


def everything(root: Path) -> list[bytes]:
    """All files under a folder; tables and the headers of volumes as plain text."""
    told = []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        data = file.read_bytes()
        if file.suffix == ".gz":
            data = gzip.decompress(data)[:BEFORE_VOXELS]
        if file.suffix == ".parquet":
            data = str(pq.read_table(file).to_pylist()).encode()
        told += [str(file.relative_to(root)).encode(), data]
    return told
