"""The same sums and maps on a GPU, by torch, where there is one (`SITEDRIFT_DEVICE=cpu` leaves it alone).

Nothing here imports torch on a machine without one: that takes two seconds. The order of operations is that of the
other ways, but a GPU may fuse a product with a sum, so results agree with them to rounding and not to the bit.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Voxels
from platform_core.settings import Environment

Floats = npt.NDArray[np.float32]
AxisTaps = tuple[int, npt.NDArray[np.uint64], Floats]
"""Axis, index and weight (k, n)."""
DRIVER = Path("/dev/nvidiactl")
"""There where NVIDIA's driver runs."""
PIECE_VOXELS = 2**25
"""Voxels on the device at a time where each is mapped alone."""


@cache
def is_wanted() -> bool:
    """Whether this machine has a GPU and was not told to leave it alone."""
    device = Environment().device
    if device == "cpu" or (device == "auto" and not DRIVER.exists()):
        return False
    import torch

    return torch.cuda.is_available()


def weigh(voxels: Voxels, along: Sequence[AxisTaps], *, device: str) -> Floats:
    """Apply taps to an array (z, y, x), one axis after the other as given; float32."""
    import torch

    kind = np.int16 if voxels.dtype == np.int16 else np.float32
    values = torch.from_numpy(np.array(voxels, dtype=kind)).to(device).float()
    for axis, index, weight in along:
        shape = [-1 if a == axis else 1 for a in range(3)]
        total: Any = None
        for rows, weights in zip(index.astype(np.int64), weight, strict=True):
            part = values.index_select(axis, torch.from_numpy(rows).to(device))
            part *= torch.from_numpy(weights.reshape(shape)).to(device)
            total = part if total is None else total.add_(part)
        values = total
    out: Floats = values.cpu().numpy()
    return out


def add_segments(
    values: Voxels, start: Floats, low: Floats, high: Floats, slope: Floats, base: float, *, device: str
) -> Floats:
    """`base` plus, for each segment, how far a value has come along it times its slope; same axes, float32."""
    import torch

    flat, out = values.reshape(-1), np.empty(values.size, dtype=np.float32)
    segments = list(zip(start.tolist(), low.tolist(), high.tolist(), slope.tolist(), strict=True))
    for at in range(0, values.size, PIECE_VOXELS):
        piece = torch.from_numpy(flat[at : at + PIECE_VOXELS].astype(np.float32)).to(device)
        total = torch.full_like(piece, base)
        for first, least, most, steep in segments:
            total += (piece - first).clamp_(least, most).mul_(steep)
        out[at : at + PIECE_VOXELS] = total.cpu().numpy()
    return out.reshape(values.shape)
