"""MLflow hears of a version where a workspace asks for it, and nothing depends on it."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from platform_core import layout
from platform_core.learn.registry import ModelRef
from platform_core.learn.tracking import track
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace, open_workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)
REF = ModelRef(
    model="lesion", version=3, alias="challenger", parent="lesion@2", strategy="full", reference="abc", recipe="r1",
    metrics={"north": {"auroc": 0.9, "n_held_out": 40.0}, "west": {"auroc": 1.0, "n_held_out": 4.0}},
    calibration=Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5), bundle_uri="models/x", created_at=AT,
    since=AT, epoch=0, training={"seconds": 3.5, "device": "cpu"},
)  # fmt: skip


def asking(workspace: Workspace, uri: str) -> Workspace:
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(f'mlflow_uri = "{uri}"\n' + file.read_text(encoding="utf-8"), encoding="utf-8")
    return open_workspace(workspace.uri)


def test_without_the_setting_mlflow_is_not_even_imported(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert track(workspace, REF) is None


def test_without_the_package_one_sentence_says_what_to_install(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    told = track(asking(workspace, "http://nowhere"), REF)
    assert told is not None
    assert told.endswith("pip install mlflow-skinny")
    assert [record.getMessage() for record in caplog.records] == [told]


def test_a_version_becomes_a_run_without_small_sites(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    here = asking(workspace, uri)
    assert track(here, REF) is None
    assert track(here, replace(REF, version=4, training=None)) is None
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("w/lesion")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"lesion@3", "lesion@4"}
    first = next(run for run in runs if run.info.run_name == "lesion@3")
    assert first.data.metrics == {"north/auroc": 0.9, "north/n_held_out": 40.0}
    assert first.data.params == {"seconds": "3.5", "device": "cpu"}
    assert (first.data.tags["parent"], first.data.tags["strategy"]) == ("lesion@2", "full")


def test_a_server_that_fails_leaves_the_model_as_it_is(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = track(asking(workspace, "http://127.0.0.1:9"), REF)
    assert told is not None
    assert told.endswith("the model stands")
    assert "127.0.0.1" not in told
