"""`sitedrift policy` and `sitedrift decision` as a person meets them."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.doctor import examine
from platform_core import layout
from platform_core.errors import BadSetting, NoSuchPlace, UnknownName
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.workspace import Workspace
from platform_core.policy import table
from platform_core.policy.decide import Decision
from platform_core.policy.record import decisions, record_decision
from platform_core.storage.tables import rows_of

BUILT_IN = Path(table.__file__).with_name("default.toml")


def call(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.output.split())


def test_outside_a_workspace_the_built_in_table_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = call("policy", "show")
    for rule in table.built_in().rules:
        assert f"{rule.name}: {rule.action}" in told
        assert rule.because in told
    assert [row["name"] for row in json.loads(call("policy", "show", "--json"))] == [
        r.name for r in table.built_in().rules
    ]


def test_the_table_of_a_workspace_or_of_a_file_is_shown(workspace: Workspace) -> None:
    file = Path(workspace.uri) / "mine.toml"
    text = BUILT_IN.read_text(encoding="utf-8").replace('name = "nothing_found"', 'name = "all_quiet"')
    file.write_text(text, encoding="utf-8")
    assert "all_quiet: none" in call("policy", "show", "--file", str(file))
    assert "nothing_found: none" in call("policy", "show", "-w", workspace.uri)
    settings = Path(workspace.uri) / "sitedrift.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("[policy]", '[policy]\nfile = "mine.toml"'))
    assert "all_quiet: none" in call("policy", "show", "-w", workspace.uri)


def test_a_copy_of_the_built_in_table_can_be_used_and_a_broken_one_cannot(tmp_path: Path) -> None:
    file = shutil.copy(BUILT_IN, tmp_path / "p.toml")
    assert "every kind of finding ends in one" in call("policy", "check", str(file))
    Path(file).write_text(Path(file).read_text(encoding="utf-8").replace("lacks_labels", "lack_labels", 1))
    with pytest.raises(BadSetting, match=r"type_not_identifiable.*did you mean 'lacks_labels'"):
        call("policy", "check", str(file))
    with pytest.raises(NoSuchPlace):
        call("policy", "check", str(tmp_path / "q.toml"))


def test_where_nothing_waits_nothing_can_be_approved(workspace: Workspace) -> None:
    assert "Nothing waits for a person" in call("decision", "list", "-w", workspace.uri)
    assert json.loads(call("decision", "list", "--json", "-w", workspace.uri)) == []
    for verb in ("approve", "reject"):
        with pytest.raises(UnknownName, match="waits for a person"):
            call("decision", verb, "abc", "-w", workspace.uri)


def test_what_waits_is_listed_and_answered_by_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2026, 3, 2, 6, tzinfo=UTC)
    finding: dict[str, Any] = {
        "site": "south",
        "finding_key": "f",
        "stratum": "CT",
        "target": "lesion",
        "kind": "label",
    }
    finding |= {"period_start": at.date(), "period_end": at.date()}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction="f")
    decision = Decision(action="recalibrate", because="prevalence moved", rule="prevalence_moved", status="waiting")
    key = record_decision(
        workspace, decision, finding=finding, status="waiting", serving_before=None, serving_after=None,
        evidence=None, run="r", at=at,
    )  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    told = call("decision", "list", "-w", workspace.uri)
    for fact in (key, "south", "recalibrate", "prevalence moved", "2026-03-02", "2026-03-16"):
        assert fact in told
    monkeypatch.setenv("LOGNAME", "ada")
    assert "approved; the next run" in call("decision", "approve", key, "-w", workspace.uri)
    (answered,) = decisions(workspace).to_pylist()
    assert (answered["status"], answered["approved_by"]) == ("approved", "ada")
    assert "Nothing waits" in call("decision", "list", "-w", workspace.uri)


def test_the_doctor_finds_a_policy_or_a_strategy_that_cannot_be_used(workspace: Workspace) -> None:
    settings = Path(workspace.uri) / "sitedrift.toml"
    text = settings.read_text(encoding="utf-8").replace("[policy]", '[policy]\nfile = "mine.toml"')
    target = '[target.t]\nlabel = "t"\nmodality = "CT"\nsource_site = "n"\nstrategies = ["partly", "full"]\n'
    settings.write_text(text + target, encoding="utf-8")
    found = " | ".join(examine(workspace.uri))
    assert "no strategy named partly; there are" in found
    assert "mine.toml: expected a policy" in found
    (Path(workspace.uri) / "mine.toml").write_text(BUILT_IN.read_text(encoding="utf-8"), encoding="utf-8")
    assert "mine.toml" not in " | ".join(examine(workspace.uri))
