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
from platform_core.trial.backtest import Ending, Replay

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
    endings = []
    for number, policy in enumerate(policies, start=1):
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="sitedrift-backtest-")) if keep is None else keep / f"replay-{number}"
            if keep is None:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            replay = backtest.begin(workspace, folder, target, policy=policy, sites=sites, every_days=every_days)
            live_again(replay)
            endings.append(backtest.ending(replay, IN_FORCE if policy is None else policy.name))
    return endings


@flow(
    name="sitedrift-backtest",
    flow_run_name="backtest {replay.target}, {replay.n_nights} nights",
    task_runner=RUNNER,  # type: ignore[arg-type]
)
def live_again(replay: Replay) -> None:
    """Let each night's scans come and do what the nightly run does; what stops a site does not stop the next."""
    for night in range(replay.n_nights):
        names = backtest.arrive(replay, night)
        log.info("night %d of %d: %s", night + 1, replay.n_nights, ", ".join(names) or "nothing came")
        for step in (look, answer):
            for name in names:
                _take(step, replay, name, night)
        settle_shadows(replay.uri, replay.run(night), replay.moment(night))


def _take(step: Step, replay: Replay, name: str, night: int) -> None:
    try:
        step(replay.uri, name, replay.target, replay.run(night), replay.moment(night))
    except PlatformError as error:
        log.info("%s: stopped: %s", name, error)
