"""Promotions and rollbacks of several processes at once: one wins, the others are told so; in a folder and on S3."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import Workspace, create_workspace
from tests.learn.test_registry import AT, made

ROOT = Path(__file__).parents[2]
N = 3


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Workspace:
    """A workspace with one champion and several challengers."""
    where = str(tmp_path / "w") if request.param == "folder" else f"{request.getfixturevalue('bucket_uri')}/w"
    workspace = create_workspace(where, key_fingerprint=create_key("w"))
    for _ in range(N + 1):
        made(workspace)
    return workspace


def test_of_several_promotions_at_once_one_wins(place: Workspace) -> None:
    challengers = [ref.name for ref in registry.models(place) if ref.alias == "challenger"]
    said = race_and_hear(place, *(("promote", name, "lesion@1") for name in challengers))
    aliases = [ref.alias for ref in registry.models(place)]
    assert said.count("won") == 1
    assert (aliases.count("champion"), aliases.count("former")) == (1, 1)
    assert registry.find(place, "lesion@1").alias == "former"


def test_of_a_rollback_and_a_promotion_at_once_one_wins_or_the_rollback_sees_the_promotion(place: Workspace) -> None:
    second = registry.find(place, "lesion@2")
    registry.promote(place, second, over=registry.champion(place, "lesion"), run="run", at=AT)
    race_and_hear(place, ("promote", "lesion@3", "lesion@2"), ("rollback", "lesion"), ("rollback", "lesion"))
    champions = [ref for ref in registry.models(place) if ref.alias == "champion"]
    assert len(champions) == 1
    events = place.lake.read("out__model").to_pylist()
    assert len({(row["epoch"], row["alias"]) for row in events if row["alias"] == "champion"}) == len(
        [row for row in events if row["alias"] == "champion"]
    )


def race_and_hear(workspace: Workspace, *calls: tuple[str, ...]) -> list[str]:
    """What each process said at its end."""
    command = [sys.executable, "-m", "tests.lineage.race", workspace.uri]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [subprocess.Popen([*command, *call], env=dict(os.environ), **pipes) for call in calls]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in started]


def between(monkeypatch: pytest.MonkeyPatch, event: Any) -> None:
    """Let an event of another process happen right after the first look."""
    look, due = registry.models, [True]

    def slow(*args: Any) -> list[ModelRef]:
        found = look(*args)
        if due:
            due.clear()
            event()
        return found

    monkeypatch.setattr(registry, "models", slow)


def test_a_promotion_that_another_overtook_after_the_look_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = made(workspace), made(workspace), made(workspace)
    between(monkeypatch, lambda: registry.promote(workspace, third, over=first, run="other", at=AT))
    with pytest.raises(BadRequest, match="changed meanwhile"):
        registry.promote(workspace, second, over=first, run="run", at=AT)
    assert [ref.alias for ref in registry.models(workspace)] == ["former", "challenger", "champion"]


def test_a_version_that_was_promoted_after_the_look_cannot_be_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made(workspace), made(workspace)
    between(monkeypatch, lambda: registry.promote(workspace, second, over=first, run="other", at=AT))
    with pytest.raises(BadRequest, match="changed meanwhile"):
        registry.alias(workspace, second, "refused", run="run", at=AT)
    assert registry.champion(workspace, "lesion") == registry.find(workspace, "lesion@2")


def test_every_change_of_an_alias_is_in_the_log(workspace: Workspace) -> None:
    first, second = made(workspace), made(workspace)
    registry.promote(workspace, second, over=first, run="20260301T000000-p", at=AT)
    registry.rollback(workspace, "lesion", run="20260302T000000-r", at=datetime(2026, 3, 2, tzinfo=UTC))
    rows = sorted(workspace.lake.read("out__model").to_pylist(), key=lambda row: (row["epoch"], row["version"]))
    assert [(row["run"], row["version"], row["alias"]) for row in rows[2:]] == [
        ("20260301T000000-p", 1, "former"),
        ("20260301T000000-p", 2, "champion"),
        ("20260302T000000-r", 1, "champion"),
        ("20260302T000000-r", 2, "refused"),
    ]
