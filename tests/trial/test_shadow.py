"""A challenger beside the champion: used by nobody, judged again when its period is over, promoted or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.learn import registry
from platform_core.manifest.serving import change_serving, current_servings
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.approvals import answer_decision
from platform_core.policy.record import decisions, record_row
from platform_core.policy.running import is_training_running
from platform_core.trial.rollout import finish_rollouts
from platform_core.trial.shadow import LONGEST, settle_shadow, shadow_facts, shadow_of, watch_shadow
from tests.trial.conftest import AT
from tests.trial.test_gate import BETTER, SAME, WORSE
from tests.trial.test_rollout import N_WRITES, KilledError, add_version, kill_at  # noqa: F401 - a fixture

PlantScores = Callable[..., list[str]]
SOON, LATER = AT + timedelta(days=3), AT + timedelta(days=8)


@pytest.fixture
def shadowed(served: Workspace) -> Workspace:
    """`served`, with lesion@2 in the shadow for seven days and at least 50 scans, asked for by south."""
    file = Path(served.uri) / layout.SETTINGS
    settings = file.read_text(encoding="utf-8").replace("[policy]", "[policy]\nshadow_days = 7\nshadow_scans = 50", 1)
    file.write_text(settings, encoding="utf-8")
    here = open_workspace(served.uri)
    champion, challenger = (registry.find(here, f"lesion@{n}") for n in (1, 2))
    row = {
        "site": "south",
        "decision_key": "d",
        "decided_at": AT,
        "step": 0,
        "finding_key": "f",
        "target": "lesion",
        "action": "fine_tune",
        "because": "labels say so",
        "status": "shadow",
        "evidence": json.dumps(shadow_facts(here, challenger, champion, at=AT)),
        "run": "run",
    }
    record_row(here, row)
    registry.alias(here, challenger, "shadow", run="run", at=AT)
    return here


def decision(workspace: Workspace) -> dict[str, Any]:
    (row,) = decisions(workspace).to_pylist()
    found: dict[str, Any] = row
    return found


def models_served(workspace: Workspace) -> set[str]:
    return {serving.model for serving in current_servings(workspace, "lesion")}


def plant(plant_scores: PlantScores, south: dict[str, float], n: int = 100, **facts: Any) -> None:
    """What came on the third day."""
    for site, scores in (("north", SAME), ("east", SAME), ("south", south)):
        plant_scores(site, n, scores, period=1, ingested_at=SOON, **facts)


def test_it_is_known_predicted_and_served_nowhere_and_nothing_else_is_trained(shadowed: Workspace) -> None:
    found = shadow_of(shadowed, "lesion")
    assert found is not None
    assert (found.name, found.alias) == ("lesion@2", "shadow")
    assert models_served(shadowed) == {"lesion@1"}
    assert all(is_training_running(shadowed, "lesion", site=site, at=LATER) for site in ("south", "north"))


def test_before_its_days_have_passed_nothing_is_decided(shadowed: Workspace, plant_scores: PlantScores) -> None:
    plant(plant_scores, BETTER)
    told = settle_shadow(shadowed, "lesion", run="n", at=SOON)
    assert told is not None
    assert "300 of 50 scans" in told
    assert decision(shadowed)["status"] == "shadow"


def test_before_it_has_seen_enough_scans_nothing_is_decided(shadowed: Workspace, plant_scores: PlantScores) -> None:
    plant_scores("south", 200, BETTER)  # these came before
    plant(plant_scores, BETTER, n=16)
    told = settle_shadow(shadowed, "lesion", run="n", at=LATER)
    assert told is not None
    assert "lesion@2 is in the shadow, with 48 of 50 scans" in told
    assert "sitedrift decision reject d" in told
    assert decision(shadowed)["status"] == "shadow"


def test_one_that_never_sees_enough_scans_is_refused_after_four_times_its_days(
    shadowed: Workspace, plant_scores: PlantScores
) -> None:
    plant(plant_scores, BETTER, n=16)
    end = AT + timedelta(days=LONGEST * 7)
    settle_shadow(shadowed, "lesion", run="n", at=end - timedelta(hours=1))
    assert decision(shadowed)["status"] == "shadow"
    told = settle_shadow(shadowed, "lesion", run="n", at=end)
    assert told is not None
    assert "it has seen 48 of 50 scans in 28 days" in told
    assert (decision(shadowed)["status"], registry.find(shadowed, "lesion@2").alias) == ("refused", "refused")
    assert not is_training_running(shadowed, "lesion", site="south", at=end)


def test_a_person_may_end_it(shadowed: Workspace) -> None:
    with pytest.raises(UnknownName):
        answer_decision(shadowed, "d", is_approved=True, by="ada", note=None, run="by hand", at=SOON)
    told = answer_decision(shadowed, "d", is_approved=False, by="ada", note="no scans", run="by hand", at=SOON)
    assert "refuses the challenger in the shadow" in told
    assert not is_training_running(shadowed, "lesion", site="north", at=LATER)
    assert shadow_of(shadowed, "lesion") is None
    assert "a person has ended" in str(settle_shadow(shadowed, "lesion", run="n", at=LATER))
    assert registry.find(shadowed, "lesion@2").alias == "refused"
    assert settle_shadow(shadowed, "lesion", run="m", at=LATER) is None


def test_scores_of_an_adapted_version_are_held_against_the_one_that_was_trained(
    shadowed: Workspace, plant_scores: PlantScores
) -> None:
    """It has seen no scan of the source."""
    add_version(shadowed, 3, alias="adapted")
    south = next(one for one in current_servings(shadowed, "lesion") if one.site == "south")
    change_serving(shadowed, replace(south, model="lesion@3"), decision_key=None, at=AT, run="run")
    plant_scores("north", 300, {"lesion@1": 3.0, "lesion@2": 3.0}, period=1, ingested_at=SOON)
    plant_scores("south", 300, {"lesion@3": 3.0, "lesion@2": 3.0}, period=1, ingested_at=SOON)
    sides = (registry.find(shadowed, f"lesion@{n}") for n in (2, 1))
    found = {one.site: one for one in watch_shadow(shadowed, *sides, since=AT)}
    assert found["south"].p_fit_champion is not None


def test_without_harm_it_is_promoted_everywhere(shadowed: Workspace, plant_scores: PlantScores) -> None:
    plant(plant_scores, SAME)
    told = settle_shadow(shadowed, "lesion", run="n", at=LATER)
    assert told is not None
    assert "lesion@2 is the champion" in told
    assert models_served(shadowed) == {"lesion@2"}
    row = decision(shadowed)
    assert row["status"] == "done"
    assert "nothing in its shadow period speaks against it" in row["because"]
    seen = {site["site"]: site for site in json.loads(row["evidence"])["shadow"]["seen"]}
    assert seen["south"]["n_scans"] == 100
    assert seen["south"]["n_disagree"] == 0
    assert seen["south"]["gate"]["outcome"] == "holds"
    assert shadow_of(shadowed, "lesion") is None
    assert settle_shadow(shadowed, "lesion", run="n", at=LATER) is None


def test_harm_that_labels_show_refuses_it(shadowed: Workspace, plant_scores: PlantScores) -> None:
    plant(plant_scores, WORSE)
    told = settle_shadow(shadowed, "lesion", run="n", at=LATER)
    assert told is not None
    assert "refused after its shadow period: south" in told
    assert models_served(shadowed) == {"lesion@1"}
    assert registry.find(shadowed, "lesion@2").alias == "refused"
    assert decision(shadowed)["status"] == "refused"
    assert shadow_of(shadowed, "lesion") is None


def test_without_labels_scores_that_no_longer_fit_refuse_it(
    shadowed: Workspace, plant_scores: PlantScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At south, whose labels nobody has, the challenger's scores are those of no class of the source."""
    for site in ("north", "east"):
        plant_scores(site, 300, {"lesion@1": 3.0, "lesion@2": 3.0}, period=1, ingested_at=SOON)
    plant_scores("south", 300, {"lesion@1": 3.0, "lesion@2": 0.3}, period=1, ingested_at=SOON, patient_known=False)
    found = {
        one.site: one
        for one in watch_shadow(
            shadowed, registry.find(shadowed, "lesion@2"), registry.find(shadowed, "lesion@1"), since=AT
        )
    }
    assert found["south"].gate.outcome == "not_evaluable"
    assert found["south"].p_fit_shadow is not None
    assert found["south"].p_fit_champion is not None
    assert found["south"].p_fit_shadow < 0.01 < found["south"].p_fit_champion
    assert "fits its scores any more" in str(found["south"].because)
    assert found["east"].because is None
    told = settle_shadow(shadowed, "lesion", run="n", at=LATER)
    assert told is not None
    assert "no mixture" in told


def test_another_champion_meanwhile_ends_it(shadowed: Workspace, plant_scores: PlantScores) -> None:
    plant(plant_scores, BETTER)
    add_version(shadowed, 3)
    first = registry.champion(shadowed, "lesion")
    registry.promote(shadowed, registry.find(shadowed, "lesion@3"), over=first, run="run", at=SOON)
    told = settle_shadow(shadowed, "lesion", run="n", at=LATER)
    assert told is not None
    assert "another version became champion" in told
    assert registry.find(shadowed, "lesion@2").alias == "refused"


@pytest.mark.parametrize("step", range(1, N_WRITES + 1))
def test_an_end_that_was_killed_is_finished_the_night_after(
    shadowed: Workspace,
    plant_scores: PlantScores,
    kill_at: Callable[[int], None],  # noqa: F811 - the fixture
    step: int,
) -> None:
    plant(plant_scores, SAME)
    kill_at(step)
    with pytest.raises(KilledError):
        settle_shadow(shadowed, "lesion", run="n", at=LATER)
    kill_at(0)
    night = LATER + timedelta(days=1)
    finish_rollouts(shadowed, "lesion", run="m", at=night)
    settle_shadow(shadowed, "lesion", run="m", at=night)
    assert models_served(shadowed) == {"lesion@2"}
    assert decision(shadowed)["status"] == "done"
