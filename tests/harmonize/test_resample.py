"""Resampling against SimpleITK, and the laws that it keeps."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from platform_core.errors import UnreadableScan
from platform_core.harmonize.recipe import FittedRecipe, FittedStep, apply_recipe, parse_recipe
from platform_core.harmonize.resample import Resample, resample, resample_label
from platform_core.harmonize.taps import Taps, taps, weigh
from platform_core.imaging.volume import Geometry, Volume
from platform_core.settings import StepSettings

TILTED = (0.0, 1.0, 0.0, 0.6, 0.0, -0.8, -0.8, 0.0, -0.6)
"""Columns are unit vectors at right angles."""

spacings = st.floats(0.5, 4.0)
sizes = st.integers(2, 14)


def to(volume: Volume, *spacing_mm: float, **ways: Any) -> Volume:
    x, y, z = spacing_mm
    return resample(volume, Resample(spacing_mm=(x, y, z), **ways), {})


def label_to(label: Volume, *spacing_mm: float, **ways: Any) -> Volume:
    x, y, z = spacing_mm
    return resample_label(label, Resample(spacing_mm=(x, y, z), **ways), {})


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


def test_a_grid_beyond_memory_is_refused_with_a_reason() -> None:
    with pytest.raises(UnreadableScan) as caught:
        to(noise((10, 100, 100)), 0.001, 0.001, 0.001)
    assert caught.value.reason == "grid_too_large"


def test_without_antialias_a_shrunken_axis_is_interpolated_at_its_voxel_centres() -> None:
    volume = noise((9, 31, 24))
    out = to(volume, 1.43, 1.5, 3.1, antialias=False)
    inner = (slice(1, -1),) * 3
    assert np.abs(out.voxels[inner] - by_simpleitk(volume, out)[inner]).max() < 0.05


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float64"])
def test_every_type_of_voxel_gives_what_its_float32_gives(kind: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 250, (6, 9, 11)).astype(kind)
    geometry = Geometry((1.0, 1.0, 2.0))
    out, expected = (to(Volume(v, geometry), 0.8, 1.6, 1.1).voxels for v in (voxels, voxels.astype(np.float32)))
    assert np.array_equal(out, expected)


def test_a_flipped_view_of_an_array_is_read_as_it_lies() -> None:
    volume = noise((6, 9, 11))
    view = Volume(volume.voxels[::-1, :, ::-1], volume.geometry)
    copy = Volume(view.voxels.copy(), volume.geometry)
    assert np.array_equal(to(view, 0.8, 1.6, 1.1).voxels, to(copy, 0.8, 1.6, 1.1).voxels)


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.9, 1.5), (1.1, 1.15, 2.3), (1.0, 0.5, 2.0)])
def test_bspline_agrees_with_scipy(spacing_mm: tuple[float, float, float]) -> None:
    volume = noise((9, 31, 24))
    out = to(volume, *spacing_mm, interpolation="bspline")
    assert volume.geometry is not None
    assert out.geometry is not None
    index = np.moveaxis(np.indices(out.voxels.shape), 0, -1)[..., ::-1]
    lps = np.concatenate([index, np.ones((*index.shape[:-1], 1))], axis=-1) @ out.geometry.affine.T
    old = (lps @ np.linalg.inv(volume.geometry.affine).T)[..., :3]
    expected = map_coordinates(volume.voxels.astype(float), np.moveaxis(old[..., ::-1], -1, 0), order=3, mode="mirror")
    assert np.abs(out.voxels - expected).max() < 0.01


def test_bspline_passes_through_the_voxels() -> None:
    volume = noise((5, 12, 9))
    out = to(volume, 0.5, 1.0, 2.0, interpolation="bspline")
    fine = to(volume, 1 / 3, 1.0, 2.0, interpolation="bspline")
    assert out.size == (18, 12, 5)
    assert np.allclose(fine.voxels[:, :, 1::3], volume.voxels, atol=1e-2)


@pytest.mark.parametrize("factor", [1.3, 2.0, 3.7])
def test_a_shrunken_bspline_is_the_average_over_the_new_voxel(factor: float) -> None:
    line = np.random.default_rng(1).normal(0, 300, 40).astype(np.float32)
    volume = Volume(np.broadcast_to(line, (3, 9, 40)).copy(), Geometry((1.0, 1.0, 1.0)))
    out = to(volume, factor, 1.0, 1.0, interpolation="bspline")
    n = out.size[0]
    offsets = ((np.arange(2000) + 0.5) / 2000 - 0.5) * factor
    places = 19.5 + (np.arange(n)[:, None] - (n - 1) / 2) * factor + offsets
    expected = map_coordinates(line.astype(float), places[None], order=3, mode="mirror").mean(axis=1)
    assert np.abs(out.voxels[1, 4] - expected).max() < 0.05


@given(
    st.integers(2, 40),
    st.floats(0.3, 6),
    st.sampled_from(["linear", "bspline"]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_weights_sum_to_one_and_indices_are_neighbours(n: int, factor: float, way: Any, antialias: bool) -> None:
    along = taps(n, max(1, round(n / factor)), factor, way, antialias=antialias)
    assert np.allclose(along.weight.sum(axis=0), 1, atol=1e-6)
    index = along.index.astype(int)
    assert index.min() >= 0
    assert index.max() < n
    assert (np.ptp(index, axis=0) < len(index)).all()


def test_an_axis_that_does_not_move_is_copied_to_the_bit() -> None:
    voxels = noise((5, 12, 9)).voxels
    still = [Taps(np.arange(n, dtype=np.uint64)[None], np.ones((1, n), np.float32)) for n in (9, 12)]
    moved = weigh(voxels, (still[0], still[1], taps(5, 10, 0.5, "linear", antialias=True)))
    assert np.array_equal(moved[0], voxels[0])


def ball(spacing_mm: tuple[float, float, float], radius_mm: float = 17.0) -> tuple[Volume, Geometry]:
    """A ball about a point off the grid, as a label map; and its grid."""
    size = [round(60 / step) for step in spacing_mm]
    geometry = Geometry(spacing_mm, (-30.0, -30.0, -30.0))
    at = np.moveaxis(np.indices(size[::-1]), 0, -1)[..., ::-1] * np.asarray(spacing_mm) - 30.0
    inside = np.linalg.norm(at - CENTRE_MM, axis=-1) < radius_mm
    return Volume(inside.astype(np.uint8), geometry), geometry


CENTRE_MM = np.array([1.3, -0.9, 0.4])


@pytest.mark.parametrize("way", ["nearest", "partial_volume"])
@pytest.mark.parametrize("axes", ["own", "patient"])
def test_a_ball_keeps_its_volume_and_its_place(way: str, axes: str) -> None:
    """Within 2 % of the volume, and a tenth of the slice spacing of the centroid; with partial volume a twentieth."""
    label, _ = ball((0.7, 0.7, 2.5))
    moved = label_to(label, 1.0, 1.0, 1.0, labels=way, axes=axes)
    assert moved.geometry is not None
    index = np.argwhere(moved.voxels)[:, ::-1]
    centroid = index.mean(axis=0) * np.asarray(moved.geometry.spacing_mm) + moved.geometry.origin_mm
    assert len(index) == pytest.approx(4 / 3 * np.pi * 17**3, rel=0.02)
    assert np.linalg.norm(centroid - CENTRE_MM) < (0.25 if way == "nearest" else 0.125)


@pytest.mark.parametrize("way", ["nearest", "partial_volume"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("wanted_mm", [(0.7, 0.8, 0.9), (1.0, 1.3, 3.1), (2.2, 2.7, 5.0)])
def test_image_and_label_are_locked_to_the_voxel(way: str, axis: int, wanted_mm: tuple[float, ...]) -> None:
    """A threshold halfway between two voxels of a ramp cuts the moved ramp where it cuts the moved label."""
    shape = (14, 24, 30)
    ramp = np.broadcast_to(np.indices(shape)[axis].astype(np.float32), shape).copy()
    image = Volume(ramp, Geometry((1.1, 0.9, 2.0), (3.0, -4.0, 50.0), TILTED))
    label = Volume((ramp > 5.5).astype(np.int16), image.geometry)
    step = StepSettings.model_validate({"harmonizer": "resample", "spacing_mm": wanted_mm, "labels": way})
    recipe = FittedRecipe(tuple(FittedStep(each, {}) for each in parse_recipe([step]).steps))
    applied = apply_recipe(recipe, image, label)
    assert applied.label is not None
    assert (applied.label.size, applied.label.geometry) == (applied.volume.size, applied.volume.geometry)
    sure = np.abs(applied.volume.voxels - 5.5) > 1e-3
    assert np.array_equal(applied.label.voxels[sure] == 1, applied.volume.voxels[sure] > 5.5)


def test_the_class_with_the_largest_share_wins() -> None:
    line = np.repeat([3, 0, 7], [4, 1, 5]).astype(np.uint8)
    label = Volume(np.broadcast_to(line, (4, 8, 10)).copy(), Geometry((1.0, 1.0, 1.0)))
    moved = label_to(label, 5.0, 1.0, 1.0, labels="partial_volume").voxels
    assert moved.dtype == np.uint8
    assert moved[0, 0].tolist() == [3, 7]


def test_shares_of_a_class_move_as_an_image() -> None:
    share = np.random.default_rng(0).random((6, 12, 12)).astype(np.float32)
    volume = Volume(share, Geometry((1.0, 1.0, 2.0)))
    moved = label_to(volume, 1.7, 0.6, 1.0, labels="partial_volume").voxels
    assert np.array_equal(moved, to(volume, 1.7, 0.6, 1.0).voxels)


def turned(volume: Volume, degrees: float, about: tuple[float, float, float]) -> Volume:
    """The same voxels, on a grid at another angle."""
    axes = Rotation.from_rotvec(np.radians(degrees) * np.asarray(about) / np.linalg.norm(about)).as_matrix()
    assert volume.geometry is not None
    geometry = volume.geometry
    return Volume(volume.voxels, Geometry(geometry.spacing_mm, geometry.origin_mm, tuple(axes.ravel().tolist())))


def old_index(volume: Volume, lps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    assert volume.geometry is not None
    along = (lps - volume.geometry.origin_mm) @ np.reshape(volume.geometry.direction, (3, 3))
    index: npt.NDArray[np.float64] = along / np.asarray(volume.geometry.spacing_mm)
    return index


@pytest.mark.parametrize(("way", "order"), [("linear", 1), ("bspline", 3)])
@pytest.mark.parametrize(("degrees", "about"), [(20, (1, 0, 0)), (100, (1, 2, 3)), (35, (0, -1, 1))])
def test_an_oblique_scan_agrees_with_scipy_at_random_places(
    way: str, order: Literal[1, 3], degrees: float, about: tuple[float, float, float]
) -> None:
    volume = turned(noise((12, 20, 16), (1.0, 1.2, 2.0)), degrees, about)
    out = to(volume, 0.9, 0.8, 1.0, axes="patient", interpolation=way, antialias=False)
    assert out.geometry is not None
    assert out.geometry.direction == Geometry((1, 1, 1)).direction
    chosen = np.random.default_rng(0).integers(0, out.size, (4000, 3))
    index = old_index(volume, chosen * np.asarray(out.geometry.spacing_mm) + out.geometry.origin_mm)
    margin = 0 if order == 1 else 4
    inside = np.all((index > margin) & (index < np.asarray(volume.size) - 1 - margin), axis=1)
    assert inside.sum() > 30
    expected = map_coordinates(volume.voxels.astype(float), index[inside][:, ::-1].T, order=order, mode="mirror")
    found = out.voxels[tuple(chosen[inside][:, ::-1].T)]
    assert np.abs(found - expected).max() < (0.01 if order == 1 else 1.0)


def test_the_patient_grid_holds_every_voxel_and_air_is_put_around_it() -> None:
    volume = turned(noise((12, 20, 16), (1.0, 1.2, 2.0)), 30, (1, 1, 0))
    out = to(volume, 1.0, 1.0, 1.0, axes="patient")
    assert volume.geometry is not None
    assert out.geometry is not None
    corners = np.array([[x, y, z, 1] for x in (-0.5, 15.5) for y in (-0.5, 19.5) for z in (-0.5, 11.5)])
    places = (corners @ volume.geometry.affine.T)[:, :3] - out.geometry.origin_mm
    assert (places > -0.51).all()
    assert (places < np.asarray(out.size) - 0.49).all()
    assert out.voxels[0, 0, 0] == volume.voxels.min()


def test_a_ball_in_an_oblique_scan_is_where_its_image_is() -> None:
    label, geometry = ball((1.1, 0.9, 2.5))
    label = turned(label, 25, (1, 0.3, 0))
    image = Volume(label.voxels * 1000.0, label.geometry)
    moved = label_to(label, 1.0, 1.0, 1.0, axes="patient", labels="partial_volume")
    near = to(image, 1.0, 1.0, 1.0, axes="patient")
    assert (moved.size, moved.geometry) == (near.size, near.geometry)
    assert np.mean((near.voxels > 500) != (moved.voxels == 1)) < 1e-3
    nearest = label_to(label, 1.0, 1.0, 1.0, axes="patient")
    assert (nearest.size, nearest.geometry) == (near.size, near.geometry)
    assert nearest.voxels.sum() == pytest.approx(4 / 3 * np.pi * 17**3, rel=0.02)
    assert geometry.spacing_mm == (1.1, 0.9, 2.5)


def test_a_scan_along_the_patient_axes_is_only_reordered() -> None:
    sagittal = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    volume = Volume(noise((6, 9, 12)).voxels, Geometry((1.2, 1.0, 2.0), (5.0, -7.0, 11.0), sagittal))
    out = to(volume, 2.0, 1.2, 1.0, axes="patient")
    assert out.size == (6, 12, 9)
    assert np.array_equal(np.sort(out.voxels.ravel()), np.sort(volume.voxels.ravel()))
    assert out.geometry is not None
    place = out.geometry.affine @ [4, 2, 7, 1]
    x, y, z = np.rint(old_index(volume, place[:3])).astype(int)
    assert out.voxels[7, 2, 4] == volume.voxels[z, y, x]


def test_an_oblique_scan_that_shrinks_is_averaged_first() -> None:
    volume = turned(noise((24, 40, 40), (0.5, 0.5, 1.0)), 15, (0, 0, 1))
    plain, averaged = (
        to(volume, 2.0, 2.0, 2.0, axes="patient", antialias=antialias).voxels[3:-3, 4:-4, 4:-4].std()
        for antialias in (False, True)
    )
    assert averaged < plain / 2
