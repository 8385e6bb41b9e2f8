"""What the policy may ask of a situation, and what its sentences may name: read off `Situation`, listed once."""

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from platform_core.policy.situation import KINDS, Situation
from platform_core.shift.risk import Estimate

FactType = Literal["yes_no", "number", "kind"]


def _answers() -> dict[str, Any]:
    """Every public name of `Situation` with the type of what it answers."""
    named = get_type_hints(Situation)
    answers = {field.name: named[field.name] for field in fields(Situation)}
    for name, value in vars(Situation).items():
        if isinstance(value, property):
            answers[name] = get_type_hints(value.fget)["return"]
    return answers


def _types(answer: Any) -> set[Any]:
    return {tuple} if get_origin(answer) is tuple else set(get_args(answer) or (answer,)) - {type(None)}


def _type_of(answer: Any) -> FactType | None:
    if get_args(answer) == KINDS:
        return "kind"
    if _types(answer) == {bool}:
        return "yes_no"
    return "number" if _types(answer) <= {int, float} else None


FACTS: dict[str, FactType] = {name: fact for name, answer in _answers().items() if (fact := _type_of(answer))}
"""What a row's `when` may name, and what it is compared with."""

WORDS: tuple[str, ...] = tuple(
    name for name, answer in _answers().items() if _types(answer) <= {int, float, str, Estimate}
)
"""What a sentence may name in braces."""


def words(situation: Situation) -> dict[str, str]:
    """What each word of a sentence stands for."""
    return {name: _spelt(getattr(situation, name)) for name in WORDS}


def _spelt(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, Estimate):
        return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
