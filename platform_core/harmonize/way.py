"""How a scan of the reference becomes one of the site: where in the two recipes it is transported.

No harmonizer: it leads from the reference to the site, and only scans of the reference go this way.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from platform_core.errors import UnreadableScan
from platform_core.harmonize.band_gain import BAND_GAIN, BandGain
from platform_core.harmonize.contract import nothing_to_learn
from platform_core.harmonize.recipe import FittedRecipe, FittedStep, apply_recipe
from platform_core.harmonize.resample import Resample, resample
from platform_core.harmonize.transport import Transport, fewer_slices, learn_end, learn_transport, transport_volume
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Volume

CT_BODY_HU = -500.0
OTHER_GRID = 1.1
"""Ratio of spacings along an axis from which on the reference is brought to the site's spacing."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """The same recipe as either side fitted it, cut where the reference is transported.

    Noise is made on the grid of the scanner, and what a recipe does to a grid it must do to noise too. So a scan is
    transported on its own grid: after the maps of intensities, which lead either side to one scale and hardly mind the
    grid, and before all else, gains that were learned on the site's blur and noise included.
    """

    ours: FittedRecipe
    """As fitted to the site."""
    there: FittedRecipe
    """As fitted to the reference."""
    modality: str

    @property
    def place(self) -> int:
        """How many steps there are up to the last one that learns a map of intensities."""
        maps = [
            n
            for n, one in enumerate(self.ours.steps, start=1)
            if one.step.harmonizer.fit is not nothing_to_learn and one.step.harmonizer is not BAND_GAIN
        ]
        return max(maps, default=0)

    @property
    def maps_here(self) -> FittedRecipe:
        """What the site's scans go through before their spectra are learned."""
        return FittedRecipe(tuple(one for one in self.ours.steps[: self.place] if not _moves_grid(one)))

    @property
    def maps_there(self) -> FittedRecipe:
        """What the reference's scans go through before they are transported."""
        return FittedRecipe(tuple(one for one in self.there.steps[: self.place] if not _moves_grid(one)))

    @property
    def rest(self) -> FittedRecipe:
        """What they go through after it, the site's way."""
        grids = tuple(one for one in self.ours.steps[: self.place] if _moves_grid(one))
        return FittedRecipe((*grids, *self.ours.steps[self.place :]))

    @property
    def settings(self) -> BandGain:
        """What is foreground when spectra are learned: as the recipe says, else what suits the modality."""
        of_recipe = [one.step.settings for one in self.ours.steps if one.step.harmonizer is BAND_GAIN]
        own = BandGain(foreground_above=CT_BODY_HU if self.modality == "CT" else None)
        return next(iter(of_recipe), own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From a native scan of the reference to what the site's recipe would leave of the site's scan of that patient."""

    recipes: Recipes
    spacing_mm: Spacing
    """Of the site's scans, (x, y, z): their median."""
    transport: Transport

    def show(self, volume: Volume, *, seed: int) -> Volume:
        """Show one scan as the site would have it.

        Raises:
            UnreadableScan: With its reason, if a step cannot give a volume.
        """
        placed = _placed(volume, self.spacing_mm, self.recipes.maps_there)
        made = apply_recipe(self.recipes.rest, transport_volume(placed, self.transport, seed=seed)).volume
        check_usable(made)
        return made


def learn_way(recipes: Recipes, reference: Iterable[Volume], site: Iterable[Volume]) -> Way | None:
    """Tell the difference of two scanners from native volumes of either, of different patients.

    Args:
        recipes: Of both sides.
        reference: Some of its scans, one at a time; forty tell noise to a few hundredths.
        site: Some of the site's.

    Returns:
        None if it cannot be told.
    """
    here = _all_placed(site, None, recipes.maps_here)
    known = [volume.geometry.spacing_mm for volume in here if volume.geometry is not None]
    if not known:
        return None
    x_mm, y_mm, z_mm = (float(mm) for mm in np.median(known, axis=0))
    there = _all_placed(reference, (x_mm, y_mm, z_mm), recipes.maps_there)
    transport = learn_transport(recipes.settings, there, learn_end(recipes.settings, here))
    return None if transport is None else Way(recipes=recipes, spacing_mm=(x_mm, y_mm, z_mm), transport=transport)


def _moves_grid(one: FittedStep) -> bool:
    return one.step.harmonizer.changes_grid


def _all_placed(volumes: Iterable[Volume], spacing_mm: Spacing | None, maps: FittedRecipe) -> list[Volume]:
    """Those that can be placed, a few slices of each, so that memory does not follow the length of stacks."""
    placed = []
    for volume in volumes:
        try:
            placed.append(fewer_slices(_placed(volume, spacing_mm, maps)))
        except UnreadableScan:
            continue
    return placed


def _placed(volume: Volume, spacing_mm: Spacing | None, maps: FittedRecipe) -> Volume:
    """On the site's grid, if that is another one, and on the common scale of intensities."""
    check_usable(volume)
    if volume.geometry is None:
        raise UnreadableScan("needs_spacing", "nothing in mm can be said of a plain image")
    return apply_recipe(maps, volume if spacing_mm is None else _regridded(volume, spacing_mm)).volume


def _regridded(volume: Volume, spacing_mm: Spacing) -> Volume:
    """As a scanner makes another grid: pixels are samples, slices are averages, and the noise of these falls."""
    assert volume.geometry is not None, "plain images are refused before"
    own = volume.geometry.spacing_mm
    x, y, z = (
        there if max(here / there, there / here) > OTHER_GRID else here
        for here, there in zip(own, spacing_mm, strict=True)
    )
    if (x, y) != own[:2]:
        volume = resample(volume, Resample(spacing_mm=(x, y, own[2]), interpolation="bspline", antialias=False), {})
    if z < own[2]:
        return resample(volume, Resample(spacing_mm=(x, y, z)), {})
    return volume if z == own[2] else _thicker(volume, z)


def _thicker(volume: Volume, z_mm: float) -> Volume:
    """Slices of another thickness about the same centre, each the mean of what it covers of the old ones.

    Interpolation between old slices would blur on top of that, as no scanner does.
    """
    assert volume.geometry is not None, "plain images are refused before"
    x, y, own = volume.geometry.spacing_mm
    n = len(volume.voxels)
    n_new = max(1, round(n * own / z_mm))
    edges = (n * own - n_new * z_mm) / 2 + z_mm * np.arange(n_new + 1)
    ends = own * np.arange(n + 1)
    covered = np.minimum(edges[1:, None], ends[1:]) - np.maximum(edges[:-1, None], ends[:-1])
    weights = np.maximum(covered, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    voxels = np.tensordot(weights, volume.voxels.astype(np.float32), axes=1).astype(np.float32)
    first = (edges[0] + z_mm / 2) / own - 0.5
    a, b, c = (float(mm) for mm in (volume.geometry.affine @ np.array([0, 0, first, 1.0]))[:3])
    geometry = replace(volume.geometry, spacing_mm=(x, y, z_mm), origin_mm=(a, b, c))
    return Volume(voxels, geometry)
