"""What identifies the people of one file, and whether a text repeats any of it.

People type names anywhere, so a text that is kept is held against every name, number, address and date of the
file it comes from. Texts are compared squeezed: without accents, case, blanks and signs; umlauts also as ae, oe, ue.
Nothing of this leaves the process.
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation

from pydicom.dataset import Dataset

MAX_DEPTH = 8
"""Sequences in sequences; enhanced multi-frame files need four."""
MIN_PART, MIN_SHORT = 4, 2
"""Letters from which a name is looked for within words; shorter names count where they are a word."""
MIN_DIGITS = 5
"""Shorter numbers turn up among settings by chance."""
NUMBERS = frozenset(
    "PatientID OtherPatientIDs AccessionNumber AdmissionID ServiceEpisodeID StudyID DeviceSerialNumber "
    "RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID FillerOrderNumberImagingServiceRequest "
    "PlacerOrderNumberImagingServiceRequest MedicalRecordLocator PatientTelephoneNumbers ClinicalTrialSubjectID "
    "MilitaryRank InsurancePlanIdentification PatientBirthDate PatientBirthTime StudyDate SeriesDate AcquisitionDate "
    "ContentDate".split()
)
PLACES = frozenset(
    "InstitutionName InstitutionalDepartmentName InstitutionAddress PatientAddress IssuerOfPatientID "
    "ResponsibleOrganization CountryOfResidence RegionOfResidence ClinicalTrialSiteName PersonAddress".split()
)
COMMON = frozenset(
    "center centre centrum clinic clinical clinique department diagnostic general health healthcare hitachi hopital "
    "hospital hyperfine image imaging institute klinik klinikum medical medicine philips radiology radiologie "
    "research school siemens street system systems toshiba university universitat canon".split()
)
"""Words of addresses and institutions that say nothing, makers' names among them."""
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
LARGEST = Decimal(10) ** 64
"""No identifier has more digits (VR LO)."""
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae"})
PLAIN = str.maketrans({"ß": "ss", "ø": "o", "æ": "ae", "ł": "l", "đ": "d"})


@dataclass(frozen=True, slots=True, repr=False)
class Identifiers:
    """What identifies, squeezed."""

    parts: frozenset[str]
    """Looked for within a text."""
    short: frozenset[str]
    """Looked for among the words of a text."""
    numbers: frozenset[str]
    """Digits that no number may be."""

    def are_in(self, text: str) -> bool:
        """Whether a text repeats any of it."""
        words = {squeezed(word) for word in re.split(r"[^\w]+|_", text)}
        whole = squeezed(text)
        return any(part in whole for part in self.parts) or not words.isdisjoint(self.short)

    def are_number(self, text: str) -> bool:
        """Whether a number is one of the file's identifying numbers or dates, however it is written."""
        return text.strip() in self.numbers or _plain_number(text) in self.numbers


def identifiers_of(dataset: Dataset) -> Identifiers:
    """Everything that identifies in a file, its sequences included."""
    parts: set[str] = set()
    numbers: set[str] = set()
    for kind, value in _values(dataset, 0):
        if kind == "number":
            digits = value.strip()
            numbers |= {n for n in (digits, _plain_number(digits)) if n.isdigit() and len(n) >= MIN_DIGITS}
            parts |= {squeezed(value), *_spellings(squeezed(value))}
            continue
        words = [word for word in re.split(r"[\s^=,;./\\-]+", value) if squeezed(word) not in COMMON]
        found = {squeezed(word) for word in words} | {squeezed(word.lower().translate(UMLAUTS)) for word in words}
        parts |= {word for word in found if kind == "name" or len(word) > MIN_PART} | {squeezed(value)}
    parts -= COMMON
    return Identifiers(
        frozenset(part for part in parts if len(part) >= MIN_PART),
        frozenset(part for part in parts if MIN_SHORT <= len(part) < MIN_PART),
        frozenset(numbers),
    )


def squeezed(text: str) -> str:
    """Lower-case letters and digits alone, without accents."""
    bare = unicodedata.normalize("NFKD", text.lower().translate(PLAIN))
    return "".join(c for c in bare if c.isalnum())


def _plain_number(text: str) -> str:
    """The digits of a whole number that may be written with sign, zeros, fraction or exponent; else nothing."""
    try:
        value = abs(Decimal(text.strip()))
        is_plain = value < LARGEST and value == int(value)
    except InvalidOperation:
        return ""
    return str(int(value)) if is_plain else ""


def _spellings(digits: str) -> Iterator[str]:
    """How people write a day: in any order, with or without zeros, the month as a number or an English name."""
    try:
        day = date.fromisoformat(digits) if len(digits) == 8 and digits.isdigit() else None
    except ValueError:
        day = None
    if day is None:
        return
    months = (f"{day.month}", f"{day:%m}", MONTHS[day.month - 1])
    for d in (f"{day.day}", f"{day:%d}"):
        for m in months:
            yield from (f"{d}{m}{day.year:04}", f"{m}{d}{day.year:04}", f"{day.year:04}{m}{d}")


def _values(dataset: Dataset, depth: int) -> Iterator[tuple[str, str]]:
    """Identifying values with their kind: name, number or place."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            vr, keyword, value = element.VR, element.keyword, element.value
        except Exception:  # noqa: BLE001, S112 - what cannot be read is not kept either
            continue
        if vr == "SQ" and depth < MAX_DEPTH:
            for item in value:
                yield from _values(item, depth + 1)
        kind = _kind(vr, keyword)
        if kind and value is not None:
            for one in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]:
                yield kind, str(one)


def _kind(vr: str, keyword: str) -> str:
    if vr == "PN":
        return "name"
    if keyword in NUMBERS:
        return "number"
    return "place" if keyword in PLACES else ""
