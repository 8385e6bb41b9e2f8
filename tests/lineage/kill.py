"""Goes on with the withdrawal that is held at a door, and dies at its n-th step: SIGKILL, as a machine would.

kill.py WORKSPACE STEP
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from itertools import count
from typing import Any

from platform_core.lineage.journal import held_plans
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.book import Book
from platform_core.manifest.workspace import open_workspace
from platform_core.storage import tables
from platform_core.storage.local import LocalObjects
from platform_core.storage.tables import Lake

WRITERS: tuple[tuple[Any, str], ...] = (
    (LocalObjects, "put"),
    (LocalObjects, "delete"),
    (Lake, "append"),
    (Lake, "_rewrite"),
    (tables, "remove_traces"),
    (Book, "erase"),
    (Book, "_tidy"),
)
"""Everything that writes while a patient is withdrawn."""


def stepping(function: Callable[..., Any], step: Callable[[], None]) -> Callable[..., Any]:
    """The function with a step before it and one after it."""

    @wraps(function)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        step()
        done = function(*args, **kwargs)
        step()
        return done

    return stepped


def main(uri: str, last: str) -> None:
    steps = count(1)

    def step() -> None:
        if next(steps) == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in WRITERS:
        setattr(owner, name, stepping(getattr(owner, name), step))
    workspace = open_workspace(uri)
    (plan,) = held_plans(workspace)
    withdraw(workspace, plan, at=datetime(2026, 3, 4, tzinfo=UTC))


if __name__ == "__main__":
    main(*sys.argv[1:])
