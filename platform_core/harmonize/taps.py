"""Weighted sums along the axes of a grid: what all resampling between parallel grids comes down to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from platform_core.harmonize import cuda
from platform_core.harmonize.compiled import compiled_loops
from platform_core.imaging.volume import Voxels

Interpolation = Literal["linear", "bspline"]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SHRINK_FROM = 1.2
"""Output over input spacing from which voxels are averaged; below it at most the top sixth of frequencies can alias."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Output voxel i of one axis is the sum over k of `weight[k, i] * input[index[k, i]]`.

    The indices of one output voxel are neighbours: no two are further apart than there are taps.
    """

    index: npt.NDArray[np.uint64]
    weight: Floats

    @property
    def n_out(self) -> int:
        """Voxels along the axis of the result."""
        return int(self.index.shape[1])

    @property
    def moves(self) -> bool:
        """Whether anything is done at all."""
        return len(self.index) > 1


def untouched(n: int) -> Taps:
    """An axis that stays as it is."""
    return Taps(np.arange(n, dtype=np.uint64)[None], np.ones((1, n), np.float32))


def taps(n_old: int, n_new: int, factor: float, interpolation: Interpolation, *, antialias: bool) -> Taps:
    """Weights of one axis whose centre stays where it is.

    Where the axis shrinks by 1.2 or more and `antialias` is set, a weight is the integral of the interpolating
    function over the output voxel, so that the result is the average of the interpolated line; else
    the function at the voxel's centre. For `bspline` the input must be coefficients, not voxels.

    Args:
        n_old: Voxels along the input.
        n_new: Voxels along the output.
        factor: Output over input spacing.
        interpolation: Linear: beyond the outermost voxel centres the edge is repeated. Cubic B-spline: mirrored.
        antialias: See above.
    """
    reach, value, until = (1, _tent, _tent_until) if interpolation == "linear" else (2, _spline, _spline_until)
    centres = (n_old - 1) / 2 + (np.arange(n_new) - (n_new - 1) / 2) * factor
    half = factor / 2 if antialias and factor >= SHRINK_FROM else 0.0
    first = np.floor(centres - half) - (reach - 1)
    index = first + np.arange(2 * reach + (int(np.ceil(factor)) if half else 0))[:, None]
    away = centres - index
    weight = until(away + half) - until(away - half) if half else value(away)
    weight /= weight.sum(axis=0)
    index = np.clip(index, 0, n_old - 1) if interpolation == "linear" else _mirrored(index, n_old)
    return Taps(index.astype(np.uint64), weight.astype(np.float32))


def _tent(u: Doubles) -> Doubles:
    """By how much linear interpolation at a distance of `u` voxels counts a voxel."""
    weight: Doubles = np.maximum(1 - np.abs(u), 0)
    return weight


def _tent_until(u: Doubles) -> Doubles:
    """Integral of the tent up to `u`."""
    u = np.clip(u, -1, 1)
    half = (1 - np.abs(u)) ** 2 / 2
    return np.where(u < 0, half, 1 - half)


def _spline(u: Doubles) -> Doubles:
    """The cubic B-spline. Source: Unser 1999, IEEE Signal Process. Mag. 16(6):22-38, doi:10.1109/79.799930."""
    u = np.abs(u)
    return np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.maximum(2 - u, 0) ** 3 / 6)


def _spline_until(u: Doubles) -> Doubles:
    """Integral of the cubic B-spline up to `u`."""
    a = np.minimum(np.abs(u), 2)
    beyond = np.where(a < 1, 1 / 2 - (2 * a / 3 - a**3 / 3 + a**4 / 8), (2 - a) ** 4 / 24)
    return np.where(u < 0, beyond, 1 - beyond)


def _mirrored(index: Doubles, n: int) -> Doubles:
    """Indices reflected about the centres of the first and the last voxel."""
    place = np.mod(index, 2 * (n - 1))
    reflected: Doubles = np.minimum(place, 2 * (n - 1) - place)
    return reflected


def spline_coefficients(voxels: Voxels, axes: Sequence[int]) -> Floats:
    """What the taps of a B-spline weigh so that it passes through the voxels; `axes` of the array, edges mirrored."""
    from scipy.ndimage import spline_filter1d

    values: Floats = voxels.astype(np.float32)
    for axis in axes:
        values = spline_filter1d(values, order=3, axis=axis, output=np.float32, mode="mirror")
    return values


def weigh(voxels: Voxels, along: tuple[Taps, Taps, Taps]) -> Floats:
    """Apply taps along (x, y, z) to an array (z, y, x); float32.

    An axis z that grows comes last, else first: whatever leaves fewer voxels to the axes after it.
    The same bits whether compiled or not; on a GPU to within 1e-6 of the largest magnitude.
    """
    if not any(axis.moves for axis in along):
        return voxels.astype(np.float32)
    x, y, z = along
    planes_first = z.n_out > len(voxels)
    if cuda.is_wanted():
        order = ((1, y), (2, x), (0, z)) if planes_first else ((0, z), (1, y), (2, x))
        return cuda.weigh(voxels, [(axis, t.index, t.weight) for axis, t in order if t.moves], device="cuda")
    compiled = compiled_loops()
    if compiled is None:
        return _by_numpy(voxels, x, y, z, planes_first=planes_first)
    out = np.empty((z.n_out, y.n_out, x.n_out), dtype=np.float32)
    run = compiled.planes_then_z if planes_first else compiled.z_then_planes
    kind = voxels.dtype if voxels.dtype in (np.int16, np.float32) else np.float32
    run(np.require(voxels, kind, ["C", "A"]), z.index, z.weight, y.index, y.weight, x.index, x.weight, out)
    return out


def _by_numpy(voxels: Voxels, x: Taps, y: Taps, z: Taps, *, planes_first: bool) -> Floats:
    """A plane at a time, in arrays that are used again: what is worked on stays in the processor's cache."""
    n_y, n_x = voxels.shape[1:]
    out = np.empty((z.n_out, y.n_out, x.n_out), dtype=np.float32)
    lines, half = np.empty((2, y.n_out, n_x), np.float32), np.empty((2, y.n_out, x.n_out), np.float32)

    def weigh_plane(plane: Voxels, to: Floats) -> Floats:
        _gather(plane.astype(np.float32, copy=False), y, 0, lines[0], lines[1])
        return _gather(lines[0], x, 1, to, half[0])

    if not planes_first:
        whole = np.empty((2, n_y, n_x), np.float32)
        for plane, indices, weights in zip(out, z.index.T, z.weight.T, strict=True):
            weigh_plane(_sum([voxels[i] for i in indices], weights, whole[0], whole[1]), plane)
        return out
    room = np.empty((len(z.index), *half[0].shape), np.float32)
    held: dict[int, int] = {}
    for plane, indices, weights in zip(out, z.index.T.tolist(), z.weight.T, strict=True):
        for i in indices:
            if held.get(i % len(room)) != i:
                weigh_plane(voxels[i], room[i % len(room)])
                held[i % len(room)] = i
        _sum([room[i % len(room)] for i in indices], weights, plane, half[1])
    return out


def _sum(planes: Sequence[Voxels], weights: Floats, out: Floats, part: Floats) -> Floats:
    np.multiply(planes[0], weights[0], out=out, dtype=np.float32)
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        out += np.multiply(plane, weight, out=part, dtype=np.float32)
    return out


def _gather(plane: Floats, along: Taps, axis: int, out: Floats, part: Floats) -> Floats:
    weights = along.weight if axis else along.weight[:, :, None]
    for k, (row, weight) in enumerate(zip(along.index.astype(np.intp), weights, strict=True)):
        taken = np.take(plane, row, axis=axis, out=part if k else out, mode="clip")
        taken *= weight
        if k:
            out += taken
    return out
