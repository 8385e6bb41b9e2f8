"""Text that is burned into pixels: refused by rule, then looked for.

The rules need header fields as plain text, no pixels. The look finds lines of at least four
glyph-like marks (`glyphs.py`). It cannot read: a side marker (L, R) passes, the word
PORTABLE is held for a person as a name would be. Text of fewer than four glyphs, handwriting,
slanted text and text fainter than a third of the image's range pass unseen.

Overlay planes (60xx) are never part of a volume and are not looked at.

Source: rules of the RSNA Clinical Trial Processor, which TCIA's collections go through,
BurnedInPixelsFilter.script and DicomPixelAnonymizer.script,
github.com/johnperry/CTP/tree/16d8df88/source/files/scripts and .../054d5086/...; those of
Stanford's deid, github.com/pydicom/deid/blob/031ddcf2/deid/data/deid.dicom; the Clean Pixel
Data option of DICOM PS3.15 E.3.1.
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import re
from dataclasses import dataclass

import numpy as np

from platform_core.dicom.glyphs import Line, text_lines
from platform_core.imaging.volume import Voxels

BURNED_IN_TEXT = "burned_in_text"
"""The reason code of what is held for a person because of its pixels."""

STORAGE = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = STORAGE + "7"
SCREEN_CLASSES = tuple(STORAGE + tail for tail in ("3", "6", "77"))
"""Ultrasound (old and new) and visible light, PS3.4 B.5: names on the picture are the rule, not the exception."""
SCREEN_MODALITIES = frozenset("US IVUS BDUS OT SC XC ES GM SM OP OPT OSS DG LS TG EPS HC DOC".split())
PROJECTIONS = frozenset("CR DX MG IO PX XA RF RG".split())
SLICES = frozenset("CT MR PT NM".split())
MADE_LATER = frozenset({"DERIVED", "SECONDARY"})
SAVE = re.compile(r"\b(SCREEN)?SAVE[SD]?\b|SCREEN_SAVE")
"""A word of its own: part of one, it is in names of people."""
AT_EDGE = 0.05
"""Text in a slice has the largest stored value, or one within this share of the range: anatomy seldom does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the header says about how a picture was made: elements as text, empty where they are not stated.

    Descriptions are matched and dropped; nothing of this enters a table.
    """

    sop_class: str = ""
    modality: str = ""
    image_type: str = ""
    """(0008,0008), its values joined by a backslash."""
    burned_in_annotation: str = ""
    """(0028,0301)"""
    conversion_type: str = ""
    """(0008,0064), which only captured pictures state: PS3.3 C.8.6.1."""
    capture_device: str = ""
    """(0018,1012), (0018,1016), (0018,1018) and (0018,1019) joined: when and by what a picture was captured."""
    series_description: str = ""
    manufacturer: str = ""
    scanner_model: str = ""
    n_rows: int = 0
    n_columns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenRule:
    """A known screen of one vendor; every field that is not empty must be met, text by being contained."""

    modality: str = ""
    manufacturer: str = ""
    scanner_model: str = ""
    image_type: str = ""
    series_description: str = ""
    n_rows: int = 0
    n_columns: int = 0

    def is_met(self, marks: Marks) -> bool:
        """Whether a picture is of this kind."""
        texts = ("manufacturer", "scanner_model", "image_type", "series_description")
        contains = all(getattr(self, name) in getattr(marks, name).upper() for name in texts)
        sizes = ((self.n_rows, marks.n_rows), (self.n_columns, marks.n_columns))
        has_size = all(wanted in (0, found) for wanted, found in sizes)
        return contains and has_size and self.modality in ("", marks.modality.strip().upper())


SCREENS = (
    ScreenRule(series_description="DOSE REPORT"),
    ScreenRule(manufacturer="GE MEDICAL", series_description="AW ELECTRONIC FILM"),
    ScreenRule(manufacturer="GE MEDICAL", series_description="AVA REPORT"),
    ScreenRule(manufacturer="VITAL IMAGES", series_description="REPORT"),
    ScreenRule(manufacturer="VITAL IMAGES", series_description="AAA"),
    ScreenRule(image_type="VOLREN", n_rows=512, n_columns=512),
    ScreenRule(manufacturer="SIEMENS", image_type="SECONDARY", n_rows=860),
    ScreenRule(manufacturer="SIEMENS", modality="CT", series_description="ENHANCEMENT"),
    ScreenRule(modality="CT", manufacturer="TOSHIBA", scanner_model="AQUILION ONE", image_type="SECONDARY"),
    ScreenRule(modality="PT", manufacturer="PHILIPS", scanner_model="GEMINI", n_rows=446, n_columns=245),
    ScreenRule(modality="PT", manufacturer="PHILIPS", scanner_model="GEMINI", n_rows=445, n_columns=493),
    ScreenRule(modality="PT", manufacturer="PHILIPS", scanner_model="GEMINI", n_rows=373, n_columns=492),
    ScreenRule(manufacturer="ADAC", n_rows=832, n_columns=1024),
    ScreenRule(series_description="MEDRAD"),
)
"""Screens on which names were found, from CTP's and deid's lists; their ultrasound entries fall under the modality."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Where an image looks as if text were burned into it."""

    plane: int
    """Which of the planes, from 0."""
    line: Line

    @property
    def detail(self) -> str:
        """For the person on call: where to look; nothing of what is written there."""
        top, bottom, left, right = self.line.box
        where = f"rows {top} to {bottom}, columns {left} to {right} of image {self.plane + 1}"
        return f"{self.line.n_glyphs} glyph-like marks in a line, {where}"


def refusal_by_rule(marks: Marks) -> str | None:
    """Why a picture must not pass without a person, whatever its pixels: a stable reason code; None if it may.

    `burned_in_stated`, `secondary_capture`, `screen_save`, `dose_screen`, `known_screen` or `screen_modality`.
    """
    image_type, description = marks.image_type.upper(), marks.series_description.upper()
    if "YES" in marks.burned_in_annotation.upper():
        return "burned_in_stated"
    if _is_class(marks.sop_class, SECONDARY_CAPTURE) or marks.conversion_type.strip() or marks.capture_device.strip():
        return "secondary_capture"
    if SAVE.search(image_type) or SAVE.search(description):
        return "screen_save"
    if "DOSE" in image_type:
        return "dose_screen"
    if any(rule.is_met(marks) for rule in SCREENS):
        return "known_screen"
    is_screen = marks.modality.strip().upper() in SCREEN_MODALITIES
    return "screen_modality" if is_screen or any(_is_class(marks.sop_class, root) for root in SCREEN_CLASSES) else None


def is_at_risk(marks: Marks) -> bool:
    """Whether the pixels must be looked at: radiographs always, slices if something made them later.

    An unknown modality is at risk. A header that says NO (0028,0301) is not believed.
    """
    if marks.modality.strip().upper() not in SLICES:
        return True
    return bool(MADE_LATER & {word.strip() for word in marks.image_type.upper().split("\\")})


def has_text_like_regions(pixels: Voxels, modality: str) -> Suspicion | None:
    """Look for text in every plane; the longest line of the first plane that has one.

    Args:
        pixels: (plane, y, x) or (t, z, y, x), stored or rescaled values, larger is brighter.
        modality: As the header says. In CT, MR, PT and NM only text of the largest stored
            value counts: their anatomy is small enough to look like glyphs.
    """
    is_slices = modality.strip().upper() in SLICES
    for number, plane in enumerate(pixels.reshape(-1, *pixels.shape[-2:])):
        lines = text_lines(plane, dark=not is_slices)
        if is_slices and lines:
            lines = _saturated(plane, lines)
        if lines:
            return Suspicion(number, max(lines, key=lambda line: line.n_glyphs))
    return None


def _saturated(plane: Voxels, lines: list[Line]) -> list[Line]:
    low, high = float(np.min(plane)), float(np.max(plane))
    return [line for line in lines if line.tone >= high - AT_EDGE * (high - low)]


def _is_class(sop_class: str, root: str) -> bool:
    return sop_class.strip("\x00 ") == root or sop_class.startswith(root + ".")
