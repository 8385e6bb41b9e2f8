"""Takes in what is new at the site `north`: a plain Python script that can be told to die, or to halt, half-way.

    take_in.py WORKSPACE [KILL|STOP STEP]

It waits for a line on its standard input and says at the end what it did. With a signal and
a step it sends itself that signal at its n-th step: just before or after something is written.
"""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial, wraps
from itertools import count
from typing import Any

from platform_core.manifest.book import Book
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.workspace import Workspace, open_workspace

SITE = "north"
Step = Callable[[], None]


def main(uri: str, name: str = "", step: str = "0") -> None:
    workspace = open_workspace(uri)
    steps = count(1)
    halt_at(workspace, partial(take_step, steps, int(step), getattr(signal, f"SIG{name}", None)))
    print("ready", flush=True)
    sys.stdin.readline()
    at = datetime.now(UTC)
    run = f"{at:%Y%m%dT%H%M%S%f}-{os.getpid()}"
    found = discover(workspace, SITE, run=run, at=at)
    n_in = sum(ingest_shard(workspace, SITE, shard, run=run, at=at).n_in for shard in found.shards)
    check_ledger(workspace, SITE, run, found.n_new)
    told = {"run": run, "is_busy": found.is_busy, "n_new": found.n_new, "n_in": n_in, "n_steps": next(steps) - 1}
    print(json.dumps(told), flush=True)


def take_step(steps: Iterator[int], last: int, what: signal.Signals | None) -> None:
    if next(steps) == last and what is not None:
        print("halt", flush=True)
        os.kill(os.getpid(), what)


def halt_at(workspace: Workspace, step: Step) -> None:
    """Take a step before and after everything that writes to the workspace or to the door book."""
    local = sys.modules[type(workspace.objects).__module__]
    writers: list[tuple[Any, str]] = [
        (type(workspace.objects), "put"),
        (local, "_write"),  # then an object lies under the name of an unfinished one
        (type(workspace.lake), "append"),
        (type(workspace.lake), "_create"),  # then a table is there without a row
        *((Book, name) for name in ("begin", "list_pending", "save_cursor", "put_shards", "settle", "end")),
    ]
    for owner, name in writers:
        setattr(owner, name, stepping(getattr(owner, name), step))

    class Transaction(sqlite3.Connection):
        """The door book with a step between a write and its commit."""

        def executemany(self, *told: Any) -> sqlite3.Cursor:
            done = super().executemany(*told)
            step()
            return done

    sqlite3.connect = partial(sqlite3.connect, factory=Transaction)  # type: ignore[assignment]


def stepping(write: Callable[..., Any], step: Step) -> Callable[..., Any]:
    @wraps(write)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        step()
        done = write(*args, **kwargs)
        step()
        return done

    return stepped


if __name__ == "__main__":
    main(*sys.argv[1:])
