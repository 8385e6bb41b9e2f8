"""Trains the source model of `lesion`: a plain Python script that can be told to kill itself half-way.

    train_in.py WORKSPACE [STEP]

With a step it sends itself SIGKILL just before its n-th write to the workspace's objects.
"""

import os
import signal
import sys
from datetime import UTC, datetime
from itertools import count
from typing import Any

import torch

from platform_core.learn.train import train_source
from platform_core.manifest.workspace import open_workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)


def main(uri: str, step: str = "0") -> None:
    torch.set_num_threads(1)
    workspace = open_workspace(uri)
    steps = count(1)
    put = type(workspace.objects).put

    def stepped(*args: Any, **kwargs: Any) -> None:
        if next(steps) == int(step):
            os.kill(os.getpid(), signal.SIGKILL)
        put(*args, **kwargs)

    type(workspace.objects).put = stepped  # type: ignore[method-assign]
    train_source(workspace, "lesion", run="run", at=AT, recipe="r1")


if __name__ == "__main__":
    main(*sys.argv[1:])
