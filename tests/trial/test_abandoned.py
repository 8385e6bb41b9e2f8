"""What dead trainings have left is dropped when nobody can be about to go on with it."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import run
from platform_core import layout
from platform_core.errors import StorageRefused
from platform_core.learn.resume import Bookmarks
from platform_core.manifest.schemas import DECISION, FINDING
from platform_core.manifest.workspace import Workspace
from platform_core.policy.by_hand import shown_by_hand
from platform_core.policy.episodes import advance, open_episode
from platform_core.storage.tables import rows_of
from platform_core.trial.abandoned import ABANDONED_AFTER, drop_abandoned
from tests.conftest import configured

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
LONG_AGO = AT - ABANDONED_AFTER - timedelta(days=1)
FILES = ("full.pt", "done.json")
TARGETS = "".join(
    f'\n[target.{name}]\nlabel = "{name}"\nmodality = "CT"\nsource_site = "north"\n' for name in ("lesion", "nodule")
)


@pytest.fixture
def here(workspace: Workspace) -> Workspace:
    """Two targets, and a race of one of them that was last written to long ago."""
    found = configured(workspace, TARGETS)
    leave(found, "race-1")
    return found


def leave(workspace: Workspace, training: str, *last_written: datetime, target: str = "lesion") -> None:
    """What a killed training leaves; its files were last written to long ago, or at the given moments."""
    kept = Bookmarks(objects=workspace.objects, folder=layout.training_path(target, training), every_s=0)
    kept.note("done", {})
    kept.of("full").write({"epoch": 3})
    for name, moment in zip(FILES, last_written or (LONG_AGO, LONG_AGO), strict=True):
        times = (moment.timestamp(), moment.timestamp())
        os.utime(Path(workspace.uri) / layout.training_path(target, training) / name, times=times)


def left(workspace: Workspace) -> set[str]:
    """Trainings of which all is there."""
    paths = workspace.objects.list(layout.MODELS)
    folders = {path.rpartition("/")[0] for path in paths if "/unfinished/" in path}
    return {folder.rpartition("/")[2] for folder in folders if all(f"{folder}/{name}" in paths for name in FILES)}


def decided(workspace: Workspace, status: str, at: datetime = LONG_AGO) -> None:
    row: dict[str, Any] = {"site": "south", "decision_key": "d", "finding_key": "f", "target": "lesion", "run": "r"}
    row |= {"action": "fine_tune", "status": status, "decided_at": at, "step": 0}
    workspace.lake.append(layout.DECISION, rows_of(DECISION, [row]), transaction=status)


def opened(workspace: Workspace) -> tuple[str, dict[str, Any]]:
    finding: dict[str, Any] = {"site": "south", "finding_key": "f", "stratum": "CT", "target": "lesion"}
    finding |= {"period_start": date(2026, 1, 1), "period_end": date(2026, 1, 28), "kind": "mixed"}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction="f")
    return open_episode(workspace, finding, run="r", at=LONG_AGO), finding


def test_what_nobody_goes_on_with_is_dropped_and_told(here: Workspace) -> None:
    leave(here, "abc", target="nodule")
    told = drop_abandoned(here, at=AT)
    assert [sentence.partition(" had kept")[0] for sentence in told] == [
        "lesion: dropped what the unfinished training race-1",
        "nodule: dropped what the unfinished training abc",
    ]
    assert f"since {LONG_AGO:%Y-%m-%d}" in told[0]
    assert here.objects.list(layout.MODELS) == []
    assert drop_abandoned(here, at=AT) == []


def test_one_of_whose_files_any_is_young_stays_whole(here: Workspace) -> None:
    leave(here, "race-2", AT - ABANDONED_AFTER, LONG_AGO)
    leave(here, "race-3", LONG_AGO, AT)
    assert len(drop_abandoned(here, at=AT)) == 1
    assert left(here) == {"race-2", "race-3"}


def test_models_are_left_alone(here: Workspace) -> None:
    here.objects.put(f"{layout.model_path('lesion', 1)}/model.pt", b"weights")
    os.utime(Path(here.uri) / layout.model_path("lesion", 1) / "model.pt", times=(0, 0))
    drop_abandoned(here, at=AT)
    assert here.objects.list(layout.MODELS) == ["models/lesion/0001/model.pt"]


def test_nothing_is_dropped_of_a_target_that_somebody_trains_by_hand(here: Workspace) -> None:
    leave(here, "abc", target="nodule")
    with shown_by_hand(here, "lesion", at=AT):
        assert len(drop_abandoned(here, at=AT)) == 1
    assert left(here) == {"race-1"}


def test_nothing_is_dropped_while_a_fine_tuning_may_run(here: Workspace) -> None:
    """Its episode is opened when it ends."""
    decided(here, "proposed", AT - timedelta(hours=1))
    assert drop_abandoned(here, at=AT) == []
    assert left(here) == {"race-1"}


def test_nothing_is_dropped_that_an_open_episode_waits_for(here: Workspace) -> None:
    decided(here, "proposed")
    key, finding = opened(here)
    assert drop_abandoned(here, at=AT) == []
    advance(here, key, "closed", finding=finding, run="r", at=AT)
    assert len(drop_abandoned(here, at=AT)) == 1


def test_an_episode_whose_fine_tuning_is_settled_waits_for_none(here: Workspace) -> None:
    decided(here, "proposed")
    decided(here, "refused")
    opened(here)
    assert len(drop_abandoned(here, at=AT)) == 1


def test_a_fine_tuning_that_was_given_up_is_waited_for_no_longer(here: Workspace) -> None:
    decided(here, "proposed")
    assert len(drop_abandoned(here, at=AT)) == 1


def test_the_night_tells_what_it_dropped_and_goes_on_if_it_may_not(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def refuse(*_: Any) -> list[str]:
        raise StorageRefused("models", "may not delete", "allow it")

    monkeypatch.setattr("flows.run.log.info", told.append)
    monkeypatch.setattr("flows.run.site.drop_abandoned", lambda _, at: drop_abandoned(here, at=at))
    run.drop_abandoned(here.uri, AT)
    monkeypatch.setattr("flows.run.site.drop_abandoned", refuse)
    run.drop_abandoned(here.uri, AT)
    assert "race-1" in told[0]
    assert "may not delete" in told[1]
