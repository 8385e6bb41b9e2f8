"""What a person writes freely is kept and shown in reports: it must not hold what could identify a patient."""

import re

from platform_core.errors import BadRequest

LONGEST_NOTE = 300
IDENTIFYING = (
    (re.compile(r"\d[\d./-]{4,}\d|\d{5,}"), "a long number, which could be an identifier or a date"),
    (re.compile(r"\^"), "a '^', which stands between the names of a patient"),
    (re.compile(r"[\x00-\x1f]"), "a character that does not print"),
)


def what_identifies(text: str) -> str | None:
    """What in a text could identify a patient, in words that do not repeat it; None if nothing is seen."""
    if len(text) > LONGEST_NOTE:
        return f"{len(text)} characters, at most {LONGEST_NOTE} are kept"
    return next((what for pattern, what in IDENTIFYING if pattern.search(text)), None)


def refuse_identifying(*texts: str | None) -> None:
    """Let texts pass that can be kept.

    Raises:
        BadRequest: If one of them could identify a patient.
    """
    problem = next((found for text in texts if (found := what_identifies(text or ""))), None)
    if problem:
        raise BadRequest(f"the text holds {problem}; say it in other words: it is kept and shown in reports")
