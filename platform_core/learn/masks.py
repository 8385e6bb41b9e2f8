"""Masks on the grid that a network sees: they go the way of their image, through the recipe and the framing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from platform_core.errors import GeometryMismatch, UnreadableScan
from platform_core.harmonize.recipe import FittedRecipe, move_label
from platform_core.harmonize.stage import load_recipe
from platform_core.imaging.lattice import onto_grid
from platform_core.imaging.volume import Volume
from platform_core.learn.data import Array, Framing, Loaded, Masks, Scan, crop_or_pad, frame, load_scans, read_scan
from platform_core.manifest.workspace import Workspace
from platform_core.settings import TargetSettings

Marks = npt.NDArray[np.uint8]


def load_labelled(workspace: Workspace, scans: Sequence[Scan], target: TargetSettings, framing: Framing) -> Loaded:
    """As `load_scans`; of a segmentation with the masks, and without scans whose mask cannot be used.

    Refused besides: `no_mask`, `mask_missing`, `mask_other_grid` (the series was sent again with other slices).
    """
    if target.task == "classification":
        return load_scans(workspace, scans, target, framing)
    recipes = {name: load_recipe(workspace, name) for name in {scan.recipe for scan in scans}}
    arrays: list[Array] = []
    marks: list[tuple[Marks, int]] = []
    usable: list[Scan] = []
    refused: dict[str, str] = {}
    for scan in scans:
        try:
            volume = read_scan(workspace, scan, target)
            array = frame(volume, framing)
            marks.append(frame_mask(_moved(workspace, scan, volume, recipes[scan.recipe]), framing))
        except UnreadableScan as error:
            refused[scan.series_key] = error.reason
        else:
            arrays.append(array)
            usable.append(scan)
    empty = np.empty((0, *framing.grid))
    masks = Masks(
        voxels=(np.stack([voxels for voxels, _ in marks]) if marks else empty.astype(np.uint8))[:, np.newaxis],
        n_outside=np.array([n for _, n in marks], dtype=np.int64),
    )
    stack = np.stack(arrays) if arrays else empty.astype(np.float32)
    return replace(Loaded(tuple(usable), stack[:, np.newaxis], refused), masks=masks)


def frame_mask(mask: Volume, framing: Framing) -> tuple[Marks, int]:
    """A mask as `frame` does with its image, (z, y, x) or (y, x), and its voxels that lie outside the grid.

    A volume is cropped or padded with background; of a plane each voxel takes the nearest one's mark.
    """
    voxels = np.asarray(mask.first().voxels != 0, dtype=np.uint8)
    if len(framing.grid) == 2:
        return _nearest(voxels[0], framing.grid), 0
    framed = crop_or_pad(voxels, framing.grid, 0)
    return framed, int(voxels.sum()) - int(framed.sum())


def _moved(workspace: Workspace, scan: Scan, volume: Volume, recipe: FittedRecipe) -> Volume:
    """The scan's mask on the grid of its harmonized volume."""
    if scan.mask_uri is None:
        raise UnreadableScan("no_mask", "nobody has drawn on this scan")
    try:
        mask = move_label(recipe, workspace.read_volume(scan.mask_uri))
    except FileNotFoundError as error:
        raise UnreadableScan("mask_missing", scan.mask_uri) from error
    try:
        return onto_grid(mask, volume)
    except GeometryMismatch as error:
        raise UnreadableScan("mask_other_grid", str(error)) from error


def _nearest(plane: Marks, grid: Sequence[int]) -> Marks:
    """(y, x): each voxel of the new grid takes the mark of the old one that its centre lies in."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.intp), old - 1)
        for old, new in zip(plane.shape, grid, strict=True)
    )
    return plane[np.ix_(rows, columns)]
