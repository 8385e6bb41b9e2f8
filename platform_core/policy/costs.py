"""What training has cost, from the tables."""

from datetime import datetime, timedelta

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load

HERE = "platform_core.policy"
MONTH = timedelta(days=30)
"""Of a budget: any 30 days, so that the first of a month brings nothing back at once."""
SECONDS_PER_HOUR = 3600


def hours_of_training(workspace: Workspace, *, since: datetime, until: datetime) -> float:
    """Hours of training after `since` and by `until`, all targets: races by their begin, models by when they were made.

    A device is a device: hours on a CPU count too, as they do where a workspace has no other.
    """
    with workspace.lake.connect([layout.RACE, layout.MODEL, layout.DECISION]) as db:
        row = load(HERE, "training_seconds").run(db, since=since, until=until).to_pylist()[0]
    return float(row["seconds"]) / SECONDS_PER_HOUR
