"""Several processes that train one network: what each takes of a batch, and what they must agree on.

`torchrun` starts them, on one machine or many; every one of them runs the same script, holds all scans and draws the
same random numbers. A batch is cut into as many runs of rows as there are processes, without a sampler of Fabric's;
gradients are added up once per batch, when all parts of it fitted everywhere. So the weights are those of one
process, up to the order of sums. BatchNorm sees a process's part of the batch alone, as with `at_once`; its running
statistics are averaged after every epoch. Only the first process writes.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import distributed, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

T = TypeVar("T")


def is_together() -> bool:
    """Whether this process trains with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first() -> bool:
    """Whether this is the process that writes."""
    return not is_together() or distributed.get_rank() == 0


def from_first(value: T) -> T:
    """The first process's value, in every one of them: whatever steers the training must not differ by a rounding."""
    if not is_together():
        return value
    told = [value]
    distributed.broadcast_object_list(told, 0)
    return told[0]


def by_first(make: Callable[[], T]) -> T:
    """What the first process makes; the others wait for it and do nothing."""
    made = make() if is_first() else None
    return from_first(made)  # type: ignore[return-value]


def my_rows(fabric: Fabric, n: int) -> torch.Tensor:
    """This process's rows of a batch."""
    return torch.tensor_split(torch.arange(n), fabric.world_size)[fabric.global_rank]


def added_up(fabric: Fabric, module: nn.Module, loss: torch.Tensor | None) -> torch.Tensor | None:
    """The sum of every process's loss, with the gradients in `module` added up too.

    Args:
        fabric: Who runs together.
        module: Its trained parameters have this process's gradients, or none.
        loss: This process's part of the mean loss; None if its scans did not fit the device.

    Returns:
        None, with the gradients as they were, if the scans of any process did not fit.
    """
    if fabric.world_size == 1:
        return loss
    told = fabric.to_device(torch.tensor([0.0 if loss is None else 1.0, 0.0], dtype=torch.float64))
    if loss is not None:
        told[1] = loss
    told = _summed(fabric, told)
    if told[0] < fabric.world_size:
        return None
    gradients = [_gradient(parameter) for parameter in module.parameters() if parameter.requires_grad]
    vector_to_parameters(_summed(fabric, parameters_to_vector(gradients)), gradients)
    return told[1]


def average_statistics(fabric: Fabric, blocks: Iterable[nn.Module]) -> None:
    """Running statistics of blocks that are trained become the mean over processes."""
    if fabric.world_size == 1:
        return
    statistics = [buffer for block in blocks for buffer in block.buffers() if buffer.is_floating_point()]
    if statistics:
        vector = parameters_to_vector(statistics)
        vector_to_parameters(_summed(fabric, vector) / fabric.world_size, statistics)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # a batch with fewer scans than processes
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _summed(fabric: Fabric, values: torch.Tensor) -> torch.Tensor:
    found = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(found, torch.Tensor)
    return found
