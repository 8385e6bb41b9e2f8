"""Typed access to the elements of a DICOM file: nothing in here raises because a value is odd."""

import logging
import re
import warnings
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from platform_core.errors import UnreadableScan

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
# What pydicom warns of or logs may quote a value, and a value may be a name.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")

MAGIC = slice(128, 132)
PLAUSIBLE_START = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
"""Groups 0008 and 0002 in either byte order: how a file without preamble begins."""
MAX_TEXT = 64


def claims_to_be_dicom(name: str, data: bytes) -> bool:
    """Whether somebody meant this file to be DICOM: it has the magic word, or its name says so."""
    return data[MAGIC] == b"DICM" or name.lower().endswith((".dcm", ".dicom", ".ima"))


def may_be_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does, with or without preamble."""
    return data[MAGIC] == b"DICM" or data[:2] in PLAUSIBLE_START


def parse(data: bytes) -> Dataset:
    """The elements of a file, with or without preamble.

    Raises:
        UnreadableScan: `not_dicom` or `unreadable_header`.
    """
    if not may_be_dicom(data):
        raise UnreadableScan("not_dicom", "expected a DICOM header, found something else")
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
        _ = dataset.get("SeriesInstanceUID"), dataset.get("Modality")
    except Exception as error:  # pydicom raises many kinds on broken bytes; any means: cannot be parsed
        raise UnreadableScan("unreadable_header", "the DICOM header cannot be parsed") from error
    return dataset


def text(dataset: Dataset, name: str) -> str:
    """A value as printable ASCII without surplus blanks, at most 64 characters; several are joined by `+`."""
    value = dataset.get(name)
    if value is None:
        return ""
    values = value if isinstance(value, (list, MultiValue)) else [value]
    joined = "+".join(str(v).strip() for v in values if v is not None)
    return re.sub(r"[^\x20-\x7e]+|\s+", " ", joined).strip()[:MAX_TEXT]


def number(dataset: Dataset, name: str) -> float | None:
    """A finite number, the first if there are several, else None."""
    value = dataset.get(name)
    if isinstance(value, (list, MultiValue)):
        value = value[0] if len(value) else None
    try:
        found = float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None
    return found if found is not None and abs(found) < float("inf") else None


def whole(dataset: Dataset, name: str) -> int | None:
    """A whole number, else None."""
    found = number(dataset, name)
    return None if found is None else int(found)


def numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, else None."""
    try:
        found = tuple(float(v) for v in dataset.get(name) or ())
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(abs(v) < float("inf") for v in found) else None


def tokens(dataset: Dataset, name: str = "ImageType") -> tuple[str, ...]:
    """The values of a multi-valued text field, upper case."""
    value = dataset.get(name) or ()
    values = value if isinstance(value, (list, MultiValue)) else [value]
    return tuple(str(v).strip().upper() for v in values)


def shared_groups(dataset: Dataset) -> Dataset:
    """What an enhanced multi-frame file says of all its frames; empty for a classic file."""
    sequence = dataset.get("SharedFunctionalGroupsSequence")
    return sequence[0] if sequence else Dataset()


def group_of(shared: Dataset, sequence: str, dataset: Dataset) -> Dataset:
    """The first item of a functional group, or the dataset itself where a classic file keeps the field."""
    items = shared.get(sequence)
    return items[0] if items else dataset
