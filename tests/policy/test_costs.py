"""Hours of training and trainings under way, from tables that were written by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.schemas import DECISION, MODEL, RACE
from platform_core.manifest.workspace import Workspace
from platform_core.policy.costs import MONTH, hours_of_training
from platform_core.policy.running import GIVEN_UP, is_training_running
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)


def spent(workspace: Workspace) -> float:
    return hours_of_training(workspace, since=AT - MONTH, until=AT)


def decided(workspace: Workspace, at: datetime, status: str = "proposed", site: str = "east") -> None:
    row: dict[str, Any] = {
        "site": site,
        "decision_key": f"k{site}",
        "finding_key": "f",
        "target": "lesion",
        "action": "fine_tune",
    }
    row |= {"status": status, "decided_at": at, "step": 0}
    workspace.lake.append(layout.DECISION, rows_of(DECISION, [row]), transaction=f"{site}{status}")


def made(workspace: Workspace, version: int, at: datetime, training: str | None, *events: str) -> None:
    rows: list[dict[str, Any]] = [
        {"model": "lesion", "version": version, "alias": alias, "created_at": at, "since": at, "training": training}
        for alias in events or ("challenger",)
    ]
    workspace.lake.append(layout.MODEL, rows_of(MODEL, rows), transaction=f"m{version}")


def test_before_anything_was_trained_nothing_is_spent(workspace: Workspace) -> None:
    assert spent(workspace) == 0.0


def test_models_of_the_month_count_once_and_old_ones_not_at_all(workspace: Workspace) -> None:
    made(workspace, 1, AT - MONTH, '{"seconds": 7200.0}')
    made(workspace, 2, AT - timedelta(days=3), '{"seconds": 1800.0}', "challenger", "champion", "former")
    made(workspace, 3, AT - timedelta(days=2), None)
    assert spent(workspace) == pytest.approx(0.5)


def race(workspace: Workspace) -> None:
    """An hour of it."""
    row = {"site": "east", "race_key": "r", "finding_key": "f", "strategy": "full", "seconds": 3600.0}
    workspace.lake.append(layout.RACE, rows_of(RACE, [row]), transaction="race")


def test_a_race_counts_when_it_trained_not_when_a_person_agreed_or_a_shadow_ended(workspace: Workspace) -> None:
    race(workspace)
    decided(workspace, AT - timedelta(days=50), "waiting")
    decided(workspace, AT - timedelta(days=40))
    decided(workspace, AT - timedelta(days=1), "done")
    assert spent(workspace) == 0.0
    assert hours_of_training(workspace, since=AT - timedelta(days=45), until=AT) == pytest.approx(1.0)


def test_a_race_of_which_only_the_end_is_written_counts_on_that_day(workspace: Workspace) -> None:
    race(workspace)
    decided(workspace, AT - timedelta(days=1), "refused")
    assert spent(workspace) == pytest.approx(1.0)


def test_candidates_of_a_race_count_on_the_day_of_its_decision(workspace: Workspace) -> None:
    rows = [
        {"site": "east", "race_key": "r", "finding_key": "f", "strategy": name, "seconds": seconds}
        for name, seconds in (("none", 0.0), ("linear_probe", 900.0), ("full", 2700.0), ("full", 2700.0))
    ]
    workspace.lake.append(layout.RACE, rows_of(RACE, rows), transaction="race")
    assert spent(workspace) == 0.0  # nobody knows when
    decided(workspace, AT - timedelta(days=1))
    assert spent(workspace) == pytest.approx(1.0)
    assert hours_of_training(workspace, since=AT, until=AT + MONTH) == 0.0


def running(workspace: Workspace, site: str = "west", target: str = "lesion") -> bool:
    return is_training_running(workspace, target, site=site, at=AT)


def test_a_training_runs_from_its_beginning_to_its_end(workspace: Workspace) -> None:
    assert not running(workspace)
    decided(workspace, AT - timedelta(hours=2))
    assert running(workspace)
    decided(workspace, AT, "refused")
    assert not running(workspace)


def test_a_training_of_the_same_site_or_of_another_target_is_not_waited_for(workspace: Workspace) -> None:
    decided(workspace, AT)
    assert not running(workspace, site="east")
    assert not running(workspace, target="nodule")


def test_a_training_that_died_is_given_up(workspace: Workspace) -> None:
    decided(workspace, AT - GIVEN_UP)
    assert not running(workspace)


@pytest.mark.parametrize("status", ["shadow", "passed"])
def test_a_challenger_in_the_shadow_is_waited_for_however_long_at_every_site(workspace: Workspace, status: str) -> None:
    decided(workspace, AT - timedelta(days=9), status)
    assert running(workspace)
    assert running(workspace, site="east")


def test_one_that_waits_for_a_person_has_not_begun(workspace: Workspace) -> None:
    decided(workspace, AT, "waiting")
    assert not running(workspace)
