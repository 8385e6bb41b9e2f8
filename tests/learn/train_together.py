"""Trains three small networks, alone or under torchrun, and keeps their weights: the same script either way.

    train_together.py FOLDER

Every process writes what it ended with, so that a test can see that they agree.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from platform_core.learn.contract import Phase, Strategy, everything
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.phases import TrainingSet
from platform_core.learn.resume import Bookmark
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.together import by_first
from platform_core.settings import TrainSettings
from platform_core.storage.local import LocalObjects

ALL = Strategy(name="all", phases=(Phase(name="all", trains=everything),))
SETTINGS = TrainSettings(epochs=3, batch_size=8, learning_rate=1e-2, seed=3)


def scans(n: int = 21) -> TrainingSet:
    """Of 21 the last batch has five: the processes get three and two."""
    chance = torch.Generator().manual_seed(0)
    y = torch.arange(n).remainder(2).float()
    x = torch.rand((n, 1, 8, 8), generator=chance) + y.reshape(-1, 1, 1, 1)
    return TrainingSet(x=x, y=y, weight=torch.linspace(0.5, 1.5, n))


def without_batchnorm() -> Classifier:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier({"stem": stem, "head": nn.Linear(4, 1)})


def main(folder: str) -> None:
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    kept = Bookmark(objects=LocalObjects(Path(folder)), path="bookmark.pt", every_s=0)
    stopping = SETTINGS.model_copy(update={"patience": 2})
    ends = {}
    for name, network, strategy, settings, bookmark in (
        ("plain", without_batchnorm(), ALL, SETTINGS, kept),
        ("stopping", without_batchnorm(), ALL, stopping, None),
        ("probe", build_network("resnet_tiny", 2, seed=1), STRATEGIES["lp_ft"].phases[0], SETTINGS, None),
        ("in_parts", build_network("resnet_tiny", 2, seed=1), ALL, SETTINGS.model_copy(update={"at_once": 4}), None),
    ):
        chosen = Strategy(name=name, phases=(strategy,)) if isinstance(strategy, Phase) else strategy
        data = scans(24 if name == "in_parts" else 21)
        curve = fit(network, data, chosen, settings, bookmark=bookmark, held_out=scans(6))
        ends[name] = {"weights": network.state_dict(), "curve": curve}
    by_first(lambda: Path(folder, "by_first").write_text(rank, encoding="utf-8"))
    torch.save(ends, Path(folder, f"rank{rank}.pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
