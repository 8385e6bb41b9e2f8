"""What every test may ask for: an empty workspace with its own key, and real scans."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import settings
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from platform_core import layout
from platform_core.manifest.door import create_key
from platform_core.manifest.ingest import IngestCount, discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings

pytest_plugins = ["tests.servers.orthanc", "tests.servers.s3"]

settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for keys and door books, outside any workspace."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SITEDRIFT_HOME", str(folder))
    monkeypatch.delenv("SITEDRIFT_KEY", raising=False)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, home: Path) -> Workspace:
    """An empty workspace."""
    return create_workspace(tmp_path / "w", key_fingerprint=create_key("w"))


@contextmanager
def new_workspace(folder: Path) -> Iterator[Workspace]:
    """An empty workspace with a home of its own as long as this is open: for fixtures that serve more than one test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITEDRIFT_HOME", str(folder / "home"))
        patch.delenv("SITEDRIFT_KEY", raising=False)
        yield create_workspace(folder / "w", key_fingerprint=create_key("w"))


def configured(workspace: Workspace, more: str) -> Workspace:
    """The workspace with more lines in its settings."""
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    return open_workspace(workspace.uri)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes in one thread: sums do not depend on the machine, and small convolutions are slower on many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real scans: `SITEDRIFT_TEST_DATA`, else the subset that comes with the repository."""
    return Path(os.environ.get("SITEDRIFT_TEST_DATA", Path(__file__).parent / "data")).resolve()


def ct_slice(place: int, position_mm: Sequence[float], pixels: Any = None, **elements: Any) -> Dataset:
    """One CT slice in memory; `elements` by keyword replace or add what is here, None takes an element out."""
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
    values = np.arange(30, dtype=np.int16).reshape(5, 6) + 100 * place if pixels is None else np.asarray(pixels)
    facts: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.826.0.1.99.1.{place + 1}",
        "SeriesInstanceUID": "1.2.826.0.1.99.1",
        "StudyInstanceUID": "1.2.826.0.1.99",
        "PatientID": "HOSP-4711",
        "PatientName": "Erika^Musterfrau",
        "InstitutionName": "Klinikum Musterstadt",
        "SeriesDescription": "Thorax Erika M",
        "StudyDate": "20260105",
        "AcquisitionDate": "20260106",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Manufacturer": "ACME",
        "ManufacturerModelName": "Scan 1",
        "ConvolutionKernel": "B31f",
        "KVP": "120",
        "BodyPartExamined": "CHEST",
        "SeriesNumber": 3,
        "InstanceNumber": place + 1,
        "ImagePositionPatient": [float(x) for x in position_mm],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "SliceThickness": 2.0,
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "PixelData": values.astype("<i2").tobytes(),
    }
    for name, value in (facts | elements).items():
        if value is not None:
            setattr(slice_, name, value)
    return slice_


def save(file: Path, slice_: Dataset) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(file, slice_, enforce_file_format=True)
    return file


WriteCT = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def write_ct() -> WriteCT:
    """Writes a CT series of slices at the given z (mm), one file each, named without suffix."""

    def write(folder: Path, z_mm: Sequence[float] = (0, 2, 4, 6), **elements: Any) -> list[Path]:
        uid = elements.get("SeriesInstanceUID", "1.2.826.0.1.99.1")
        files = []
        for place, z in enumerate(z_mm):
            facts = {"SOPInstanceUID": f"{uid}.{place + 1}"} | elements
            files.append(save(folder / f"IM{place:04d}", ct_slice(place, (-10.0, 5.0, z), **facts)))
        return files

    return write


@pytest.fixture(scope="session")
def make_slice() -> Callable[..., Dataset]:
    """Makes one CT slice in memory, to be changed and saved."""
    return ct_slice


Ingest = Callable[..., IngestCount]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the site `north` sends its scans."""
    found = tmp_path / "scans"
    found.mkdir()
    return found


@pytest.fixture
def north(workspace: Workspace, folder: Path) -> Workspace:
    """A workspace with one site of DICOM files."""
    add_site(workspace, "north", SiteSettings(quiet_s=0, path=str(folder)))
    return open_workspace(workspace.uri)


@pytest.fixture
def ingest() -> Ingest:
    """Takes in what is new at a site and closes the ledger; day after day."""
    days = iter(range(1, 29))

    def take_in(workspace: Workspace, site: str = "north") -> IngestCount:
        at = datetime(2026, 2, next(days), tzinfo=UTC)
        run = f"{at:%Y%m%dT%H%M%S}-test"
        found = discover(workspace, site, run=run, at=at)
        count = IngestCount(site=site)
        for shard in found.shards:
            count += ingest_shard(workspace, site, shard, run=run, at=at)
        check_ledger(workspace, site, run, found.n_new)
        return count

    return take_in
