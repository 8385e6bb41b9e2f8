"""What every fine-tuning strategy promises: a new file is tested here before its author writes a test."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import parameters_to_vector as vector

from platform_core.learn.contract import Phase, Strategy
from platform_core.learn.device import open_fabric
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network, weights_sha256
from platform_core.learn.phases import Course, Stretch, TrainingSet, prepare
from platform_core.learn.resume import Bookmark
from platform_core.learn.strategies import STRATEGIES
from platform_core.settings import TrainSettings
from platform_core.storage.local import LocalObjects

SETTINGS = TrainSettings(epochs=2, batch_size=4, learning_rate=1e-2, seed=3)


@pytest.fixture(params=STRATEGIES.values(), ids=list(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    found: Strategy = request.param
    return found


@pytest.fixture(params=[(8, 8, 8), (8, 8)], ids=["3d", "2d"])
def data(request: pytest.FixtureRequest) -> TrainingSet:
    return scans(*request.param)


def scans(*shape: int) -> TrainingSet:
    """Ten, the positive ones brighter."""
    chance = torch.Generator().manual_seed(0)
    y = torch.tensor([0.0, 1.0] * 5)
    x = torch.rand((10, 1, *shape), generator=chance) + y.reshape(-1, 1, *[1] * len(shape))
    return TrainingSet(x=x, y=y, weight=torch.ones(10))


def network_for(data: TrainingSet) -> Classifier:
    """A network whose buffers are not at their first values."""
    network = build_network("resnet_tiny", data.x.ndim - 2, seed=1)
    with torch.no_grad():
        network.train()(data.x)
    return network.eval()


def state(network: Classifier, block: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of one block."""
    return {name: tensor.clone() for name, tensor in network.blocks[block].state_dict().items()}


def test_what_no_phase_trains_comes_out_bit_for_bit(strategy: Strategy, data: TrainingSet) -> None:
    network = network_for(data)
    trained = {block for phase in strategy.phases for block in phase.trains(network.block_names)}
    before = {block: state(network, block) for block in network.block_names}
    fit(network, data, strategy, SETTINGS)
    for block in set(network.block_names) - trained:
        for name, tensor in state(network, block).items():
            assert torch.equal(tensor, before[block][name]), f"{block}.{name} moved"


def test_what_a_phase_trains_moves(strategy: Strategy, data: TrainingSet) -> None:
    network = network_for(data)
    trained = {block for phase in strategy.phases for block in phase.trains(network.block_names)}
    before = {block: state(network, block) for block in trained}
    fit(network, data, strategy, SETTINGS)
    for block in trained:
        assert any(not torch.equal(t, before[block][name]) for name, t in state(network, block).items()), block


def test_the_same_seed_gives_the_same_weights(strategy: Strategy, data: TrainingSet) -> None:
    hashes = set()
    for _ in range(2):
        torch.rand(7)  # whatever else drew random numbers in this process must not matter
        network = network_for(data)
        fit(network, data, strategy, SETTINGS)
        hashes.add(weights_sha256(network))
    assert len(hashes) == 1


class Killed(BaseException):
    """Nothing catches it."""


@dataclass(frozen=True)
class Dying(LocalObjects):
    """Ends a training at its n-th bookmark."""

    n_left: int

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        super().put(path, data, durable=durable)
        N_PUTS[0] += 1
        if N_PUTS[0] == self.n_left:
            raise Killed


N_PUTS = [0]


def test_a_training_that_was_interrupted_ends_at_the_same_weights_by_the_same_curve(
    strategy: Strategy, tmp_path: Path
) -> None:
    """Within an epoch, between two epochs or phases; with scans held out and batches in parts."""
    data = scans(8, 8)
    settings = SETTINGS.model_copy(update={"epochs": 4, "at_once": 2, "patience": 1})
    held_out = TrainingSet(x=data.x[:4], y=data.y[:4], weight=data.weight[:4])
    whole = network_for(data)
    curve = fit(whole, data, strategy, settings, held_out=held_out)
    for n_left in (1, 3, 5):
        N_PUTS[0] = 0
        bookmark = Bookmark(objects=Dying(tmp_path, n_left=n_left), path=f"{n_left}.pt", every_s=0)
        with pytest.raises(Killed):
            fit(network_for(data), data, strategy, settings, bookmark=bookmark, held_out=held_out)
        resumed = network_for(data)
        assert fit(resumed, data, strategy, settings, bookmark=bookmark, held_out=held_out) == curve
        assert weights_sha256(resumed) == weights_sha256(whole)


def test_another_seed_gives_other_weights(strategy: Strategy, data: TrainingSet) -> None:
    networks = [network_for(data) for _ in range(2)]
    for seed, network in enumerate(networks):
        fit(network, data, strategy, SETTINGS.model_copy(update={"seed": seed}))
    assert weights_sha256(networks[0]) != weights_sha256(networks[1])


def test_blocks_that_are_named_exist_and_some_are_trained(strategy: Strategy) -> None:
    blocks = ("stem", "block1", "block2", "head")
    for phase in strategy.phases:
        assert set(phase.trains(blocks)) <= set(blocks)
        assert phase.share > 0
        assert phase.lr_scale > 0
        assert 0 < phase.lr_decay <= 1
        assert phase.pull >= 0
        assert phase.trains(blocks)


def test_a_network_from_nothing_gets_a_trained_head(strategy: Strategy) -> None:
    """One that comes from a champion may keep its own."""
    trained = {block for phase in strategy.phases for block in phase.trains(("stem", "head"))}
    assert strategy.starts_from == "champion" or "head" in trained


def stretch_of(network: Classifier, data: TrainingSet, phase: Phase) -> Stretch:
    source = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    course = Course(fabric=open_fabric(), network=network, source=source, data=data, held_out=None, settings=SETTINGS)
    return prepare(course, phase)


def rates_of(stretch: Stretch, network: Classifier) -> dict[str, float]:
    """Of every trained block, the same for all of its parameters."""
    rate = {id(p): group["lr"] for group in stretch.optimizer.param_groups for p in group["params"]}
    found = {b: {rate.pop(id(p), None) for p in network.blocks[b].parameters()} for b in network.block_names}
    assert rate == {}
    assert all(len(rates) == 1 for rates in found.values())
    return {block: rate for block, (rate,) in found.items() if rate is not None}


def test_learning_rates_are_geometric_from_the_head_down(strategy: Strategy, data: TrainingSet) -> None:
    for phase in strategy.phases:
        if phase.by_gradient:
            continue
        network = network_for(data)
        names = network.block_names
        depth = {block: len(names) - 1 - names.index(block) for block in phase.trains(names)}
        first = SETTINGS.learning_rate * phase.lr_scale
        expected = {block: pytest.approx(first * phase.lr_decay**n) for block, n in depth.items()}
        assert rates_of(stretch_of(network, data, phase), network) == expected


def test_learning_rates_by_gradient_are_the_ratio_of_norms(strategy: Strategy, data: TrainingSet) -> None:
    """Against the gradient of the mean loss of all scans at once."""
    for phase in strategy.phases:
        network = network_for(data)
        torch.autograd.backward(
            binary_cross_entropy_with_logits(network(data.x).squeeze(1), data.y, weight=data.weight)
        )
        ratio = {
            block: vector([p.grad for p in network.blocks[block].parameters() if p.grad is not None]).norm()
            / vector(network.blocks[block].parameters()).detach().norm()
            for block in phase.trains(network.block_names)
        }
        network.zero_grad()
        rates = rates_of(stretch_of(network, data, phase), network)
        first, most = SETTINGS.learning_rate * phase.lr_scale, max(ratio.values())
        expected = {block: pytest.approx(float(first * r / most), rel=1e-3) for block, r in ratio.items()}
        assert (rates == expected) == phase.by_gradient or len(rates) == 1
        assert not any(
            module.training for b in set(network.block_names) - set(rates) for module in network.blocks[b].modules()
        )


def test_a_phase_that_pulls_stays_nearer_to_where_it_started(strategy: Strategy, data: TrainingSet) -> None:
    """The stronger the nearer, and all others not at all: without a pull nothing holds them."""
    if not any(phase.pull for phase in strategy.phases):
        assert all(not stretch_of(network_for(data), data, phase).anchors for phase in strategy.phases)
        return
    away = []
    for times in (0.0, 30.0, 1000.0):  # at 1 it is weaker than the chance of ten epochs
        phases = tuple(replace(phase, pull=phase.pull * times) for phase in strategy.phases)
        network = network_for(data)
        start = state(network, "block2")
        fit(network, data, replace(strategy, phases=phases), SETTINGS.model_copy(update={"epochs": 10}))
        moved = state(network, "block2")
        away.append(sum(float((moved[n] - start[n]).square().sum()) for n in start if n.endswith("conv1.weight")))
    assert away[2] < away[1] < away[0]


def test_a_trained_network_is_left_ready_to_predict(strategy: Strategy, data: TrainingSet) -> None:
    network = network_for(data)
    losses = fit(network, data, strategy, SETTINGS)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert not any(module.training for module in network.modules())
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
