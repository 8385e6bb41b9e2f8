"""One training per target at a time, known from the tables, so that a process that died is not waited for."""

from datetime import datetime, timedelta
from typing import Any

from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

GIVEN_UP = timedelta(days=1)
"""A fine-tuning that began so long ago and has not ended is taken for dead; proposed: a nightly run begins again."""


def is_training_running(workspace: Workspace, target: str, *, site: str, at: datetime) -> bool:
    """Whether another fine-tuning of the target stands between a site and a challenger of its own.

    One that has begun for another site and has neither ended nor been given up; or a challenger, of any site, in the
    shadow or on its way to the sites. One that has begun for the same site is this one: it died, and goes on from its
    last checkpoint.
    """

    def is_in_the_way(row: dict[str, Any]) -> bool:
        is_begun = row["status"] == "proposed" and row["site"] != site and row["decided_at"] > at - GIVEN_UP
        return is_begun or row["status"] in ("shadow", "passed")

    asked = [row for row in decisions(workspace).to_pylist() if (row["target"], row["action"]) == (target, "fine_tune")]
    return any(is_in_the_way(row) for row in asked)
