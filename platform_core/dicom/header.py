"""One DICOM file: an allow-listed header, and apart from it the identity that never leaves the door.

Names, descriptions, institutions, comments and private elements are not read at all,
save the Siemens mosaic header (`csa.py`).
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import re
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

from platform_core.dicom.burned_in import Marks
from platform_core.dicom.csa import tiles_per_side
from platform_core.dicom.elements import (
    first_item,
    group_of,
    number,
    parse,
    shared_groups,
    text,
    tokens,
    uid,
    whole,
    words,
)
from platform_core.dicom.frames import Frame, frames_of
from platform_core.dicom.identifiers import squeezed
from platform_core.dicom.stratum import sequence_class
from platform_core.dicom.stream import Elements
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
WHO = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
)
MIN_NAME = 4
"""Shorter parts of a name turn up in any text by chance."""
PROJECTIONS = frozenset({"CR", "DX", "MG"})
CAPTURE_DEVICE = (
    "SecondaryCaptureDeviceID",
    "SecondaryCaptureDeviceManufacturer",
    "SecondaryCaptureDeviceManufacturerModelName",
    "SecondaryCaptureDeviceSoftwareVersions",
)


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who and when. Stays at the door: no table, path, log or message may hold any of it."""

    patient_id: str
    issuer: str
    study_uid: str
    series_uid: str
    sop_uid: str
    place_uid: str
    """FrameOfReferenceUID: positions in two of them cannot be compared."""
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
    slice_thickness_mm: float | None = None
    exposure_mas: float | None = None
    flip_angle_deg: float | None = None
    pixel_bandwidth_hz: float | None = None
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
    marks: Marks
    """What tells of text in the pixels; stays at the door like the identity."""
    elements: Elements


def open_scan(data: bytes) -> Scan:
    """Read one DICOM file; pixels are not decoded yet.

    Raises:
        UnreadableScan: `not_dicom`, `unreadable_header`, or `no_...` for what must be stated and is not.
    """
    elements = parse(data)
    identity = _identity(elements)
    modality = text(elements, "Modality")
    if not modality:
        raise UnreadableScan("no_modality", "the header states no modality")
    tiles, frames = frames_of(elements, is_projection=modality in PROJECTIONS)
    header = _header(elements, modality, tiles, frames)
    return Scan(header, identity, _marks(elements, header.n_rows, header.n_columns), elements)


def _identity(elements: Elements) -> Identity:
    series_uid, sop_uid = uid(elements, "SeriesInstanceUID"), uid(elements, "SOPInstanceUID")
    if not series_uid:
        raise UnreadableScan("no_series_uid", "the header names no series")
    if not sop_uid:
        raise UnreadableScan("no_instance_uid", "the header names no instance")
    return Identity(
        patient_id=words(elements, "PatientID"),
        issuer=words(elements, "IssuerOfPatientID"),
        study_uid=uid(elements, "StudyInstanceUID") or series_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        place_uid=uid(elements, "FrameOfReferenceUID"),
        acquired_on=_acquired_on(elements),
    )


def _acquired_on(elements: Elements) -> date | None:
    for name in ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate"):
        found = re.match(r"(\d{4})\.?(\d{2})\.?(\d{2})", text(elements, name))
        if found is None:
            continue
        try:
            day = datetime(*(int(part) for part in found.groups())).date()  # type: ignore[arg-type] # noqa: DTZ001
        except ValueError:
            continue
        if day >= EARLIEST:
            return day
    return None


def _header(elements: Elements, modality: str, n_tiles: int, frames: tuple[Frame, ...]) -> Header:
    rows, columns = _matrix(elements, n_tiles)
    shared, who = shared_groups(elements), _who(elements)
    return Header(
        modality=modality.upper(),
        manufacturer=_nameless(text(elements, "Manufacturer"), who),
        scanner_model=_nameless(text(elements, "ManufacturerModelName"), who),
        software=_nameless(text(elements, "SoftwareVersions"), who),
        kernel=_nameless(text(group_of(shared, "CTReconstructionSequence", elements), "ConvolutionKernel"), who),
        kvp=number(group_of(shared, "CTXRayDetailsSequence", elements), "KVP"),
        repetition_time_ms=number(group_of(shared, "MRTimingAndRelatedParametersSequence", elements), "RepetitionTime"),
        echo_time_ms=_echo_time_ms(elements, shared),
        field_strength_t=number(elements, "MagneticFieldStrength"),
        slice_thickness_mm=number(_group(elements, shared, "PixelMeasuresSequence"), "SliceThickness"),
        exposure_mas=_exposure_mas(elements, shared),
        flip_angle_deg=number(group_of(shared, "MRTimingAndRelatedParametersSequence", elements), "FlipAngle"),
        pixel_bandwidth_hz=number(_group(elements, shared, "MRImagingModifierSequence"), "PixelBandwidth"),
        body_part=_body_part(elements, shared),
        view=_listed(text(elements, "ViewPosition"), VIEWS),
        has_contrast=_has_contrast(elements),
        sequence=_sequence(elements, shared) if modality == "MR" else "",
        series_number=whole(elements, "SeriesNumber") or 0,
        transfer_syntax=elements.transfer_syntax,
        photometric=text(elements, "PhotometricInterpretation").upper(),
        n_samples=whole(elements, "SamplesPerPixel") or 1,
        n_rows=rows,
        n_columns=columns,
        n_tiles=n_tiles,
        bits_allocated=whole(elements, "BitsAllocated") or 16,
        bits_stored=whole(elements, "BitsStored") or whole(elements, "BitsAllocated") or 16,
        is_signed=whole(elements, "PixelRepresentation") == 1,
        frames=frames,
    )


def _marks(elements: Elements, n_rows: int, n_columns: int) -> Marks:
    return Marks(
        sop_class=uid(elements, "SOPClassUID"),
        modality=text(elements, "Modality"),
        image_type="\\".join(tokens(elements)),
        burned_in_annotation=text(elements, "BurnedInAnnotation"),
        conversion_type=text(elements, "ConversionType"),
        capture_device=" ".join(text(elements, name) for name in CAPTURE_DEVICE).strip(),
        series_description=text(elements, "SeriesDescription"),
        manufacturer=text(elements, "Manufacturer"),
        scanner_model=text(elements, "ManufacturerModelName"),
        n_rows=n_rows,
        n_columns=n_columns,
    )


def _who(elements: Elements) -> tuple[str, ...]:
    """The parts of the patient's name and of numbers of theirs that text must not repeat."""
    typed = " ".join(words(elements, name) for name in WHO)
    return _parts(typed)


@lru_cache(maxsize=256)
def _parts(typed: str) -> tuple[str, ...]:
    parts = [part for part in re.split(r"[\s^=,\\]+", typed) if len(part) >= MIN_NAME]
    spelt = dict.fromkeys(spell(part) for part in parts for spell in (_squeezed, squeezed))
    return tuple(part for part in spelt if len(part) >= MIN_NAME - 1)


@lru_cache(maxsize=1024)
def _nameless(value: str, who: tuple[str, ...]) -> str | None:
    """The text, unless it repeats the patient's name or a number of theirs: people type anything anywhere."""
    plain = _squeezed(value)  # `text` has left nothing but ASCII
    return None if any(part in plain for part in who) else value or None


def _squeezed(value: str) -> str:
    """ASCII letters and digits alone, as they are left where an accent was dropped."""
    return re.sub(r"[^a-z0-9]", "", value.lower())


def _group(elements: Elements, shared: Elements, sequence: str) -> Elements:
    """A functional group as all frames share it, else as the first frame has it, else the elements themselves."""
    first = first_item(elements, "PerFrameFunctionalGroupsSequence")
    return group_of(shared, sequence, group_of(first, sequence, elements))


def _exposure_mas(elements: Elements, shared: Elements) -> float | None:
    """Of the first file or frame: where tube current follows the patient, each has its own."""
    stated = number(_group(elements, shared, "CTExposureSequence"), "ExposureInmAs")
    return number(elements, "Exposure") if stated is None else stated


def _echo_time_ms(elements: Elements, shared: Elements) -> float | None:
    for group in (shared, first_item(elements, "PerFrameFunctionalGroupsSequence")):
        items = group.items("MREchoSequence", most=1)
        if items:
            return number(items[0], "EffectiveEchoTime")
    return number(elements, "EchoTime")


def _body_part(elements: Elements, shared: Elements) -> str | None:
    stated = _listed(text(elements, "BodyPartExamined"), BODY_PARTS)
    return stated or _listed(text(group_of(shared, "FrameAnatomySequence", elements), "BodyPartExamined"), BODY_PARTS)


def _listed(value: str, terms: frozenset[str]) -> str | None:
    plain = value.upper().replace(" ", "").replace("_", "")
    return plain if plain in terms else None


def _has_contrast(elements: Elements) -> bool:
    agent = text(elements, "ContrastBolusAgent").upper()
    return agent not in ("", "NONE", "NO") or bool(elements.items("ContrastBolusAgentSequence", most=1))


def _sequence(elements: Elements, shared: Elements) -> str:
    stated = tokens(elements, "ScanningSequence") or (
        *tokens(elements, "EchoPulseSequence"),
        *(["EP"] if text(elements, "EchoPlanarPulseSequence") == "YES" else []),
        *(["IR"] if text(elements, "InversionRecovery") == "YES" else []),
    )
    return sequence_class(
        stated,
        number(group_of(shared, "MRTimingAndRelatedParametersSequence", elements), "RepetitionTime"),
        _echo_time_ms(elements, shared),
    )


def _matrix(elements: Elements, n_tiles: int) -> tuple[int, int]:
    rows, columns = whole(elements, "Rows") or 0, whole(elements, "Columns") or 0
    if rows <= 0 or columns <= 0:
        raise UnreadableScan("no_matrix", "the header states no rows and columns")
    side = tiles_per_side(n_tiles) if n_tiles else 1
    return rows // side, columns // side
