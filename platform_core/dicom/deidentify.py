"""One DICOM file without its patient: DICOM PS3.15 Annex E by allow-list (`confidentiality.py`).

Pixels, geometry and acquisition stay as they are. Names and numbers become pseudonyms, UIDs others of the same
meaning everywhere, dates move by one secret number of days per patient. What was done is counted by kind, never by
value. Text in the pixels is not this module's: a series with any is held back at the door (`burned_in.py`).
"""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary

from platform_core.dicom.cleaning import Cleaning, Pseudonyms
from platform_core.dicom.confidentiality import CODES, METHOD
from platform_core.dicom.identifiers import identifiers_of
from platform_core.errors import UnreadableScan

__all__ = ["Audit", "Pseudonyms", "deidentified", "deidentify"]

IMPLEMENTATION = "2.25.163480733316447254096137263214518284813"


@dataclass(frozen=True, slots=True)
class Audit:
    """Elements by what was done to them, in all files counted; no values."""

    counts: Mapping[str, int]

    def __add__(self, other: "Audit") -> "Audit":
        return Audit(dict(sorted((Counter(self.counts) + Counter(other.counts)).items())))


def deidentified(data: bytes, pseudonyms: Pseudonyms) -> tuple[bytes, Audit]:
    """A whole file as bytes, in the transfer syntax it came in.

    Raises:
        UnreadableScan: `unreadable_header`, `unknown_class`, `no_instance_uid`, `no_pixels` or `undecodable`.
    """
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's may quote a value
        try:
            clean, audit = deidentify(pydicom.dcmread(BytesIO(data), force=True), pseudonyms)
            clean.save_as(buffer, enforce_file_format=True)
        except UnreadableScan:
            raise
        except Exception as error:  # pydicom raises many kinds on odd bytes; any means that the file stays
            raise UnreadableScan("unreadable_header", "the file cannot be read or written as DICOM") from error
    return buffer.getvalue(), audit


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> tuple[Dataset, Audit]:
    """A new dataset that holds what may leave, and the count of what was done.

    Raises:
        UnreadableScan: `unknown_class` for a SOP class of nobody's register, `no_instance_uid`, `no_pixels`,
            `undecodable` for compressed pixels that may hold anything.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cleaning = Cleaning(pseudonyms, identifiers_of(dataset), _syntax(dataset))
        clean = cleaning.dataset(dataset)
        _mark(clean, cleaning, pseudonyms)
    if "SOPClassUID" not in clean:
        raise UnreadableScan("unknown_class", "the SOP class is in no register, so nobody knows what it may hold")
    if not clean.get("SOPInstanceUID"):
        raise UnreadableScan("no_instance_uid", "the header names no instance")
    if "PixelData" not in clean:
        raise UnreadableScan("no_pixels", "the file ends before its pixels, or has none")
    clean.file_meta = _file_meta(clean, cleaning.syntax)
    clean.preamble = bytes(128)
    return clean, Audit(dict(sorted(cleaning.counts.items())))


def _mark(clean: Dataset, cleaning: Cleaning, pseudonyms: Pseudonyms) -> None:
    """What a reader must know: whose file it is now, and that it was changed (PS3.15 E.1.1, PS3.3 C.7.1.1)."""
    clean.PatientName = clean.PatientID = pseudonyms.patient
    if cleaning.has_contrast:
        clean.ContrastBolusAgent = "CONTRAST"
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = METHOD
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    clean.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in CODES]


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _file_meta(clean: Dataset, syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = clean.SOPClassUID
    meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "SITEDRIFT"
    return meta


def _syntax(dataset: Dataset) -> UID:
    """As the file says, else as it was read."""
    meta = getattr(dataset, "file_meta", None)
    stated = UID(str(meta.get("TransferSyntaxUID") or "")) if meta is not None else UID("")
    if stated in UID_dictionary:
        return stated
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if is_little is False else ExplicitVRLittleEndian
