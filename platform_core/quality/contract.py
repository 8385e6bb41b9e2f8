"""What a quality rule is: an expectation, how bad its failure is, and why it exists."""

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warn", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One expectation on the batch frame (native `core__series` joined with its features).

    A series that fails a rule of severity `error` does not flow on.
    """

    name: str
    severity: Severity
    expectation: dict[str, Any]
    """`type` and its arguments, as Great Expectations spells them."""
    because: str
    modality: str | None = None
    """The modality it is about; None for all."""
