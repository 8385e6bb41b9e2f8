"""A mask is taken as its image's exactly when it has the same voxels, in whatever order its axes are written."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import GeometryMismatch
from platform_core.imaging.lattice import onto_grid
from platform_core.imaging.nifti import LPS_TO_RAS, decode_volume
from platform_core.imaging.volume import Geometry, Volume

ANGLE = np.deg2rad(20)
TURNED = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((0.7, 0.8, 2.5), (-30.0, 12.0, 5.0), TURNED)
RNG = np.random.default_rng(0)
IMAGE = Volume(RNG.normal(size=(4, 5, 6)).astype(np.float32), GRID)
MASK = Volume((IMAGE.voxels > 0.5).astype(np.uint8), GRID)


def reoriented(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same voxels with axes swapped and flipped: by nibabel, which knows nothing of ours."""
    assert volume.geometry is not None
    image = nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), LPS_TO_RAS @ volume.geometry.affine)
    turned = image.as_reoriented(np.array([[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)]))
    return decode_volume(turned.to_bytes())


@given(st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_axes_that_were_swapped_and_flipped_are_put_back(order: list[int], flips: tuple[bool, ...]) -> None:
    found = onto_grid(reoriented(MASK, tuple(order), flips), IMAGE)
    assert found.geometry == IMAGE.geometry
    assert np.array_equal(found.voxels, MASK.voxels)


@pytest.mark.parametrize(
    "other",
    [
        Geometry((0.7, 0.8, 2.6), GRID.origin_mm, TURNED),
        Geometry(GRID.spacing_mm, (-29.5, 12.0, 5.0), TURNED),
        Geometry(GRID.spacing_mm, GRID.origin_mm),
    ],
    ids=["spacing", "origin", "direction"],
)
def test_a_mask_of_another_grid_is_refused_with_both(other: Geometry) -> None:
    with pytest.raises(GeometryMismatch, match=r"6 x 5 x 4 voxels of \(0\.7, 0\.8, 2\.5\) mm.*found 6 x 5 x 4 voxels"):
        onto_grid(Volume(MASK.voxels, other), IMAGE)


def test_a_mask_of_other_size_is_refused() -> None:
    with pytest.raises(GeometryMismatch, match="6 x 5 x 3"):
        onto_grid(Volume(MASK.voxels[:3], GRID), IMAGE)


def test_a_header_rounded_to_single_precision_is_the_same_grid() -> None:
    rounded = Geometry(GRID.spacing_mm, (-30.0004, 12.0003, 5.0002), tuple(float(np.float32(x)) for x in TURNED))
    assert np.array_equal(onto_grid(Volume(MASK.voxels, rounded), IMAGE).voxels, MASK.voxels)


def test_a_plain_picture_fits_a_plane_by_its_size_and_no_volume() -> None:
    plane = Volume(np.zeros((1, 5, 6), dtype=np.int16), GRID)
    picture = Volume(np.ones((1, 5, 6), dtype=np.uint8))
    assert onto_grid(picture, plane).geometry == GRID
    with pytest.raises(GeometryMismatch, match="without geometry"):
        onto_grid(Volume(MASK.voxels), IMAGE)
