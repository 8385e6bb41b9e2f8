"""What a flow does when an action cannot be carried out."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows import respond
from platform_core.errors import DeviceLost
from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, Next

CASE = Case(
    uri="/nowhere",
    site="south",
    target="lesion",
    finding_key="finding",
    headline="",
    keys=(),
    run="run",
    at=datetime(2026, 3, 1, tzinfo=UTC),
)
DECIDED = Next(act="fine_tune", decision=Decision(action="fine_tune", because="worse", rule="still_worse"))


def test_a_gpu_that_is_gone_for_good_refuses_the_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the task's own attempts; nothing is predicted or gated."""
    settled: list[str] = []

    def lose(*_: Any) -> str:
        raise DeviceLost("CUDA error: unspecified launch failure")

    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("flows.respond.site.train_challenger", lose)
    monkeypatch.setattr("flows.respond.site.give_up", lambda _case, _decided, reason: settled.append(reason))
    monkeypatch.setattr("flows.respond.site.settle_challenger", fail)
    respond.fine_tune(CASE, DECIDED)
    assert len(settled) == 1
    assert "unspecified launch failure" in settled[0]


def test_without_a_challenger_there_is_nothing_to_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("flows.respond.site.train_challenger", lambda *_: None)
    monkeypatch.setattr("flows.respond.site.settle_challenger", fail)
    respond.fine_tune(CASE, DECIDED)
