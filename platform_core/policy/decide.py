"""Which action a situation asks for. Pure: facts in, decision out."""

from dataclasses import dataclass
from typing import Literal

from platform_core.errors import UnknownName
from platform_core.policy.candidates import candidates
from platform_core.policy.facts import words
from platform_core.policy.rules import Action, Policy
from platform_core.policy.situation import KINDS, Situation
from platform_core.policy.table import built_in

Status = Literal["waiting", "approved", "proposed", "shadow", "passed", "rejected", "refused", "done"]
"""How far a decision is, in the order in which it may go on: `waiting` for a person; `approved` or `rejected` by one;
`proposed`, it has begun and not ended; in the `shadow` beside the champion; `passed` the gate, sites follow;
`refused` by a gate; `done`."""


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
    """`waiting` if a person must agree first, or if only a person can go on."""
    approved_by: str = "policy"
    """Or the person who agreed."""
    approval: str | None = None
    """Key of the decision that the person agreed to; a later finding may be what carries it out."""


def decide(situation: Situation, policy: Policy | None = None) -> Decision:
    """The first row of the policy that fits, by default of the built-in one.

    Raises:
        UnknownName: If the kind is none of `KINDS`, no row fits, or a fine-tuning has no strategy that it may use.
    """
    if situation.kind not in KINDS:
        raise UnknownName("kind of shift", situation.kind, KINDS)
    policy = policy or built_in()
    rule = policy.choose(situation)
    if rule is None:
        raise UnknownName("rule for", situation.kind, [rule.name for rule in policy.rules])
    is_waiting = rule.action == "hold" or rule.action in situation.approve
    return Decision(
        action=rule.action,
        because=rule.because.format_map(words(situation)),
        rule=rule.name,
        candidates=_candidates(situation) if rule.action == "fine_tune" else (),
        n_labels_wanted=situation.n_labels_wanted if rule.action == "request_labels" else None,
        status="waiting" if is_waiting else "proposed",
    )


def _candidates(s: Situation) -> tuple[str, ...]:
    return candidates(s.kind, s.n_train_labels, s.strategies, s.label_noise)
