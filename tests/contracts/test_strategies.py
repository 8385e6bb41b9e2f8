"""What every fine-tuning strategy promises: a new file is tested here before its author writes a test."""

import pytest
import torch

from platform_core.learn.contract import Strategy
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network, weights_sha256
from platform_core.learn.phases import TrainingSet
from platform_core.learn.strategies import STRATEGIES
from platform_core.settings import TrainSettings

SETTINGS = TrainSettings(epochs=2, batch_size=4, learning_rate=1e-2, seed=3)


@pytest.fixture(params=STRATEGIES.values(), ids=list(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    found: Strategy = request.param
    return found


@pytest.fixture(params=[(8, 8, 8), (8, 8)], ids=["3d", "2d"])
def data(request: pytest.FixtureRequest) -> TrainingSet:
    chance = torch.Generator().manual_seed(0)
    y = torch.tensor([0.0, 1.0] * 5)
    x = torch.rand((10, 1, *request.param), generator=chance) + y.reshape(-1, 1, *[1] * len(request.param))
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


def test_another_seed_gives_other_weights(strategy: Strategy, data: TrainingSet) -> None:
    networks = [network_for(data) for _ in range(2)]
    for seed, network in enumerate(networks):
        fit(network, data, strategy, SETTINGS.model_copy(update={"seed": seed}))
    assert weights_sha256(networks[0]) != weights_sha256(networks[1])


def test_blocks_that_are_named_exist_and_the_head_is_always_trained(strategy: Strategy) -> None:
    blocks = ("stem", "block1", "block2", "head")
    for phase in strategy.phases:
        assert set(phase.trains(blocks)) <= set(blocks)
        assert phase.share > 0
        assert phase.lr_scale > 0
    assert any("head" in phase.trains(blocks) for phase in strategy.phases)


def test_a_trained_network_is_left_ready_to_predict(strategy: Strategy, data: TrainingSet) -> None:
    network = network_for(data)
    losses = fit(network, data, strategy, SETTINGS)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert not any(module.training for module in network.modules())
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
