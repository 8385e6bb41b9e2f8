"""Bring every volume's axes into one order: x to the left, y to the back, z to the head, as near as its grid allows."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.volume import Geometry, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Orient:
    """No parameters: there is one canonical order."""


def orient(volume: Volume, settings: Orient, learned: Learned) -> Volume:  # noqa: ARG001
    """Swap and flip axes until index x grows towards the patient's left, y the back, z the head (LPS).

    No voxel changes its value or its place in the patient: an oblique grid stays oblique, within 45 degrees
    of the canonical axes. A left-handed grid becomes right-handed. Each grid axis is given the patient axis that
    it is nearest to, the clearest first.

    Args:
        volume: Still volume (z, y, x) with geometry; image or label map.
        settings: None.
        learned: Not used.

    Returns:
        float32 volume in the units of the input.
    """
    turned = _reordered(volume)
    return replace(turned, voxels=turned.voxels.astype(np.float32, copy=False))


def orient_label(label: Volume, settings: Orient, learned: Learned) -> Volume:  # noqa: ARG001
    """The same order for a label map, its type kept."""
    return _reordered(label)


def _reordered(volume: Volume) -> Volume:
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
    return Volume(np.array(voxels, order="C"), Geometry((x, y, z), (a, b, c), turned))


def nearest_axes(axes: npt.NDArray[np.float64]) -> list[int]:
    """For each patient axis x, y, z the grid axis that follows it; `axes` holds grid axes as columns."""
    left = np.abs(axes)
    order = [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(np.argmax(left), left.shape)
        order[int(row)] = int(column)
        left[row, :] = -1
        left[:, column] = -1
    return order


ORIENT = Harmonizer(name="orient", settings=Orient, apply=orient, move_label=orient_label, needs_spacing=True)
