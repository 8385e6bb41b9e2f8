"""Grid axes and patient axes (x to the left, y to the back, z to the head)."""

import numpy as np
import numpy.typing as npt

from platform_core.imaging.volume import Geometry, Volume

ALONG = 1e-3
"""Largest component of a grid axis off its patient axis (0.06 degrees) that still counts as along it."""


def put_in_order(volume: Volume, kind: type[np.generic] | None = None) -> Volume:
    """Swap and flip axes until each index grows along the patient axis that its axis is nearest to.

    Voxels keep their values and their place in the patient, and their type unless another `kind` is asked for; a new,
    contiguous array.
    """
    assert volume.geometry is not None, "the recipe skips volumes without geometry"
    axes = np.reshape(volume.geometry.direction, (3, 3))
    order = nearest_axes(axes)
    flips = [axes[row, column] < 0 for row, column in enumerate(order)]
    start = [n - 1 if flip else 0 for n, flip in zip([volume.size[k] for k in order], flips, strict=True)]
    signs = np.where(flips, -1.0, 1.0)
    first = np.zeros(3)
    first[order] = start
    origin = volume.geometry.affine @ np.append(first, 1.0)
    voxels = volume.voxels.transpose([2 - k for k in reversed(order)])
    voxels = voxels[tuple(slice(None, None, -1) if flip else slice(None) for flip in reversed(flips))]
    x, y, z = (float(volume.geometry.spacing_mm[k]) for k in order)
    a, b, c = (float(v) for v in origin[:3])
    turned = tuple(float(v) for v in (axes[:, order] * signs).ravel())
    return Volume(np.array(voxels, dtype=kind, order="C"), Geometry((x, y, z), (a, b, c), turned))


def nearest_axes(axes: npt.NDArray[np.float64]) -> list[int]:
    """For each patient axis x, y, z the nearest grid axis, the clearest first; `axes` holds grid axes as columns."""
    left = np.abs(axes)
    order = [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(np.argmax(left), left.shape)
        order[int(row)] = int(column)
        left[row, :] = -1
        left[:, column] = -1
    return order


def is_oblique(geometry: Geometry) -> bool:
    """Whether some grid axis lies along no patient axis."""
    off = np.sort(np.abs(np.reshape(geometry.direction, (3, 3))), axis=0)[:2]
    return bool(off.max() > ALONG)
