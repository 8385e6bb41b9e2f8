"""The action `adapt` as a run carries it out: tried, registered, predicted at its site alone, served for a time."""

from datetime import timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from flows.respond import ACTIONS
from platform_core import layout
from platform_core.manifest.serving import current_serving
from platform_core.trial.case import Next
from tasks import site
from tests.trial.test_adapt import AT, DECISION, case_of, make, show_reference


@flow
def act_and_expire(uri: str, case: object) -> str | None:
    ACTIONS["adapt"](case, Next(act="adapt", decision=DECISION))  # type: ignore[arg-type]
    return site.renew_or_end(uri, "south", "lesion", "r9", AT + timedelta(days=90))


@pytest.mark.slow
def test_a_run_adapts_one_site_and_a_later_one_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITEDRIFT_HOME", str(tmp_path / "home"))
    workspace = make(tmp_path)
    show_reference(workspace)
    case = case_of(workspace)
    with prefect_test_harness(server_startup_timeout=120):
        told = act_and_expire(workspace.uri, case)
    assert told is not None
    assert "lesion@2" in told
    predicted = workspace.lake.read(layout.PREDICTION, pc.field("model") == "lesion@2", ["site"])
    assert set(predicted.column("site").to_pylist()) == {"south"}
    now = current_serving(workspace, "south", "lesion")
    assert now is not None
    assert now.model == "lesion@1"
