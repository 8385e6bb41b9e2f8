"""The nightly run: ingest .. decide, for each site; the source site of a target goes first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from prefect import Flow, flow, tags
from prefect.task_runners import ThreadPoolTaskRunner

from flows import stages
from flows.log import log
from flows.respond import respond
from platform_core.errors import PlatformError, TargetsStopped
from platform_core.manifest.workspace import open_workspace
from platform_core.settings import Environment
from tasks import artifacts, site

Until = Literal["quality", "decide"]
Step = Callable[[str, str, str, str, datetime], None]
"""Of the nightly run, for a workspace, site, target, run and moment."""
RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=Environment().n_workers)


@flow(name="sitedrift-run", flow_run_name="run {run}", task_runner=RUNNER)  # type: ignore[arg-type]
def run_sites(uri: str, sites: list[str], run: str, at: datetime, until: Until = "decide") -> dict[str, Exception]:
    """Run every named site, one after the other; returns what stopped a site, which never stops the next.

    No site is answered before all have been looked at: sites that alarm together have something else in common.
    """
    targets = list(open_workspace(uri).settings.target)
    stopped = _each(look_at_site, uri, run, dict.fromkeys(sites, (at, until)))
    if until == "decide":
        left = {name: _left(targets, stopped.get(name)) for name in sites}
        stopped = _each(answer_site, uri, run, {name: (at, of) for name, of in left.items() if of}) | stopped
        settle_shadows(uri, run, at)
    site.tend_tables(uri)
    drop_abandoned(uri, at)
    artifacts.publish_ledger(uri, run)
    artifacts.publish_decisions(uri, run)
    return stopped


def _left(targets: Sequence[str], stopped: Exception | None) -> list[str]:
    """Targets that may be answered: none where the site itself was stopped."""
    if stopped is None:
        return list(targets)
    return [one for one in targets if isinstance(stopped, TargetsStopped) and one not in stopped.targets]


def _each(of_site: Flow[..., Any], uri: str, run: str, asked: Mapping[str, tuple[Any, ...]]) -> dict[str, Exception]:
    """Run a flow of every site that is asked for, with what is asked; returns what stopped it where."""
    stopped: dict[str, Exception] = {}
    for name, rest in asked.items():
        with tags(f"site:{name}", f"run:{run}"):
            state: Any = of_site(uri, name, run, *rest, return_state=True)
        if not state.is_completed():
            error = state.result(raise_on_failure=False)
            stopped[name] = error if isinstance(error, Exception) else RuntimeError(str(state.message))
    return stopped


@flow(name="sitedrift-site", flow_run_name="{name} {run}", task_runner=RUNNER)  # type: ignore[arg-type]
def look_at_site(uri: str, name: str, run: str, at: datetime, until: Until) -> None:
    """Ingest, examine, harmonize, predict and watch over one site."""
    stages.take_in(uri, name, run, at)
    stages.examine(uri, name, run)
    if until == "decide":
        _follow_targets(look, list(open_workspace(uri).settings.target), uri, name, run, at)


@flow(name="sitedrift-answer", flow_run_name="{name} {run}: answer", task_runner=RUNNER)  # type: ignore[arg-type]
def answer_site(uri: str, name: str, run: str, at: datetime, targets: list[str]) -> None:
    """Measure, decide and act for one site and some of its targets."""
    _follow_targets(answer, targets, uri, name, run, at)


def _follow_targets(step: Step, targets: Sequence[str], uri: str, name: str, run: str, at: datetime) -> None:
    """Take a step for every target; what stops one does not stop the next, and is raised at the end."""
    stopped: dict[str, PlatformError] = {}
    for target in targets:
        try:
            step(uri, name, target, run, at)
        except PlatformError as error:
            log.info("%s: %s stopped: %s", name, target, error)
            stopped[target] = error
    if stopped:
        raise TargetsStopped(stopped)


def look(uri: str, name: str, target: str, run: str, at: datetime) -> None:
    """One target at one site: what it runs, what that says of the scans, whether the watch alarms."""
    for sentence in site.finish_rollouts(uri, target, run, at):
        log.info("%s: %s", name, sentence)
    ended = site.renew_or_end(uri, name, target, run, at)
    serving = site.ensure_serving(uri, name, target, run, at)
    if serving is None:
        return
    if ended is not None:
        log.info("%s: %s", name, ended)
    stages.harmonize(uri, name, serving.recipe, site.sound(uri, name, target), run)
    stages.predict(uri, serving, run)
    shadow = site.shadow_of(uri, target)
    if shadow is not None:
        stages.predict(uri, replace(serving, model=shadow), run)
    stages.sketch(uri, name, target, run)
    for alarm in site.keep_watch(uri, name, target, run, at):
        log.info("%s: the watch alarms: %s", name, alarm)


def answer(uri: str, name: str, target: str, run: str, at: datetime) -> None:
    """One target at one site: what was found, what is done about it."""
    if all(serving.site != name for serving in site.servings(uri, target)):
        return
    for sentence in site.show_reference(uri, name, target, run):
        log.info("%s: %s", name, sentence)
    for case in site.measure_shift(uri, name, target, run, at):
        log.info("%s: %s", name, case.headline)
        respond(case)


def settle_shadows(uri: str, run: str, at: datetime) -> None:
    """End every shadow period that is over, once all sites have predicted; what stops one does not stop the run."""
    for target in open_workspace(uri).settings.target:
        try:
            told = site.settle_shadow(uri, target, run, at)
        except PlatformError as error:
            told = f"its shadow period is not ended: {error}"
        if told is not None:
            log.info("%s: %s", target, told)


def drop_abandoned(uri: str, at: datetime) -> None:
    """Drop what dead trainings have left, and say so; a store that forbids it does not stop the run."""
    try:
        dropped = site.drop_abandoned(uri, at)
    except PlatformError as error:
        dropped = [f"what dead trainings have left is not dropped: {error}"]
    for sentence in dropped:
        log.info(sentence)
