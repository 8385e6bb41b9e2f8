"""A new model version told to MLflow, where a workspace asks for that; never a reason for a training to fail."""

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from platform_core.learn.registry import ModelRef
from platform_core.manifest.workspace import Workspace

log = logging.getLogger("sitedrift")

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""MLflow's own defaults would wait for a dead server for a quarter of an hour; any environment variable overrides."""
FEWEST_TOLD = 10
"""Held-out scans of a site below which its numbers stay in the workspace."""


def track(workspace: Workspace, ref: ModelRef) -> str | None:
    """Log one version as a run of the experiment `<workspace>/<target>`.

    Numbers per site, names and hashes go there; no key of a scan or patient, and no weights.

    Returns:
        What went wrong, in one sentence for the log; None if it is logged, or no `mlflow_uri` is set.
    """
    uri = workspace.settings.mlflow_uri
    if uri is None:
        return None
    if find_spec("mlflow") is None:
        return _told(ref, "mlflow_uri is set, but MLflow is not installed; pip install mlflow-skinny")
    try:
        _log_run(workspace, ref, uri)
    except Exception as error:  # noqa: BLE001 - a client of someone else's server raises whatever it likes
        return _told(ref, f"MLflow at mlflow_uri failed ({type(error).__name__}); the model stands")
    return None


def _log_run(workspace: Workspace, ref: ModelRef, uri: str) -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri=uri)
    name = f"{workspace.settings.name}/{ref.model}"
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    at_ms = int(ref.created_at.timestamp() * 1000)
    run = client.create_run(experiment, start_time=at_ms, run_name=ref.name, tags=_tags(ref))
    metrics = [Metric(key, value, at_ms, 0) for key, value in _metrics(ref)]
    params = [Param(key, str(value)) for key, value in (ref.training or {}).items()]
    client.log_batch(run.info.run_id, metrics=metrics, params=params)
    client.set_terminated(run.info.run_id, status="FINISHED", end_time=at_ms)


def _tags(ref: ModelRef) -> dict[str, Any]:
    told = {name: getattr(ref, name) for name in ("parent", "strategy", "recipe", "reference", "alias")}
    return {name: str(value) for name, value in told.items() if value is not None}


def _metrics(ref: ModelRef) -> Iterator[tuple[str, float]]:
    for site, found in ref.metrics.items():
        if found.get("n_held_out", 0) >= FEWEST_TOLD:
            yield from ((f"{site}/{name}", float(value)) for name, value in found.items())


def _told(ref: ModelRef, why: str) -> str:
    sentence = f"{ref.name} is not logged: {why}"
    log.warning(sentence)
    return sentence
