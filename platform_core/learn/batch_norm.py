"""BatchNorm layers of a network: which there are, and their statistics mixed with those of other scans."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from platform_core.errors import NotAdaptable
from platform_core.learn.device import change_in_place, gpu_or_cpu
from platform_core.learn.networks import Classifier

AT_ONCE = 64
"""Scans on the device at a time; statistics are added up over parts, so that this number changes no result."""

Layers = dict[str, _BatchNorm]


def batch_norms(network: nn.Module) -> Layers:
    """Every BatchNorm layer that keeps statistics, by its name in the network, in the order of the modules."""
    return {name: layer for name, layer in network.named_modules() if _keeps_statistics(layer)}


def statistics_of(network: nn.Module) -> frozenset[str]:
    """Names of the mean and variance of every BatchNorm layer."""
    kept = ("running_mean", "running_var")
    return frozenset(f"{layer}.{name}" for layer in batch_norms(network) for name in kept)


def require_batch_norm(network: nn.Module, adaptation: str) -> None:
    """Refuse a network in which there is nothing to move.

    Raises:
        NotAdaptable: If no layer is a BatchNorm that keeps statistics.
    """
    if not batch_norms(network):
        raise NotAdaptable(adaptation, "the network has no BatchNorm whose statistics could be moved")


def mix_statistics(network: Classifier, x: torch.Tensor, *, n_pseudo: int) -> None:
    """Move every BatchNorm of a network, in place, towards the statistics of its inputs over `x`.

    mean = (N mean_S + n mean_T) / (N + n), the variance alike. One layer after the other, in the order in which scans
    pass them: what a layer sees depends on all layers before it.

    Args:
        network: To be changed; it is left on the CPU in evaluation mode.
        x: (n, 1, ...), float32.
        n_pseudo: N, what the statistics that are there count, in scans.

    Raises:
        TooLittleMemory: If not even two scans fit the device.

    Source:
        Schneider et al. 2020, arXiv:2006.16971, equation 3.
    """
    change_in_place(network, lambda at_once: _mix(network, x, n_pseudo, at_once), AT_ONCE)


def _mix(network: Classifier, x: torch.Tensor, n_pseudo: int, at_once: int) -> None:
    device = gpu_or_cpu()
    network.to(device).eval()
    share = len(x) / (n_pseudo + len(x))
    seen = list(torch.split(x, at_once))
    with torch.inference_mode():
        for name in network.block_names:
            block = network.blocks[name]
            for layer in _in_order(block, seen[0][:1].to(device)):
                mean, variance = _statistics(block, layer, seen, device)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.lerp_(mean.to(layer.running_mean), share)
                layer.running_var.lerp_(variance.to(layer.running_var), share)
            seen = [block(part.to(device)).cpu() for part in seen]
    network.cpu()


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


def _in_order(block: nn.Module, x: torch.Tensor) -> list[_BatchNorm]:
    """BatchNorm layers as a scan passes them, which is not always the order in which they were named."""
    passed: list[_BatchNorm] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, _: passed.append(layer)) for layer in batch_norms(block).values()
    ]
    with _removed(handles):
        block(x)
    return list(dict.fromkeys(passed))


def _statistics(
    block: nn.Module, layer: _BatchNorm, seen: list[torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population variance per channel of what comes into a layer, added up in double precision."""
    sums: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        sums.append((values.shape[1], values.sum(1), values.square().sum(1)))

    with _removed([layer.register_forward_pre_hook(add)]):
        for part in seen:
            block(part.to(device))
    n = sum(count for count, _, _ in sums)
    mean = torch.stack([total for _, total, _ in sums]).sum(0) / n
    squares = torch.stack([total for _, _, total in sums]).sum(0) / n
    return mean, (squares - mean.square()).clamp_min(0)


@contextmanager
def _removed(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
