"""The page and the table of a back-test."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from flows.console import print_endings
from platform_core.manifest.workspace import Workspace
from platform_core.report import charts
from platform_core.report.backtest import lines_of, marks_of, write_backtest
from platform_core.report.charts import Mark
from platform_core.shift.risk import Estimate
from platform_core.trial.backtest import Acted, Alarmed, Ending, ServedRisk, Stopped

AT = datetime(2026, 3, 1, tzinfo=UTC)
REFUSED = "east is not served: the distance rises by 0.02"


def act(action: str, night: int, status: str = "done") -> Acted:
    return Acted(
        site="west", night=night, action=action, strategy=None, status=status, kind="mixed", because="risk < 1"
    )


def ended(policy: str, *decisions: Acted, excess: Estimate | None = None) -> Ending:
    risk = ServedRisk(n_patients=71, loss=Estimate(0.173, 0.046, 0.335), excess=excess)
    return Ending(
        policy=policy,
        n_nights=9,
        every_days=7,
        n_patients={"north": 582, "east": 355, "west": 415},
        alarms=(Alarmed(site="west", night=5, days_of_delay=8),),
        decisions=decisions,
        training_hours=0.0139,
        risk={"west": risk},
        risk_of_all=risk,
        stopped=tuple(Stopped(site="east", night=night, because=REFUSED) for night in (1, 2, 3)),
    )


FIRST = ended("first.toml", act("reharmonize", 6), act("fine_tune", 6, "refused"))
SECOND = ended("second.toml", act("fine_tune", 6), excess=Estimate(0.4, 0.1, 0.7))


def test_a_table_tells_what_each_policy_came_to_and_what_stopped_a_site() -> None:
    console = Console(width=160, record=True)
    print_endings([FIRST, SECOND], console)
    lines = console.export_text().splitlines()
    (training,) = (line for line in lines if "hours of training" in line)
    assert training.count("0.014") == 2
    text = "\n".join(lines)
    assert text.count("15 (1 of 1 alarm)") == 2
    for part in (
        "0.17 [0.05, 0.34]",
        "71 patients",
        "above the first by",
        "0.40 [0.10, 0.70]",
        "no labelled patient served",
    ):
        assert part in text
    assert f"first.toml: east was stopped, nights 2 to 4: {REFUSED}" in text


def test_a_page_tells_alarms_halts_and_actions_by_night() -> None:
    told = [(line.nights, line.site, line.name) for line in lines_of(FIRST)]
    assert told == [
        ("2 to 4", "east", "stopped"),
        ("6", "west", "alarm"),
        ("7", "west", "harmonize again: done"),
        ("7", "west", "fine-tune: refused"),
    ]


def test_the_page_is_written_for_two_policies(workspace: Workspace) -> None:
    page = Path(workspace.uri) / write_backtest(workspace, "lesion", [FIRST, SECOND], at=AT)
    text = page.read_text(encoding="utf-8")
    for part in (
        "Under first.toml",
        "Under second.toml",
        "+0.400",
        "beside first.toml",
        "no labelled patient served",
        REFUSED,
    ):
        assert part in text
    assert "Risk &lt; 1" in text
    assert "Log-loss at west" in text
    assert "nats per scan, estimate" in text


def test_a_segmentation_is_told_in_dice(workspace: Workspace) -> None:
    of_masks = replace(FIRST, loss="1 - Dice")
    text = (Path(workspace.uri) / write_backtest(workspace, "disc", [of_masks], at=AT)).read_text(encoding="utf-8")
    assert "1 - Dice at west" in text
    assert "nats per scan, estimate" not in text
    console = Console(width=120, record=True)
    print_endings([of_masks], console)
    assert "1 - Dice: mean over scans" in console.export_text()


@dataclass(frozen=True)
class Point:
    name: str
    symbol: str
    x: float
    y: float


def drawn(marks: dict[str, list[Mark]], names: list[str]) -> list[Point]:
    figure = json.loads(charts.timeline(marks, names=names, last_day=56))
    return [
        Point(trace["name"], trace["marker"]["symbol"], x, y)
        for trace in figure["data"]
        for x, y in zip(trace["x"], trace["y"], strict=True)
    ]


def test_marks_of_one_site_on_one_day_do_not_lie_on_each_other() -> None:
    marks = marks_of(FIRST)
    points = drawn(marks, sorted({mark.name for row in marks.values() for mark in row}))
    assert len({(point.x, point.y) for point in points}) == len(points) == 6
    assert sorted(point.y for point in points if point.x == 42) == pytest.approx([-0.2, 0.2])


@pytest.mark.parametrize("absent", ["a", "b"])
def test_what_bears_one_name_looks_the_same_beside_another_policy(absent: str) -> None:
    names = [*"abcdefghij"]
    every = drawn({"west": [Mark(n, name, "") for n, name in enumerate(names)]}, names)
    fewer = drawn({"west": [Mark(0, name, "") for name in names if name != absent]}, names)
    looks = {point.name: point.symbol for point in every}
    assert len({*looks.values()}) == len(names)
    assert all(looks[point.name] == point.symbol for point in fewer)
