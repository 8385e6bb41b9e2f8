"""A policy as rows: which facts must hold, what is done, the sentence that says why; `table.py` reads them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from platform_core.policy.situation import Situation
from platform_core.provenance import digest

Action = Literal["none", "reharmonize", "recalibrate", "calibrate", "adapt", "fine_tune", "request_labels", "hold"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A number from `at_least` on, and below `below`; None: no bound on that side."""

    at_least: float | None = None
    below: float | None = None

    def hold(self, number: float) -> bool:
        """Whether a number lies within."""
        return (self.at_least is None or number >= self.at_least) and (self.below is None or number < self.below)

    def __str__(self) -> str:
        return " and ".join(
            f"{word} {bound:g}"
            for word, bound in (("at least", self.at_least), ("below", self.below))
            if bound is not None
        )


Expected = bool | tuple[str, ...] | Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One fact and what it must be: yes or no, one of some names, a number within bounds."""

    fact: str
    expected: Expected

    def holds(self, situation: Situation) -> bool:
        """Whether the fact is as expected; a fact that nobody knows never is."""
        found = getattr(situation, self.fact)
        if found is None:
            return False
        if isinstance(self.expected, Bounds):
            return self.expected.hold(found)
        return found in self.expected if isinstance(self.expected, tuple) else found is self.expected

    def __str__(self) -> str:
        if isinstance(self.expected, bool):
            return self.fact if self.expected else f"not {self.fact}"
        expected = " or ".join(self.expected) if isinstance(self.expected, tuple) else str(self.expected)
        return f"{self.fact} {expected}" if isinstance(self.expected, Bounds) else f"{self.fact} = {expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One row: if every condition holds, do `action`."""

    name: str
    when: tuple[Condition, ...]
    action: Action
    because: str
    """A sentence; names in braces are filled in from the situation."""
    rationale: str
    """Why this row, and where its thresholds come from."""

    def fits(self, situation: Situation) -> bool:
        """Whether the situation is the row's."""
        return all(condition.holds(situation) for condition in self.when)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for a program."""
        when = [str(condition) for condition in self.when]
        texts = {name: getattr(self, name) for name in ("action", "because", "rationale")}
        return {"name": self.name, "when": when, **texts}

    def ends(self, kind: str) -> bool:
        """Whether every situation of a kind fits that no row above it has taken."""
        return all(c.fact == "kind" and isinstance(c.expected, tuple) and kind in c.expected for c in self.when)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rows to be read from the top; the first that fits decides."""

    rules: tuple[PolicyRule, ...]
    where: str
    """The file they were read from."""

    def choose(self, situation: Situation) -> PolicyRule | None:
        """The first row that fits, but for a `hold` that a person has lifted where a row below it fits as well."""
        fitting = [rule for rule in self.rules if rule.fits(situation)]
        return next((rule for rule in fitting if rule.name not in situation.released), fitting[-1] if fitting else None)

    @cached_property
    def digest(self) -> str:
        """Names what the rows say, wherever they lie."""
        return digest([[rule.name, [str(c) for c in rule.when], rule.action, rule.because] for rule in self.rules])
