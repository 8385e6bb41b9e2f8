"""One training per target at a time, known from what is stored, so that a process that died is not waited for.

A fine-tuning of the nightly run is known by its decision, a training by hand by its sign of life (`by_hand.py`).
Between looking and beginning lies a moment in which two may still begin: that costs hours, no champion.
"""

from datetime import datetime, timedelta
from typing import Any

from platform_core.errors import TrainingUnderWay
from platform_core.manifest.workspace import Workspace
from platform_core.policy.by_hand import training_by_hand
from platform_core.policy.record import decisions

GIVEN_UP = timedelta(days=1)
"""A fine-tuning that began so long ago and has not ended is taken for dead; proposed: a nightly run begins again."""


def is_training_running(workspace: Workspace, target: str, *, site: str, at: datetime) -> bool:
    """Whether another fine-tuning of the target stands between a site and a challenger of its own.

    One that has begun for another site and has neither ended nor been given up; a challenger, of any site, in the
    shadow or on its way to the sites; or a training by hand. One that has begun for the same
    site is this one: it died, and goes on from its last checkpoint.
    """

    def is_in_the_way(row: dict[str, Any]) -> bool:
        is_begun = is_under_way(row, at) and row["site"] != site
        return is_begun or row["status"] in ("shadow", "passed")

    asked = any(is_in_the_way(row) for row in fine_tunings(workspace, target))
    return asked or training_by_hand(workspace, target, at=at) is not None


def refuse_beside_fine_tuning(workspace: Workspace, target: str, *, at: datetime) -> None:
    """Let a training by hand begin only if no nightly run trains the target.

    Raises:
        TrainingUnderWay: With the site that it is trained for.
    """
    begun = next((row for row in fine_tunings(workspace, target) if is_under_way(row, at)), None)
    if begun is None:
        return
    raise TrainingUnderWay(
        target,
        f"fine-tuned for {begun['site']} by run {begun['run']}",
        begun["decided_at"],
        f"if that run was killed, `sitedrift run {begun['site']}` goes on from its last checkpoint, and a training by "
        f"hand may begin at {begun['decided_at'] + GIVEN_UP:%Y-%m-%d %H:%M} UTC",
    )


def fine_tunings(workspace: Workspace, target: str) -> list[dict[str, Any]]:
    """Decisions to fine-tune a target, each at its latest status, oldest first."""
    rows = decisions(workspace).to_pylist()
    return [row for row in rows if (row["target"], row["action"]) == (target, "fine_tune")]


def is_under_way(row: dict[str, Any], at: datetime) -> bool:
    """Whether a decision to fine-tune has begun and has neither ended nor been given up."""
    return bool(row["status"] == "proposed" and row["decided_at"] > at - GIVEN_UP)
