"""Inner loops in numba's part of Python: plain arrays in, plain arrays filled.

Signatures are stated, so that all compiling happens at import. Indices are unsigned: numba then leaves out
the test for negative ones, which would keep the loops from using the processor's vectors.
"""

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.core.types import Array, float32, int16, uint64, void

Voxels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint64]


def _read(kind: Any, n_axes: int) -> Any:
    """An array that is only read, whether it may be written or not."""
    return Array(kind, n_axes, "C", readonly=True)


KINDS = (int16, float32)
"""Voxel types that are read as they are."""
BLOCK = 2048
"""Values worked on at a time, so that they stay in the fastest cache."""
TAPS = (_read(uint64, 2), _read(float32, 2))
RESAMPLE = [void(_read(kind, 3), *TAPS, *TAPS, *TAPS, float32[:, :, ::1]) for kind in KINDS]
PIECEWISE = [void(*[_read(float32, 1)] * 5, float32, float32[::1])]

UNUSABLE_CACHE = (RuntimeError, OSError, EOFError, UnpicklingError)
"""Of numba: no folder that it may write to, a full disk, a file cut short."""


def compiled(signatures: list[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile at once, kept on disk where there is a folder for it, with all that the function calls."""

    def compile_(function: Callable[..., None]) -> Callable[..., None]:
        try:
            made: Callable[..., None] = njit(signatures, nogil=True, error_model="numpy", cache=True)(function)
        except UNUSABLE_CACHE:
            made = njit(signatures, nogil=True, error_model="numpy")(function)
        return made

    return compile_


@njit(nogil=True, error_model="numpy")
def add_lines(lines: Voxels, index: Indices, weight: Floats, i: int, out: Floats) -> None:
    """`out` becomes the sum over k of `weight[k, i]` times line `index[k, i]`."""
    line, w = lines[index[0, i]], weight[0, i]
    if len(index) == 1:
        for x in range(out.size):
            out[x] = np.float32(line[x]) * w
        return
    other, v = lines[index[1, i]], weight[1, i]
    for x in range(out.size):
        out[x] = np.float32(line[x]) * w + np.float32(other[x]) * v
    for k in range(2, len(index)):
        line, w = lines[index[k, i]], weight[k, i]
        for x in range(out.size):
            out[x] += np.float32(line[x]) * w


@njit(nogil=True, error_model="numpy")
def gather(line: Floats, index: Indices, weight: Floats, out: Floats) -> None:
    """`out[i]` becomes the sum over k of `weight[k, i]` times `line[index[k, i]]`."""
    if len(index) == 1:
        for i in range(out.size):
            out[i] = line[index[0, i]] * weight[0, i]
        return
    for i in range(out.size):
        out[i] = line[index[0, i]] * weight[0, i] + line[index[1, i]] * weight[1, i]
    for k in range(2, len(index)):
        for i in range(out.size):
            out[i] += line[index[k, i]] * weight[k, i]


@njit(nogil=True, error_model="numpy")
def resample_plane(plane: Voxels, iy: Indices, wy: Floats, ix: Indices, wx: Floats, line: Floats, out: Floats) -> None:
    """Along y, then x; `line` is room for one line of `plane`."""
    for j in range(len(out)):
        add_lines(plane, iy, wy, j, line)
        gather(line, ix, wx, out[j])


@compiled(RESAMPLE)
def planes_then_z(
    voxels: Voxels, iz: Indices, wz: Floats, iy: Indices, wy: Floats, ix: Indices, wx: Floats, out: Floats
) -> None:
    """Resample each plane once and keep as many as one output plane needs; those are neighbours."""
    n, size = len(iz), out.shape[1] * out.shape[2]
    kept, held = np.empty((n, size), np.float32), np.full(n, -1, np.int64)
    line, slot = np.empty(voxels.shape[2], np.float32), np.empty((n, 1), np.uint64)
    for i in range(len(out)):
        for k in range(n):
            z = np.int64(iz[k, i])
            slot[k, 0] = z % n
            if held[z % n] != z:
                resample_plane(voxels[z], iy, wy, ix, wx, line, kept[z % n].reshape(out.shape[1:]))
                held[z % n] = z
        add_lines(kept, slot, wz[:, i : i + 1], 0, out[i].reshape(size))


@compiled(RESAMPLE)
def z_then_planes(
    voxels: Voxels, iz: Indices, wz: Floats, iy: Indices, wy: Floats, ix: Indices, wx: Floats, out: Floats
) -> None:
    """Make each output plane from whole input planes, then resample it."""
    size = voxels.shape[1] * voxels.shape[2]
    flat, plane = voxels.reshape(len(voxels), size), np.empty(size, np.float32)
    line = np.empty(voxels.shape[2], np.float32)
    for i in range(len(out)):
        add_lines(flat, iz, wz, i, plane)
        resample_plane(plane.reshape(voxels.shape[1:]), iy, wy, ix, wx, line, out[i])


@compiled(PIECEWISE)
def add_segments(
    values: Floats, start: Floats, low: Floats, high: Floats, slope: Floats, base: float, out: Floats
) -> None:
    """`base` plus, for each segment, how far a value has come along it times its slope; block by block."""
    for at in range(0, out.size, BLOCK):
        block, to = values[at : at + BLOCK], out[at : at + BLOCK]
        to[:] = base
        for k in range(start.size):
            first, least, most, steep = start[k], low[k], high[k], slope[k]
            for i in range(to.size):
                way = block[i] - first
                way = way if way > least else least  # noqa: FURB136 - numba turns min and max into branches
                way = way if way < most else most  # noqa: FURB136
                to[i] += way * steep
