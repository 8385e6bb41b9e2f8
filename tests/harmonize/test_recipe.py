"""Recipes: checked before the first scan, fitted step by step, repeated from JSON."""

import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from platform_core.errors import BadSetting, UnknownName
from platform_core.features.measure import measure
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.workspace import TEMPLATE
from platform_core.phantom.acquire import acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.phantom.vendors import NORTH
from platform_core.settings import StepSettings

STEPS = (
    {"harmonizer": "resample", "spacing_mm": [1.5, 1.5, 3.0]},
    {"harmonizer": "histogram_match"},
    {"harmonizer": "clip_intensity", "low": -1000.0, "high": 400.0},
)


def written(*steps: dict[str, Any]) -> list[StepSettings]:
    return [StepSettings(**step) for step in steps]


def scan(seed: int, gain: float = 1.0) -> Volume:
    rng = np.random.default_rng(seed)
    hu = np.full((6, 40, 40), -1000.0)
    hu[:, 8:32, 8:32] = 80.0 * gain + 50 * np.sin(np.arange(24) / 3)
    return Volume((hu + rng.normal(0, 15, hu.shape)).astype(np.int16), Geometry((1.0, 1.0, 2.0)))


def test_a_harmonizer_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(UnknownName, match=r"'resamp'; known: .*resample"):
        parse_recipe(written({"harmonizer": "resamp"}))


@pytest.mark.parametrize(
    ("step", "key", "told"),
    [
        ({"harmonizer": "resample", "spacing": [1, 1, 1]}, "t[0].spacing", "use one of: spacing_mm"),
        ({"harmonizer": "resample"}, "t[0].spacing_mm", "takes: spacing_mm"),
        ({"harmonizer": "resample", "spacing_mm": [1, 1]}, "t[0].spacing_mm.2", "required"),
        ({"harmonizer": "resample", "spacing_mm": [1, -1, 1]}, "t[0].spacing_mm.1", "greater than 0"),
        ({"harmonizer": "resample", "spacing_mm": [1, float("inf"), 1]}, "t[0].spacing_mm.1", "finite"),
        ({"harmonizer": "clip_intensity", "low": 3, "high": 2}, "t[0]", "low must be less than high"),
        ({"harmonizer": "clip_intensity", "low": "dark", "high": 2}, "t[0].low", "valid number"),
    ],
)
def test_a_wrong_parameter_is_told_with_its_place(step: dict[str, Any], key: str, told: str) -> None:
    with pytest.raises(BadSetting) as caught:
        parse_recipe(written(step), where="t")
    assert caught.value.key == key
    assert told in str(caught.value)


def test_a_fitted_recipe_survives_json_under_the_same_name() -> None:
    fitted = fit_recipe(parse_recipe(written(*STEPS)), [scan(n) for n in range(3)], None)
    copy = FittedRecipe.from_json(fitted.to_json())
    assert copy == fitted
    assert copy.name == fitted.name
    assert np.array_equal(apply_recipe(copy, scan(9)).volume.voxels, apply_recipe(fitted, scan(9)).volume.voxels)


def test_another_setting_or_another_sample_gives_another_name() -> None:
    sample = [scan(n) for n in range(3)]
    finer = ({**STEPS[0], "spacing_mm": [1.0, 1.5, 3.0]}, *STEPS[1:])
    fits = [
        fit_recipe(parse_recipe(written(*STEPS)), sample, None),
        fit_recipe(parse_recipe(written(*STEPS)), [scan(n, gain=2) for n in range(3)], None),
        fit_recipe(parse_recipe(written(*finer)), sample, None),
    ]
    assert len({fitted.name for fitted in fits}) == 3


def test_a_step_learns_on_what_the_steps_before_it_leave() -> None:
    sample = [scan(n) for n in range(3)]
    clip = {"harmonizer": "clip_intensity", "low": -900.0, "high": 400.0}
    clipped = fit_recipe(parse_recipe(written(clip, STEPS[1])), sample, None)
    alone = fit_recipe(parse_recipe(written(STEPS[1])), sample, None)
    assert clipped.steps[1].learned["site"][0] == -900
    assert alone.steps[0].learned["site"][0] == pytest.approx(-1000, abs=3)


def test_the_reference_must_have_been_fitted_with_the_same_steps() -> None:
    reference = fit_recipe(parse_recipe(written(*STEPS)), [scan(0)], None)
    with pytest.raises(BadSetting, match="not the recipe that the reference was fitted with"):
        fit_recipe(parse_recipe(written(*STEPS[:2])), [scan(1)], reference)


def test_a_site_is_brought_to_the_reference() -> None:
    recipe = parse_recipe(written(*STEPS))
    reference = fit_recipe(recipe, [scan(n) for n in range(5)], None)
    fitted = fit_recipe(recipe, [scan(10 + n, gain=2.5) for n in range(5)], reference)
    bright, plain = apply_recipe(fitted, scan(50, gain=2.5)).volume, apply_recipe(reference, scan(50)).volume
    inner = (slice(None), slice(9, 18), slice(9, 18))
    assert bright.voxels[inner].mean() == pytest.approx(plain.voxels[inner].mean(), abs=5)


def test_a_step_that_needs_spacing_is_skipped_on_a_plain_image() -> None:
    fitted = fit_recipe(parse_recipe(written(*STEPS)), [scan(n) for n in range(3)], None)
    applied = apply_recipe(fitted, Volume(scan(0).voxels[:1]))
    assert applied.skipped == ("resample:needs_spacing",)
    assert applied.volume.voxels.shape == (1, 40, 40)
    assert applied.volume.voxels.min() >= -1001


def test_of_a_series_in_time_the_first_volume_is_used() -> None:
    still = scan(0)
    series = Volume(np.stack([still.voxels, still.voxels + 100]), still.geometry)
    fitted = fit_recipe(parse_recipe(written(STEPS[0])), [], None)
    assert np.array_equal(apply_recipe(fitted, series).volume.voxels, apply_recipe(fitted, still).volume.voxels)


def test_no_steps_leave_the_volume_as_it_came() -> None:
    applied = apply_recipe(FittedRecipe(()), scan(0))
    assert np.array_equal(applied.volume.voxels, scan(0).voxels)
    assert applied.volume.voxels.dtype == np.int16


def bent(seed: int, gamma: float = 1.0) -> Volume:
    """A phantom whose values between -200 and 300 HU went through a gamma."""
    rng = np.random.default_rng(seed)
    volume = acquire(draw_anatomy("benign", rng), NORTH.acquisition, rng)
    share = np.clip((volume.voxels.astype(np.float32) + 200) / 500, 0, 1)
    curved = np.where((share > 0) & (share < 1), share**gamma * 500 - 200, volume.voxels)
    return replace(volume, voxels=curved.astype(np.float32))


def mean_ks(*steps: dict[str, Any]) -> float:
    """Mean distance of the features of a bent site from the reference's, after a recipe fitted on other scans of it."""
    recipe = parse_recipe(written(*steps))
    there = fit_recipe(recipe, [bent(n) for n in range(8)], None)
    here = fit_recipe(recipe, [bent(100 + n, 0.65) for n in range(8)], there)
    site = [measure(apply_recipe(here, bent(200 + n, 0.65)).volume, "CT") for n in range(16)]
    reference = [measure(apply_recipe(there, bent(300 + n)).volume, "CT") for n in range(16)]
    gaps = []
    for name in site[0]:
        ours, theirs = ([value for row in rows if (value := row[name]) is not None] for rows in (site, reference))
        if ours and theirs:
            gaps.append(ks_2samp(ours, theirs).statistic)
    return float(np.mean(gaps))


def test_a_clip_behind_what_learns_leaves_a_site_nearer_than_one_before_it() -> None:
    resample, clip = STEPS[0], {"harmonizer": "clip_intensity", "low": -150.0, "high": 250.0}
    match = {"harmonizer": "histogram_match", "foreground_above": -500.0}
    first, last, no_match = mean_ks(resample, clip, match), mean_ks(resample, match, clip), mean_ks(resample, clip)
    assert last < 0.75 * first
    assert last < 0.75 * no_match


def test_the_recipe_that_init_suggests_can_be_used_and_clips_last() -> None:
    lines = [line.removeprefix("#")[1:] for line in TEMPLATE.read_text(encoding="utf-8").splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("[target.lesion]"))
    steps = tomllib.loads("\n".join(lines[start:]))["target"]["lesion"]["recipe"]
    recipe = parse_recipe(written(*steps))
    assert recipe.learns
    assert recipe.steps[-1].harmonizer.name == "clip_intensity"
