"""Axes end in canonical order, and no voxel moves in the patient."""

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from platform_core.harmonize.orient import Orient, orient, orient_label
from platform_core.imaging.volume import Geometry, Volume

SIZE = (5, 4, 3)


def voxels() -> npt.NDArray[np.int16]:
    n_x, n_y, n_z = SIZE
    return np.arange(n_x * n_y * n_z, dtype=np.int16).reshape(n_z, n_y, n_x)


def turned(axes: npt.NDArray[np.float64]) -> Volume:
    direction = tuple(float(v) for v in axes.ravel())
    return Volume(voxels(), Geometry((0.7, 1.1, 2.5), (10.0, -20.0, 30.0), direction))


def places(volume: Volume) -> dict[int, npt.NDArray[np.float64]]:
    """Where each value lies in the patient, LPS mm."""
    assert volume.geometry is not None
    z, y, x = np.indices(volume.voxels.shape)
    index = np.stack([x, y, z, np.ones_like(x)], axis=-1).reshape(-1, 4)
    values = volume.voxels.reshape(-1).astype(int)
    return dict(zip(values.tolist(), index @ volume.geometry.affine.T, strict=True))


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_every_voxel_keeps_its_value_and_place(seed: int, left_handed: bool) -> None:
    axes = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    volume = turned(axes * [-1, 1, 1] if left_handed else axes)
    before, after = places(volume), places(orient(volume, Orient(), {}))
    assert before.keys() == after.keys()
    assert np.allclose([before[k] for k in before], [after[k] for k in before])


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_result_is_right_handed_and_follows_the_patient(seed: int, left_handed: bool) -> None:
    axes = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    out = orient(turned(axes * [-1, 1, 1] if left_handed else axes), Orient(), {})
    assert out.geometry is not None
    direction = np.reshape(out.geometry.direction, (3, 3))
    assert (np.diag(direction) > 0).all()
    assert np.linalg.det(direction) == pytest.approx(1)


@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_grids_along_the_patient_axes_end_as_simpleitk_orients_them(
    order: list[int], signs: tuple[int, int, int]
) -> None:
    axes = np.eye(3)[order] * signs
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1
    volume = turned(axes)
    assert volume.geometry is not None
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.geometry.spacing_mm)
    image.SetOrigin(volume.geometry.origin_mm)
    image.SetDirection(volume.geometry.direction)
    wanted = sitk.DICOMOrient(image, "LPS")
    out = orient(volume, Orient(), {})
    assert out.geometry is not None
    assert np.array_equal(out.voxels, sitk.GetArrayFromImage(wanted))
    assert out.geometry.spacing_mm == pytest.approx(wanted.GetSpacing())
    assert out.geometry.origin_mm == pytest.approx(wanted.GetOrigin())
    assert out.geometry.direction == pytest.approx(wanted.GetDirection())


def test_a_second_time_changes_nothing() -> None:
    once = orient(turned(Rotation.from_euler("xyz", [100, 40, -60], degrees=True).as_matrix()), Orient(), {})
    twice = orient(once, Orient(), {})
    assert np.array_equal(once.voxels, twice.voxels)
    assert once.geometry == twice.geometry


def test_a_label_map_keeps_its_type_and_follows_its_image() -> None:
    volume = turned(np.eye(3)[[2, 0, 1]] * [-1, 1, 1])
    label = Volume((volume.voxels % 2).astype(np.uint8), volume.geometry)
    image, moved = orient(volume, Orient(), {}), orient_label(label, Orient(), {})
    assert moved.voxels.dtype == np.uint8
    assert moved.geometry == image.geometry
    assert np.array_equal(moved.voxels, image.voxels.astype(int) % 2)
