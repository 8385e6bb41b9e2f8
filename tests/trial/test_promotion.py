"""What becomes of a judged challenger, from its case to the decision; finished by the next night if it is killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.learn import registry
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.serving import current_servings
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.episodes import episodes
from platform_core.policy.record import decisions, record_decision
from platform_core.storage.tables import rows_of
from platform_core.trial.case import Case
from platform_core.trial.gate import n_challenges
from platform_core.trial.promotion import settle_challenger
from platform_core.trial.rollout import finish_rollouts
from platform_core.trial.shadow import shadow_of
from tests.trial.conftest import AT
from tests.trial.test_gate import BETTER, SAME
from tests.trial.test_rollout import KilledError, kill_at  # noqa: F401 - a fixture

DECISION = Decision(action="fine_tune", because="labels say that the model does harm", rule="harm")
NIGHT = AT + timedelta(days=1)
N_WRITES = 7
"""Of a promotion: it passed, the alias, three servings, it is done, the episode has acted."""


@pytest.fixture
def case(served: Workspace, plant_scores: Callable[..., list[str]]) -> Case:
    """South asks; its challenger is better, and nobody loses."""
    keys = plant_scores("south", 150, BETTER)
    for site in ("north", "east"):
        plant_scores(site, 150, SAME)
    days = {"period_start": AT.date(), "period_end": AT.date() + timedelta(days=27)}
    finding = {"site": "south", "finding_key": "f", "stratum": "CT", "target": "lesion", "model": "lesion@1"}
    row = finding | days | {"kind": "concept", "explained_by": "labels", "run": "run"}
    served.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction="f")
    case = Case(
        uri=served.uri,
        site="south",
        target="lesion",
        finding_key="f",
        headline="",
        keys=tuple(keys),
        run="run",
        at=AT,
    )
    record_decision(  # as the case was opened
        served,
        DECISION,
        finding=row,
        status="proposed",
        serving_before=case.serving,
        serving_after=None,
        evidence=None,
        run="run",
        at=AT,
    )
    return case


def models_served(case: Case) -> set[str]:
    return {serving.model for serving in current_servings(case.workspace, "lesion")}


def decision(case: Case) -> dict[str, Any]:
    (row,) = decisions(case.workspace).to_pylist()
    found: dict[str, Any] = row
    return found


def test_a_challenger_that_passes_is_served_everywhere_and_the_decision_says_why(case: Case) -> None:
    settle_challenger(case, DECISION, "lesion@2")
    assert models_served(case) == {"lesion@2"}
    row = decision(case)
    assert row["status"] == "done"
    assert row["because"].startswith("labels say that the model does harm; lesion@2 passes: south")
    gate = json.loads(row["evidence"])["gate"]
    assert (gate["number"], round(gate["alpha"], 4)) == (1, 0.0304)
    assert [episode.state for episode in episodes(case.workspace, "south")] == ["acted"]


def test_a_challenger_that_fails_is_refused_and_the_decision_says_why(
    case: Case, plant_scores: Callable[..., list[str]]
) -> None:
    keys = plant_scores("south", 150, SAME, period=1)
    settle_challenger(replace(case, keys=tuple(keys)), DECISION, "lesion@2")
    assert models_served(case) == {"lesion@1"}
    assert registry.find(case.workspace, "lesion@2").alias == "refused"
    row = decision(case)
    assert row["status"] == "refused"
    assert "no gain beyond chance" in row["because"]


def test_a_refusal_that_was_killed_has_spent_its_alpha_before_the_alias_moves(
    case: Case,
    plant_scores: Callable[..., list[str]],
    kill_at: Callable[[int], None],  # noqa: F811 - the fixture
) -> None:
    keys = plant_scores("south", 150, SAME, period=1)
    kill_at(3)  # the decision, its episode, the alias
    with pytest.raises(KilledError):
        settle_challenger(replace(case, keys=tuple(keys)), DECISION, "lesion@2")
    kill_at(0)
    assert decision(case)["status"] == "refused"
    assert n_challenges(case.workspace, "lesion", but="lesion@3") == 1
    assert registry.find(case.workspace, "lesion@2").alias == "challenger"


def test_with_a_shadow_period_it_waits_beside_the_champion(case: Case) -> None:
    file = Path(case.uri) / layout.SETTINGS
    settings = file.read_text(encoding="utf-8").replace("[policy]", "[policy]\nshadow_days = 7", 1)
    file.write_text(settings, encoding="utf-8")
    settle_challenger(case, DECISION, "lesion@2")
    assert models_served(case) == {"lesion@1"}
    found = shadow_of(open_workspace(case.uri), "lesion")
    assert found is not None
    assert (found.name, found.alias) == ("lesion@2", "shadow")
    row = decision(case)
    assert row["status"] == "shadow"
    assert json.loads(row["evidence"])["shadow"]["until"] == (AT + timedelta(days=7)).isoformat()
    assert finish_rollouts(case.workspace, "lesion", run="m", at=NIGHT) == []


@pytest.mark.parametrize("step", range(2, N_WRITES + 1))
def test_a_promotion_that_was_killed_is_finished_by_the_next_night(
    case: Case,
    kill_at: Callable[[int], None],  # noqa: F811 - the fixture
    step: int,
) -> None:
    kill_at(step)
    with pytest.raises(KilledError):
        settle_challenger(case, DECISION, "lesion@2")
    kill_at(0)
    finish_rollouts(case.workspace, "lesion", run="m", at=NIGHT)
    assert models_served(case) == {"lesion@2"}
    row = decision(case)
    assert row["status"] == "done"
    assert json.loads(row["evidence"])["gate"]["passed"]


def test_one_that_was_killed_before_it_was_written_down_has_changed_nothing(
    case: Case,
    kill_at: Callable[[int], None],  # noqa: F811 - the fixture
) -> None:
    kill_at(1)
    with pytest.raises(KilledError):
        settle_challenger(case, DECISION, "lesion@2")
    kill_at(0)
    assert finish_rollouts(case.workspace, "lesion", run="m", at=NIGHT) == []
    assert models_served(case) == {"lesion@1"}
    assert decision(case)["status"] == "proposed"
