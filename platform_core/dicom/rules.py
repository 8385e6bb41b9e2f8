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

from platform_core.dicom.elements import parse, text, tokens, uid
from platform_core.dicom.stream import Elements, tag_of
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

HEAD_BYTES = 8192
"""Read of a file at first: the series stands in the first 4 KiB of most headers, and a disk reads no less at once."""
SERIES_UID = tag_of("SeriesInstanceUID")


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
    elements = parse(data, last=SERIES_UID)
    look = _look(elements)
    if look.rule is None and not look.series_uid and elements.is_cut:
        raise UnreadableScan("unreadable_header", "the file ends within its header")
    if look.rule is None and not look.series_uid:
        raise UnreadableScan("no_series_uid", "the header names no series")
    return look


def glance_at_head(head: bytes) -> Glance | None:
    """The same of the beginning of a file; None if it does not tell and the whole file must be read."""
    try:
        elements = parse(head, last=SERIES_UID)
    except UnreadableScan:
        return None
    look = _look(elements)
    return look if look.series_uid and not elements.is_cut else None


def _look(elements: Elements) -> Glance:
    return Glance(uid(elements, "SeriesInstanceUID"), set_aside(elements))


def set_aside(elements: Elements) -> str | None:
    """The rule that sets a file aside; None for an image to take in."""
    sop_class = uid(elements, "SOPClassUID")
    if uid(elements, "MediaStorageSOPClassUID") == DIRECTORY:
        return "directory"
    modality, image_type = text(elements, "Modality").upper(), frozenset(tokens(elements))
    if modality in NOT_IMAGES or sop_class.startswith(NOT_IMAGE_CLASSES):
        return "not_an_image"
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + "."):
        return "secondary_capture"
    if image_type & SCREENS:
        return "screen_save"
    if image_type & LOCALIZERS:
        return "localizer"
    return "other_modality" if modality and modality not in MODALITIES else None
