"""Past nights lived through again, under one policy or two; nothing of the workspace itself changes."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from prefect import flow

from flows.log import log
from flows.run import RUNNER, Step, answer, look, settle_shadows
from platform_core.errors import PlatformError
from platform_core.manifest.workspace import Workspace
from platform_core.trial import backtest
from platform_core.trial.backtest import Ending, Judged, Replay, Stopped

IN_FORCE = "the policy in force"


def replay_policies(
    workspace: Workspace,
    target: str,
    policies: list[Path | None],
    *,
    sites: list[str],
    every_days: int,
    keep: Path | None = None,
) -> list[Ending]:
    """Live through the same nights once per policy; `None` is the policy in force.

    Args:
        workspace: Whose nights.
        target: The task.
        policies: Tables to try.
        sites: Beside the source; all if empty.
        every_days: Days between two nights.
        keep: Where the replays' workspaces stay; by default they are removed.
    """
    endings: list[Ending] = []
    first: dict[str, Judged] | None = None
    for number, policy in enumerate(policies, start=1):
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="sitedrift-backtest-")) if keep is None else keep / f"replay-{number}"
            if keep is None:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            replay = backtest.begin(workspace, folder, target, policy=policy, sites=sites, every_days=every_days)
            name = IN_FORCE if policy is None else _named(policy, policies)
            log.info("%d nights under %s", replay.n_nights, name)
            stopped = live_again(replay)
            judged = backtest.judge(replay)
            endings.append(backtest.ending(replay, name, judged, stopped=stopped, first=first))
            first = first or judged
    return endings


def _named(policy: Path, policies: list[Path | None]) -> str:
    """The name of its file, with as much of the folder as tells it from the other's."""
    is_told = sum(other is not None and other.name == policy.name for other in policies) == 1
    return policy.name if is_told else str(policy)


@flow(
    name="sitedrift-backtest",
    flow_run_name="backtest {replay.target}, {replay.n_nights} nights",
    task_runner=RUNNER,  # type: ignore[arg-type]
)
def live_again(replay: Replay) -> list[Stopped]:
    """Let each night's scans come and do what the nightly run does; what stops a site does not stop the next."""
    stopped = []
    for night in range(replay.n_nights):
        names = backtest.arrive(replay, night)
        log.info("night %d of %d: %s", night + 1, replay.n_nights, ", ".join(names) or "nothing came")
        for step in (look, answer):
            halts = [halt for name in names if (halt := _take(step, replay, name, night)) is not None]
            names = [name for name in names if name not in {halt.site for halt in halts}]
            stopped += halts
        settle_shadows(replay.uri, replay.run(night), replay.moment(night))
    return stopped


def _take(step: Step, replay: Replay, name: str, night: int) -> Stopped | None:
    """One step of a site; what stopped it, if anything did."""
    try:
        step(replay.uri, name, replay.target, replay.run(night), replay.moment(night))
    except PlatformError as error:
        log.info("%s: stopped: %s", name, error)
        return Stopped(site=name, night=night, because=str(error))
    return None
