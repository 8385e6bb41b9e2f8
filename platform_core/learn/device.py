"""The device that networks run on: which one, in which precision, and what its failures mean."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from platform_core.errors import DeviceLost, TooLittleMemory

T = TypeVar("T")

FEWEST_AT_ONCE = 2
"""BatchNorm needs two."""


def open_fabric() -> Fabric:
    """One GPU if there is one, in bfloat16 where its hardware has it; else the CPU.

    Under `torchrun` as many as it has started processes, on all of its machines (`together.py`).
    """
    has_gpu = torch.cuda.is_available()
    has_bf16 = has_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    accelerator, precision = "cuda" if has_gpu else "cpu", "bf16-mixed" if has_bf16 else "32-true"
    if not torch.distributed.is_torchelastic_launched():
        return Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    n_here = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=accelerator,
        devices=n_here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // n_here,
        strategy=DDPStrategy(broadcast_buffers=False),
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def gpu_or_cpu() -> torch.device:
    """Where a network runs that no `Fabric` has placed: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """What a training runs on, as a person would say it."""
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the machine itself, had too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)


def fewer(n_at_once: int) -> int:
    """Half as many scans at once.

    Raises:
        TooLittleMemory: If there are no fewer.
    """
    if n_at_once <= FEWEST_AT_ONCE:
        raise TooLittleMemory(n_at_once)
    return max(FEWEST_AT_ONCE, n_at_once // 2)


def as_many_as_fit(act: Callable[[int], T], n_at_once: int, undo: Callable[[], object] = lambda: None) -> T:
    """What `act(n_at_once)` gives with as many scans at once as fit; `undo` follows every try that did not.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    while True:
        try:
            return act(n_at_once)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        undo()
        n_at_once = fewer(n_at_once)


def change_in_place(network: nn.Module, change: Callable[[int], None], n_at_once: int) -> None:
    """Let `change(n_at_once)` change a network by as many scans at once as fit; what a try leaves half done is undone.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    before = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    as_many_as_fit(change, n_at_once, lambda: network.load_state_dict(before))


@contextmanager
def told_apart() -> Iterator[None]:
    """Failures of a GPU are the world's, not the program's: they raise `DeviceLost`, which is worth another try."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error).partition("\n")[0]) from error
