"""What is set aside by a stated rule, and the first look that decides it.

| rule | what it sets aside |
|---|---|
| `directory` | a DICOMDIR |
| `not_an_image` | reports, presentation states, structures, plans, segmentations, waveforms, documents |
| `secondary_capture` | screen shots and scanned paper |
| `screen_save` | dose sheets and result screens that are filed as images |
| `localizer` | scouts and localizers |
| `other_modality` | images of a kind that this platform does not measure |
"""

# ruff: noqa: SIM905 - lists of terms read better as words
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from platform_core.dicom.elements import may_be_dicom, tokens
from platform_core.errors import UnreadableScan

MODALITIES = frozenset({"CT", "MR", "PT", "CR", "DX", "MG"})
NOT_IMAGES = frozenset(
    "SR KO PR RTSTRUCT RTPLAN RTDOSE RTRECORD SEG REG FID DOC AU ECG HD PLAN SMR STAIN TEXTUREMAP RWV ANN".split()
)
STORAGE = "1.2.840.10008.5.1.4.1.1."
NOT_IMAGE_CLASSES = tuple(STORAGE + tail for tail in ("88.", "11.", "481.", "9.", "104.", "66"))
"""SR and KO, presentation states, radiotherapy, waveforms, documents, raw data and segmentations: PS3.4 B.5."""
SECONDARY_CAPTURE = STORAGE + "7"
DIRECTORY = "1.2.840.10008.1.3.10"
LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
SCREENS = frozenset({"SCREEN SAVE", "SCREEN_SAVE", "DOSE_INFO", "DOSE REPORT", "RESULT"})

SERIES_UID = Tag(0x0020000E)
LOOKED_AT = [Tag(tag) for tag in (0x00080008, 0x00080016, 0x00080060, 0x0020000E)]


@dataclass(frozen=True, slots=True, repr=False)
class Glance:
    """What the first look at a file tells: the series, and the rule that sets it aside, if one does."""

    series_uid: str
    rule: str | None


def glance(data: bytes) -> Glance:
    """Read a file no further than its series.

    Raises:
        UnreadableScan: `not_dicom`, `unreadable_header` or `no_series_uid`.
    """
    if not may_be_dicom(data):
        raise UnreadableScan("not_dicom", "expected a DICOM header, found something else")
    try:
        dataset = read_partial(BytesIO(data), stop_when=_is_past, force=True, specific_tags=LOOKED_AT)
        series_uid = str(dataset.get("SeriesInstanceUID") or "").strip("\x00 ")
        rule = set_aside(dataset)
    except Exception as error:  # pydicom raises many kinds on broken bytes; any means: cannot be parsed
        raise UnreadableScan("unreadable_header", "the DICOM header cannot be parsed") from error
    if rule is None and not series_uid:
        raise UnreadableScan("no_series_uid", "the header names no series")
    return Glance(series_uid, rule)


def set_aside(dataset: Dataset) -> str | None:
    """The rule that sets a file aside; None for an image to take in."""
    sop_class = str(dataset.get("SOPClassUID") or "")
    if str(dataset.file_meta.get("MediaStorageSOPClassUID") or "") == DIRECTORY:
        return "directory"
    modality, image_type = str(dataset.get("Modality") or "").strip().upper(), frozenset(tokens(dataset))
    if modality in NOT_IMAGES or sop_class.startswith(NOT_IMAGE_CLASSES):
        return "not_an_image"
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + "."):
        return "secondary_capture"
    if image_type & SCREENS:
        return "screen_save"
    if image_type & LOCALIZERS:
        return "localizer"
    return "other_modality" if modality and modality not in MODALITIES else None


def _is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > int(SERIES_UID)
