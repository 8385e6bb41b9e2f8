"""A training that is killed ends, when it is asked for again, as if nothing had happened."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
import torch

from platform_core import layout
from platform_core.errors import StorageUnavailable
from platform_core.learn.bundle import read_bundle
from platform_core.learn.fit import fit
from platform_core.learn.networks import build_network, weights_sha256
from platform_core.learn.phases import TrainingSet
from platform_core.learn.registry import ModelRef, models
from platform_core.learn.resume import Bookmark, fit_key
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.train import train_source
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.settings import TrainSettings
from platform_core.storage.local import LocalObjects

pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPT = Path(__file__).with_name("train_in.py")
AT = datetime(2026, 3, 1, tzinfo=UTC)
UNFINISHED = "models/lesion/unfinished"
SETTINGS = TrainSettings(epochs=3, batch_size=4, seed=3)
Plant = Callable[..., list[str]]
Choose = Callable[[str, int], list[str]]


def keep_always(workspace: Workspace, *more: str) -> Workspace:
    """The workspace with a bookmark after every step."""
    file = Path(workspace.uri) / layout.SETTINGS
    lines = "".join(f"{line}\n" for line in ("checkpoint_minutes = 0", *more))
    head = "[target.lesion.train]\n"
    file.write_text(file.read_text(encoding="utf-8").replace(head, head + lines), encoding="utf-8")
    return open_workspace(workspace.uri)


def weights_of(workspace: Workspace, model: ModelRef) -> str:
    return weights_sha256(read_bundle(workspace, model.bundle_uri).network)


def run_script(workspace: Workspace, *step: str) -> int:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), workspace.uri, *step]
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode


@pytest.mark.slow
def test_a_training_that_is_killed_twice_makes_the_same_model(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    """kill -9 in the training proper, then an end in one of the folds; the third attempt finishes."""
    plant("north", 24, patients=patients_in("train", 24))
    here = keep_always(with_target, "patience = 2")
    assert run_script(here, "5") == -signal.SIGKILL
    here.__dict__["objects"] = Dying(Path(here.uri), n_left=9)
    with pytest.raises(KeyboardInterrupt):
        train_source(here, "lesion", run="run", at=AT, recipe="r1")
    del here.__dict__["objects"]
    assert len(here.objects.list(UNFINISHED)) > 1  # a training that is done, and a fold that is not
    assert models(here) == []
    made = [train_source(here, "lesion", run=run, at=AT, recipe="r1") for run in ("run", "again")]
    assert here.objects.list(UNFINISHED) == []
    assert len({weights_of(here, model) for model in made}) == 1
    assert len({read_bundle(here, model.bundle_uri).platt for model in made}) == 1


@dataclass(frozen=True)
class Dying(LocalObjects):
    """Ends the process at its n-th put, after having written."""

    n_left: int
    _puts: Iterator[int] = field(default_factory=count)

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        super().put(path, data, durable=durable)
        if next(self._puts) == self.n_left:
            raise KeyboardInterrupt


def tensors(n: int = 12) -> TrainingSet:
    chance = torch.Generator().manual_seed(0)
    y = torch.tensor([0.0, 1.0] * (n // 2))
    return TrainingSet(x=torch.rand((n, 1, 8, 8), generator=chance), y=y, weight=torch.ones(n))


def test_a_bookmark_that_cannot_be_read_means_to_start_anew(tmp_path: Path) -> None:
    bookmark = Bookmark(objects=LocalObjects(tmp_path), path="a/b.pt", every_s=0)
    bookmark.objects.put(bookmark.path, b"half a file")
    hashes = []
    for kept in (bookmark, None):
        network = build_network("resnet_tiny", 2)
        fit(network, tensors(), STRATEGIES["full"], SETTINGS, bookmark=kept)
        hashes.append(weights_sha256(network))
    assert hashes[0] == hashes[1]


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    """Its folds may still be to come."""
    bookmark = Bookmark(objects=LocalObjects(tmp_path), path="b.pt", every_s=1e9)
    network = build_network("resnet_tiny", 2)
    losses = fit(network, tensors(), STRATEGIES["lp_ft"], SETTINGS, bookmark=bookmark)
    again = build_network("resnet_tiny", 2)
    other = TrainingSet(x=tensors().x * 0, y=tensors().y, weight=tensors().weight)  # is not looked at
    assert fit(again, other, STRATEGIES["lp_ft"], SETTINGS, bookmark=bookmark) == losses
    assert weights_sha256(again) == weights_sha256(network)


def test_a_bookmark_is_written_no_more_often_than_asked(tmp_path: Path) -> None:
    objects = Counting(tmp_path)
    bookmark = Bookmark(objects=objects, path="b.pt", every_s=1e9)
    fit(build_network("resnet_tiny", 2), tensors(), STRATEGIES["full"], SETTINGS, bookmark=bookmark)
    assert objects.n_puts == 1  # at the end


class Counting(LocalObjects):
    n_puts = 0

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        type(self).n_puts += 1
        super().put(path, data, durable=durable)


@pytest.mark.parametrize("changed", ["weights", "scans", "labels", "held out", "strategy", "settings"])
def test_another_training_has_another_bookmark(changed: str) -> None:
    network, data, strategy, settings = build_network("resnet_tiny", 2), tensors(), STRATEGIES["full"], SETTINGS
    key = fit_key(network, [data], strategy, settings)
    assert key == fit_key(build_network("resnet_tiny", 2), [tensors()], strategy, settings)
    network = build_network("resnet_tiny", 2, seed=int(changed == "weights"))
    x, y = data.x + (changed == "scans"), 1 - data.y if changed == "labels" else data.y
    parts = [TrainingSet(x=x, y=y, weight=data.weight)] + [tensors(4)] * (changed == "held out")
    strategy = STRATEGIES["partial"] if changed == "strategy" else strategy
    settings = settings.model_copy(update={"epochs": 4}) if changed == "settings" else settings
    assert fit_key(network, parts, strategy, settings) != key


def test_how_often_is_kept_does_not_make_another_training() -> None:
    network, often = build_network("resnet_tiny", 2), SETTINGS.model_copy(update={"checkpoint_minutes": 1.0})
    keys = {fit_key(network, [tensors()], STRATEGIES["full"], settings) for settings in (SETTINGS, often)}
    assert len(keys) == 1


class Full(LocalObjects):
    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        if "unfinished" in path:
            raise StorageUnavailable(path, "No space left on device")
        super().put(path, data, durable=durable)


def test_a_full_disk_stops_the_training_and_makes_no_model(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    plant("north", 24, patients=patients_in("train", 24))
    here = keep_always(with_target)
    here.__dict__["objects"] = Full(Path(here.uri))
    with pytest.raises(StorageUnavailable, match="No space left"):
        train_source(here, "lesion", run="run", at=AT, recipe="r1")
    assert models(here) == []
