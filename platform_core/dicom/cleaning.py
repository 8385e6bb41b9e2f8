"""The elements of one file, each by its rule (`confidentiality.py`): what may leave, and a count of what was done."""

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, UID_dictionary
from pydicom.valuerep import format_number_as_ds

from platform_core.dicom.confidentiality import OPEN_FIELDS, SAFE_PRIVATE, TERMS, rule_of, table, tag_named
from platform_core.dicom.csa import parse_csa
from platform_core.dicom.identifiers import MAX_DEPTH, Identifiers
from platform_core.dicom.mosaic import COUNT, NORMAL, mosaic_header
from platform_core.dicom.pixel_bytes import clean_pixels

OLDEST = "090Y"
"""Ages above 89 identify (45 CFR 164.514(b)(2)); all of them become this."""
PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ._/+*,()#:&=-]{1,64}")
LONG_NUMBER = re.compile(r"\d{6,}")
"""As long as a patient's number or a date."""
DECIMAL = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
WHOLE = re.compile(r" *[+-]?\d{1,11} *")
DAY = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
TIME = re.compile(r"(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)")
AGE = re.compile(r"(\d{3})([DWMY])")
MAX_OFFSET = 1 << 40
TEXTUAL = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN"})
CSA_CREATOR, CSA_GROUP, CSA_ELEMENT = "SIEMENS CSA HEADER", 0x0029, 0x10


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """What stands for one patient, made with a secret that this room never sees."""

    patient: str
    uid: Callable[[str], str]
    """The same UID always becomes the same other one; at most 64 characters."""
    shift_date: Callable[[date], date]
    """Moves a day by the patient's offset; raises OverflowError before the year 1."""


@dataclass(slots=True, repr=False)
class Cleaning:
    """One file on its way out."""

    pseudonyms: Pseudonyms
    identifiers: Identifiers
    syntax: UID
    counts: Counter[str] = field(default_factory=Counter)
    has_contrast: bool = False

    def dataset(self, dataset: Dataset, depth: int = 0) -> Dataset:
        """The elements of a file or of one item that may leave."""
        clean = Dataset()
        for tag in sorted(dataset.keys()):
            if tag.group <= 2 or tag.element == 0 or tag.is_private_creator:
                continue
            try:
                element = dataset[tag]
                done, kept = self._private(element) if tag.is_private else self._standard(element, depth)
            except Exception:  # noqa: BLE001 - odd bytes raise many kinds; what cannot be understood does not leave
                done, kept = "unreadable", None
            self.counts[done] += 1
            if kept is not None:
                _add(clean, kept, element)
            elif tag == tag_named("PixelData") and depth == 0:
                clean.add(DataElement(tag, element.VR, clean_pixels(dataset, self.syntax)))
        return clean

    def _standard(self, element: DataElement, depth: int) -> tuple[str, DataElement | None]:
        tag = int(element.tag)
        rule = rule_of(tag)
        if rule in ("remove", "unlisted", "graphics", "patient", "replace", "pixels"):
            return rule, None
        if rule == "contrast":
            self.has_contrast |= _is_contrast(element)
            return "cleaned", None
        if element.VR not in dictionary_VR(tag).split(" or "):
            return "wrong_type", None
        if rule == "recurse":
            return self._sequence(element, depth)
        values = None if element.is_empty else getattr(self, f"_{rule}")(element)
        if values is None:
            return self._fallback(element, rule)
        return rule, DataElement(tag, element.VR, values)

    def _fallback(self, element: DataElement, rule: str) -> tuple[str, DataElement | None]:
        """Empty where it was empty or must be there, else gone."""
        row = table().get(int(element.tag))
        must_be = row is not None and "Z" in row.basic
        if element.is_empty and rule != "dummy":
            return "kept_empty", DataElement(element.tag, element.VR, None)
        return ("emptied", DataElement(element.tag, element.VR, None)) if must_be else (f"refused_{rule}", None)

    def _sequence(self, element: DataElement, depth: int) -> tuple[str, DataElement | None]:
        if depth >= MAX_DEPTH:
            return "too_deep", None
        items = [self.dataset(item, depth + 1) for item in element.value]
        return "sequence", DataElement(element.tag, "SQ", items)

    def _private(self, element: DataElement) -> tuple[str, DataElement | None]:
        """Numbers of the safe list, and of the Siemens header what a mosaic cannot be placed without."""
        creator, last = str(element.private_creator or "").strip(), element.tag.element & 0xFF
        if (creator, element.tag.group, last) == (CSA_CREATOR, CSA_GROUP, CSA_ELEMENT):
            header = mosaic_header(parse_csa(element.value, {COUNT, NORMAL}))
            return ("private", None) if header is None else ("cleaned", DataElement(element.tag, "OB", header))
        vr = SAFE_PRIVATE.get((creator, element.tag.group, last))
        if vr is None or vr != element.VR or element.is_empty:
            return "private", None
        values = self._number(element)
        return ("private", None) if values is None else ("safe_private", DataElement(element.tag, vr, values))

    def _number(self, element: DataElement) -> Any:
        values = _values(element)
        if element.VR in ("DS", "IS"):
            return self._spelt([str(value) for value in values], element.VR)
        return list(values) if all(math.isfinite(value) for value in values) else None

    def _spelt(self, texts: Sequence[str], vr: str) -> list[str] | None:
        pattern = DECIMAL if vr == "DS" else WHOLE
        if not all(pattern.fullmatch(text) and not self.identifiers.are_number(text) for text in texts):
            return None
        return [text if len(text) <= 16 else str(format_number_as_ds(float(text))) for text in texts]

    def _term(self, element: DataElement) -> list[str] | None:
        """Listed terms; where place counts, an unknown one becomes OTHER."""
        found = [_listed(str(value)) for value in _values(element)]
        if element.keyword in OPEN_FIELDS:
            return [term or "OTHER" for term in found]
        return [term for term in found if term] or None

    def _text(self, element: DataElement) -> list[str] | None:
        """What a scanner writes of itself, unless it repeats somebody or looks like a number of somebody."""
        texts = [str(value).strip() for value in _values(element)]
        return [text for text in texts if self._is_plain(text)] or None

    def _is_plain(self, text: str) -> bool:
        is_odd = PLAIN_TEXT.fullmatch(text) is None or LONG_NUMBER.search(text) is not None
        return not is_odd and not self.identifiers.are_in(text)

    def _uid(self, element: DataElement) -> list[str]:
        uids = [str(value) for value in _values(element)]
        return [uid if uid in UID_dictionary else self.pseudonyms.uid(uid) for uid in uids]

    def _class(self, element: DataElement) -> str | None:
        return str(element.value) if str(element.value) in UID_dictionary else None

    def _time(self, element: DataElement) -> list[str] | None:
        moved = [self._moved(str(value).strip(), element.VR) for value in _values(element)]
        return None if any(value is None for value in moved) else [value or "" for value in moved]

    def _moved(self, text: str, vr: str) -> str | None:
        """A date by the patient's offset, a time of day as it is; the offset from UTC goes."""
        day = DAY.match(text) if vr != "TM" else None
        if vr != "TM" and day is None:
            return None
        clock = re.sub(r"[+-]\d{4}$", "", text[day.end() :] if day else text)
        if clock and (vr == "DA" or TIME.fullmatch(clock) is None or self.identifiers.are_number(clock)):
            return None
        if day is None:
            return clock or None
        try:
            moved = self.pseudonyms.shift_date(date(*(int(part) for part in day.groups())))
        except (ValueError, OverflowError):
            return None
        return f"{moved:%Y%m%d}".zfill(8) + clock

    def _age(self, element: DataElement) -> str | None:
        found = AGE.fullmatch(str(element.value).strip())
        if found is None:
            return None
        return OLDEST if found[2] == "Y" and int(found[1]) >= 90 else found[0]

    def _sex(self, element: DataElement) -> str | None:
        value = str(element.value).strip().upper()
        return value if value in ("M", "F", "O") else None

    def _empty(self, _: DataElement) -> None:
        return None

    def _dummy(self, element: DataElement) -> str | None:
        return "REMOVED" if element.VR in TEXTUAL else None

    def _bytes(self, element: DataElement) -> bytes | None:
        """Offsets and lengths of compressed frames, 64 bits each; text read as such numbers would be far larger."""
        value: bytes = element.value
        if not self.syntax.is_encapsulated or len(value) % 8:
            return None
        return value if all(number < MAX_OFFSET for (number,) in struct.iter_unpack("<Q", value)) else None


def _add(clean: Dataset, kept: DataElement, source: DataElement) -> None:
    """Put an element in; a private one brings the element that reserves its block (PS3.5 section 7.8.1)."""
    if kept.tag.is_private:
        clean.add_new((kept.tag.group, kept.tag.element >> 8), "LO", str(source.private_creator).strip())
    clean.add(kept)


def _values(element: DataElement) -> Sequence[Any]:
    return element.value if element.VM > 1 else [element.value]


def _listed(text: str) -> str | None:
    term = text.strip().upper()
    plain = term.replace(" ", "").replace("_", "")
    return term if term in TERMS else plain if plain in TERMS else None


def _is_contrast(element: DataElement) -> bool:
    """Whether a contrast agent is stated, in words or as a code."""
    if element.VR == "SQ":
        return len(element.value) > 0
    return str(element.value or "").strip().upper() not in ("", "NONE", "NO")
