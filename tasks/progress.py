"""How far a long training is: a progress artifact in Prefect's UI, and a bar where the work runs in a terminal."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from platform_core.learn.contract import Tell, untold

log = logging.getLogger("sitedrift")
KEY, UNHEARD = "training", "progress is not shown in Prefect: %s"
EVERY_S = 2.0
"""Seconds between two updates of the artifact: each is a request to Prefect's server."""


@contextmanager
def shown(title: str, terminal: TextIO | None = None) -> Iterator[Tell]:
    """Show what is told inside, `(what is being done, share that is behind)`; the end is told by leaving.

    Args:
        title: What is trained, for whom.
        terminal: Where the bar goes, by default standard error; there is none where that is no terminal.
    """
    told_last, artifact = time.monotonic(), _begin(title)
    with _bar(title, terminal or sys.stderr) as draw:

        def tell(what: str, share: float) -> None:
            nonlocal told_last, artifact
            draw(what, share)
            if time.monotonic() - told_last >= EVERY_S:
                told_last = time.monotonic()
                artifact = _go_on(artifact, f"{title}: {what}", share)

        yield tell
    _go_on(artifact, title, 1.0)


def _begin(title: str) -> UUID | None:
    try:
        made = create_progress_artifact(progress=0.0, key=KEY, description=title)
    except Exception as error:  # noqa: BLE001 - a server that cannot be told is no reason not to train
        log.info(UNHEARD, type(error).__name__)
        return None
    assert isinstance(made, UUID), "a task of ours is not asynchronous"
    return made


def _go_on(artifact: UUID | None, told: str, share: float) -> UUID | None:
    """The artifact, or None from the first time that it could not be updated."""
    if artifact is None:
        return None
    try:
        update_progress_artifact(artifact, progress=100 * share, description=told)
    except Exception as error:  # noqa: BLE001 - as above
        log.info(UNHEARD, type(error).__name__)
        return None
    return artifact


@contextmanager
def _bar(title: str, terminal: TextIO) -> Iterator[Tell]:
    if not terminal.isatty():
        yield untold
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=terminal), transient=True) as progress:
        row = progress.add_task(title, total=1.0)
        yield lambda what, share: progress.update(row, description=f"{title}: {what}", completed=share)
