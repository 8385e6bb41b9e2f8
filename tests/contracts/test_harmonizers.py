"""What every harmonizer promises."""

import json
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from platform_core.harmonize import HARMONIZERS
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.volume import Geometry, Volume

SETTINGS: dict[str, dict[str, Any]] = {
    "resample": {"spacing_mm": [1.5, 1.0, 3.0]},
    "clip_intensity": {"low": -900.0, "high": 300.0},
    "histogram_match": {},
    "band_gain": {"patch_mm": 8},
}
"""Settings of harmonizers that have no default; a new one that needs some adds its line."""


@pytest.fixture(params=HARMONIZERS.values(), ids=list(HARMONIZERS))
def harmonizer(request: pytest.FixtureRequest) -> Harmonizer:
    found: Harmonizer = request.param
    return found


@pytest.fixture
def settings(harmonizer: Harmonizer) -> Any:
    return TypeAdapter(harmonizer.settings).validate_python(SETTINGS.get(harmonizer.name, {}))


def scan(seed: int, gain: float = 1.0, dtype: str = "int16") -> Volume:
    """A body in air with noise."""
    rng = np.random.default_rng(seed)
    hu = np.full((6, 24, 20), -1000.0)
    hu[:, 5:19, 4:16] = 60.0 * gain
    hu[:, 9:13, 7:11] = 200.0 * gain
    return Volume((hu + rng.normal(0, 20, hu.shape)).astype(dtype), Geometry((1.2, 1.0, 2.0), (5.0, -7.0, 11.0)))


def constant(value: float = 7.0) -> Volume:
    return Volume(np.full((3, 16, 16), value, dtype=np.float32), Geometry((1.0, 1.0, 1.0)))


@pytest.fixture
def at_reference(harmonizer: Harmonizer, settings: Any) -> Learned:
    return harmonizer.fit(settings, [scan(n) for n in range(4)], None)


@pytest.fixture
def learned(harmonizer: Harmonizer, settings: Any, at_reference: Learned) -> Learned:
    return harmonizer.fit(settings, [scan(n, gain=1.3) for n in range(4, 8)], at_reference)


def test_settings_are_a_frozen_dataclass(harmonizer: Harmonizer, settings: Any) -> None:
    assert is_dataclass(settings)
    assert harmonizer.settings.__dataclass_params__.frozen


def test_leaves_its_input_alone(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    volume = scan(1)
    voxels, told = volume.voxels.copy(), json.dumps(learned)
    out = harmonizer.apply(volume, settings, learned)
    assert np.array_equal(volume.voxels, voxels)
    assert json.dumps(learned) == told
    assert not np.shares_memory(out.voxels, volume.voxels)


def test_leaves_float_input_alone_even_where_nothing_changes(harmonizer: Harmonizer, settings: Any) -> None:
    volume = scan(1, dtype="float32")
    learned = harmonizer.fit(settings, [volume], None)
    out = harmonizer.apply(volume, settings, learned)
    assert not np.shares_memory(out.voxels, volume.voxels)


def test_same_input_same_output(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    first, second = (harmonizer.apply(scan(1), settings, learned) for _ in range(2))
    assert np.array_equal(first.voxels, second.voxels)
    assert first.geometry == second.geometry


def test_the_same_sample_teaches_the_same(harmonizer: Harmonizer, settings: Any, at_reference: Learned) -> None:
    assert harmonizer.fit(settings, [scan(n) for n in range(4)], None) == at_reference


SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""x to the back, y to the feet, z to the right: every axis of the canonical order is moved."""


def sagittal(seed: int) -> Volume:
    return replace(scan(seed), geometry=Geometry((1.2, 1.0, 2.0), (5.0, -7.0, 11.0), SAGITTAL))


def test_keeps_the_grid_unless_it_says_so(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    volume = sagittal(1)
    out = harmonizer.apply(volume, settings, learned)
    kept = out.geometry == volume.geometry and out.size == volume.size
    assert kept != harmonizer.changes_grid


def test_a_label_map_ends_on_the_grid_of_its_image(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    if harmonizer.move_label is None:
        pytest.skip("keeps the grid")
    image = sagittal(1)
    label = replace(image, voxels=(image.voxels > 130).astype(np.uint8))
    moved, at = harmonizer.move_label(label, settings, learned), harmonizer.apply(image, settings, learned)
    assert (moved.geometry, moved.size, moved.voxels.dtype.name) == (at.geometry, at.size, "uint8")
    assert set(np.unique(moved.voxels)) == {0, 1}
    assert not np.shares_memory(moved.voxels, label.voxels)


def test_gives_float32(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    assert harmonizer.apply(scan(1), settings, learned).voxels.dtype == np.float32


@pytest.mark.parametrize("value", [-2000.0, 0.0, 7.0, 1e6])
def test_output_is_finite_for_a_constant_volume(
    harmonizer: Harmonizer, settings: Any, learned: Learned, value: float
) -> None:
    assert np.isfinite(harmonizer.apply(constant(value), settings, learned).voxels).all()


def test_a_constant_sample_teaches_nothing_harmful(
    harmonizer: Harmonizer, settings: Any, at_reference: Learned
) -> None:
    for reference in (None, at_reference):
        learned = harmonizer.fit(settings, [constant(), constant()], reference)
        assert np.isfinite(harmonizer.apply(scan(1), settings, learned).voxels).all()


def test_what_is_learned_survives_strict_json(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    copy = json.loads(json.dumps(learned, allow_nan=False))
    assert copy == learned
    restored = TypeAdapter(harmonizer.settings).validate_python(json.loads(json.dumps(asdict(settings))))
    first, second = harmonizer.apply(scan(1), settings, learned), harmonizer.apply(scan(1), restored, copy)
    assert np.array_equal(first.voxels, second.voxels)


def test_applies_to_scans_that_it_was_not_fitted_on(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    unseen = scan(99, gain=2.0)
    assert np.isfinite(harmonizer.apply(unseen, settings, learned).voxels).all()


def test_plain_images_pass_unless_spacing_is_needed(harmonizer: Harmonizer, settings: Any, learned: Learned) -> None:
    if harmonizer.needs_spacing:
        pytest.skip("the recipe skips it")
    out = harmonizer.apply(Volume(scan(1).voxels[:1]), settings, learned)
    assert out.geometry is None
    assert out.voxels.shape == (1, 24, 20)
