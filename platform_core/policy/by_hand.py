"""The sign of life of a training that a person has started: an object that is written again as long as it runs.

No decision stands behind `sitedrift train`, so the tables do not know of it. A process that was killed says no more,
and is taken for dead when it has been silent for `SILENT`. Times are the store's.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread

from platform_core import layout
from platform_core.errors import PlatformError, TrainingUnderWay
from platform_core.manifest.workspace import Workspace

BEAT_S = 60.0
SILENT = timedelta(minutes=10)
"""Ten signs missed; proposed: a store may be away for minutes, and who was killed should not wait for a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """A training by hand that is alive."""

    since: datetime
    heard_at: datetime


def training_by_hand(workspace: Workspace, target: str, *, at: datetime) -> ByHand | None:
    """The training of a target by hand that runs at a moment (UTC); None if there is none, or it has died.

    A night's moment is that of its beginning: a training that has begun since counts.
    """
    sign = next(workspace.objects.find(layout.by_hand_path(target)), None)
    if sign is None or sign.modified_at <= at - SILENT:
        return None
    try:
        since = datetime.fromisoformat(json.loads(workspace.objects.get(sign.path))["since"])
    except FileNotFoundError:  # it has just ended
        return None
    return ByHand(since=since, heard_at=sign.modified_at)


@contextmanager
def shown_by_hand(workspace: Workspace, target: str, *, at: datetime) -> Iterator[None]:
    """Let others see a training by hand, from `at` (UTC) to the end of the block or of the process.

    Raises:
        TrainingUnderWay: If another one of the target runs.
        StorageUnavailable: If the workspace cannot be written.
    """
    path = f"{layout.by_hand_path(target)}/training.json"
    sign = json.dumps({"since": at.isoformat()}).encode()
    if not workspace.objects.create(path, sign, durable=False):
        _refuse_beside(workspace, target, at)
        workspace.objects.put(path, sign, durable=False)
    ended = Event()

    def go_on() -> None:
        while not ended.wait(BEAT_S):
            with suppress(PlatformError):  # a store that is away for a while stops no training
                workspace.objects.put(path, sign, durable=False)

    beating = Thread(target=go_on, name=f"{target} by hand", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(PlatformError):  # it is taken for dead soon
            workspace.objects.delete(path)


def _refuse_beside(workspace: Workspace, target: str, at: datetime) -> None:
    other = training_by_hand(workspace, target, at=at)
    if other is None:
        return
    raise TrainingUnderWay(
        target,
        f"by hand, last heard of at {other.heard_at:%H:%M} UTC",
        other.since,
        f"if it was killed, `sitedrift train {target}` goes on from its last checkpoint from "
        f"{other.heard_at + SILENT + timedelta(minutes=1):%H:%M} UTC on",
    )
