"""Resampling against SimpleITK, and the laws that it keeps."""

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core.errors import UnreadableScan
from platform_core.harmonize.resample import Resample, resample
from platform_core.imaging.volume import Geometry, Volume

TILTED = (0.0, 1.0, 0.0, 0.6, 0.0, -0.8, -0.8, 0.0, -0.6)
"""Columns are unit vectors at right angles."""

spacings = st.floats(0.5, 4.0)
sizes = st.integers(2, 14)


def to(volume: Volume, *spacing_mm: float) -> Volume:
    x, y, z = spacing_mm
    return resample(volume, Resample(spacing_mm=(x, y, z)), {})


def noise(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Volume:
    voxels = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    return Volume(voxels, Geometry(spacing_mm, (3.0, -4.0, 50.0), TILTED))


def centre(geometry: Geometry, size: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """The physical centre of a grid, mm."""
    middle: npt.NDArray[np.float64] = geometry.affine @ [*((np.asarray(size) - 1) / 2), 1]
    return middle


def by_simpleitk(volume: Volume, grid: Volume) -> npt.NDArray[np.float32]:
    """Linear interpolation of `volume` at the voxel centres of `grid`."""
    assert volume.geometry is not None
    assert grid.geometry is not None
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.geometry.spacing_mm)
    image.SetOrigin(volume.geometry.origin_mm)
    image.SetDirection(volume.geometry.direction)
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetSize(grid.size)
    resampler.SetOutputSpacing(grid.geometry.spacing_mm)
    resampler.SetOutputOrigin(grid.geometry.origin_mm)
    resampler.SetOutputDirection(grid.geometry.direction)
    out: npt.NDArray[np.float32] = sitk.GetArrayFromImage(resampler.Execute(image))
    return out


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.9, 1.5), (1.1, 1.15, 2.3), (1.0, 0.5, 2.0)])
def test_agrees_with_simpleitk_where_nothing_is_averaged(spacing_mm: tuple[float, float, float]) -> None:
    volume = noise((9, 31, 24))
    out = to(volume, *spacing_mm)
    expected = by_simpleitk(volume, out)
    inner = (slice(2, -2),) * 3
    assert np.abs(out.voxels[inner] - expected[inner]).max() < 0.5


@pytest.mark.parametrize("wanted_mm", [2.5, 3.1, 6.0, 7.7])
def test_a_shrunken_axis_is_the_average_over_the_new_voxel(wanted_mm: float) -> None:
    """A thick slice is the mean of what lies inside it: interpolate finely, then average."""
    volume = noise((30, 8, 8))
    out = to(volume, 1.0, 1.0, wanted_mm)
    n = out.size[2]
    offsets = (np.arange(2000) + 0.5) / 2000 - 0.5
    places = 14.5 + (np.arange(n)[:, None] - (n - 1) / 2 + offsets) * wanted_mm / 2.0
    column = np.interp(places, np.arange(30), volume.voxels[:, 3, 5]).mean(axis=1)
    assert np.abs(out.voxels[1:-1, 3, 5] - column[1:-1]).max() < 0.5


def test_a_fine_pattern_is_averaged_out_and_not_aliased() -> None:
    stripes = np.tile(np.array([-500.0, 500.0], dtype=np.float32), 64)
    volume = Volume(np.broadcast_to(stripes, (4, 16, 128)).copy(), Geometry((0.5, 1.0, 1.0)))
    out = to(volume, 1.6, 1.0, 1.0)
    assert np.abs(out.voxels[:, :, 2:-2]).max() < 0.4 * 500


@given(sizes, sizes, sizes, spacings, spacings, spacings)
@settings(max_examples=40, deadline=None)
def test_the_centre_stays_and_the_extent_is_kept(n_z: int, n_y: int, n_x: int, x: float, y: float, z: float) -> None:
    volume = noise((n_z, n_y, n_x))
    out = to(volume, x, y, z)
    assert volume.geometry is not None
    assert out.geometry is not None
    assert out.geometry.spacing_mm == pytest.approx((x, y, z), rel=1e-3)
    for n_old, n_new, old, new in zip(volume.size, out.size, (1.0, 1.0, 2.0), (x, y, z), strict=True):
        assert n_new == 1 or abs(n_old * old - n_new * new) <= new / 2 + 1e-6
    assert np.allclose(centre(volume.geometry, volume.size), centre(out.geometry, out.size), atol=1e-9)


@given(spacings, spacings, spacings)
@settings(max_examples=25, deadline=None)
def test_a_ramp_stays_the_same_ramp_in_space(x: float, y: float, z: float) -> None:
    """A linear field sampled anywhere inside is itself, averaged or interpolated."""
    shape, spacing_mm = (12, 20, 24), (1.0, 1.5, 2.0)
    grid = np.moveaxis(np.indices(shape), 0, -1)[..., ::-1] * np.asarray(spacing_mm)
    field = (grid @ [3.0, -2.0, 5.0]).astype(np.float32)
    out = to(Volume(field, Geometry(spacing_mm)), x, y, z)
    assert out.geometry is not None
    index = np.moveaxis(np.indices(out.voxels.shape), 0, -1)[..., ::-1]
    expected = (index * np.asarray(out.geometry.spacing_mm) + out.geometry.origin_mm) @ [3.0, -2.0, 5.0]
    margin = [int(np.ceil(2 * old / new)) + 1 for old, new in zip(spacing_mm, (x, y, z), strict=True)]
    inner = tuple(slice(m, -m) for m in reversed(margin))
    assert np.allclose(out.voxels[inner], expected[inner], atol=1e-2)


@given(spacings, spacings, spacings)
@settings(max_examples=25, deadline=None)
def test_invents_no_value_outside_the_range_of_its_input(x: float, y: float, z: float) -> None:
    volume = noise((5, 12, 9))
    out = to(volume, x, y, z).voxels
    assert volume.voxels.min() - 1e-2 <= out.min()
    assert out.max() <= volume.voxels.max() + 1e-2


def test_right_spacing_changes_nothing() -> None:
    volume = noise((5, 12, 9))
    out = to(volume, 1.0, 1.0, 2.0)
    assert np.array_equal(out.voxels, volume.voxels)
    assert out.geometry == volume.geometry


def test_a_single_slice_stays_single_with_its_spacing() -> None:
    out = to(noise((1, 12, 12), (1.0, 1.0, 8.0)), 2.0, 2.0, 1.0)
    assert out.size == (6, 6, 1)
    assert out.geometry is not None
    assert out.geometry.spacing_mm == (2.0, 2.0, 8.0)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on how many planes are worked on at a time."""
    volume = noise((12, 40, 30))
    whole = to(volume, 1.7, 0.6, 2.0)
    monkeypatch.setattr("platform_core.harmonize.resample.SLAB_VOXELS", 1)
    assert np.array_equal(to(volume, 1.7, 0.6, 2.0).voxels, whole.voxels)


def test_a_grid_beyond_memory_is_refused_with_a_reason() -> None:
    with pytest.raises(UnreadableScan) as caught:
        to(noise((10, 100, 100)), 0.001, 0.001, 0.001)
    assert caught.value.reason == "grid_too_large"
