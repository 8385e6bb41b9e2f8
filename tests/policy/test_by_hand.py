"""A training by hand is seen as long as it lives, and no longer; two trainings of one target do not begin."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.start import start_training
from platform_core import clock, layout
from platform_core.errors import StorageUnavailable, TrainingUnderWay
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.workspace import Workspace
from platform_core.policy import by_hand
from platform_core.policy.by_hand import SILENT, shown_by_hand, training_by_hand
from platform_core.policy.running import GIVEN_UP, is_training_running, refuse_beside_fine_tuning
from platform_core.storage.local import LocalObjects
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)


def running(workspace: Workspace, target: str = "lesion", at: datetime = AT) -> bool:
    return is_training_running(workspace, target, site="north", at=at)


def sign_of(workspace: Workspace) -> Path:
    (path,) = workspace.objects.list(layout.by_hand_path("lesion"))
    return Path(workspace.uri) / path


def silent_since(workspace: Workspace, moment: datetime) -> None:
    os.utime(sign_of(workspace), times=(moment.timestamp(), moment.timestamp()))


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be so; a machine may be slow."""
    ends = time.monotonic() + 20
    while not is_so() and time.monotonic() < ends:
        time.sleep(0.01)
    return is_so()


def begun(workspace: Workspace, at: datetime, status: str = "proposed") -> None:
    row: dict[str, Any] = {"site": "south", "decision_key": "d", "finding_key": "f", "target": "lesion", "run": "night"}
    row |= {"action": "fine_tune", "status": status, "decided_at": at, "step": 0}
    workspace.lake.append(layout.DECISION, rows_of(DECISION, [row]), transaction=status)


def test_it_is_seen_from_beginning_to_end_and_for_its_target_alone(workspace: Workspace) -> None:
    assert not running(workspace)
    with shown_by_hand(workspace, "lesion", at=AT):
        assert running(workspace)
        assert not running(workspace, "nodule")
    assert not running(workspace)
    assert workspace.objects.list(layout.MODELS) == []


def test_one_that_fails_is_over(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), shown_by_hand(workspace, "lesion", at=AT):
        raise ZeroDivisionError
    assert not running(workspace)


def test_a_long_one_goes_on_being_seen(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "BEAT_S", 0.02)
    now = clock.now()
    with shown_by_hand(workspace, "lesion", at=now):
        silent_since(workspace, now - SILENT)
        assert soon(lambda: running(workspace, at=now))
        found = training_by_hand(workspace, "lesion", at=now)
    assert found is not None
    assert found.since == now


def test_a_store_that_is_away_for_a_while_ends_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "BEAT_S", 0.02)
    refused: list[str] = []

    def away(_: LocalObjects, path: str, *__: Any, **___: Any) -> None:
        refused.append(path)
        raise StorageUnavailable(path, "gone")

    now = clock.now()
    with shown_by_hand(workspace, "lesion", at=now):
        with monkeypatch.context() as patch:
            patch.setattr(LocalObjects, "put", away)
            assert soon(lambda: len(refused) > 1)
        silent_since(workspace, now - SILENT)
        assert soon(lambda: running(workspace, at=now))


BEGIN = """
import sys, time
from datetime import UTC, datetime
from platform_core.manifest.workspace import open_workspace
from platform_core.policy.by_hand import shown_by_hand
with shown_by_hand(open_workspace(sys.argv[1]), "lesion", at=datetime.now(UTC)):
    print("begun", flush=True)
    time.sleep(600)
"""


def test_one_that_was_killed_is_dead_when_it_has_been_silent_for_long(workspace: Workspace) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BEGIN, workspace.uri]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
    now = clock.now()
    assert running(workspace, at=now)
    with pytest.raises(TrainingUnderWay, match="by hand"), shown_by_hand(workspace, "lesion", at=now):
        pass
    assert not running(workspace, at=now + SILENT)
    with shown_by_hand(workspace, "lesion", at=now + SILENT):
        pass
    assert workspace.objects.list(layout.MODELS) == []


def test_a_second_one_is_told_since_when_and_leaves_the_first_alone(workspace: Workspace) -> None:
    with shown_by_hand(workspace, "lesion", at=AT):
        told = r"lesion is being trained: by hand, .* since 2026-03-02 06:00 UTC; .*`sitedrift train lesion`"
        with pytest.raises(TrainingUnderWay, match=told), shown_by_hand(workspace, "lesion", at=AT):
            pass
        assert running(workspace)


def test_a_training_by_hand_is_refused_beside_a_fine_tuning_of_any_site(workspace: Workspace) -> None:
    begun(workspace, AT)
    told = r"fine-tuned for south by run night, since 2026-03-02 06:00 UTC; .*`sitedrift run south`.*2026-03-03 06:00"
    with pytest.raises(TrainingUnderWay, match=told):
        refuse_beside_fine_tuning(workspace, "lesion", at=AT + timedelta(hours=1))
    refuse_beside_fine_tuning(workspace, "nodule", at=AT + timedelta(hours=1))


def test_a_fine_tuning_that_has_ended_or_was_given_up_is_no_reason_to_refuse(workspace: Workspace) -> None:
    begun(workspace, AT)
    refuse_beside_fine_tuning(workspace, "lesion", at=AT + GIVEN_UP)
    begun(workspace, AT, "refused")
    refuse_beside_fine_tuning(workspace, "lesion", at=AT)


def test_the_command_shows_itself_while_it_trains(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def train(*_: Any) -> str:
        seen.append(running(workspace, at=clock.now()))
        return "lesion@1"

    monkeypatch.setattr("flows.train.train_source", train)
    assert start_training(workspace, "lesion") == "lesion@1"
    assert seen == [True]
    assert not running(workspace, at=clock.now())


def test_the_command_trains_nothing_beside_a_fine_tuning(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.train.train_source", lambda *_: pytest.fail("it trains"))
    begun(workspace, clock.now())
    with pytest.raises(TrainingUnderWay):
        start_training(workspace, "lesion")
    assert not running(workspace, at=clock.now() + GIVEN_UP)
