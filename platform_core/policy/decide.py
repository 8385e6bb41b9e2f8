"""Which action a situation asks for. Pure: facts in, decision out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from platform_core.errors import UnknownName
from platform_core.policy.rules import POLICY, STRATEGY_FROM_PATIENTS, Action, PolicyRule, words
from platform_core.policy.situation import KINDS, Situation

Status = Literal["proposed", "done", "refused", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and why in one sentence."""

    action: Action
    because: str
    rule: str
    """The row of the policy that decided."""
    strategy: str | None = None
    """Of a fine-tuning."""
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
        strategy=choose_strategy(situation.n_train_labels, situation.strategies) if is_training else None,
        n_labels_wanted=situation.n_labels_wanted if rule.action == "request_labels" else None,
        status="waiting" if is_training and situation.needs_approval else "proposed",
    )


def choose_strategy(n_train_labels: int, allowed: Sequence[str]) -> str:
    """The deepest allowed strategy that the labels carry; the cheapest allowed one if they carry none of them.

    Args:
        n_train_labels: Labelled patients that training may use.
        allowed: Strategies of the target, cheapest first.

    Raises:
        UnknownName: If the target allows none.
    """
    if not allowed:
        known = [name for name, _ in STRATEGY_FROM_PATIENTS]
        raise UnknownName("strategy allowed by the target", "", known)
    carried = [name for name, n in STRATEGY_FROM_PATIENTS if n_train_labels >= n and name in allowed]
    return carried[0] if carried else allowed[0]
