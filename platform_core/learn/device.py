"""The device that networks run on: which one, in which precision, and what its failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from platform_core.errors import DeviceLost, TooLittleMemory

FEWEST_AT_ONCE = 2
"""BatchNorm needs two."""


def open_fabric() -> Fabric:
    """One GPU if there is one, in bfloat16 where its hardware has it; else the CPU."""
    if not torch.cuda.is_available():
        return Fabric(accelerator="cpu", devices=1, precision="32-true")
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Fabric(accelerator="cuda", devices=1, precision="bf16-mixed" if has_bf16 else "32-true")


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


@contextmanager
def told_apart() -> Iterator[None]:
    """Failures of a GPU are the world's, not the program's: they raise `DeviceLost`, which is worth another try."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error).partition("\n")[0]) from error
