"""Volumes of a recipe as the arrays that networks see, with their labels and weights.

Loaded once and kept in memory: a thousand volumes of 16 x 48 x 48 are 150 MB.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from platform_core import layout
from platform_core.errors import BadRequest, UnreadableScan
from platform_core.imaging.volume import Volume
from platform_core.learn.persons import find_persons, is_in_part, person_of
from platform_core.manifest.labels import read_labels
from platform_core.manifest.masks import masks_in_force
from platform_core.manifest.serving import current_serving
from platform_core.manifest.splits import Part
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.settings import TargetSettings

Array = npt.NDArray[np.float32]
Kind = TypeVar("Kind", bound=np.generic)

HEAVIEST = 10.0
"""Most that a scan of a rare class counts; beyond it a handful of scans would steer every step."""
PROJECTIONS = frozenset({"CR", "DX", "RG"})
"""Modalities of plain radiographs: the same picture under three names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a volume becomes what a network sees; it travels with the weights."""

    grid: tuple[int, ...]
    """Voxels, (z, y, x) or (y, x)."""
    window: tuple[float, float] | None
    """Intensities that become 0 and 1; None: each scan is brought to mean 0 and standard deviation 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One series that a recipe has made a volume of."""

    site: str
    series_key: str
    revision: int
    patient_key: str
    patient_known: bool
    modality: str | None
    observed_on: date
    volume_uri: str
    y: int | None = None
    """1 for the positive class, 0 for the negative; None without a label."""
    recipe: str = layout.NATIVE
    """That made the volume."""
    mask_uri: str | None = None
    """Of a segmentation: the mask in force, on the grid of the series as it came."""


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """What readers drew, on the grid of the network."""

    voxels: npt.NDArray[np.uint8]
    """(n, 1, z, y, x) or (n, 1, y, x), 1 where the positive class is."""
    n_outside: npt.NDArray[np.int64]
    """(n,), voxels of it that lie outside the grid, where the network cannot find them."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """Scans with their arrays, and those that could not be used with the reason."""

    scans: tuple[Scan, ...]
    arrays: Array
    """(n, 1, z, y, x) or (n, 1, y, x)."""
    refused: dict[str, str]
    """series_key to a short stable code."""
    masks: Masks | None = None
    """Of a segmentation, where they were asked for: one per scan."""


def source_recipe(workspace: Workspace, target: str) -> str:
    """The recipe that the source site is served by, else the one it was last fitted with.

    Raises:
        BadRequest: If the target has a recipe that was never fitted at the source site.
    """
    settings = workspace.target(target)
    serving = current_serving(workspace, settings.source_site, target)
    if serving is not None:
        return serving.recipe
    rows = workspace.lake.read(layout.RECIPE).to_pylist()
    mine = [row for row in rows if (row["site"], row["target"]) == (settings.source_site, target)]
    if mine:
        return str(max(mine, key=lambda row: row["created_at"])["recipe"])
    if settings.recipe:
        raise BadRequest(f"{settings.source_site}: the recipe of {target} was never fitted; `sitedrift train` does it")
    return layout.NATIVE


def framing_of(target: TargetSettings) -> Framing:
    """The grid of the target, and the window of the last `clip_intensity` step of its recipe."""
    clips = [step.params for step in target.recipe if step.harmonizer == "clip_intensity"]
    window = (float(clips[-1]["low"]), float(clips[-1]["high"])) if clips else None
    return Framing(grid=target.grid, window=window)


def frame(volume: Volume, framing: Framing) -> Array:
    """Bring one volume to the grid and range of the network.

    A volume is cropped or padded about its centre, since its spacing is the recipe's; an
    image is resized, since a plain image has no spacing that a crop could keep.

    Returns:
        float32, (z, y, x) or (y, x).

    Raises:
        UnreadableScan: If the volume has not the dimensions of the grid, or a voxel is not finite.
    """
    voxels = np.asarray(volume.first().voxels, dtype=np.float32)
    is_plane = len(voxels) == 1
    if is_plane != (len(framing.grid) == 2):
        detail = f"the network takes {len(framing.grid)} dimensions, the volume has {len(voxels)} slices"
        raise UnreadableScan("wrong_dimensions", detail)
    if not np.isfinite(voxels).all():
        raise UnreadableScan("not_finite", "a voxel is NaN or infinite")
    scaled = _scale(voxels, framing.window)
    return _resize(scaled[0], framing.grid) if is_plane else crop_or_pad(scaled, framing.grid, float(scaled.min()))


def crop_or_pad(voxels: npt.NDArray[Kind], grid: Sequence[int], fill: float) -> npt.NDArray[Kind]:
    """About the centre, (z, y, x); what is missing is filled."""
    out = np.full(tuple(grid), fill, dtype=voxels.dtype)
    kept: list[Any] = []
    placed: list[Any] = []
    for n_have, n_want in zip(voxels.shape, grid, strict=True):
        n = min(n_have, n_want)
        kept.append(slice((n_have - n) // 2, (n_have - n) // 2 + n))
        placed.append(slice((n_want - n) // 2, (n_want - n) // 2 + n))
    out[tuple(placed)] = voxels[tuple(kept)]
    return out


def find_scans(
    workspace: Workspace, target: str, site: str, recipe: str, *, keys: Sequence[str] | None = None
) -> list[Scan]:
    """Scans of a site by a recipe, with the labels in force, in key order; `keys` narrows them."""
    tables = [layout.SERIES, layout.STAGE, layout.VOLUME]
    with workspace.lake.connect(tables) as db:
        rows = load(__package__, "volumes_by_recipe").run(db, site=site, recipe=recipe).to_pylist()
    y = read_labels(workspace, target, site)
    is_masked = workspace.target(target).task == "segmentation"
    masks = masks_in_force(workspace, target, site) if is_masked else {}
    wanted = None if keys is None else set(keys)
    return [
        Scan(site=site, y=y.get(key), recipe=recipe, mask_uri=masks.get(key), **row)
        for key, row in ((row["series_key"], row) for row in rows)
        if wanted is None or key in wanted
    ]


def in_part(workspace: Workspace, scans: Sequence[Scan], part: Part) -> list[Scan]:
    """Those of the scans whose patient belongs to the part, and nobody to a later one who has the same images.

    A person with several patient keys gets the least of them, so that folds do not divide one either.
    """
    persons, split = find_persons(workspace), workspace.settings.split
    found = ((scan, person_of(scan.patient_key, persons)) for scan in scans)
    return [
        replace(scan, patient_key=min(person))
        for scan, person in found
        if is_in_part(person, scan.patient_key, part, split)
    ]


def load_scans(workspace: Workspace, scans: Sequence[Scan], target: TargetSettings, framing: Framing) -> Loaded:
    """Read and frame every scan; one that cannot be used is refused with a reason, the others go on."""
    arrays: list[Array] = []
    usable: list[Scan] = []
    refused: dict[str, str] = {}
    for scan in scans:
        try:
            arrays.append(frame(read_scan(workspace, scan, target), framing))
            usable.append(scan)
        except UnreadableScan as error:
            refused[scan.series_key] = error.reason
    stack = np.stack(arrays) if arrays else np.empty((0, *framing.grid), dtype=np.float32)
    return Loaded(tuple(usable), stack[:, np.newaxis], refused)


def even_weights(scans: Sequence[Scan]) -> Array:
    """What each labelled scan counts, (n,): at every site its two classes weigh the same.

    So class imbalance does not bias the loss, the logit estimates a log likelihood ratio at
    even odds, and nothing is gained by reading a site's prevalence off its scanner.
    """
    n_site = Counter(scan.site for scan in scans)
    n_class = Counter((scan.site, scan.y) for scan in scans)
    weights = [n_site[scan.site] / (2 * n_class[scan.site, scan.y]) for scan in scans]
    return np.minimum(np.asarray(weights, dtype=np.float32), HEAVIEST)


def read_scan(workspace: Workspace, scan: Scan, target: TargetSettings) -> Volume:
    """The volume of a scan.

    Raises:
        UnreadableScan: If it is of another modality than the target, missing, or damaged.
    """
    if not _same_modality(scan.modality, target.modality):
        raise UnreadableScan("other_modality", f"the target is {target.modality}, the scan {scan.modality}")
    try:
        return workspace.read_volume(scan.volume_uri)
    except FileNotFoundError as error:
        raise UnreadableScan("volume_missing", scan.volume_uri) from error


def _same_modality(a: str | None, b: str) -> bool:
    return a == b or {a, b} <= PROJECTIONS


def _scale(voxels: Array, window: tuple[float, float] | None) -> Array:
    if window is None:
        spread = float(voxels.std()) or 1.0
        return np.asarray((voxels - voxels.mean()) / spread, dtype=np.float32)
    low, high = window
    return np.asarray(np.clip((voxels - low) / (high - low), 0, 1), dtype=np.float32)


def _resize(plane: Array, grid: Sequence[int]) -> Array:
    """Bilinear with antialiasing, (y, x)."""
    import torch
    from torch.nn import functional

    image = torch.from_numpy(np.ascontiguousarray(plane))[None, None]
    resized = functional.interpolate(image, size=tuple(grid), mode="bilinear", antialias=True)
    return np.asarray(resized[0, 0].numpy(), dtype=np.float32)
