"""Why: every line is a row or file that was written; the tree is whole, bounded, and ends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flows.cli import app
from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.learn.registry import find, read_reference
from platform_core.lineage.plan import plan_withdrawal
from platform_core.lineage.why import Node, told, why
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.serving import change_serving, current_serving
from platform_core.policy.decide import Decision
from platform_core.policy.record import record_decision
from platform_core.provenance import code_version
from tests.lineage.conftest import AT, GONE, Fleet, keys_of


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def of(kind: str, node: Node) -> list[Node]:
    return [each for each in nodes(node) if each.kind == kind]


def test_a_model_leads_to_every_scan_that_it_was_trained_on_by_the_hash_of_its_voxels(fleet: Fleet) -> None:
    here = fleet.workspace
    listed = read_reference(here, find(here, "lesion@1").bundle_uri).column("series_key").to_pylist()
    rows = {row["series_key"]: row["volume_sha256"] for row in here.lake.read(layout.SERIES).to_pylist()}
    found = {node.name: node.facts["volume"] for node in of("series", why(here, "lesion@1", few=None))}
    assert found == {key: rows[key] for key in listed}
    contents = {
        row["content_sha256"] for row in here.lake.read(layout.ARRIVAL).to_pylist() if row["series_key"] in found
    }
    assert {node.facts["content"] for node in of("file", why(here, "lesion@1", few=None))} == contents


def test_a_tree_is_bounded_unless_all_of_it_is_asked_for(fleet: Fleet) -> None:
    few, every = why(fleet.workspace, "lesion@1"), why(fleet.workspace, "lesion@1", few=None)
    (reference,) = of("reference", few)
    assert len(reference.children) + reference.n_more == len(of("series", every)) == 22
    assert reference.n_more == 19
    assert len(list(told(few))) < 20
    assert any("19 more" in line for line in told(few))


def test_a_fine_tuned_model_leads_to_the_one_it_comes_from(fleet: Fleet) -> None:
    found = why(fleet.workspace, "lesion@2")
    assert [node.name for node in of("model", found)] == ["lesion@2", "lesion@1"]


def test_a_decision_leads_to_its_finding_its_approval_and_the_scans_behind_it(fleet: Fleet) -> None:
    found = why(fleet.workspace, "d1", few=None)
    assert (found.facts["status"], found.facts["approved by"]) == ("proposed then done", "policy")
    (finding,) = of("finding", found)
    (period,) = of("period", finding)
    assert {node.name for node in period.children} == set(keys_of(fleet.workspace, "south"))
    assert [node.name for node in of("model", finding)] == ["lesion@1"]


def test_what_a_site_runs_leads_to_the_decision_behind_it(fleet: Fleet) -> None:
    for name in ("south", "south/lesion"):
        found = why(fleet.workspace, name)
        assert (found.kind, found.name) == ("serving", "south/lesion")
        assert [node.name for node in found.children if node.kind == "decision"] == ["d1"]
    assert of("decision", why(fleet.workspace, "north")) == []


def test_a_series_and_a_recipe_can_be_asked_about(fleet: Fleet) -> None:
    here = fleet.workspace
    key = keys_of(here, "north")[0]
    stages = {node.name for node in of("stage", why(here, key))}
    assert stages >= {"ingest", "unique", "feature", "quality", "harmonize"}
    recipe = here.lake.read(layout.RECIPE).to_pylist()[0]["recipe"]
    assert why(here, recipe).facts["steps"] == ["clip_intensity v1"]


def test_things_that_lead_to_one_another_end(fleet: Fleet) -> None:
    """The finding names its decision, and the decision its finding."""
    for thing in ("d1", "f1"):
        kinds = [node for node in nodes(why(fleet.workspace, thing)) if node.facts.get("see") == "above"]
        assert kinds


def test_an_unknown_thing_is_told_with_those_that_exist(fleet: Fleet) -> None:
    with pytest.raises(UnknownName, match=r"north.*lesion@1.*f1.*d1"):
        why(fleet.workspace, "lesion@9")


def test_after_a_withdrawal_a_model_says_so_and_names_nobody(fleet: Fleet) -> None:
    here = fleet.workspace
    plan = plan_withdrawal(here, "north", GONE, run="w", at=AT)
    withdraw(here, plan, at=AT)
    found = why(here, "lesion@1", few=None)
    (reference,) = of("reference", found)
    assert reference.facts["hash"].startswith("is that of a longer list")
    assert [node.facts["series"] for node in of("withdrawal", found)] == [2]
    assert not set(plan.words) & {node.name for node in nodes(found)}


def test_the_list_of_a_model_that_was_left_alone_holds(fleet: Fleet) -> None:
    (reference, *_) = of("reference", why(fleet.workspace, "lesion@2"))
    assert reference.facts["hash"] == "holds"


def test_the_verb_prints_a_tree_or_json(fleet: Fleet) -> None:
    call = ["why", "lesion@1", "--workspace", fleet.workspace.uri]
    text = CliRunner().invoke(app, call)
    assert text.exit_code == 0
    assert text.stdout.startswith("model lesion@1: alias champion")
    found = json.loads(CliRunner().invoke(app, [*call, "--json", "--all"]).stdout)
    assert (found["kind"], found["name"], found["facts"]["alias"]) == ("model", "lesion@1", "champion")


def test_asking_why_loads_no_network_library() -> None:
    code = "import sys; import platform_core.lineage.why, platform_core.lineage.withdraw; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_equal_source_has_an_equal_name() -> None:
    assert code_version() == code_version.__wrapped__()
    assert code_version().count("+") == 1


def test_servings_that_differ_in_scale_alone_read_differently(fleet: Fleet) -> None:
    here = fleet.workspace
    before = current_serving(here, "south", "lesion")
    assert before is not None
    fitted = replace(before, calibration=replace(before.calibration, scale=0.4))
    now = change_serving(here, fitted, decision_key="d2", at=AT, run="r")
    decision = Decision(action="calibrate", because="labels say so", rule="scores")
    finding = {"site": "south", "target": "lesion", "finding_key": "f1"}
    key = record_decision(here, decision, finding=finding, status="done", serving_before=before, serving_after=now,
                          evidence={}, run="r", at=AT)  # fmt: skip
    facts = why(here, key).facts
    assert facts["ran"] == "lesion@1 by native at prevalence 0.5"
    assert facts["runs"] == "lesion@1 by native at prevalence 0.5, scale 0.40, offset 0.00"
    assert "calibration prevalence 0.5, scale 0.40, offset 0.00; threshold 0.5" in next(told(why(here, "south")))
