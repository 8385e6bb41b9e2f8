"""Nothing that identifies is found in anything that a whole run writes: tables, volumes, reports, logs, Prefect.

One `sitedrift run` and the verbs that tell of it, as subprocesses, over the scans that come with the
repository and a patient made up for this test. Then every file is searched, as it lies and
unpacked, for every identifying value of the input, in any case and in several spellings.
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import gzip
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset

from platform_core import layout
from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import add_site, create_workspace
from platform_core.settings import SiteSettings
from tests.dicom import corpus
from tests.dicom.corpus import coded, dataset_of, depth

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SITE = "north"
ROOT = Path(__file__).parents[2]
SCANS = ROOT / "tests" / "data" / "dicom"
SECRET = bytes(range(32))
"""A fixed key, so that dates move by the same weeks whenever the test runs."""
MIN_LENGTH = 4
IDENTIFYING = frozenset("PN LO SH LT ST UT UC UR UI DA DT AE".split())
"""Kinds of value in which a person, a place, a day or an object may be named."""
STANDARD_UID = "1.2.840.10008."
KEPT = frozenset(
    "Manufacturer ManufacturerModelName SoftwareVersions ConvolutionKernel BodyPartExamined ViewPosition "
    "TransferSyntaxUID SequenceName ImplementationVersionName".split()
)
"""What the manifest may hold as it is: the scanner, what was scanned, what wrote the file."""
NOT_IDENTIFYING = {
    "1970-01-01": "a birthday in the scans; in Prefect's database the day that clocks count from",
    "body": "a coil in the scans; everywhere else part of `body_part`",
    "brain": "a part of the body, which is kept",
    "fast": "a private value of a scanner; a word",
    "hyperfine research": "the maker of a coil; also the manufacturer, which is kept",
    "localizer": "the meaning of a code; also the rule that sets scouts aside",
    "none": "says that there is nothing",
    "test": "a word; the folder of this run has it in its name",
    "water": "what a sequence excites; also an ImageType, which is kept",
}
"""Values of these scans that are words of their own, which to find tells nothing."""
IN_EXPORT = {
    "134522.771": "a time of day stays where days are moved: PS3.15 option Retain Longitudinal with Modified Dates",
    "siemens csa header": "names the private elements that place a mosaic's slices: PS3.15 option Retain Safe Private",
}
"""What exported DICOM may hold, and nothing else."""

PATIENT: dict[str, Any] = {
    "PatientName": "Quillfeather^Ottoline^Marigold^Dr",
    "PatientID": "HQ-7741-9930",
    "IssuerOfPatientID": "Quillhaven Trust",
    "PatientBirthDate": "19470213",
    "PatientAddress": "12 Larkspur Row, Quillhaven",
    "PatientTelephoneNumbers": "0155-7700-9144",
    "OtherPatientNames": "Featherstone^Ottoline",
    "PatientComments": "afraid of lifts, daughter Wilhelmina drives",
    "AccessionNumber": "ACC55200917",
    "StudyID": "ST-88231",
    "StudyInstanceUID": "1.3.6.1.4.1.99999.71.4402.1",
    "FrameOfReferenceUID": "1.3.6.1.4.1.99999.71.4402.77",
    "InstitutionName": "Quillhaven Infirmary",
    "InstitutionAddress": "1 Foundry Lane, Quillhaven",
    "InstitutionalDepartmentName": "Radiology West Wing",
    "StationName": "QVCT07-B",
    "DeviceSerialNumber": "SN-660142",
    "ReferringPhysicianName": "Brackenbury^Tobias",
    "OperatorsName": "Sorrel^Imogen",
    "StudyDescription": "Thorax Quillfeather control",
    "SeriesDescription": "after fall from Larkspur ladder",
    "ProtocolName": "Brackenbury special",
    "StudyDate": "20250317",
    "SeriesDate": "20250318",
    "AcquisitionDate": "20250319",
    "ContentDate": "20250320",
    "StudyTime": "134522.771",
    "ManufacturerModelName": "Scanner of Quillfeather",
    "SoftwareVersions": "v7 HQ-7741-9930",
}
"""Nobody: no such person, place or number is known to us."""
FOLDER = "Quillfeather, Ottoline (HQ-7741-9930)"

Told = dict[str, list[bytes]]
"""What a file says, under its path: its name, its bytes, and what is packed in them."""


# --- the input ---------------------------------------------------------------------------------


def patient_slice(series: int, place: int, **elements: Any) -> Dataset:
    """One slice of the made-up patient, with her name also in sequences, private elements and file header."""
    uid = f"1.3.6.1.4.1.99999.71.4402.{series}"
    how = depth(12, 16)
    pixels = corpus.noise((12, 14), how, seed=100 * series + place)
    facts: dict[str, Any] = PATIENT | {
        "SeriesInstanceUID": uid,
        "SOPInstanceUID": f"{uid}.{place + 1}",
        "InstanceNumber": place + 1,
        "SeriesNumber": series,
        "ImagePositionPatient": [0.0, 0.0, 2.5 * place],
    }
    slice_ = dataset_of(pixels, how, **(facts | elements))
    request, other = Dataset(), Dataset()
    request.RequestedProcedureDescription = "look for Featherstone nodule"
    request.RequestedProcedureID = "RQ-4400817"
    other.PatientID = "OLD-309-77"
    other.IssuerOfPatientID = "Larkspur Clinic"
    request.ReferencedStudySequence = [other]
    slice_.RequestAttributesSequence = [request]
    slice_.OtherPatientIDsSequence = [other]
    block = slice_.private_block(0x0029, "QUILLHAVEN PRIVATE", create=True)
    block.add_new(0x01, "LO", "seen by Brackenbury")
    block.add_new(0x02, "OB", b"Quillfeather Ottoline ")
    slice_.file_meta.SourceApplicationEntityTitle = "QUILLPACS1"
    return slice_


def send_patient(folder: Path) -> None:
    """Her scans, in every way that a scan can end."""
    home = folder / FOLDER
    for place in range(4):
        save(home / "Thorax" / f"Ottoline Quillfeather {place}.dcm", coded(patient_slice(1, place)))
    save(home / "copy of Ottoline.dcm", coded(patient_slice(1, 0)))
    for place in (0, 1, 3):
        save(home / "gap" / f"QUILLFEATHER_{place}", coded(patient_slice(2, place)))
    save(home / "Ottoline torn.dcm", coded(patient_slice(3, 0))[:-40])
    save(home / "Ottoline spoilt.dcm", coded(patient_slice(4, 0))[:700] + b"\xff" * 300)
    report = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22"}
    save(home / "Ottoline report.dcm", coded(patient_slice(5, 0, **report)))
    save(home / "Ottoline colour.dcm", coded(patient_slice(6, 0, PhotometricInterpretation="PALETTE COLOR")))
    save(home / "Ottoline x-ray.dcm", coded(patient_slice(7, 0, Modality="DX")))
    save(home / "Ottoline accents.dcm", coded(patient_slice(8, 0, SpecificCharacterSet="ISO_IR 9999")))
    save(home / "letter to Ottoline.txt", b"Dear Dr Quillfeather, your scan ...")
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Quillfeather/Ottoline 9.dcm", coded(patient_slice(9, 0)))
    save(home / "Ottoline.zip", packed.getvalue())


def save(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def identifying_values(folder: Path) -> set[str]:
    """Every value of the input that may name somebody or something, in the spellings that a leak could have."""
    found: set[str] = set()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError):
            continue
        found |= {file.name, file.stem} if len(file.stem) >= MIN_LENGTH else set()
        for part in (dataset, dataset.file_meta):
            found |= set(_values(part))
    found |= set(re.findall(r"[\w-]+", FOLDER))
    found |= {spelling for name, value in PATIENT.items() for spelling in _spellings(value, dictionary_vr(name))}
    return {value for value in (v.strip().lower() for v in found) if says_something(value)}


def dictionary_vr(name: str) -> str:
    return str(pydicom.datadict.dictionary_VR(name))


def _values(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _values(item)
        elif element.VR in IDENTIFYING and element.keyword not in KEPT:
            values = [element.value] if isinstance(element.value, str) else element.value or []
            for value in values if isinstance(values, Sequence) else [values]:
                yield from _spellings(str(value), element.VR)


def _spellings(value: str, kind: str) -> Iterator[str]:
    """The value; the parts of a name; a day as programs write it."""
    yield value
    if kind == "PN":
        yield from re.split(r"[\^=\s,]+", value)
    if kind in ("DA", "DT") and re.match(r"\d{8}", value):
        yield f"{value[:4]}-{value[4:6]}-{value[6:8]}"


def says_something(value: str) -> bool:
    """Not by chance in any text, no word of everyday language, no identifier that the standard gave out."""
    is_number = value.replace(".", "").isdigit()
    long_enough = len(value) >= (6 if is_number else MIN_LENGTH)
    return long_enough and value not in NOT_IDENTIFYING and not value.startswith(STANDARD_UID)


# --- the search --------------------------------------------------------------------------------


def told_by(root: Path, *but: Path) -> Told:
    """All files under a folder, save those under `but`: names, bytes, and everything that is packed in them."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    wanted = [file for file in files if not any(file.is_relative_to(other) for other in but)]
    return {str(file.relative_to(root)): [str(file.relative_to(root)).encode(), *_layers(file)] for file in wanted}


def _layers(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if data[:4] == b"PAR1":
        yield str(pq.read_table(file).to_pylist()).encode()
        yield str(pq.read_metadata(file).metadata).encode()
    if data[:2] == b"PK" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (name.encode() + archive.read(name) for name in archive.namelist())
    if data[:15] == b"SQLite format 3":
        yield _dumped(file)


def _dumped(file: Path) -> bytes:
    """Every row of a database, those in its journal among them; of a copy, for to open a database changes it."""
    with TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder, file.name))) as db:
        for part in file.parent.glob(f"{file.name}*"):
            shutil.copy(part, folder)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(db.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables]
    return "\n".join(rows).encode("utf-8", "surrogatepass")


def leaks(told: Told, values: set[str]) -> set[tuple[str, str]]:
    """Where which value is found."""
    sought = [(value, _pattern(value)) for value in sorted(values)]
    found = set()
    for path, layers in told.items():
        for layer in layers:
            lower = layer.lower()
            found |= {(path, value) for value, is_in in sought if is_in(lower)}
    return found


def _pattern(value: str) -> Callable[[bytes], bool]:
    """In UTF-8, Latin-1 or UTF-16; a bare number only where no hash, number or time goes on around it."""
    codes = {value.encode(), value.encode("utf-16-le"), value.encode("latin-1", "ignore")}
    if not value.replace("-", "").isdigit():
        return lambda data: any(code in data for code in codes)
    alone = re.compile(rb"(?<![0-9a-f.])" + re.escape(value.encode()) + rb"(?![0-9a-f])")
    return lambda data: alone.search(data) is not None if value.encode() in data else False


# --- one run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Night:
    """Where everything of one run lies."""

    root: Path
    scans: Path
    home: Path
    workspace: Path
    values: set[str]
    codes: dict[str, int]
    """Exit code of every verb that was called."""


TELLING = {
    "status": ("status",),
    "quarantine": ("quarantine", "list", "--json"),
    "report": ("report",),
    "passport": ("passport", SITE),
    "export": ("export", SITE, "export"),
}
"""Verbs that tell of a run."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A whole run over the scans of the repository and over the made-up patient's."""
    root = tmp_path_factory.mktemp("night")
    scans, home, workspace = root / "scans", root / "home", root / "w"
    shutil.copytree(SCANS, scans / "public")
    send_patient(scans)
    (root / "tmp").mkdir()
    own = {"SITEDRIFT_HOME": str(home), "PREFECT_HOME": str(root / "prefect"), "TMPDIR": str(root / "tmp")}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SITEDRIFT_KEY", raising=False)
        for name, value in own.items():
            patch.setenv(name, value)
        made = create_workspace(workspace, key_fingerprint=create_key("w", secret=SECRET))
        add_site(made, SITE, SiteSettings(path=str(scans), quiet_s=0))
        codes = {"run": call(root, workspace, "run", "run")}
        codes |= {name: call(root, workspace, name, *words) for name, words in TELLING.items()}
    return Night(root, scans, home, workspace, identifying_values(scans), codes)


def call(root: Path, workspace: Path, name: str, *words: str) -> int:
    """Run one verb and keep all that it says, loggers at their most talkative."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_LOGGING_LEVEL": "DEBUG", "HOME": str(root / "user")}
    command = [sys.executable, "-m", "flows.cli", *words]
    done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, check=False, timeout=240)
    save(root / "said" / f"{name}.txt", done.stdout + b"\n" + done.stderr)
    return done.returncode


@pytest.mark.slow
def test_the_run_took_in_what_it_is_searched_for(night: Night) -> None:
    """A run that wrote nothing would leak nothing."""
    said = "".join(file.read_text() for file in (night.root / "said").glob("*.txt"))
    assert night.codes == dict.fromkeys(TELLING, 0) | {"run": 1}, said[-3000:]
    assert "Traceback" not in said
    told = told_by(night.workspace)
    rows = b"".join(b"".join(layers) for path, layers in told.items() if path.startswith(layout.LAKE))
    for outcome in (b"accepted", b"duplicate", b"quarantined", b"ignored"):
        assert outcome in rows
    assert sum(path.startswith(layout.VOLUMES) for path in told) > 10
    assert any(path.endswith(".html") for path in told)
    assert any((night.root / "prefect").rglob("*.db"))
    assert len(night.values) > 200
    assert {"quillfeather", "hq-7741-9930", "brackenbury", "rq-4400817", "19470213", "1947-02-13"} <= night.values


@pytest.mark.slow
def test_the_same_search_finds_the_patient_in_her_own_scans(night: Night) -> None:
    found = {value for _, value in leaks(told_by(night.scans / FOLDER), night.values)}
    assert {str(value).lower() for value in PATIENT.values()} <= found


@pytest.mark.slow
def test_nothing_that_is_written_outside_the_home_identifies_anybody(night: Night) -> None:
    found = leaks(told_by(night.root, night.scans, night.home), night.values)
    assert {
        (path, value) for path, value in found if not (path.startswith("w/export/") and value in IN_EXPORT)
    } == set()


@pytest.mark.slow
def test_only_the_door_book_knows_where_scans_came_from(night: Night) -> None:
    told = told_by(night.home)
    where = {path for path, _ in leaks(told, night.values)}
    assert where, "the door book names the files that it has taken in"
    assert {Path(path).parts[0] for path in where} == {"doors"}
    assert all(Path(path).name.startswith(f"{SITE}.sqlite") for path in where)
    for file in (path for path in night.home.rglob("*") if path.is_file()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.slow
def test_no_file_is_left_in_temporary_folders(night: Night) -> None:
    assert [path for path in (night.root / "tmp").rglob("*") if path.is_file() and b"DICM" in path.read_bytes()] == []


# --- the search can fail -----------------------------------------------------------------------


def plant_raw(root: Path, value: str) -> None:
    save(root / "said.txt", f"could not read {value}!".encode())


def plant_name(root: Path, value: str) -> None:
    save(root / value.replace("/", "_") / "part-0", b"")


def plant_upper(root: Path, value: str) -> None:
    save(root / "said.txt", value.upper().encode())


def plant_gzip(root: Path, value: str) -> None:
    save(root / "volume.nii.gz", gzip.compress(np.arange(900).tobytes() + value.encode() + bytes(900)))


def plant_row(root: Path, value: str) -> None:
    root.mkdir(exist_ok=True)
    rows = pa.table({"series_key": ["a", "b"], "detail": [None, value]})
    pq.write_table(rows, root / "part.parquet", compression="zstd")


def plant_metadata(root: Path, value: str) -> None:
    root.mkdir(exist_ok=True)
    table = pa.table({"n": [1]}).replace_schema_metadata({"written for": value})
    pq.write_table(table, root / "part.parquet")


def plant_database(root: Path, value: str) -> None:
    root.mkdir(exist_ok=True)
    db = sqlite3.connect(root / "prefect.db")
    db.execute("CREATE TABLE log (message TEXT)")
    db.execute("INSERT INTO log VALUES (?)", (f"took in {value}",))
    db.commit()
    db.close()


def plant_member(root: Path, value: str) -> None:
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("facts.json", f'{{"trained on": "{value}"}}' * 50)


def plant_utf16(root: Path, value: str) -> None:
    save(root / "page.html", value.encode("utf-16-le"))


@pytest.mark.parametrize(
    "plant",
    [
        plant_raw,
        plant_name,
        plant_upper,
        plant_gzip,
        plant_row,
        plant_metadata,
        plant_database,
        plant_member,
        plant_utf16,
    ],
)
def test_a_leak_is_found(plant: Callable[[Path, str], None], tmp_path: Path) -> None:
    values = {"quillfeather", "hq-7741-9930"}
    save(tmp_path / "sound" / "part.txt", b"nothing to see")
    assert leaks(told_by(tmp_path), values) == set()
    plant(tmp_path / "leak", "Quillfeather")
    assert {value for _, value in leaks(told_by(tmp_path), values)} == {"quillfeather"}


@pytest.mark.parametrize(("text", "is_found"), [("on 19470213,", True), ("19470213", True), ("a19470213f", False)])
def test_a_number_is_not_found_in_the_middle_of_a_hash(text: str, is_found: bool, tmp_path: Path) -> None:
    save(tmp_path / "log", text.encode())
    assert bool(leaks(told_by(tmp_path), {"19470213"})) == is_found
