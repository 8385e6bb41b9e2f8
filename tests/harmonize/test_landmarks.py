"""A monotone line through landmarks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.harmonize.landmarks import map_piecewise, merge_close

knots = st.lists(st.floats(-2000, 3000).map(lambda v: round(v, 3)), min_size=2, max_size=14)


@given(knots, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_agrees_with_numpy_between_the_landmarks(found: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = merge_close(np.sort(found), np.sort(rng.normal(0, 900, len(found))))
    values = rng.uniform(x[0], x[-1], (2, 5, 40)).astype(np.float32).clip(x[0], x[-1])
    mapped = map_piecewise(values, x, y)
    steepest = np.max(np.diff(y) / np.diff(x)) if len(x) > 1 else 1.0
    allowed = 2e-6 * (np.abs(y).max() + steepest * np.abs(x).max())
    if len(x) > 1:
        assert np.abs(mapped - np.interp(values, x, y)).max() <= allowed


@given(knots, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_no_two_voxels_change_their_order(found: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = merge_close(np.sort(found), np.sort(rng.normal(0, 900, len(found))))
    start = np.float32(rng.uniform(-3000, 4000))
    neighbours = start + np.arange(500) * np.spacing(start)
    values = np.sort(np.concatenate([neighbours, rng.uniform(-3000, 4000, 500)])).astype(np.float32)
    assert (np.diff(map_piecewise(values.reshape(1, 1, -1), x, y).ravel()) >= 0).all()


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float64"])
def test_every_type_of_voxel_is_mapped_as_float32(kind: str) -> None:
    voxels = np.arange(200).reshape(2, 10, 10).astype(kind)
    x, y = np.array([0.0, 50.0, 120.0]), np.array([-1000.0, 0.0, 10.0])
    out = map_piecewise(voxels, x, y)
    assert out.dtype == np.float32
    assert np.array_equal(out, map_piecewise(voxels.astype(np.float32), x, y))


@pytest.mark.parametrize("kind", ["int16", "uint16"])
def test_a_table_of_all_values_gives_the_same_bits(kind: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 2**16, (3, 150, 150)).astype(np.uint16).view(kind)
    x, y = np.array([-900.0, 50.0, 120.0, 3000.0]), np.array([-1000.0, 0.0, 10.0, 2000.0])
    assert np.array_equal(map_piecewise(voxels, x, y), map_piecewise(voxels.astype(np.float32), x, y))
    view = voxels[::-1, ::2, ::-1]
    assert np.array_equal(map_piecewise(view, x, y), map_piecewise(view.astype(np.float32), x, y))
