"""What training has cost, from the tables."""

from datetime import datetime, timedelta

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load

HERE = "platform_core.policy"
WINDOW = timedelta(days=30)
"""The month of a budget: any 30 days, so that the first of a month brings nothing back at once."""
SECONDS_PER_HOUR = 3600


def gpu_hours_used(workspace: Workspace, at: datetime) -> float:
    """Hours of training in the 30 days before `at`, all targets: candidates of races, and the models made.

    A device is a device: hours on a CPU count too, as they do where a workspace has no other.
    """
    with workspace.lake.connect([layout.RACE, layout.MODEL, layout.DECISION]) as db:
        row = load(HERE, "training_seconds").run(db, since=at - WINDOW, until=at).to_pylist()[0]
    return float(row["seconds"]) / SECONDS_PER_HOUR
