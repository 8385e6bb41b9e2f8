"""The evidence file: every section of a change control plan, from the tables, and nothing that they do not say."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.learn.registry import find
from platform_core.manifest.workspace import Workspace
from platform_core.policy.table import policy_of
from platform_core.trial.change_control import (
    JSON_FILE,
    NOT_RECORDED,
    as_markdown,
    change_control,
    keep_change_control,
    kept_change_control,
)
from platform_core.trial.model_record import told_sentence
from platform_core.trial.rollout import promote_by_hand, roll_back
from tests.conftest import new_workspace
from tests.report.conftest import AT
from tests.report.test_card import fill

SECTIONS = ("description_of_modifications", "data", "modification_protocol", "results", "impact_assessment")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """lesion@2, made for east, has taken lesion@1's place by the gate."""
    with new_workspace(tmp_path_factory.mktemp("change")) as empty:
        yield fill(empty)


@pytest.fixture(scope="module")
def facts(workspace: Workspace) -> dict[str, Any]:
    return change_control(workspace, "lesion@2", at=AT)


def test_every_section_is_there_and_is_json(facts: dict[str, Any]) -> None:
    assert set(SECTIONS) <= facts.keys()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_it_says_what_changed_and_what_did_not(facts: dict[str, Any]) -> None:
    told = facts["description_of_modifications"]
    assert (told["from"], told["to"], told["weights"]) == ("lesion@1", "lesion@2", "trained by linear_probe")
    assert told["recipe"] == {"before": "harmonized-1", "after": "harmonized-1", "changed": False}
    assert told["calibration"]["changed"] is False
    assert told["why"] == ["risk is higher"]


def test_it_names_the_data_by_hash_count_and_table_version(workspace: Workspace, facts: dict[str, Any]) -> None:
    assert facts["data"]["reference"] == "0123456789ab"
    assert facts["data"]["n_scans"] == {"east": 102, "gone": "fewer than 10", "west": "fewer than 10"}
    versions = facts["data"]["table_versions"]
    assert versions["at_training"] == NOT_RECORDED
    assert versions["at_writing"][layout.DECISION] == workspace.lake.version(layout.DECISION)


def test_the_criteria_are_the_settings_and_the_policy_s_hash(workspace: Workspace, facts: dict[str, Any]) -> None:
    protocol = facts["modification_protocol"]
    rules = workspace.settings.policy
    assert protocol["performance_evaluation"]["settings"]["non_inferiority_margin"] == rules.non_inferiority_margin
    assert NOT_RECORDED not in protocol["performance_evaluation"]["settings"].values()
    assert protocol["policy"] == {"at_decision": "p0", "now": policy_of(workspace).digest, "is_the_same": False}
    assert [row["strategy"] for row in protocol["re_training"]["race"]] == ["none", "linear_probe", "full"]


def test_the_criteria_are_those_of_the_gate_that_judges_the_task(workspace: Workspace, facts: dict[str, Any]) -> None:
    told = facts["modification_protocol"]["performance_evaluation"]
    for word in ("log-loss", "Brier", "calibration", "forget", "subgroup", "seeds"):
        assert word in told["acceptance_criteria"], word
    assert "dice_margin" not in told["settings"]
    target = workspace.settings.target["lesion"].model_copy(update={"task": "segmentation"})
    settings = workspace.settings.model_copy(update={"target": {"lesion": target}})
    other = Workspace(workspace.uri)
    vars(other)["settings"] = settings
    marks = change_control(other, "lesion@2", at=AT)
    told = marks["modification_protocol"]["performance_evaluation"]
    assert "Dice" in told["acceptance_criteria"]
    assert "log-loss" not in told["acceptance_criteria"]
    assert told["settings"]["dice_margin"] == workspace.settings.policy.dice_margin
    assert "forgetting_margin" not in told["settings"]


def test_it_says_that_those_who_called_for_a_training_also_judge_it(facts: dict[str, Any]) -> None:
    told = facts["modification_protocol"]["data_management"]["practice"]
    assert "in part judged by the patients who called for it" in told


def test_results_impact_and_approval_are_those_of_the_decision(facts: dict[str, Any]) -> None:
    assert facts["results"]["passed"] is True
    east, west = facts["results"]["sites"]
    assert east["log_loss_gain"]["value"] == 0.14
    assert (west["n_patients"], west["log_loss_gain"]) == ("fewer than 10", "not evaluable")
    assert facts["impact_assessment"]["no_worse_at_other_sites"] == {"west": False}
    assert facts["impact_assessment"]["sites_not_evaluated"] == ["north", "south"]
    assert [(one["approved_by"], one["status"]) for one in facts["approvals"]] == [("Dr. Gate", "done")]


def test_what_no_table_has_is_told_as_such(workspace: Workspace) -> None:
    first = change_control(workspace, "lesion@1", at=AT)
    assert first["results"] == NOT_RECORDED
    assert first["approvals"] == NOT_RECORDED
    assert first["modification_protocol"]["re_training"]["race"] == NOT_RECORDED
    assert first["modification_protocol"]["policy"]["is_the_same"] == NOT_RECORDED
    assert first["description_of_modifications"]["from"].startswith("nothing")


def test_the_text_holds_every_fact_and_no_key(facts: dict[str, Any]) -> None:
    text = as_markdown(facts)
    assert text.startswith("# Change control evidence of lesion@2\n")
    for word in ("## Modification protocol", "log loss gain 0.14 [0.07, 0.21]", "Dr. Gate", "out__decision"):
        assert word.lower() in text.lower(), word
    assert "p-east" not in text
    assert "east-0-0" not in text


def test_a_promotion_by_hand_leaves_its_evidence_in_the_bundle(workspace: Workspace) -> None:
    assert kept_change_control(workspace, "lesion@1") == {}
    roll_back(workspace, "lesion", run="r3", at=AT + timedelta(days=1), by="Dr. Back", because="it erred")
    kept = json.loads(kept_change_control(workspace, "lesion@1")[JSON_FILE])
    assert ("Dr. Back", "done") in {(one["approved_by"], one["status"]) for one in kept["approvals"]}
    promote_by_hand(workspace, "lesion@2", run="r4", at=AT + timedelta(days=2), by="Dr. Forth", because="it did not")
    kept = json.loads(kept_change_control(workspace, "lesion@2")[JSON_FILE])
    assert [one["approved_by"] for one in kept["approvals"]] == ["Dr. Gate", "Dr. Forth"]
    assert kept["results"]["sites"][0]["log_loss_gain"]["value"] == 0.14


def test_what_the_tables_were_at_the_promotion_is_kept(workspace: Workspace) -> None:
    folder = keep_change_control(workspace, "lesion@2", at=AT)
    assert folder == f"{find(workspace, 'lesion@2').bundle_uri}/docs"
    then = json.loads(kept_change_control(workspace, "lesion@2")[JSON_FILE])["data"]["table_versions"]["at_writing"]
    workspace.lake.append(
        layout.LABEL, workspace.lake.read(layout.LABEL).slice(0, 1), transaction="one more label for the test"
    )
    versions = change_control(workspace, "lesion@2", at=AT)["data"]["table_versions"]
    assert versions["at_promotion"] == then
    assert versions["at_writing"][layout.LABEL] == then[layout.LABEL] + 1


def test_an_unknown_model_is_named(workspace: Workspace) -> None:
    with pytest.raises(UnknownName, match="lesion@1, lesion@2"):
        change_control(workspace, "lesion@9", at=AT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("4 labelled patients, 1 positive scans", "fewer than 10 labelled patients, fewer than 10 positive scans"),
        ("82 patients, changes by -0.140 nats per scan", "82 patients, changes by -0.140 nats per scan"),
        ("it takes 10 patients of each class", "it takes 10 patients of each class"),
        ("0.5 patients and 3 seeds", "0.5 patients and 3 seeds"),
    ],
)  # fmt: skip
def test_a_sentence_tells_no_small_count(text: str, told: str) -> None:
    assert told_sentence(text) == told
