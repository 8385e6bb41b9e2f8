"""What becomes of a watch's alarm: an episode, however quiet the finding of that night, and one alone."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.schemas import ALARM, FINDING
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import decide
from platform_core.policy.episodes import Episode, episodes, follow
from platform_core.policy.evidence import read_situation
from platform_core.storage.tables import rows_of
from tests.shift.planted import prepare

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
CHANGED_ON = date(2026, 2, 16)
SENTENCE = "noise_air_hu higher since about 2026-02-16 (e-value 1e+05, alarm at 120)"


def finding(workspace: Workspace, name: str, kind: str, start: date = CHANGED_ON) -> dict[str, Any]:
    row = {
        "site": "a",
        "finding_key": name,
        "stratum": "CT",
        "target": "lesion",
        "period_start": start,
        "period_end": start + timedelta(days=27),
        "kind": kind,
    }
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction=name)
    return row


def step(
    workspace: Workspace, row: dict[str, Any], *, acted: bool = False, alarm: str | None = "alarm"
) -> Episode | None:
    return follow(workspace, row, has_acted=acted, run="r", at=AT, alarm_key=alarm)


def state(episode: Episode | None) -> str | None:
    return None if episode is None else episode.state


def test_an_alarm_opens_an_episode_though_the_finding_is_quiet(workspace: Workspace) -> None:
    opened = step(workspace, finding(workspace, "few", "undetermined"))
    assert opened is not None
    assert (opened.state, opened.alarm_key, opened.finding_key) == ("opened", "alarm", "few")


def test_without_an_alarm_a_quiet_finding_opens_none(workspace: Workspace) -> None:
    assert step(workspace, finding(workspace, "few", "undetermined"), alarm=None) is None
    assert step(workspace, finding(workspace, "nothing", "none"), alarm=None) is None


def test_an_alarm_joins_the_episode_that_is_open(workspace: Workspace) -> None:
    before = step(workspace, finding(workspace, "month", "label", CHANGED_ON - timedelta(days=14)), alarm=None)
    joined = step(workspace, finding(workspace, "since", "label"), acted=True)
    assert before is not None
    assert joined is not None
    assert joined.episode_key == before.episode_key
    assert (joined.state, joined.alarm_key) == ("acted", "alarm")
    assert len(episodes(workspace)) == 1


def test_an_alarmed_episode_acts_watches_and_closes(workspace: Workspace) -> None:
    def later(n: int) -> date:
        return CHANGED_ON + timedelta(days=28 * n)

    assert state(step(workspace, finding(workspace, "few", "undetermined"))) == "opened"
    assert state(step(workspace, finding(workspace, "enough", "covariate_acquisition"), acted=True)) == "acted"
    assert state(step(workspace, finding(workspace, "repaired", "none"))) == "acted"
    assert state(step(workspace, finding(workspace, "next", "label", later(1)), alarm=None)) == "watching"
    assert state(step(workspace, finding(workspace, "quiet", "none", later(2)), alarm=None)) == "closed"


def test_what_does_not_matter_is_closed_at_once_and_not_opened_again(workspace: Workspace) -> None:
    assert state(step(workspace, finding(workspace, "few", "undetermined"))) == "opened"
    assert state(step(workspace, finding(workspace, "harmless", "none"))) == "closed"
    assert step(workspace, finding(workspace, "next night", "none")) is None
    assert [episode.state for episode in episodes(workspace)] == ["closed"]


def test_an_alarm_s_period_that_overlaps_the_month_before_is_no_later_period(workspace: Workspace) -> None:
    """The month before and the period since the change share patients: one is no witness of the other's repair."""
    month = finding(workspace, "month", "covariate_acquisition", CHANGED_ON - timedelta(days=14))
    step(workspace, month, acted=True, alarm=None)
    assert state(step(workspace, finding(workspace, "since", "none"))) == "acted"


def test_an_alarm_that_a_later_quiet_period_answers_is_followed_up_once(workspace: Workspace) -> None:
    later = CHANGED_ON + timedelta(days=28)
    assert state(step(workspace, finding(workspace, "few", "undetermined"))) == "opened"
    assert state(step(workspace, finding(workspace, "quiet", "none", later))) == "closed"
    assert step(workspace, finding(workspace, "still few", "undetermined", later + timedelta(days=28))) is None


@pytest.mark.parametrize(
    ("kind", "rule"),
    [("none", "alarm_not_material"), ("undetermined", "alarm_too_few_patients"), ("label", "prevalence_moved")],
)
def test_the_decision_tells_of_the_alarm(workspace: Workspace, kind: str, rule: str) -> None:
    ready = prepare(workspace)
    alarm = {
        "site": "a",
        "alarm_key": "k",
        "stratum": "CT",
        "period_start": CHANGED_ON,
        "sentence": SENTENCE,
        "run": "r",
    }
    alarm |= {"alarmed_on": CHANGED_ON, "changed_on": CHANGED_ON}
    ready.lake.append(layout.ALARM, rows_of(ALARM, [alarm]), transaction="k")
    decision = decide(read_situation(ready, finding(ready, "f", kind), at=AT))
    assert decision.rule == rule
    assert (SENTENCE in decision.because) == (kind != "label")


def test_a_period_that_the_calendar_began_has_no_alarm(workspace: Workspace) -> None:
    ready = prepare(workspace)
    assert read_situation(ready, finding(ready, "f", "none"), at=AT).alarm is None
