"""The source model: the reference recipe, the network from nothing or from source weights, the first champion."""

from datetime import datetime

from prefect import flow

from flows import stages
from flows.log import log
from flows.run import RUNNER
from platform_core.manifest.workspace import open_workspace
from tasks import site


@flow(
    name="sitedrift-train",
    flow_run_name="train {target} {run}",
    task_runner=RUNNER,  # type: ignore[arg-type]
)
def train_source(uri: str, target: str, run: str, at: datetime) -> str:
    """Train the target's source model on its source site; returns `model@version`."""
    source = open_workspace(uri).settings.target[target].source_site
    recipe = site.fit_reference(uri, target, run, at)
    stages.harmonize(uri, source, recipe, site.sound(uri, source, target), run)
    model = site.train_source(uri, target, recipe, run, at)
    log.info("%s: trained %s", source, model)
    return model
