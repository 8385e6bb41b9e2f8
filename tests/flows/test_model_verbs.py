"""`sitedrift model evaluate | promote | rollback`: what a person and a program read, and what is recorded."""

import getpass
import json
from collections.abc import Callable
from getpass import getuser

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from platform_core.errors import BadRequest
from platform_core.learn.registry import champion
from platform_core.manifest.serving import current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from tests.trial.conftest import plant_scores, served  # noqa: F401 - fixtures


def call(workspace: Workspace, *words: str) -> Result:
    return CliRunner().invoke(app, ["model", *words, "--workspace", workspace.uri])


def test_a_model_is_evaluated_per_site_and_pooled(
    served: Workspace,  # noqa: F811
    plant_scores: Callable[..., list[str]],  # noqa: F811
) -> None:
    plant_scores("south", 100, {"lesion@1": 2.0})
    told = json.loads(call(served, "evaluate", "lesion@1", "--json").stdout)
    assert [row["site"] for row in told] == ["east", "north", "south", "all sites"]
    value, low, high = told[2]["auroc"]
    assert 0.5 < low < value < high <= 1
    assert told[0]["auroc"] is None
    assert "not" in call(served, "evaluate", "lesion@1").stdout


def test_a_promotion_and_a_rollback_say_who_and_why(served: Workspace) -> None:  # noqa: F811
    assert "lesion@2 is the champion" in call(served, "promote", "lesion@2", "--because", "the board agreed").stdout
    assert {serving.model for serving in current_servings(served, "lesion")} == {"lesion@2"}
    assert "lesion@1 is the champion" in call(served, "rollback", "lesion", "--because", "it was wrong").stdout
    found = champion(served, "lesion")
    assert found is not None
    assert found.name == "lesion@1"
    rows = decisions(served).to_pylist()
    assert [(row["action"], row["because"], row["approved_by"], row["status"]) for row in rows] == [
        ("promote", "the board agreed", getuser(), "done"),
        ("rollback", "it was wrong", getuser(), "done"),
    ]


def test_one_site_goes_back_alone(served: Workspace) -> None:  # noqa: F811
    call(served, "promote", "lesion@2")
    assert "south runs lesion@1" in call(served, "rollback", "lesion", "--site", "south").stdout
    models = {serving.site: serving.model for serving in current_servings(served, "lesion")}
    assert models == {"east": "lesion@2", "north": "lesion@2", "south": "lesion@1"}
    assert decisions(served, "south").to_pylist()[-1]["because"] == "no reason was given"


def test_a_user_without_a_name_must_say_who_and_then_may(
    served: Workspace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container, where a user may have a number only."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nameless)
    for words in (("promote", "lesion@2"), ("rollback", "lesion"), ("rollback", "lesion", "--site", "south")):
        refused = call(served, *words)
        assert isinstance(refused.exception, BadRequest)
        assert "--by" in str(refused.exception)
    assert decisions(served).num_rows == 0
    assert "lesion@2 is the champion" in call(served, "promote", "lesion@2", "--by", "ada").stdout
    assert decisions(served).column("approved_by").to_pylist() == ["ada"]
