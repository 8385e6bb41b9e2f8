"""BatchNorm statistics, against NumPy and against PyTorch's own; CORAL's map, against covariances."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from platform_core.errors import NotAdaptable, TooLittleMemory
from platform_core.learn.adaptations import tent
from platform_core.learn.adaptations.coral import align
from platform_core.learn.batch_norm import batch_norms, mix_statistics, require_batch_norm
from platform_core.learn.networks import Classifier, build_network


class TwoLayers(nn.Module):
    """The second layer sees what the first has normalised; they are named in the other order."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.conv, self.early = nn.BatchNorm2d(2), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.late(self.conv(self.early(x))).relu()
        return found.mean(dim=(2, 3))


def two_layers() -> Classifier:
    torch.manual_seed(0)
    return Classifier({"stem": TwoLayers(), "head": nn.Linear(2, 1)}).eval()


def scans(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(3, 2, (n, 1, 6, 6)).astype(np.float32))


def test_statistics_are_mixed_by_numbers_of_scans() -> None:
    network, x = two_layers(), scans(96)
    mix_statistics(network, x, n_pseudo=32)
    first = batch_norms(network)["blocks.stem.early"]
    assert first.running_mean is not None
    assert first.running_var is not None
    values = x.double().numpy()
    assert float(first.running_mean[0]) == pytest.approx((32 * 0 + 96 * values.mean()) / 128, rel=1e-6)
    assert float(first.running_var[0]) == pytest.approx((32 * 1 + 96 * values.var()) / 128, rel=1e-6)


def test_without_pseudo_scans_every_layer_answers_as_on_one_batch() -> None:
    """In training mode each layer normalises by its batch, after all layers before it did."""
    network, x = two_layers(), scans(80)
    with torch.no_grad():
        expected = build_like(network).train()(x)
        mix_statistics(network, x, n_pseudo=0)
        assert torch.allclose(network(x), expected, atol=1e-5)


def test_a_residual_network_answers_so_too() -> None:
    network, x = build_network("resnet_tiny", 2, seed=3).eval(), torch.rand((70, 1, 16, 16))
    twin = build_network("resnet_tiny", 2, seed=3).train()
    with torch.no_grad():
        expected = twin(x)
        mix_statistics(network, x, n_pseudo=0)
        assert torch.allclose(network(x), expected, atol=1e-4)


def test_a_network_without_it_is_refused() -> None:
    with pytest.raises(NotAdaptable, match="no BatchNorm"):
        require_batch_norm(nn.Linear(2, 1), "adabn")


def build_like(network: Classifier) -> Classifier:
    twin = two_layers()
    twin.load_state_dict(network.state_dict())
    return twin


def test_coral_gives_the_site_the_references_mean_and_nearly_its_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    reference = rng.normal(size=(4000, 4)) @ np.diag([3.0, 2.0, 1.5, 1.0])
    site = (rng.normal(size=(4000, 4)) @ np.diag([3.0, 2.0, 1.5, 1.0])) @ mixing + 5
    found = align(site, reference)
    moved = site @ found.matrix.T + found.offset
    assert moved.mean(axis=0) == pytest.approx(reference.mean(axis=0), abs=1e-9)
    before, after = (np.linalg.norm(np.cov(rows.T) - np.cov(reference.T)) for rows in (site, moved))
    assert after < 0.25 * before


def test_coral_leaves_a_site_that_is_like_the_reference_where_it_is() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 4))
    found = align(rows, rows)
    assert found.matrix == pytest.approx(np.eye(4), abs=1e-9)
    assert found.offset == pytest.approx(np.zeros(4), abs=1e-9)


def test_coral_leaves_directions_alone_that_the_scans_cannot_tell() -> None:
    """100 scans are enough for ten directions; across the others only the mean moves."""
    rng = np.random.default_rng(0)
    reference, site = rng.normal(size=(100, 30)), 2 * rng.normal(size=(100, 30)) + 1
    kept = np.linalg.eigvals(align(site, reference).matrix).real
    assert np.sum(np.isclose(kept, 1, atol=1e-9)) == 20


def test_coral_refuses_embeddings_that_are_all_alike() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    with pytest.raises(NotAdaptable, match="reference have the same embedding"):
        align(rows, np.ones((100, 3)))
    with pytest.raises(NotAdaptable, match="site have the same embedding"):
        align(np.ones((100, 3)), rows)


MOST_THAT_FIT = 5


def too_small(block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """A device on which the second block fails when it is shown more scans, after the first has been changed."""
    if len(inputs[0]) > MOST_THAT_FIT:
        raise torch.OutOfMemoryError


def test_a_device_with_too_little_memory_sees_fewer_scans_and_the_same_statistics() -> None:
    network, x = build_network("resnet_tiny", 2, seed=3).eval(), torch.rand((70, 1, 16, 16))
    small = deepcopy(network)
    small.blocks[small.block_names[1]].register_forward_pre_hook(too_small)
    mix_statistics(network, x, n_pseudo=32)
    mix_statistics(small, x, n_pseudo=32)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, small.state_dict()[name], atol=1e-5), name


def test_a_device_that_fits_no_two_scans_is_told_of() -> None:
    network = build_network("resnet_tiny", 2, seed=3).eval()
    network.blocks[network.block_names[0]].register_forward_pre_hook(lambda *_: too_small(network, (torch.ones(9),)))
    with pytest.raises(TooLittleMemory):
        mix_statistics(network, torch.rand((70, 1, 16, 16)), n_pseudo=32)


def test_sharpening_by_fewer_scans_at_once_makes_the_same_network() -> None:
    network, x = build_network("resnet_tiny", 2, seed=3).eval(), torch.rand((70, 1, 16, 16))
    with torch.no_grad():
        network.head.get_parameter("weight").mul_(200)  # sure of most scans, so that they pull
    small, before = deepcopy(network), deepcopy(network.state_dict())
    tent._sharpen(network, x, 0, tent.BATCH)
    tent._sharpen(small, x, 0, 7)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, small.state_dict()[name], atol=1e-4), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
