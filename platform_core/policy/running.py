"""One training per target at a time, known from the tables, so that a process that died is not waited for."""

from datetime import datetime, timedelta

from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

GIVEN_UP = timedelta(days=1)
"""A fine-tuning that began so long ago and has not ended is taken for dead; proposed: a nightly run begins again."""


def is_training_running(workspace: Workspace, target: str, *, site: str, at: datetime) -> bool:
    """Whether a fine-tuning of the target for another site has begun and has neither ended nor been given up.

    One of the same site is this one: it died, and goes on from its last checkpoint. A challenger in the shadow is still
    being judged, whoever asked for it.
    """
    rows = decisions(workspace).to_pylist()
    if any((row["target"], row["status"]) == (target, "shadow") for row in rows):
        return True
    begun = [
        row["decided_at"]
        for row in rows
        if (row["target"], row["action"], row["status"]) == (target, "fine_tune", "proposed") and row["site"] != site
    ]
    return any(moment > at - GIVEN_UP for moment in begun)
