"""Synthetic scans that carry identities wherever identities have been found in DICOM.

They are taken in beside every batch; nothing of them may come out (`manifest/canaries.py`).
Names, numbers and dates are drawn afresh each time and look real; every family name begins
with KANARI and every number with 990, so that a person who meets one knows what it is.

Places follow DICOM PS3.15 table E.1-1 and what reviews of shared data found: private blocks,
nested sequences, the preamble, padding behind the pixels, device fields that repeat a name.
"""

import random
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from platform_core.dicom.burned_in import BURNED_IN_TEXT

Form = Literal["text", "number", "date", "uid"]

KANJI = "山川田中村木林森石原島崎橋本藤井上野谷松竹梅高低東西南北金銀宮寺岡坂池沢浜江"
ROOT = "1.2.826.0.1.3680043.10.1999."
SIDE, PROJECTION_SIDE = 32, 256
INK = 4095


@dataclass(frozen=True, slots=True, repr=False)
class Planted:
    """One identity and the kind of place it was put in. The text itself appears in no message."""

    kind: str
    text: str
    form: Form = "text"


@dataclass(frozen=True, slots=True, repr=False)
class Canary:
    """One synthetic scan: its files by address, and what was planted in them."""

    files: tuple[tuple[str, bytes], ...]
    planted: tuple[Planted, ...]
    refusal: str | None
    """The reason with which the door must refuse it; None if it must take it in."""


def draw_canaries(seed: bytes) -> tuple[Canary, ...]:
    """A CT of two slices, a Siemens MR mosaic with a Japanese name, and a radiograph that shows a name; by the seed."""
    rng = random.Random(seed)
    day = f"{rng.randint(2010, 2019)}{rng.randint(1, 12):02}{rng.randint(10, 28)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's may quote a value
        return _ct(_Person(rng, day)), _mosaic(_Person(rng, day)), _radiograph(_Person(rng, day))


class _Person:
    """Draws one identity, writes down every piece of it, and hands out what to put into a header."""

    def __init__(self, rng: random.Random, day: str) -> None:
        self.rng, self.day = rng, day
        self.planted: list[Planted] = []
        self.family = self.note("patient_name", "Kanari" + self.word(6))
        self.given = self.note("patient_name", self.word(8).capitalize())
        self.number = self.note("patient_id", f"K-990{rng.randrange(10**6):06}", "number")
        born = f"{rng.randint(1920, 1960)}{rng.randint(1, 12):02}{rng.randint(10, 28)}"
        self.born = self.note("birth_date", born, "date")
        self.note("study_date", day, "date")
        self.uids = {kind: self.uid(kind) for kind in ("study_uid", "series_uid", "frame_of_reference_uid")}

    @property
    def name(self) -> str:
        return f"{self.family}^{self.given}"

    def word(self, n_letters: int) -> str:
        pairs = [self.rng.choice("bdfgklmnprstvz") + self.rng.choice("aeiou") for _ in range(n_letters // 2)]
        return "".join(pairs)

    def note(self, kind: str, text: str, form: Form = "text") -> str:
        self.planted.append(Planted(kind, text, form))
        return text

    def text(self, kind: str, prefix: str = "") -> str:
        """A word that stands for what a person might type there."""
        return prefix + self.note(kind, self.word(10).capitalize())

    def digits(self, kind: str, prefix: str = "") -> str:
        return self.note(kind, f"{prefix}990{self.rng.randrange(10**6):06}", "number")

    def uid(self, kind: str) -> str:
        return self.note(kind, f"{ROOT}{self.rng.randrange(10**17, 10**18)}", "uid")


def _ct(person: _Person) -> Canary:
    """A name in every usual header field, also where the manifest keeps the field."""
    person.given = person.note("patient_name", person.word(4).capitalize() + "ü" + person.word(4))
    everywhere = _everywhere(person)
    sequences, private = _sequences(person), _private(person)
    meta, preamble = person.text("file_meta"), person.text("preamble")
    padding, folder = person.text("trailing_padding"), person.text("address")
    files = []
    for z in range(2):
        slice_ = _scan(person, CTImageStorage, "CT", ExplicitVRLittleEndian, np.full((SIDE, SIDE), 40 + z))
        _set(slice_, everywhere | sequences | {"SpecificCharacterSet": "ISO_IR 100", "InstanceNumber": z + 1})
        _set(slice_, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ImagePositionPatient": [0, 0, 2 * z]})
        block = slice_.private_block(0x0019, private["creator"], create=True)
        block.add_new(0x10, "LO", private["value"])
        block.add_new(0x11, "UN", private["bytes"].encode())
        _set(slice_.file_meta, {"SourceApplicationEntityTitle": meta, "PrivateInformationCreatorUID": ROOT + "1"})
        slice_.file_meta.PrivateInformation = meta.encode()
        slice_.preamble = preamble.encode().ljust(128, b"\x00")
        slice_.add_new(0xFFFCFFFC, "OB", padding.encode().ljust(len(padding) + len(padding) % 2, b" "))
        files.append((f"{folder}/{person.family}_{person.given}_{person.born}/{z}.dcm", _bytes(slice_)))
    return Canary(tuple(files), tuple(person.planted), None)


def _mosaic(person: _Person) -> Canary:
    """The one private block that the door reads, and a name in three alphabets."""
    kanji = [person.note("multi_byte_name", "".join(person.rng.sample(KANJI, 3))) for _ in range(2)]
    scan = _scan(person, MRImageStorage, "MR", ImplicitVRLittleEndian, np.arange(SIDE * SIDE).reshape(SIDE, SIDE))
    _set(scan, _everywhere(person) | {"ConvolutionKernel": None, "KVP": None})
    _set(scan, {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": f"{person.name}={'^'.join(kanji)}"})
    _set(scan, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "InstanceNumber": 1})
    _set(scan, {"ImagePositionPatient": [0, 0, 0], "ScanningSequence": "EP", "EchoTime": 30, "RepetitionTime": 2000})
    block = scan.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    tags = {
        "tPatientName": [person.text("siemens_csa")],
        "NumberOfImagesInMosaic": ["4"],
        "SliceNormalVector": ["0.0", "0.0", "1.0"],
    }
    block.add_new(0x10, "OB", _csa(tags))
    address = f"{person.text('address')}/{person.number}.IMA"
    return Canary(((address, _bytes(scan)),), tuple(person.planted), None)


def _radiograph(person: _Person) -> Canary:
    """The name stands in the pixels."""
    person.note("pixels", person.family)
    pixels = _shadow(PROJECTION_SIDE)
    _write(pixels, f"{person.family} {person.given}".upper())
    scan = _scan(person, DigitalXRayImageStorageForPresentation, "DX", ExplicitVRLittleEndian, pixels)
    _set(scan, _everywhere(person) | {"ConvolutionKernel": None, "BurnedInAnnotation": "NO", "ViewPosition": "PA"})
    _set(scan, {"ImageType": ["ORIGINAL", "PRIMARY"], "InstanceNumber": 1})
    address = f"{person.text('address')}/{person.family}.dcm"
    return Canary(((address, _bytes(scan)),), tuple(person.planted), BURNED_IN_TEXT)


def _scan(person: _Person, sop_class: str, modality: str, syntax: str, pixels: Any) -> Dataset:
    """What every file needs to be taken in."""
    scan = Dataset()
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = syntax
    _set(
        scan,
        {
            "SOPClassUID": sop_class,
            "SOPInstanceUID": person.uid("instance_uid"),
            "StudyInstanceUID": person.uids["study_uid"],
            "SeriesInstanceUID": person.uids["series_uid"],
            "FrameOfReferenceUID": person.uids["frame_of_reference_uid"],
            "Modality": modality,
            "BodyPartExamined": "CHEST",
            "SeriesNumber": 1,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "SliceThickness": 2,
            "SpacingBetweenSlices": 2,
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "PixelData": pixels.astype("<u2").tobytes(),
        },
    )
    scan["PixelData"].VR = "OW"
    return scan


def _everywhere(person: _Person) -> dict[str, Any]:
    """Header fields that identify, or that people fill with what does."""
    dates = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), person.day)
    return dates | {
        "PatientName": person.name,
        "PatientID": person.number,
        "PatientBirthDate": person.born,
        "OtherPatientNames": person.text("other_patient_names"),
        "PatientMotherBirthName": person.text("mother_birth_name"),
        "PatientAddress": person.text("patient_address", "12 Via "),
        "PatientTelephoneNumbers": person.digits("telephone", "+0"),
        "AccessionNumber": person.digits("accession_number", "A"),
        "StudyID": person.digits("study_id"),
        "AdmissionID": person.digits("admission_id", "V"),
        "ReferringPhysicianName": person.text("referring_physician", "Dr^"),
        "OperatorsName": person.text("operator"),
        "InstitutionName": person.text("institution_name", "Canary Hospital "),
        "InstitutionAddress": person.text("institution_address", "1 "),
        "StationName": person.text("station_name"),
        "DeviceSerialNumber": person.digits("device_serial", "SN"),
        "StudyDescription": person.text("study_description", "Thorax "),
        "SeriesDescription": person.text("series_description", "axial "),
        "ProtocolName": person.text("protocol_name", "routine "),
        "PatientComments": person.text("patient_comments", "called "),
        "ImageComments": person.text("image_comments", "seen by "),
        "AdditionalPatientHistory": person.text("history", "sister of "),
        "Manufacturer": f"ACME {person.note('manufacturer', person.family)}",
        "ManufacturerModelName": f"Scan {person.note('scanner_model', person.number, 'number')}",
        "SoftwareVersions": ["v1", person.note("software", person.given)],
        "ConvolutionKernel": person.note("kernel", person.family.upper())[:16],
        "KVP": 120,
    }


def _sequences(person: _Person) -> dict[str, Any]:
    """Sequences, one within another."""
    step = Dataset()
    step.ScheduledProcedureStepDescription = person.text("sequence", "for ")
    step.RequestedProcedureID = person.digits("sequence")
    inner = Dataset()
    inner.InstitutionName = person.text("nested_sequence")
    inner.PersonAddress = person.text("nested_sequence")
    step.ReferencedStudySequence = [inner]
    other = Dataset()
    other.PatientID = person.digits("other_patient_ids", "X")
    return {"RequestAttributesSequence": [step], "OtherPatientIDsSequence": [other]}


def _private(person: _Person) -> dict[str, str]:
    return {what: person.text(f"private_{what}") for what in ("creator", "value", "bytes")}


def _csa(tags: Mapping[str, Sequence[str]]) -> bytes:
    """A CSA2 header, as `csa.py` reads it: nipy.org/nibabel/dicom/siemens_csa.html."""
    parts = [b"SV10\x04\x03\x02\x01", struct.pack("<II", len(tags), 77)]
    for name, items in tags.items():
        parts.append(struct.pack("<64si4siii", name.encode(), len(items), b"UN\x00\x00", 0, len(items), 77))
        for item in items:
            value = item.encode()
            parts += [
                struct.pack("<4i", len(value), len(value), 77, len(value)),
                value.ljust((len(value) + 3) // 4 * 4),
            ]
    found = b"".join(parts)
    return found + b"\x00" * (len(found) % 2)


def _shadow(side: int) -> Any:
    """A smooth picture, brighter in the middle, of less than the full range."""
    line = np.sin(np.linspace(0, np.pi, side))
    return 400 + 1600 * np.outer(line, line)


def _write(pixels: Any, text: str) -> None:
    """Draw text near the upper edge, in place."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("L", (pixels.shape[1], pixels.shape[0]), 0)
    font = ImageFont.load_default(18)
    ImageDraw.Draw(canvas).text((6, 8), text, fill=255, font=font)
    cover = np.asarray(canvas) / 255
    pixels *= 1 - cover
    pixels += INK * cover


def _set(dataset: Dataset, elements: Mapping[str, Any]) -> None:
    for keyword, value in elements.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
