"""Recipes: checked before the first scan, fitted step by step, repeated from JSON."""

from typing import Any

import numpy as np
import pytest

from platform_core.errors import BadSetting, UnknownName
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Geometry, Volume
from platform_core.settings import StepSettings

STEPS = (
    {"harmonizer": "resample", "spacing_mm": [1.5, 1.5, 3.0]},
    {"harmonizer": "clip_intensity", "low": -1000.0, "high": 400.0},
    {"harmonizer": "histogram_match"},
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
    clipped = fit_recipe(parse_recipe(written(clip, STEPS[2])), sample, None)
    alone = fit_recipe(parse_recipe(written(STEPS[2])), sample, None)
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
