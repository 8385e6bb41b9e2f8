"""The nightly run: ingest .. decide, for each site; the source site of a target goes first."""

from datetime import datetime
from typing import Literal

from prefect import flow, tags
from prefect.task_runners import ThreadPoolTaskRunner

from flows import stages
from flows.log import log
from flows.respond import respond
from platform_core.manifest.workspace import open_workspace
from platform_core.settings import Environment
from tasks import artifacts, site

Until = Literal["quality", "decide"]
RUNNER = ThreadPoolTaskRunner(max_workers=Environment().n_workers)


@flow(name="sitedrift-run", flow_run_name="run {run}", task_runner=RUNNER)
def run_sites(uri: str, sites: list[str], run: str, at: datetime, until: Until = "decide") -> None:
    """Run every named site, one after the other; one failing site does not stop the next."""
    for name in sites:
        with tags(f"site:{name}", f"run:{run}"):
            run_site(uri, name, run, at, until)
    artifacts.publish_ledger(uri, run)
    artifacts.publish_decisions(uri, run)


@flow(name="sitedrift-site", flow_run_name="{name} {run}", task_runner=RUNNER)
def run_site(uri: str, name: str, run: str, at: datetime, until: Until) -> None:
    """Ingest, examine, harmonize, predict, measure, decide and act for one site."""
    stages.take_in(uri, name, run, at)
    stages.examine(uri, name, run)
    if until == "quality":
        return
    for target in open_workspace(uri).settings.target:
        follow(uri, name, target, run, at)


def follow(uri: str, name: str, target: str, run: str, at: datetime) -> None:
    """One target at one site: what it runs, what was found, what is done about it."""
    serving = site.ensure_serving(uri, name, target, run, at)
    if serving is None:
        return
    stages.harmonize(uri, name, serving.recipe, site.unserved(uri, name, target), run)
    stages.predict(uri, serving, run)
    for case in site.measure_shift(uri, name, target, run, at):
        log.info("%s: %s", name, case.headline)
        respond(case)
