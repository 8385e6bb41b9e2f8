"""How numbers and codes are written for people."""

from datetime import date
from typing import Any

from platform_core.report.fleet_rows import Finding, State
from platform_core.shift.risk import Estimate

KIND_WORDS = {
    "none": "no change",
    "covariate_acquisition": "scans are made differently",
    "covariate_case_mix": "other patients come",
    "label": "the share of positives moved",
    "concept": "labels mean something else",
    "mixed": "acquisition and prevalence moved together",
    "undetermined": "cannot be told yet",
}
ACTION_WORDS = {
    "none": "nothing to do",
    "reharmonize": "harmonize again",
    "recalibrate": "recalibrate",
    "calibrate": "calibrate on labels",
    "adapt": "adapt without labels",
    "fine_tune": "fine-tune",
    "request_labels": "ask for labels",
    "hold": "hold for a person",
}
STATE_MARKS: dict[State, str] = {
    "quiet": "●",
    "acted": "◆",
    "in progress": "◐",
    "needs a person": "▲",
    "undetermined": "○",
    "not measured": "\N{EN DASH}",
}
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign; `unknown` for None."""
    if value is None:
        return "unknown"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """`[0.36, 0.49]`; empty for None."""
    if estimate is None:
        return ""
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def compact(value: float | None) -> str:
    """Four significant digits, for tables of mixed units."""
    return "" if value is None else f"{value:.4g}".replace("-", MINUS)


def p_value(value: float | None) -> str:
    """`0.03`, or `< 0.001`."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """`4.1 s`, `3.7 min` or `2.1 h`; of hours one decimal."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 6000)):
        if seconds < most:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.1f} h"


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{int(value or 0):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def day(value: date | None) -> str:
    """`2 Mar 2026`."""
    return "unknown" if value is None else f"{value.day} {value:%b %Y}"


def days(start: date | None, end: date | None) -> str:
    """`2 Feb to 1 Mar 2026`."""
    if start is None or end is None:
        return "unknown"
    first = f"{start.day} {start:%b}" + ("" if start.year == end.year else f" {start.year}")
    return f"{first} to {day(end)}"


def size_name(finding: Finding) -> str:
    """What the size of a finding measures."""
    names = {"label": "change of prevalence", "mixed": "change of prevalence", "concept": "positives not foretold"}
    return names.get(finding.kind, "KS distance")


def sentence(text: str | None) -> str:
    """The text with a capital letter and a full stop; names of features keep their spelling."""
    if not text:
        return ""
    first = text.split(" ", 1)[0]
    start = text if "_" in first else text[0].upper() + text[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."


def plural(n: int, one: str, several: str) -> str:
    """`1 site`, `2 sites`."""
    return f"{n} {one if n == 1 else several}"
