"""The table as a file: what is read, and what is refused in words that say what to mend."""

from pathlib import Path

import pytest
from hypothesis import given

from platform_core.errors import BadSetting, NoSuchPlace
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import decide
from platform_core.policy.facts import FACTS, WORDS, words
from platform_core.policy.rules import Bounds
from platform_core.policy.situation import KINDS, Situation
from platform_core.policy.table import built_in, parse_policy, policy_of, read_policy
from tests.policy.situations import QUIET, situation, situations

ROW = """
[[rule]]
name = "last"
action = "hold"
because = "{n_patients} patients, size {size}"
rationale = "proposed"
"""


def row(**parts: str) -> str:
    """One row with some lines replaced or added, and a last one that ends every kind."""
    lines = {
        "name": '"first"',
        "when": '{ kind = "label" }',
        "action": '"none"',
        "because": '"b"',
        "rationale": '"r"',
    } | parts
    return "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value) + ROW


def test_a_small_table_decides() -> None:
    policy = parse_policy(row(when='{ kind = ["label", "none"], n_patients = { at_least = 100 } }').encode(), "p.toml")
    assert decide(QUIET, policy).rule == "first"
    found = decide(situation(n_patients=99), policy)
    assert (found.rule, found.because) == ("last", "99 patients, size 0.30 [0.20, 0.40]")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("rule = 3", ["[[rule]]"]),
        ("", ["[[rule]]", "none"]),
        ("[rule", ["not valid TOML"]),
        ("x = 1\n" + ROW, ["[x]", "no part of a policy"]),
        (row(when="{ n_lables = { below = 3 } }"), ["rule first", "when.n_lables", "did you mean 'n_labels'"]),
        (row(when='{ kind = "lable" }'), ["when.kind", "'lable'", "covariate_acquisition"]),
        (row(when='{ kind = ["label", 3] }'), ["when.kind"]),
        (row(when='{ is_worse = "yes" }'), ["when.is_worse", "true or false", "'yes'"]),
        (row(when="{ n_labels = 60 }"), ["when.n_labels", "at_least", "60"]),
        (row(when="{ n_labels = { above = 60 } }"), ["when.n_labels", "at_least"]),
        (row(when="{ n_labels = { below = true } }"), ["when.n_labels", "at_least"]),
        (row(when="{ size = { below = 1 } }"), ["'size' is no fact"]),
        (row(when='"kind"'), ["when", "table of facts"]),
        (row(action='"finetune"'), ["'finetune' is no action", "'fine_tune'"]),
        (row(because='"{n_patient} came"'), ["because", "'n_patient' is no word", "'n_patients'"]),
        (row(because='"{size:.1f}"'), ["because", "format"]),
        (row(because='"{size"'), ["because", "braces"]),
        (row(because='"{size.value}"'), ["because", "'size.value' is no word"]),
        (row(rationale=""), ["rationale", "found nothing"]),
        (row(rationale='" "'), ["rationale", "expected a text"]),
        (row(then='"x"'), ["'then' is no key"]),
        (row(name='"last"'), ["rule last", "2 rows", "rename"]),
    ],
)
def test_an_error_names_the_file_the_row_and_the_remedy(text: str, facts: list[str]) -> None:
    with pytest.raises(BadSetting) as caught:
        parse_policy(text.encode(), "w/p.toml")
    message = str(caught.value)
    assert message.startswith("w/p.toml")
    for fact in facts:
        assert fact in message


def test_a_kind_that_ends_in_no_row_is_named() -> None:
    text = row(when='{ kind = ["label", "none"] }').replace(
        'name = "last"\n', 'name = "last"\nwhen = { is_worse = true, kind = "mixed" }\n'
    )
    with pytest.raises(BadSetting) as caught:
        parse_policy(text.encode(), "p.toml")
    missing = [kind for kind in KINDS if kind not in ("label", "none")]
    assert ", ".join(missing) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ends_in_a_row_of_the_built_in_table(kind: str) -> None:
    assert any(rule.ends(kind) for rule in built_in().rules)


def test_a_fact_that_nobody_knows_meets_neither_a_yes_nor_a_no() -> None:
    for expected in ("true", "false"):
        policy = parse_policy(row(when=f"{{ divergence_stays = {expected} }}").encode(), "p.toml")
        assert decide(situation(divergence_stays=None), policy).rule == "last"
        assert decide(situation(divergence_stays=expected == "true"), policy).rule == "first"


@pytest.mark.parametrize(("number", "holds"), [(0.9, False), (1.0, True), (1.9, True), (2.0, False)])
def test_bounds_hold_from_the_lower_to_below_the_upper(number: float, holds: bool) -> None:
    assert Bounds(at_least=1, below=2).hold(number) is holds


@given(situations)
def test_every_fact_and_word_can_be_asked_of_any_situation(s: Situation) -> None:
    for name, fact in FACTS.items():
        known = {"yes_no": bool, "number": int | float, "kind": str}[fact]
        assert getattr(s, name) is None or isinstance(getattr(s, name), known)
    told = words(s)
    assert set(told) == set(WORDS)
    assert all(told.values())


def test_the_digest_is_of_what_rows_say_not_of_where_they_lie() -> None:
    one, other = (parse_policy(row().encode(), where) for where in ("a.toml", "b.toml"))
    assert one.digest == other.digest
    assert parse_policy(row(action='"hold"').encode(), "a.toml").digest != one.digest


def test_a_workspace_names_its_table_or_has_the_built_in_one(workspace: Workspace) -> None:
    assert policy_of(workspace) is built_in()
    settings = Path(workspace.uri) / "sitedrift.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("[policy]", '[policy]\nfile = "mine.toml"'))
    here = open_workspace(workspace.uri)
    with pytest.raises(NoSuchPlace, match=r"mine\.toml"):
        policy_of(here)
    (Path(workspace.uri) / "mine.toml").write_text(row(), encoding="utf-8")
    assert [rule.name for rule in policy_of(here).rules] == ["first", "last"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchPlace, match="expected a policy"):
        read_policy(tmp_path / "nothing.toml")
