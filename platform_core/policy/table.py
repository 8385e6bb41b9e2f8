"""The policy's table in TOML: read, checked whole, and told of with the file, the row and the remedy."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, NoReturn

from platform_core.errors import BadSetting, NoSuchPlace
from platform_core.policy.facts import FACTS, WORDS, FactType
from platform_core.policy.rules import ACTIONS, Bounds, Condition, Expected, Policy, PolicyRule
from platform_core.policy.situation import KINDS

if TYPE_CHECKING:
    from platform_core.manifest.workspace import Workspace

BUILT_IN = "default.toml"
KEYS = ("name", "when", "action", "because", "rationale")
EXPECTED: Mapping[FactType, str] = {
    "yes_no": "true or false",
    "number": "{ at_least = ..., below = ... }, or one of the two",
    "kind": f"a kind of finding, or a list of them ({', '.join(KINDS)})",
}


@cache
def built_in() -> Policy:
    """The policy that comes with the platform."""
    return parse_policy(files(__package__).joinpath(BUILT_IN).read_bytes(), f"the built-in policy ({BUILT_IN})")


def policy_of(workspace: "Workspace") -> Policy:
    """The policy that a workspace names in `policy.file`, by default the built-in one.

    Raises:
        NoSuchPlace: If there is no such file.
        BadSetting: If it cannot be used.
    """
    path = workspace.settings.policy.file
    if path is None:
        return built_in()
    where = f"{workspace.uri}/{path}"
    try:
        data = workspace.objects.get(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        remedy = "correct policy.file in sitedrift.toml, or take it out to have the built-in policy"
        raise NoSuchPlace(where, "a policy in TOML", remedy) from error
    return parse_policy(data, where)


def read_policy(file: Path) -> Policy:
    """The policy in a file of this machine.

    Raises:
        NoSuchPlace: If there is no such file.
        BadSetting: If it cannot be used.
    """
    if not file.is_file():
        raise NoSuchPlace(str(file), "a policy in TOML", "correct the name of the file")
    return parse_policy(file.read_bytes(), str(file))


def parse_policy(data: bytes, where: str) -> Policy:
    """Check the content of a policy's table; `where` names it in errors.

    Raises:
        BadSetting: If it is no TOML, a row names what does not exist, or some kind of finding ends in no row.
    """
    try:
        facts = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(where, "", f"is not valid TOML ({error})", "mend the line it names") from error
    rows = facts.pop("rule", None)
    for key in facts:
        raise BadSetting(where, key, "is no part of a policy", "it has [[rule]] tables and nothing else")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadSetting(where, "rule", "expected [[rule]] tables, found none", "copy those of the built-in policy")
    policy = Policy(
        rules=tuple(_Row(where, number, row).rule() for number, row in enumerate(rows, start=1)), where=where
    )
    _refuse_namesakes(policy)
    _refuse_open_ends(policy)
    return policy


def _refuse_namesakes(policy: Policy) -> None:
    for name, n in Counter(rule.name for rule in policy.rules).items():
        if n > 1:
            raise BadSetting(policy.where, f"rule {name}", f"{n} rows have this name", "rename all but one")


def _refuse_open_ends(policy: Policy) -> None:
    """Every kind needs a row that asks for nothing but the kind: a fact that nobody foresaw must not leave it open."""
    open_ends = [kind for kind in KINDS if not any(rule.ends(kind) for rule in policy.rules)]
    if open_ends:
        problem = f"findings of kind {', '.join(open_ends)} may end in no row"
        remedy = "add a last row without `when`, or one that asks for nothing but the kind"
        raise BadSetting(policy.where, "rule", problem, remedy)


class _Row:
    """One [[rule]] as it was written, and where."""

    def __init__(self, where: str, number: int, row: Mapping[str, Any]) -> None:
        self.where, self.row = where, row
        self.name = f"rule {row.get('name') or number}"

    def rule(self) -> PolicyRule:
        """The row, checked."""
        for key in self.row:
            self._known(key, KEYS, "key of a rule", key)
        texts = {key: self._text(key) for key in ("name", "action", "because", "rationale")}
        self._known(texts["action"], ACTIONS, "action", "action")
        self._refuse_unknown_words(texts["because"])
        when = self.row.get("when", {})
        if not isinstance(when, dict):
            self._refuse("when", f"expected a table of facts, found {when!r}", "write when = { kind = ... }")
        conditions = tuple(self._condition(fact, expected) for fact, expected in when.items())
        return PolicyRule(when=conditions, **texts)  # type: ignore[arg-type]

    def _text(self, key: str) -> str:
        text = self.row.get(key)
        if not isinstance(text, str) or not text.strip():
            self._refuse(key, f"expected a text, found {'nothing' if text is None else repr(text)}", "write one")
        return " ".join(text.split())

    def _refuse_unknown_words(self, because: str) -> None:
        try:
            parts = list(Formatter().parse(because))
        except ValueError as error:
            self._refuse("because", f"has braces that do not fit ({error})", "write each word as {name}")
        for _, word, spec, conversion in parts:
            if word is not None:
                self._known(word, WORDS, "word", "because")
            if spec or conversion:
                self._refuse("because", f"has a format on {{{word}}}", "write the name alone")

    def _condition(self, fact: str, expected: Any) -> Condition:
        key = f"when.{fact}"
        self._known(fact, FACTS, "fact of a situation", key)
        checked = _expected(FACTS[fact], expected)
        if checked is None:
            self._refuse(key, f"expected {EXPECTED[FACTS[fact]]}, found {expected!r}", "correct the value")
        return Condition(fact=fact, expected=checked)

    def _known(self, name: str, known: Iterable[str], what: str, key: str) -> None:
        if name in known:
            return
        near = get_close_matches(name, list(known), n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        self._refuse(key, f"{name!r} is no {what}", remedy)

    def _refuse(self, key: str, problem: str, remedy: str) -> NoReturn:
        raise BadSetting(self.where, f"{self.name}, {key}", problem, remedy)


def _expected(fact: FactType, expected: Any) -> Expected | None:
    """What a fact must be, from TOML; None if it is not of the fact's type."""
    if fact == "yes_no":
        return expected if isinstance(expected, bool) else None
    if fact == "number":
        return _bounds(expected)
    names = [expected] if isinstance(expected, str) else expected
    is_kinds = isinstance(names, list) and names and all(name in KINDS for name in names)
    return tuple(names) if is_kinds else None


def _bounds(expected: Any) -> Bounds | None:
    if not isinstance(expected, dict) or not expected or set(expected) - {"at_least", "below"}:
        return None
    is_numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in expected.values())
    return Bounds(**expected) if is_numbers else None
