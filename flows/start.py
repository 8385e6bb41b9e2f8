"""Starts a flow from the command line: one name and one moment for the whole run."""

from typing import Literal

from flows.outcome import Outcome, of_run
from platform_core import clock
from platform_core.manifest.workspace import Workspace


def start_run(workspace: Workspace, names: list[str], *, until: Literal["quality", "decide"] = "decide") -> Outcome:
    """Run the named sites now and say what it came to."""
    from flows.run import run_sites
    from platform_core.harmonize.recipe import check_recipes

    check_recipes(workspace.settings)
    at = clock.now()
    run = clock.new_run(at)
    before = workspace.lake.versions()
    stopped = run_sites(workspace.uri, names, run, at, until)
    return of_run(workspace, run, names, stopped, has_written=workspace.lake.versions() != before)


def start_training(workspace: Workspace, target: str) -> str:
    """Train a source model now; returns `model@version`.

    Raises:
        TrainingUnderWay: If the target is being trained already.
    """
    from flows.train import train_source
    from platform_core.policy.by_hand import shown_by_hand
    from platform_core.policy.running import refuse_beside_fine_tuning

    at = clock.now()
    with shown_by_hand(workspace, target, at=at):
        refuse_beside_fine_tuning(workspace, target, at=at)
        return str(train_source(workspace.uri, target, clock.new_run(at), at))
