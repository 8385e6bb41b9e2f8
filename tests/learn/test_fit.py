"""The one loop: memory that is short, gradients that are added up, stopping early, what fails."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from platform_core.errors import BadRequest, DeviceLost, TooLittleMemory
from platform_core.learn.contract import Phase, Strategy, everything
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network, weights_sha256
from platform_core.learn.phases import TrainingSet
from platform_core.learn.resume import Bookmark
from platform_core.settings import TrainSettings
from platform_core.storage.local import LocalObjects

SETTINGS = TrainSettings(epochs=4, batch_size=8, learning_rate=1e-2, seed=3)
ALL = Strategy(name="all", phases=(Phase(name="all", trains=everything),))


def scans(n: int = 16, *, seed: int = 0, noise: bool = False) -> TrainingSet:
    chance = torch.Generator().manual_seed(seed)
    y = torch.arange(n).remainder(2).float()
    x = torch.rand((n, 1, 8, 8), generator=chance) + (0 if noise else y.reshape(-1, 1, 1, 1))
    return TrainingSet(x=x, y=y, weight=torch.ones(n))


class Small(nn.Module):
    """A block on a device that holds only a few scans."""

    def __init__(self, block: nn.Module, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.block, self.most, self.error = block, most, error
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.block(x)  # buffers have moved when memory runs out
        self.seen.append(len(x))
        if len(x) > self.most:
            raise self.error("no memory left")
        return found


def on_small_device(most: int, error: type[Exception] = torch.OutOfMemoryError) -> tuple[Classifier, Small]:
    network = build_network("resnet_tiny", 2, seed=1)
    small = Small(network.blocks["block3"], most, error)
    network.blocks["block3"] = small
    return network, small


def plain_state(network: Classifier) -> dict[str, torch.Tensor]:
    return {name.replace(".block3.block.", ".block3."): tensor for name, tensor in network.state_dict().items()}


def test_where_memory_is_short_a_batch_goes_in_parts() -> None:
    network, small = on_small_device(most=4)
    fit(network, scans(), ALL, SETTINGS)
    assert small.seen[:4] == [8, 4, 4, 4]
    assert max(small.seen[1:]) == 4


def test_a_part_that_did_not_fit_leaves_no_trace() -> None:
    """The same weights and buffers as if the batch had gone in parts from the beginning."""
    network, _ = on_small_device(most=4)
    losses = fit(network, scans(), ALL, SETTINGS)
    careful = build_network("resnet_tiny", 2, seed=1)
    assert fit(careful, scans(), ALL, SETTINGS.model_copy(update={"at_once": 4})) == losses
    found, expected = plain_state(network), careful.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_network_too_large_for_two_scans_is_refused() -> None:
    network, small = on_small_device(most=1)
    with pytest.raises(TooLittleMemory, match="smaller grid or network"):
        fit(network, scans(), ALL, SETTINGS)
    assert small.seen == [8, 4, 2]


def test_embedding_goes_in_smaller_parts_too() -> None:
    network, small = on_small_device(most=4)
    _, embeddings = logits_and_embeddings(network, scans().x)
    assert embeddings.shape == (16, 64)
    assert small.seen[-4:] == [4, 4, 4, 4]


def without_batchnorm() -> Classifier:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier({"stem": stem, "head": nn.Linear(4, 1)})


def test_gradients_that_are_added_up_are_those_of_the_whole_batch() -> None:
    states = []
    for at_once in (None, 3):
        network = without_batchnorm()
        fit(network, scans(15), ALL, SETTINGS.model_copy(update={"at_once": at_once}))
        states.append(network.state_dict())
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])


class Watched(LocalObjects):
    """Remembers every bookmark."""

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        super().put(path, data, durable=durable)
        states.append(torch.load(BytesIO(data), weights_only=True))


states: list[dict[str, Any]] = []


def test_training_stops_where_the_held_out_loss_is_least(tmp_path: Path) -> None:
    """Labels of noise: the more is learned, the worse it gets elsewhere."""
    states.clear()
    bookmark = Bookmark(objects=Watched(tmp_path), path="b.pt", every_s=0)
    settings = SETTINGS.model_copy(update={"epochs": 40, "patience": 3})
    network, other = build_network("resnet_tiny", 2, seed=1), scans(64, seed=9, noise=True)
    losses = fit(network, scans(noise=True), ALL, settings, bookmark=bookmark, held_out=other)
    ends = [state["weights"] for state in states[:-1] if not state["progress"]["batches"]]
    assert len(ends) == len(losses)
    curve = []
    for weights in ends:
        then = build_network("resnet_tiny", 2)
        then.load_state_dict(weights)
        curve.append(loss_of(then, other))
    best = min(range(len(curve)), key=curve.__getitem__)
    assert len(losses) == best + 1 + 3 < 40
    assert all(torch.equal(tensor, ends[best][name]) for name, tensor in network.state_dict().items())


def loss_of(network: Classifier, data: TrainingSet) -> float:
    logits, _ = logits_and_embeddings(network, data.x)
    return float(nn.functional.binary_cross_entropy_with_logits(logits, data.y))


def test_without_patience_nothing_is_held_out() -> None:
    hashes = set()
    for held_out in (None, scans(8, seed=9)):
        network = build_network("resnet_tiny", 2, seed=1)
        fit(network, scans(), ALL, SETTINGS, held_out=held_out)
        hashes.add(weights_sha256(network))
    assert len(hashes) == 1


def test_watching_a_held_out_part_moves_no_weight_by_itself() -> None:
    """Not even a running statistic: patience that is never lost, with the last epoch the best, changes nothing."""
    hashes = set()
    for patience in (0, 99):
        network = build_network("resnet_tiny", 2, seed=1)
        settings = SETTINGS.model_copy(update={"patience": patience, "epochs": 1})
        fit(network, scans(), ALL, settings, held_out=scans(8, seed=9))
        hashes.add(weights_sha256(network))
    assert len(hashes) == 1


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    data = scans()
    data.x[3] = torch.nan
    with pytest.raises(BadRequest, match=r"lower train\.learning_rate"):
        fit(build_network("resnet_tiny", 2), data, ALL, SETTINGS)


def test_a_gpu_that_vanishes_is_worth_another_try() -> None:
    lost, _ = on_small_device(most=1, error=torch.AcceleratorError)
    with pytest.raises(DeviceLost, match="run again") as failed:
        fit(lost, scans(), ALL, SETTINGS)
    assert failed.value.retryable


def test_an_error_of_the_program_stays_what_it_is() -> None:
    network, _ = on_small_device(most=1, error=RuntimeError)
    with pytest.raises(RuntimeError, match="no memory left"):
        fit(network, scans(), ALL, SETTINGS)


def test_a_rare_class_that_weighs_as_much_is_learned_as_well() -> None:
    """At even weights the mean logit leans to neither class; without them it leans to the common one."""
    x = torch.rand((40, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    y = torch.tensor([1.0] * 4 + [0.0] * 36)
    even = torch.where(y == 1, 5.0, 40 / 72)
    means = []
    for weight in (torch.ones(40), even):
        network = without_batchnorm()
        fit(network, TrainingSet(x=x, y=y, weight=weight), ALL, SETTINGS.model_copy(update={"epochs": 40}))
        means.append(float(logits_and_embeddings(network, x)[0].mean()))
    assert means[0] < -1
    assert abs(means[1]) < 0.5
