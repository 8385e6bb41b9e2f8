"""Versions and aliases: append-only, one champion, always a way back."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from platform_core.errors import BadRequest, UnknownName
from platform_core.learn.registry import (
    ModelRef,
    alias,
    champion,
    find,
    models,
    next_epoch,
    next_version,
    promote,
    register,
    rollback,
)
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)


def made(workspace: Workspace, name: str = "lesion") -> ModelRef:
    first = champion(workspace, name) is None
    ref = ModelRef(
        model=name,
        version=next_version(workspace, name),
        alias="champion" if first else "challenger",
        parent=None,
        strategy="full",
        reference="abc",
        recipe="r1",
        metrics={"north": {"auroc": 0.9}},
        calibration=Calibration(logit_offset=-0.5, prevalence=0.4, threshold=0.5),
        bundle_uri="models/x",
        created_at=AT,
        since=AT,
        epoch=next_epoch(workspace, name),
    )
    return register(workspace, ref, run="run")


def test_what_was_registered_is_found_as_it_was(workspace: Workspace) -> None:
    ref = made(workspace)
    assert find(workspace, "lesion@1") == ref
    assert champion(workspace, "lesion") == ref


def test_before_the_first_there_is_no_champion(workspace: Workspace) -> None:
    assert champion(workspace, "lesion") is None
    assert models(workspace) == []


def test_an_unknown_model_is_named_with_those_that_exist(workspace: Workspace) -> None:
    made(workspace)
    with pytest.raises(UnknownName, match="lesion@1"):
        find(workspace, "lesion@9")


def test_targets_have_versions_of_their_own(workspace: Workspace) -> None:
    made(workspace)
    made(workspace, "nodule")
    assert [ref.name for ref in models(workspace)] == ["lesion@1", "nodule@1"]
    assert [ref.alias for ref in models(workspace)] == ["champion", "champion"]


def test_a_promotion_makes_the_champion_a_former_one(workspace: Workspace) -> None:
    first, second = made(workspace), made(workspace)
    promote(workspace, second, over=first, run="run", at=AT)
    assert [ref.alias for ref in models(workspace, "lesion")] == ["former", "champion"]


def test_a_promotion_over_a_champion_of_yesterday_is_refused(workspace: Workspace) -> None:
    first, second, third = made(workspace), made(workspace), made(workspace)
    promote(workspace, second, over=first, run="run", at=AT)
    with pytest.raises(BadRequest, match="judge again"):
        promote(workspace, third, over=first, run="run", at=AT)
    assert champion(workspace, "lesion") == find(workspace, "lesion@2")


def test_promoting_the_champion_again_changes_nothing(workspace: Workspace) -> None:
    first = made(workspace)
    assert promote(workspace, first, over=first, run="run", at=AT) == first
    assert next_epoch(workspace, "lesion") == 1


def test_rollbacks_go_back_one_champion_at_a_time(workspace: Workspace) -> None:
    first, second, third = made(workspace), made(workspace), made(workspace)
    promote(workspace, second, over=first, run="run", at=AT)
    promote(workspace, third, over=champion(workspace, "lesion"), run="run", at=AT)
    assert rollback(workspace, "lesion", run="run", at=AT).name == "lesion@2"
    assert rollback(workspace, "lesion", run="run", at=AT).name == "lesion@1"
    assert [ref.alias for ref in models(workspace, "lesion")] == ["champion", "refused", "refused"]
    with pytest.raises(BadRequest, match="no former champion"):
        rollback(workspace, "lesion", run="run", at=AT)


def test_of_two_events_at_once_one_is_told_to_look_again(workspace: Workspace) -> None:
    ref = made(workspace)
    late = replace(ref, version=2, alias="challenger")
    with pytest.raises(BadRequest, match="changed meanwhile"):
        register(workspace, late, run="run")
    assert [ref.name for ref in models(workspace)] == ["lesion@1"]


def test_an_alias_cannot_unseat_or_make_a_champion(workspace: Workspace) -> None:
    first, second = made(workspace), made(workspace)
    for ref, name in ((first, "refused"), (second, "champion")):
        with pytest.raises(BadRequest, match="promotion or a rollback"):
            alias(workspace, ref, name, run="run", at=AT)  # type: ignore[arg-type]
    assert alias(workspace, second, "refused", run="run", at=AT).alias == "refused"
    assert find(workspace, "lesion@2").alias == "refused"


def test_what_was_adapted_once_is_never_champion_or_challenger(workspace: Workspace) -> None:
    first = made(workspace)
    own = replace(first, version=2, alias="adapted", parent="lesion@1", epoch=next_epoch(workspace, "lesion"))
    register(workspace, own, run="run")
    for _ in ("adapted", "refused"):
        with pytest.raises(BadRequest, match="for no other"):
            promote(workspace, find(workspace, "lesion@2"), over=first, run="run", at=AT)
        with pytest.raises(BadRequest, match="for no other"):
            alias(workspace, find(workspace, "lesion@2"), "challenger", run="run", at=AT)
        alias(workspace, find(workspace, "lesion@2"), "refused", run="run", at=AT)
    assert champion(workspace, "lesion") == first


def test_listing_models_loads_no_network_library(workspace: Workspace) -> None:
    code = "import sys; import platform_core.learn.registry, platform_core.trial.gate; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
