"""Decisions and episodes as rows."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.serving import Calibration, Serving
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision
from platform_core.policy.episodes import advance, episodes, follow, open_episode
from platform_core.policy.record import decisions, record_decision
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
DECISION = Decision(action="recalibrate", because="the share of positives moved", rule="prevalence_moved")
SERVING = Serving(
    site="south",
    target="lesion",
    model="lesion@1",
    recipe="native",
    calibration=Calibration(logit_offset=0.0, prevalence=0.3, threshold=0.5),
)


def finding(
    workspace: Workspace, period: int, kind: str, site: str = "south", target: str = "lesion"
) -> dict[str, Any]:
    start = date(2026, 1, 5) + timedelta(days=28 * period)
    row = {
        "site": site,
        "finding_key": f"{site}-{target}-{period}",
        "stratum": "CT",
        "target": target,
        "period_start": start,
        "period_end": start + timedelta(days=27),
        "kind": kind,
    }
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction=str(row["finding_key"]))
    return row


def record(workspace: Workspace, status: Any, at: datetime, row: dict[str, Any]) -> str:
    return record_decision(
        workspace,
        DECISION,
        finding=row,
        status=status,
        serving_before=SERVING,
        serving_after=None,
        evidence={"before": {"log_loss": [0.5, 0.4, 0.6], "n": 80}},
        run="r1",
        at=at,
    )


def test_a_decision_is_read_back_at_its_latest_status_with_its_first_time(workspace: Workspace) -> None:
    row = finding(workspace, 1, "label")
    key = record(workspace, "proposed", AT, row)
    assert record(workspace, "done", AT + timedelta(minutes=5), row) == key
    (read,) = decisions(workspace).to_pylist()
    assert (read["decision_key"], read["status"]) == (key, "done")
    assert read["first_decided_at"] == AT
    assert json.loads(read["evidence"])["before"]["log_loss"] == [0.5, 0.4, 0.6]
    assert json.loads(read["serving_before"])["model"] == "lesion@1"
    assert read["serving_after"] is None


def test_recording_the_same_decision_twice_writes_it_once(workspace: Workspace) -> None:
    row = finding(workspace, 1, "label")
    record(workspace, "done", AT, row)
    record(workspace, "done", AT + timedelta(hours=1), row)
    assert workspace.lake.read(layout.DECISION).num_rows == 1


def test_decisions_can_be_asked_of_one_site(workspace: Workspace) -> None:
    record(workspace, "done", AT, finding(workspace, 1, "label"))
    record(workspace, "done", AT, finding(workspace, 1, "label", site="east"))
    assert decisions(workspace).num_rows == 2
    assert decisions(workspace, "east").column("site").to_pylist() == ["east"]


def test_no_decisions_is_no_error(workspace: Workspace) -> None:
    assert decisions(workspace).num_rows == 0
    assert episodes(workspace) == []


def test_an_episode_opens_acts_watches_and_closes(workspace: Workspace) -> None:
    def step(period: int, kind: str, *, has_acted: bool) -> str | None:
        row = finding(workspace, period, kind)
        episode = follow(workspace, row, has_acted=has_acted, run="r", at=AT + timedelta(days=28 * period))
        return None if episode is None else episode.state

    assert step(0, "none", has_acted=False) is None
    assert step(1, "label", has_acted=False) == "opened"
    assert step(2, "label", has_acted=True) == "acted"
    assert step(3, "label", has_acted=False) == "watching"
    assert step(4, "none", has_acted=False) == "closed"
    (episode,) = episodes(workspace, "south")
    assert episode.opened_at == AT + timedelta(days=28)
    assert episode.closed_at == AT + timedelta(days=28 * 4)
    assert episode.followed_until == date(2026, 1, 5) + timedelta(days=28 * 4 + 27)
    assert step(5, "label", has_acted=True) == "acted"
    assert [e.state for e in episodes(workspace)] == ["closed", "acted"]


def test_the_period_that_raised_the_alarm_cannot_close_it(workspace: Workspace) -> None:
    row = finding(workspace, 1, "label")
    follow(workspace, row, has_acted=True, run="r", at=AT)
    again = follow(workspace, {**row, "kind": "none"}, has_acted=False, run="r", at=AT)
    assert again is not None
    assert again.state == "acted"


def test_following_a_finding_twice_changes_nothing(workspace: Workspace) -> None:
    row = finding(workspace, 1, "label")
    for _ in range(2):
        follow(workspace, row, has_acted=True, run="r", at=AT)
    assert workspace.lake.read(layout.EPISODE).num_rows == 2  # opened, acted


def test_one_target_does_not_close_the_episode_of_another(workspace: Workspace) -> None:
    follow(workspace, finding(workspace, 1, "label"), has_acted=True, run="r", at=AT)
    quiet = finding(workspace, 2, "none", target="nodule")
    assert follow(workspace, quiet, has_acted=False, run="r", at=AT) is None
    assert [episode.state for episode in episodes(workspace)] == ["acted"]


def test_an_open_episode_is_not_opened_twice_and_never_goes_back(workspace: Workspace) -> None:
    first, second = finding(workspace, 1, "label"), finding(workspace, 2, "label")
    key = open_episode(workspace, first, run="r", at=AT)
    assert open_episode(workspace, second, run="r", at=AT) == key
    advance(workspace, key, "watching", finding=second, run="r", at=AT)
    advance(workspace, key, "acted", finding=second, run="r", at=AT)
    assert episodes(workspace)[0].state == "watching"


def test_an_episode_that_does_not_exist_cannot_advance(workspace: Workspace) -> None:
    with pytest.raises(UnknownName):
        advance(workspace, "nothing", "closed", finding=finding(workspace, 1, "label"), run="r", at=AT)
