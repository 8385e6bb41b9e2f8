"""Fine-tunes for a case: a plain Python script that can be told to kill itself half-way.

    fine_tune_in.py PICKLE [STEP]

The file holds a case and a decision; with a step it sends itself SIGKILL just before its n-th write to the
workspace's objects.
"""

import os
import pickle
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import torch

from platform_core.storage.local import LocalObjects
from platform_core.trial.finetune import train_challenger


def main(file: str, step: str = "0") -> None:
    torch.set_num_threads(1)
    steps, put = count(1), LocalObjects.put

    def stepped(*args: Any, **kwargs: Any) -> None:
        if next(steps) == int(step):
            os.kill(os.getpid(), signal.SIGKILL)
        put(*args, **kwargs)

    LocalObjects.put = stepped  # type: ignore[method-assign]
    train_challenger(*pickle.loads(Path(file).read_bytes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
