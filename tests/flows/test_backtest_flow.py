"""Nights lived through again: what stops a site is told, and stops nobody else."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import backtest as flow
from platform_core.errors import BadRequest
from platform_core.trial import backtest
from platform_core.trial.backtest import Replay

REPLAY = Replay(
    uri="replay",
    original="original",
    target="lesion",
    sites=("north", "east"),
    first_model="lesion@1",
    first_recipe="r1",
    every_days=7,
    n_nights=2,
    began_at=datetime(2026, 3, 1, tzinfo=UTC),
    began_on={"north": date(2026, 1, 5), "east": date(2026, 1, 5)},
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Steps as they are taken; looking at east fails in the first night."""
    steps: list[tuple[str, str, str]] = []

    def look(_uri: str, name: str, _target: str, run: str, _at: datetime) -> None:
        steps.append(("look", name, run))
        if (name, run) == ("east", REPLAY.run(0)):
            raise BadRequest("its recipe does harm")

    def answer(_uri: str, name: str, _target: str, run: str, _at: datetime) -> None:
        steps.append(("answer", name, run))

    def nothing(*_given: Any) -> None:
        return None

    monkeypatch.setattr(backtest, "arrive", lambda replay, _night: list(replay.sites))
    monkeypatch.setattr(flow, "look", look)
    monkeypatch.setattr(flow, "answer", answer)
    monkeypatch.setattr(flow, "settle_shadows", nothing)
    return steps


def test_a_site_that_is_stopped_is_not_answered_that_night(taken: list[tuple[str, str, str]]) -> None:
    (halt,) = flow.live_again.fn(REPLAY)
    assert (halt.site, halt.night, halt.because) == ("east", 0, "its recipe does harm")
    assert [step[:2] for step in taken] == [
        ("look", "north"),
        ("look", "east"),
        ("answer", "north"),
        ("look", "north"),
        ("look", "east"),
        ("answer", "north"),
        ("answer", "east"),
    ]


def test_policies_of_one_name_are_told_apart_by_their_folders() -> None:
    one, other, third = Path("a/p.toml"), Path("b/p.toml"), Path("q.toml")
    names = [flow._named(each, [None, one, other, third]) for each in (one, other, third)]
    assert names == ["a/p.toml", "b/p.toml", "q.toml"]
