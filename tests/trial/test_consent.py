"""A person's yes and no, from the question to what the next run makes of it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.errors import BadRequest, UnknownName
from platform_core.manifest.schemas import FINDING, SERIES
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.approvals import answer_decision, waiting_decisions
from platform_core.policy.record import decisions
from platform_core.storage.tables import rows_of
from platform_core.trial.case import Case, Next, decide_next, settle

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
START = date(2026, 2, 2)
Answer = Callable[..., str]


@pytest.fixture
def careful(served: Workspace) -> Workspace:
    """Recalibrations wait for a person, for ten days."""
    file = Path(served.uri) / layout.SETTINGS
    policy = '[policy]\napprove = ["recalibrate"]\napproval_days = 10'
    file.write_text(file.read_text(encoding="utf-8").replace("[policy]", policy), encoding="utf-8")
    return open_workspace(served.uri)


def night(workspace: Workspace, number: int, kind: str = "label", period: int = 0) -> Case:
    """The case of one night, whose finding is new because scans came."""
    start = START + timedelta(days=28 * period)
    row: dict[str, Any] = {
        "site": "south", "finding_key": f"f{number}", "stratum": "CT", "target": "lesion", "model": "lesion@1",
        "period_start": start, "period_end": start + timedelta(days=27), "kind": kind,
        "size": 0.1, "low": 0.08, "high": 0.12, "run": f"n{number}",
    }  # fmt: skip
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction=f"f{number}")
    return Case(
        uri=workspace.uri, site="south", target="lesion", finding_key=f"f{number}", headline="h", keys=(),
        run=f"n{number}", at=AT + timedelta(days=number),
    )  # fmt: skip


def carry_out(case: Case, decided: Next, status: Any = "done") -> None:
    """As a trial does."""
    before = case.serving
    settle(case, decided.decision, status=status, before=before, after=before)


def answer(workspace: Workspace, *, is_approved: bool, key: str | None = None, **more: Any) -> str:
    key = key or waiting_decisions(workspace)[0].decision_key
    facts: dict[str, Any] = {"by": "ada", "note": "agreed in the Monday meeting", "run": "by hand", "at": AT} | more
    return answer_decision(workspace, key, is_approved=is_approved, **facts)


def test_an_action_waits_and_is_asked_for_once_however_many_nights_pass(careful: Workspace) -> None:
    assert [decide_next(night(careful, n)).act for n in (0, 1, 2)] == [None, None, None]
    (one,) = waiting_decisions(careful)
    assert (one.site, one.action, one.since) == ("south", "recalibrate", AT)
    assert one.no_on == (AT + timedelta(days=10)).date()
    assert "share of positives" in one.because


def test_the_next_run_carries_an_approved_action_out_once_in_the_person_s_name(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    assert "next run" in answer(careful, is_approved=True)
    case = night(careful, 1)
    decided = decide_next(case)
    assert (decided.act, decided.decision.approved_by) == ("recalibrate", "ada")
    carry_out(case, decided)
    done = next(row for row in decisions(careful, "south").to_pylist() if row["status"] == "done")
    assert (done["approved_by"], done["rule"], done["finding_key"]) == ("ada", "prevalence_moved", "f1")
    assert decide_next(night(careful, 2)).decision.rule == "prevalence_followed"
    later = decide_next(night(careful, 30, period=1, kind="covariate_acquisition"))
    assert later.act == "reharmonize"
    assert waiting_decisions(careful) == []


def test_an_approval_is_used_once(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    answer(careful, is_approved=True)
    case = night(careful, 1)
    carry_out(case, decide_next(case), "refused")
    assert decide_next(night(careful, 30, period=1)).decision.status == "waiting"


def test_an_approved_action_that_died_on_the_way_is_begun_again(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    answer(careful, is_approved=True)
    assert decide_next(night(careful, 1)).act == "recalibrate"
    again = night(careful, 2)
    decided = decide_next(again)
    assert decided.act == "recalibrate"
    carry_out(again, decided, "refused")
    assert decide_next(night(careful, 30, period=1)).decision.status == "waiting"


def test_what_the_finding_does_not_ask_for_any_more_is_not_carried_out(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    answer(careful, is_approved=True)
    assert decide_next(night(careful, 1, kind="none")).act is None


def test_a_rejected_action_is_dropped_for_the_period_and_asked_for_in_the_next(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    assert "dropped" in answer(careful, is_approved=False)
    told = decisions(careful, "south").to_pylist()[0]
    assert (told["status"], told["approved_by"]) == ("rejected", "ada")
    assert told["because"].endswith("rejected by ada: agreed in the Monday meeting")
    assert decide_next(night(careful, 1)).decision.rule == "prevalence_followed"
    assert decide_next(night(careful, 30, period=1)).decision.status == "waiting"


def test_silence_is_a_no_after_the_days_of_the_setting(careful: Workspace) -> None:
    decide_next(night(careful, 0))
    assert decide_next(night(careful, 10)).decision.status == "waiting"
    assert decide_next(night(careful, 11)).decision.rule == "prevalence_followed"
    dropped = next(row for row in decisions(careful, "south").to_pylist() if row["status"] == "rejected")
    assert "nobody answered within 10 days" in dropped["because"]
    assert waiting_decisions(careful) == []


def test_a_hold_waits_until_a_person_lifts_it_and_is_then_passed_over(served: Workspace) -> None:
    scan = {"site": "south", "series_key": "s", "revision": 1, "patient_key": "p", "patient_known": True}
    scan |= {"stratum": "CT", "modality": "CT", "observed_on": START, "volume_uri": "v", "run": "n0"}
    served.lake.append(layout.SERIES, rows_of(SERIES, [scan]), transaction="s")
    assert decide_next(night(served, 0, kind="concept")).decision.rule == "meaning_changed"
    (one,) = waiting_decisions(served)
    assert (one.action, one.no_on) == ("hold", None)
    answer(served, is_approved=True)
    assert decide_next(night(served, 1, kind="concept")).decision.rule == "meaning_unlabelled"
    assert waiting_decisions(served) == []


def test_a_hold_that_a_person_keeps_is_not_asked_about_again_in_the_period(served: Workspace) -> None:
    decide_next(night(served, 0, kind="concept"))
    answer(served, is_approved=False)
    kept = decide_next(night(served, 1, kind="concept")).decision
    assert (kept.rule, kept.status) == ("meaning_changed", "done")
    assert waiting_decisions(served) == []


def by_table(workspace: Workspace, *rows: str) -> Workspace:
    """The workspace with a policy of its own: rows as `kind: action` in their order, then `none`."""
    asked = [row.split(": ") for row in rows]
    text = "".join(
        f'[[rule]]\nname = "row{n}"\nwhen = {{ kind = "{kind}" }}\naction = "{action}"\nbecause = "b{n}"\n'
        'rationale = "r"\n'
        for n, (kind, action) in enumerate(asked)
    )
    last = '[[rule]]\nname = "last"\naction = "none"\nbecause = "nothing to do"\nrationale = "r"\n'
    workspace.objects.put("policy.toml", (text + last).encode())
    file = Path(workspace.uri) / layout.SETTINGS
    named = '[policy]\nfile = "policy.toml"'
    file.write_text(file.read_text(encoding="utf-8").replace("[policy]", named), encoding="utf-8")
    return open_workspace(workspace.uri)


@pytest.mark.parametrize("status", ["done", "refused"])
def test_an_act_is_carried_out_once_for_a_finding_whatever_the_table_says(served: Workspace, status: str) -> None:
    case = night(by_table(served, "label: recalibrate"), 0)
    decided = decide_next(case)
    assert decided.act == "recalibrate"
    carry_out(case, decided, status)
    again = decide_next(case)
    assert (again.act, again.decision.action, again.decision.status) == (None, "hold", "waiting")
    assert f"row row0 asks for recalibrate a second time for the same finding, for which it is {status}" in (
        again.decision.because
    )
    (one,) = waiting_decisions(case.workspace)
    assert (one.action, one.because) == ("hold", again.decision.because)
    answer(case.workspace, is_approved=True)
    assert decide_next(case).decision.rule == "last"


def test_a_second_hold_on_the_same_finding_is_asked_as_well(served: Workspace) -> None:
    case = night(by_table(served, "label: hold", "label: hold"), 0)
    assert decide_next(case).decision.rule == "row0"
    answer(case.workspace, is_approved=True)
    assert decide_next(case).decision.rule == "row1"
    (one,) = waiting_decisions(case.workspace)
    assert one.because == "b1"


def test_what_does_not_wait_cannot_be_answered(careful: Workspace) -> None:
    with pytest.raises(UnknownName, match="known: none"):
        answer(careful, is_approved=True, key="abc")
    decide_next(night(careful, 0))
    with pytest.raises(UnknownName):
        answer(careful, is_approved=True, key="nothing")
    one = waiting_decisions(careful)[0].decision_key
    answer(careful, is_approved=True, key=one[:4])
    with pytest.raises(UnknownName):
        answer(careful, is_approved=False, key=one)


@pytest.mark.parametrize(
    "text", ["patient 4711234", "born 1961-04-01", "1.2.840.113619.2", "Muster^Erika", "a\nb", "x" * 301]
)
def test_a_note_that_could_identify_somebody_is_refused_and_nothing_is_written(careful: Workspace, text: str) -> None:
    decide_next(night(careful, 0))
    before = careful.lake.versions()
    for field in ("note", "by"):
        with pytest.raises(BadRequest, match="other words"):
            answer(careful, is_approved=True, **{field: text})
    assert careful.lake.versions() == before


@pytest.mark.parametrize("text", ["gain of 0.05 nats, 12 of 60 patients", "see ticket 123", "A. Lovelace"])
def test_plain_words_and_small_numbers_may_be_said(careful: Workspace, text: str) -> None:
    decide_next(night(careful, 0))
    assert answer(careful, is_approved=True, note=text)


def test_an_action_that_has_begun_is_written_before_it_ends(served: Workspace) -> None:
    case = night(served, 0)
    decided = decide_next(case)
    assert [row["status"] for row in decisions(served, "south").to_pylist()] == ["proposed"]
    carry_out(case, decided)
    assert [row["status"] for row in decisions(served, "south").to_pylist()] == ["done"]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"refused": "the GPU is gone", "race": {}}, "; it is refused: the GPU is gone"),
        ({"adaptations": [{"adaptation": "coral", "because": "no fit"}]}, "; it is refused: coral: no fit"),
        ({"receipt": {"because": "no nearer", "refused_steps": ["1 clip"]}},
         "; it is refused: no nearer; a step does harm: 1 clip"),
        ({"gate": {"because": "told already"}}, ""),
    ],
)  # fmt: skip
def test_the_sentence_of_what_was_refused_says_why(served: Workspace, facts: dict[str, Any], told: str) -> None:
    case = night(served, 0)
    decided = decide_next(case)
    settle(case, decided.decision, status="refused", before=case.serving, facts=facts)
    (row,) = decisions(served, "south").to_pylist()
    assert row["because"] == decided.decision.because + told
