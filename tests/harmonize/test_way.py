"""Where in a recipe the reference is transported, and onto which grid."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from platform_core.errors import UnreadableScan
from platform_core.harmonize.recipe import FittedRecipe, fit_recipe, parse_recipe
from platform_core.harmonize.way import Recipes, Way, learn_way
from platform_core.imaging.volume import Volume
from platform_core.phantom.acquire import Acquisition, acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.settings import StepSettings

RESAMPLE: dict[str, Any] = {"harmonizer": "resample", "spacing_mm": [1.0, 1.0, 5.0]}
MATCH: dict[str, Any] = {"harmonizer": "histogram_match", "foreground_above": -500.0}
BANDS: dict[str, Any] = {"harmonizer": "band_gain", "foreground_above": -500.0, "patch_mm": 24.0}
CLIP: dict[str, Any] = {"harmonizer": "clip_intensity", "low": -200.0, "high": 300.0}
N = 24
THIN_MM, THICK_MM = 2.5, 5.0


def scan(patient: int, *, z_mm: float = THIN_MM, noise_hu: float = 12.0) -> Volume:
    n, n_z = round(72 / 0.9), round(25 / z_mm)
    acquisition = Acquisition(
        spacing_mm=(0.9, 0.9, z_mm), size=(n, n, n_z), psf_sigma_mm=0.7, noise_hu=noise_hu, noise_grain_mm=0.6
    )
    return acquire(draw_anatomy("benign", np.random.default_rng(patient)), acquisition, np.random.default_rng(patient))


def fitted(*steps: dict[str, Any]) -> FittedRecipe:
    sample = [scan(patient) for patient in range(4)]
    return fit_recipe(parse_recipe([StepSettings(**step) for step in steps]), sample, None)


def names(recipe: FittedRecipe) -> list[str]:
    return [one.step.harmonizer.name for one in recipe.steps]


def of(*steps: dict[str, Any]) -> Recipes:
    recipe = fitted(*steps)
    return Recipes(ours=recipe, there=recipe, modality="CT")


def test_maps_of_intensities_come_before_and_grids_and_gains_after() -> None:
    recipes = of(RESAMPLE, MATCH, BANDS, CLIP)
    assert names(recipes.maps_there) == names(recipes.maps_here) == ["histogram_match"]
    assert names(recipes.rest) == ["resample", "band_gain", "clip_intensity"]
    assert recipes.settings.patch_mm == 24.0


def test_a_recipe_that_learns_no_map_is_the_site_s_from_the_start() -> None:
    recipes = of(RESAMPLE, CLIP)
    assert names(recipes.maps_there) == []
    assert names(recipes.rest) == ["resample", "clip_intensity"]
    assert recipes.settings.foreground_above == -500.0


@lru_cache
def thick() -> Way:
    """The site's slices are twice as thick; photons add up, so its noise is less by the root of two."""
    there = [scan(patient) for patient in range(N)]
    here = [scan(1000 + patient, z_mm=THICK_MM, noise_hu=12 / np.sqrt(2)) for patient in range(N)]
    found = learn_way(Recipes(ours=FittedRecipe(()), there=FittedRecipe(()), modality="CT"), there, here)
    assert found is not None
    return found


def test_thicker_slices_are_averages_and_their_noise_falls_as_it_does_at_the_site() -> None:
    shown = [thick().show(scan(patient), seed=patient) for patient in range(100, 106)]
    again = [thick().show(scan(patient, noise_hu=12.001), seed=50 + patient) for patient in range(100, 106)]
    assert all(volume.geometry is not None and volume.geometry.spacing_mm[2] == THICK_MM for volume in shown)
    apart = [(a.voxels - b.voxels)[:, 33:45, 30:50] for a, b in zip(shown, again, strict=True)]
    # noise of the two is one draw of the scanner, so only what was added differs; nearly nothing had to be
    assert np.std(apart) < 6
    assert thick().transport.worst < 0.3


def test_a_thick_slice_is_the_mean_of_the_slices_that_it_covers_and_stays_where_it_was() -> None:
    volume = scan(300)
    assert volume.geometry is not None
    found = replace(thick(), transport=replace(thick().transport, gain=(1.0,) * 3, added_power=(0.0,) * 3,
                                               frequency_per_mm=(0.1, 0.2, 0.3)))  # fmt: skip
    shown = found.show(volume, seed=0)
    expected = volume.voxels.reshape(-1, 2, *volume.voxels.shape[1:]).mean(axis=1)
    assert np.abs(shown.voxels - expected).max() < 0.01
    assert shown.geometry is not None
    middles = [g.origin_mm[2] + (n - 1) / 2 * g.spacing_mm[2] for g, n in
               ((shown.geometry, len(shown.voxels)), (volume.geometry, len(volume.voxels)))]  # fmt: skip
    assert middles[0] == pytest.approx(middles[1])


def test_the_same_seed_shows_the_same_scan() -> None:
    one, same, other = (thick().show(scan(200), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.voxels, same.voxels)
    assert not np.array_equal(one.voxels, other.voxels)


def test_a_plain_image_cannot_be_shown_and_says_why() -> None:
    with pytest.raises(UnreadableScan) as refused:
        thick().show(Volume(scan(1).voxels), seed=0)
    assert refused.value.reason == "needs_spacing"


def test_plain_images_teach_nothing() -> None:
    plain = [Volume(scan(patient).voxels) for patient in range(3)]
    assert learn_way(Recipes(ours=FittedRecipe(()), there=FittedRecipe(()), modality="CT"), plain, plain) is None
