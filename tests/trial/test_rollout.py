"""A change of champion can be repeated after a kill at any point, is written down, and goes back one version a time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.lineage.why import why
from platform_core.manifest.serving import Serving, change_serving, current_serving, current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from platform_core.storage.tables import Lake
from platform_core.trial.rollout import (
    finish_rollouts,
    follow_champion,
    limit_of,
    promote_by_hand,
    restore_serving,
    roll_back,
    rollout_facts,
)
from tests.trial.conftest import AT, EVEN

LATER = AT + timedelta(days=1)
LATER_STILL = AT + timedelta(days=2)
ENDS = AT + timedelta(days=30)
N_WRITES = 6
"""Of a change at three sites: written down, alias, three servings, written down as done."""


class KilledError(BaseException):
    """The machine went away."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`kill_at(n)`: the process ends before its n-th write; 0 heals it."""
    whole = Lake.append

    def arm(last: int) -> None:
        steps = count(1)

        def step() -> None:
            if next(steps) == last:
                raise KilledError

        def append(self: Lake, *args: Any, **kwargs: Any) -> int:
            step()
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(Lake, "append", whole if last == 0 else append)

    yield arm
    monkeypatch.setattr(Lake, "append", whole)


def champion_of(workspace: Workspace) -> str:
    found = registry.champion(workspace, "lesion")
    assert found is not None
    return found.name


def models_served(workspace: Workspace) -> set[str]:
    return {serving.model for serving in current_servings(workspace, "lesion")}


def by_hand(workspace: Workspace) -> list[dict[str, Any]]:
    return [row for row in decisions(workspace).to_pylist() if row["action"] in ("promote", "rollback", "restore")]


def promote(workspace: Workspace, at: datetime = LATER) -> str:
    return promote_by_hand(workspace, "lesion@2", run="p", at=at, because="the board agreed", by="ada")


def test_a_promotion_moves_the_alias_and_every_site_and_says_who_and_why(served: Workspace) -> None:
    assert "changed at: east, north, south" in promote(served)
    assert champion_of(served) == "lesion@2"
    assert models_served(served) == {"lesion@2"}
    (row,) = by_hand(served)
    assert (row["action"], row["status"], row["because"], row["approved_by"]) == (
        "promote",
        "done",
        "the board agreed",
        "ada",
    )
    assert json.loads(row["evidence"])["rollout"] == {"champion": "lesion@2", "former": "lesion@1"}


@pytest.mark.parametrize("step", range(1, N_WRITES + 1))
def test_a_promotion_that_was_killed_is_completed_by_repeating_it(
    served: Workspace, kill_at: Callable[[int], None], step: int
) -> None:
    kill_at(step)
    try:
        promote(served)
    except KilledError:
        kill_at(0)
        promote(served, at=LATER_STILL)
    assert champion_of(served) == "lesion@2"
    assert models_served(served) == {"lesion@2"}
    assert [row["status"] for row in by_hand(served)] == ["done"]


@pytest.mark.parametrize("step", range(1, N_WRITES + 1))
def test_a_rollback_that_was_killed_goes_back_one_version_and_no_more_when_repeated(
    served: Workspace, kill_at: Callable[[int], None], step: int
) -> None:
    registry.alias(served, registry.find(served, "lesion@2"), "challenger", run="run", at=AT)
    add_version(served, 3)
    promote(served)
    promote_by_hand(served, "lesion@3", run="p", at=LATER)
    kill_at(step)
    try:
        roll_back(served, "lesion", run="r", at=LATER_STILL)
    except KilledError:
        kill_at(0)
        roll_back(served, "lesion", run="r", at=LATER_STILL + timedelta(minutes=1))
    assert champion_of(served) == "lesion@2"
    assert models_served(served) == {"lesion@2"}
    assert {row["status"] for row in by_hand(served)} == {"done"}


def test_two_rollbacks_go_back_two_versions(served: Workspace) -> None:
    add_version(served, 3)
    promote(served)
    promote_by_hand(served, "lesion@3", run="p", at=LATER)
    roll_back(served, "lesion", run="r", at=LATER_STILL)
    roll_back(served, "lesion", run="r", at=LATER_STILL + timedelta(minutes=1))
    assert champion_of(served) == "lesion@1"
    assert models_served(served) == {"lesion@1"}
    with pytest.raises(BadRequest, match="no former champion"):
        roll_back(served, "lesion", run="r", at=LATER_STILL + timedelta(minutes=2))


@pytest.mark.parametrize("step", range(3, N_WRITES + 1))
def test_the_next_run_finishes_what_had_begun_to_move(
    served: Workspace, kill_at: Callable[[int], None], step: int
) -> None:
    kill_at(step)
    try:
        promote(served)
    except KilledError:
        kill_at(0)
        finish_rollouts(served, "lesion", run="night", at=LATER_STILL)
    assert models_served(served) == {"lesion@2"}
    assert [row["status"] for row in by_hand(served)] == ["done"]


def test_the_next_run_gives_up_what_a_person_asked_for_and_nothing_moved(
    served: Workspace, kill_at: Callable[[int], None]
) -> None:
    kill_at(2)
    with pytest.raises(KilledError):
        promote(served)
    kill_at(0)
    (told,) = finish_rollouts(served, "lesion", run="night", at=LATER_STILL)
    assert "given up" in told
    assert models_served(served) == {"lesion@1"}
    assert [row["status"] for row in by_hand(served)] == ["refused"]
    assert finish_rollouts(served, "lesion", run="night", at=LATER_STILL) == []


def test_a_site_keeps_what_it_was_given_after_the_promotion(served: Workspace) -> None:
    promote(served)
    restore_serving(served, "south", "lesion", run="s", at=LATER_STILL, because="noisy", by="ada")
    assert follow_champion(served, "lesion", run="night", at=LATER_STILL) == []
    south = current_serving(served, "south", "lesion")
    assert south is not None
    assert south.model == "lesion@1"
    assert [row["because"] for row in by_hand(served) if row["action"] == "restore"] == ["noisy"]


def test_an_adaptation_of_the_champion_is_kept_and_one_of_its_predecessor_is_not(served: Workspace) -> None:
    for version, parent in ((3, "lesion@1"), (4, "lesion@2")):
        add_version(served, version, parent=parent, alias="adapted")
    for site, model in (("south", "lesion@3"), ("east", "lesion@4")):
        serving = current_serving(served, site, "lesion")
        assert serving is not None
        change_serving(served, replace(serving, model=model), decision_key=None, at=AT, run="run")
    promote(served)
    assert {s.site: s.model for s in current_servings(served, "lesion")} == {
        "north": "lesion@2",
        "south": "lesion@2",
        "east": "lesion@4",
    }


def serve_for_a_time(workspace: Workspace, site: str, **news: Any) -> Serving:
    """What no label has confirmed."""
    present = current_serving(workspace, site, "lesion")
    assert present is not None
    wanted = replace(present, until=ENDS, **news)
    return change_serving(workspace, wanted, decision_key=None, at=AT, run="run")


def test_a_recipe_or_a_prevalence_that_no_label_confirmed_keeps_its_limit_under_a_new_champion(
    served: Workspace,
) -> None:
    add_version(served, 3, alias="adapted")
    serve_for_a_time(served, "south", recipe="r2")
    serve_for_a_time(served, "east", calibration=EVEN.moved_to(0.2))
    serve_for_a_time(served, "north", model="lesion@3")
    promote(served)
    told = {s.site: (s.model, s.until) for s in current_servings(served, "lesion")}
    assert told == {"south": ("lesion@2", ENDS), "east": ("lesion@2", ENDS), "north": ("lesion@2", None)}
    roll_back(served, "lesion", run="r", at=LATER_STILL)
    assert {s.site: s.until for s in current_servings(served, "lesion")}["south"] == ENDS


def test_labels_that_confirm_a_prior_do_not_confirm_the_adapted_model_under_it(served: Workspace) -> None:
    add_version(served, 3, alias="adapted")
    adapted, champion = serve_for_a_time(served, "south", model="lesion@3"), serve_for_a_time(served, "east")
    assert limit_of(served, adapted, LATER, has_labels=True) == ENDS
    assert limit_of(served, champion, LATER, has_labels=True) is None
    assert limit_of(served, champion, LATER, has_labels=False) is not None


@pytest.mark.parametrize("step", range(1, 4))
@pytest.mark.parametrize("by_night", [False, True])
def test_a_restoration_that_was_killed_is_finished_and_does_not_flip_back(
    served: Workspace, kill_at: Callable[[int], None], step: int, *, by_night: bool
) -> None:
    promote(served)
    kill_at(step)  # written down, the serving, written down as done
    with pytest.raises(KilledError):
        restore_serving(served, "south", "lesion", run="s", at=LATER_STILL)
    kill_at(0)
    if by_night and step > 1:
        finish_rollouts(served, "lesion", run="night", at=LATER_STILL)
    if not by_night:
        restore_serving(served, "south", "lesion", run="t", at=LATER_STILL + timedelta(minutes=1))
    has_moved = not by_night or step == 3
    south = current_serving(served, "south", "lesion")
    assert south is not None
    assert south.model == ("lesion@1" if has_moved else "lesion@2")
    rows = [row for row in by_hand(served) if row["action"] == "restore"]
    assert [row["status"] for row in rows] == (["done"] if has_moved else ["refused"] if step == 2 else [])
    for row in rows if has_moved else []:
        assert json.loads(row["serving_before"])["model"] == "lesion@2"
        assert json.loads(row["serving_after"])["model"] == "lesion@1"


def test_what_may_not_be_champion_is_refused_before_anything_is_written_down(served: Workspace) -> None:
    add_version(served, 3, alias="adapted")
    registry.alias(served, registry.find(served, "lesion@3"), "refused", run="run", at=AT)
    with pytest.raises(BadRequest, match="for no other"):
        promote_by_hand(served, "lesion@3", run="p", at=LATER)
    assert by_hand(served) == []


@pytest.mark.parametrize("text", [{"because": "as asked by 4711234"}, {"by": "Doe^Erika"}])
def test_a_reason_or_a_name_that_could_identify_a_patient_is_not_written_down(
    served: Workspace, text: dict[str, str]
) -> None:
    with pytest.raises(BadRequest, match="the text holds"):
        promote_by_hand(served, "lesion@2", run="p", at=LATER, **text)
    with pytest.raises(BadRequest, match="the text holds"):
        roll_back(served, "lesion", run="p", at=LATER, **text)
    with pytest.raises(BadRequest, match="the text holds"):
        restore_serving(served, "south", "lesion", run="p", at=LATER, **text)
    assert by_hand(served) == []
    assert champion_of(served) == "lesion@1"


def test_a_lost_race_for_the_alias_is_told_and_nothing_is_served(
    served: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = registry.promote

    def late(workspace: Workspace, ref: Any, **how: Any) -> Any:
        add_version(workspace, 3)
        first = registry.champion(workspace, "lesion")
        whole(workspace, registry.find(workspace, "lesion@3"), over=first, run="other", at=AT)
        return whole(workspace, ref, **how)

    monkeypatch.setattr(registry, "promote", late)
    with pytest.raises(BadRequest, match="judge again"):
        promote(served)
    assert champion_of(served) == "lesion@3"
    assert "lesion@2" not in models_served(served)


def test_the_facts_of_a_rollout_name_both_champions(served: Workspace) -> None:
    first, second = (registry.find(served, f"lesion@{n}") for n in (1, 2))
    assert rollout_facts(second, first) == {"rollout": {"champion": "lesion@2", "former": "lesion@1"}}


def add_version(
    workspace: Workspace, version: int, parent: str = "lesion@1", alias: registry.Alias = "challenger"
) -> None:
    made = replace(
        registry.find(workspace, "lesion@2"),
        version=version,
        alias=alias,
        parent=parent,
        epoch=registry.next_epoch(workspace, "lesion"),
    )
    registry.register(workspace, made, run="run")


def test_lineage_knows_a_change_by_hand(served: Workspace) -> None:
    promote(served)
    (row,) = by_hand(served)
    found = why(served, row["decision_key"])
    assert (found.kind, found.facts["because"], found.facts["approved by"]) == ("decision", "the board agreed", "ada")
