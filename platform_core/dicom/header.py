"""One DICOM file: an allow-listed header, and apart from it the identity that never leaves the door.

Names, descriptions, institutions, comments and private elements are not read at all,
save the Siemens mosaic header (`csa.py`).
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import re
from dataclasses import dataclass
from datetime import date, datetime

from pydicom.dataset import Dataset

from platform_core.dicom.csa import tiles_per_side
from platform_core.dicom.elements import group_of, number, parse, shared_groups, text, tokens, whole
from platform_core.dicom.frames import Frame, frames_of
from platform_core.dicom.stratum import sequence_class
from platform_core.errors import UnreadableScan

EARLIEST = date(1900, 1, 1)
"""Anonymisers write dates such as 0001-01-01; they say nothing."""

BODY_PARTS = frozenset(
    "ABDOMEN ABDOMENPELVIS ANKLE AORTA ARM BLADDER BRAIN BREAST CAROTID CHEST CHESTABDOMEN CHESTABDPELVIS COLON "
    "CSPINE ELBOW EXTREMITY EYE FEMUR FINGER FOOT FOREARM HAND HEAD HEADNECK HEART HIP HUMERUS JAW KIDNEY KNEE LEG "
    "LIVER LSPINE LUNG MANDIBLE NECK ORBIT PANCREAS PELVIS PROSTATE RIB SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM "
    "STOMACH THIGH THORAX THYROID TSPINE UTERUS WHOLEBODY WRIST".split()
)
"""Terms of PS3.16 annex L that are kept; any other text in this field could be anything."""
VIEWS = frozenset("AP PA LL RL LLD RLD LLO RLO CC MLO ML LM LATERAL".split())
MIN_NAME = 4
"""Shorter parts of a name turn up in any text by chance."""
PROJECTIONS = frozenset({"CR", "DX", "MG"})


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who and when. Stays at the door: no table, path, log or message may hold any of it."""

    patient_id: str
    issuer: str
    study_uid: str
    series_uid: str
    sop_uid: str
    acquired_on: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the manifest may know of a file. Text is cleaned; nothing in here identifies."""

    modality: str
    manufacturer: str | None
    scanner_model: str | None
    software: str | None
    kernel: str | None
    kvp: float | None
    repetition_time_ms: float | None
    echo_time_ms: float | None
    field_strength_t: float | None
    body_part: str | None
    view: str | None
    has_contrast: bool
    sequence: str
    series_number: int
    transfer_syntax: str
    photometric: str
    n_samples: int
    n_rows: int
    n_columns: int
    n_tiles: int
    """Slices of a Siemens mosaic; 0 for any other file. Rows and columns are those of one slice."""
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    frames: tuple[Frame, ...]

    @property
    def is_projection(self) -> bool:
        """Radiographs: each file is an image of its own, without a place in the patient."""
        return self.modality in PROJECTIONS


@dataclass(frozen=True, slots=True, repr=False)
class Scan:
    """One opened file; the header's text fields are empty where they held the patient's name or number."""

    header: Header
    identity: Identity
    dataset: Dataset


def open_scan(data: bytes) -> Scan:
    """Read one DICOM file; pixels are not decoded yet.

    Raises:
        UnreadableScan: `not_dicom`, `unreadable_header`, or `no_...` for what must be stated and is not.
    """
    dataset = parse(data)
    identity = _identity(dataset)
    modality = text(dataset, "Modality")
    if not modality:
        raise UnreadableScan("no_modality", "the header states no modality")
    tiles, frames = frames_of(dataset, is_projection=modality in PROJECTIONS)
    return Scan(_header(dataset, modality, tiles, frames), identity, dataset)


def _identity(dataset: Dataset) -> Identity:
    series_uid, sop_uid = _uid(dataset, "SeriesInstanceUID"), _uid(dataset, "SOPInstanceUID")
    if not series_uid:
        raise UnreadableScan("no_series_uid", "the header names no series")
    if not sop_uid:
        raise UnreadableScan("no_instance_uid", "the header names no instance")
    return Identity(
        patient_id=str(dataset.get("PatientID") or "").strip(),
        issuer=str(dataset.get("IssuerOfPatientID") or "").strip(),
        study_uid=_uid(dataset, "StudyInstanceUID") or series_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        acquired_on=_acquired_on(dataset),
    )


def _uid(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip("\x00 ")


def _acquired_on(dataset: Dataset) -> date | None:
    for name in ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate"):
        found = re.match(r"(\d{4})\.?(\d{2})\.?(\d{2})", str(dataset.get(name) or ""))
        if found is None:
            continue
        try:
            day = datetime(*(int(part) for part in found.groups())).date()  # type: ignore[arg-type] # noqa: DTZ001
        except ValueError:
            continue
        if day >= EARLIEST:
            return day
    return None


def _header(dataset: Dataset, modality: str, n_tiles: int, frames: tuple[Frame, ...]) -> Header:
    rows, columns = _matrix(dataset, n_tiles)
    shared = shared_groups(dataset)
    return Header(
        modality=modality.upper(),
        manufacturer=_nameless(dataset, text(dataset, "Manufacturer")),
        scanner_model=_nameless(dataset, text(dataset, "ManufacturerModelName")),
        software=_nameless(dataset, text(dataset, "SoftwareVersions")),
        kernel=_nameless(dataset, text(group_of(shared, "CTReconstructionSequence", dataset), "ConvolutionKernel")),
        kvp=number(group_of(shared, "CTXRayDetailsSequence", dataset), "KVP"),
        repetition_time_ms=number(group_of(shared, "MRTimingAndRelatedParametersSequence", dataset), "RepetitionTime"),
        echo_time_ms=_echo_time_ms(dataset, shared),
        field_strength_t=number(dataset, "MagneticFieldStrength"),
        body_part=_body_part(dataset, shared),
        view=_listed(text(dataset, "ViewPosition"), VIEWS),
        has_contrast=_has_contrast(dataset),
        sequence=_sequence(dataset, shared) if modality == "MR" else "",
        series_number=whole(dataset, "SeriesNumber") or 0,
        transfer_syntax=str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", "") or ""),
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        n_samples=whole(dataset, "SamplesPerPixel") or 1,
        n_rows=rows,
        n_columns=columns,
        n_tiles=n_tiles,
        bits_allocated=whole(dataset, "BitsAllocated") or 16,
        bits_stored=whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated") or 16,
        is_signed=whole(dataset, "PixelRepresentation") == 1,
        frames=frames,
    )


def _nameless(dataset: Dataset, value: str) -> str | None:
    """The text, unless it repeats the patient's name or number: people type anything anywhere."""
    typed = f"{dataset.get('PatientName') or ''} {dataset.get('PatientID') or ''}".upper()
    words = [word for word in re.split(r"[\s^=,]+", typed) if len(word) >= MIN_NAME]
    return None if any(word in value.upper() for word in words) else value or None


def _echo_time_ms(dataset: Dataset, shared: Dataset) -> float | None:
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    for group in (shared, frames[0] if frames else Dataset()):
        items = group.get("MREchoSequence")
        if items:
            return number(items[0], "EffectiveEchoTime")
    return number(dataset, "EchoTime")


def _body_part(dataset: Dataset, shared: Dataset) -> str | None:
    stated = _listed(text(dataset, "BodyPartExamined"), BODY_PARTS)
    return stated or _listed(text(group_of(shared, "FrameAnatomySequence", dataset), "BodyPartExamined"), BODY_PARTS)


def _listed(value: str, terms: frozenset[str]) -> str | None:
    plain = value.upper().replace(" ", "").replace("_", "")
    return plain if plain in terms else None


def _has_contrast(dataset: Dataset) -> bool:
    agent = text(dataset, "ContrastBolusAgent").upper()
    return agent not in ("", "NONE", "NO") or bool(dataset.get("ContrastBolusAgentSequence"))


def _sequence(dataset: Dataset, shared: Dataset) -> str:
    stated = tokens(dataset, "ScanningSequence") or (
        *tokens(dataset, "EchoPulseSequence"),
        *(["EP"] if text(dataset, "EchoPlanarPulseSequence") == "YES" else []),
        *(["IR"] if text(dataset, "InversionRecovery") == "YES" else []),
    )
    return sequence_class(
        stated,
        number(group_of(shared, "MRTimingAndRelatedParametersSequence", dataset), "RepetitionTime"),
        _echo_time_ms(dataset, shared),
    )


def _matrix(dataset: Dataset, n_tiles: int) -> tuple[int, int]:
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    if rows <= 0 or columns <= 0:
        raise UnreadableScan("no_matrix", "the header states no rows and columns")
    side = tiles_per_side(n_tiles) if n_tiles else 1
    return rows // side, columns // side
