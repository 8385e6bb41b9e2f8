"""Questions about the reference go to the version that was trained: nobody shows the reference to an adapted one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from platform_core.learn import registry
from platform_core.manifest.serving import current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.shift.watch import vigil
from platform_core.trial import label_request, receipt
from tests.trial.conftest import AT

ADAPTED = "lesion@3"


@pytest.fixture
def adapted(served: Workspace, plant_scores: Callable[..., list[str]]) -> Workspace:
    """A version that was adapted from the champion, which alone has scored the source."""
    champion, epoch = registry.find(served, "lesion@1"), registry.next_epoch(served, "lesion")
    made_at = AT + timedelta(days=60)
    made = replace(champion, version=3, alias="adapted", parent="lesion@1", epoch=epoch, created_at=made_at)
    registry.register(served, made, run="r")
    plant_scores("north", 200, {"lesion@1": 1.0})
    return served


def test_bets_on_prevalence(adapted: Workspace) -> None:
    assert vigil._bets_on_prevalence(adapted, "lesion", ADAPTED)


def test_distances_to_labelled_scans(adapted: Workspace) -> None:
    serving = current_serving(adapted, "south", "lesion")
    assert serving is not None
    assert len(label_request._labelled_reference(adapted, replace(serving, model=ADAPTED))) == 200


def test_the_reference_of_a_receipt_ends_where_the_trained_version_was_made(
    adapted: Workspace, plant_scores: Callable[..., list[str]]
) -> None:
    plant_scores("north", 40, {}, period=1, ingested_at=AT + timedelta(days=30))
    serving = current_serving(adapted, "south", "lesion")
    assert serving is not None
    of_adapted, of_trained = (
        receipt._reference_keys(adapted, "lesion", replace(serving, model=model), [{"stratum": "CT"}])
        for model in (ADAPTED, "lesion@1")
    )
    assert len(of_trained) == 200
    assert of_adapted == of_trained
