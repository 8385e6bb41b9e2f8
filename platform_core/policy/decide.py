"""Which action a situation asks for. Pure: facts in, decision out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from platform_core.errors import UnknownName
from platform_core.policy.candidates import candidates
from platform_core.policy.rules import POLICY, Action, PolicyRule, words
from platform_core.policy.situation import KINDS, Situation

Status = Literal["proposed", "done", "refused", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and why in one sentence."""

    action: Action
    because: str
    rule: str
    """The row of the policy that decided."""
    candidates: tuple[str, ...] = ()
    """Strategies that a fine-tuning races, cheapest first."""
    n_labels_wanted: int | None = None
    """Patients to label, of a request for labels."""
    status: Status = "proposed"
    """`waiting` if a person must agree first."""


def decide(situation: Situation, policy: Sequence[PolicyRule] = POLICY) -> Decision:
    """The first row of the policy that fits.

    Raises:
        UnknownName: If the kind is none of `KINDS`, or no row fits.
    """
    if situation.kind not in KINDS:
        raise UnknownName("kind of shift", situation.kind, KINDS)
    rule = next((rule for rule in policy if rule.when(situation)), None)
    if rule is None:
        raise UnknownName("rule for", situation.kind, [rule.name for rule in policy])
    is_training = rule.action == "fine_tune"
    return Decision(
        action=rule.action,
        because=rule.because.format_map(words(situation)),
        rule=rule.name,
        candidates=candidates(situation.kind, situation.n_train_labels, situation.strategies) if is_training else (),
        n_labels_wanted=situation.n_labels_wanted if rule.action == "request_labels" else None,
        status="waiting" if is_training and situation.needs_approval else "proposed",
    )
