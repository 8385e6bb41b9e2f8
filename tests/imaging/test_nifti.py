import gzip
from typing import Any

import hypothesis.extra.numpy as some
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnreadableScan
from platform_core.imaging.nifti import decode_volume, encode_rounded, encode_volume, rounding_step, volume_sha256
from platform_core.imaging.volume import Geometry, Volume

OBLIQUE = Geometry(
    spacing_mm=(0.7, 1 / 3, 2.5),
    origin_mm=(-101.3, 55.0123456789, 1e-7),
    direction=(0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0),
)
KEPT = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32])


def arrays() -> Any:
    shapes = st.one_of(some.array_shapes(min_dims=3, max_dims=4, max_side=5))
    return KEPT.flatmap(
        lambda dtype: some.arrays(dtype, shapes, elements={"allow_nan": False} if dtype == np.float32 else None)
    )


@given(arrays(), st.sampled_from([None, OBLIQUE]))
def test_a_volume_survives_storage_exactly(voxels: Any, geometry: Any) -> None:
    volume = Volume(voxels, geometry)
    back = decode_volume(encode_volume(volume))
    assert back.geometry == geometry
    assert back.voxels.dtype == voxels.dtype
    np.testing.assert_array_equal(back.voxels, voxels)
    assert volume_sha256(back) == volume_sha256(volume)


def test_other_tools_read_the_same_places_and_values() -> None:
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    data = encode_volume(Volume(voxels, OBLIQUE))
    image = _foreign(data)
    x, y, z = 3, 1, 1
    lps = OBLIQUE.affine @ [x, y, z, 1]
    np.testing.assert_allclose(image.affine @ [x, y, z, 1], lps * [-1, -1, 1, 1], atol=1e-4)
    assert image.dataobj[x, y, z] == voxels[z, y, x]


def _foreign(data: bytes) -> nib.Nifti1Image:

    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


def test_time_is_the_last_axis_of_the_file_and_the_first_in_memory() -> None:
    voxels = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    image = _foreign(encode_volume(Volume(voxels, OBLIQUE)))
    assert image.shape == (5, 4, 3, 2)
    assert image.dataobj[4, 3, 2, 1] == voxels[1, 2, 3, 4]


def test_equal_volumes_give_equal_bytes() -> None:
    volume = Volume(np.ones((2, 2, 2), np.int16), OBLIQUE)
    assert encode_volume(volume) == encode_volume(Volume(volume.voxels.copy(), OBLIQUE))


@pytest.mark.parametrize(
    "other",
    [
        Volume(np.ones((2, 2, 3), np.int16), OBLIQUE),
        Volume(np.ones((2, 3, 2), np.float32), OBLIQUE),
        Volume(np.zeros((2, 3, 2), np.int16), OBLIQUE),
        Volume(np.ones((2, 3, 2), np.int16), None),
        Volume(np.ones((2, 3, 2), np.int16), Geometry((0.7, 1 / 3, 2.6))),
    ],
    ids=["shape", "type", "voxels", "no geometry", "geometry"],
)
def test_any_difference_changes_the_hash(other: Any) -> None:
    assert volume_sha256(other) != volume_sha256(Volume(np.ones((2, 3, 2), np.int16), OBLIQUE))


def test_foreign_nifti_with_scale_factors_is_read_in_units() -> None:
    image = nib.Nifti1Image(np.array([[[1, 2]]], np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.set_slope_inter(2.0, -1.0)
    volume = decode_volume(image.to_bytes())
    assert volume.voxels.ravel().tolist() == [1.0, 3.0]
    assert volume.geometry is not None
    assert volume.geometry.spacing_mm == (2.0, 3.0, 4.0)
    assert volume.geometry.direction[0] == -1.0


def test_a_moved_affine_overrules_our_comment() -> None:
    image = _foreign(encode_volume(Volume(np.ones((2, 2, 2), np.int16), OBLIQUE)))
    image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)
    moved = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    geometry = decode_volume(moved.to_bytes()).geometry
    assert geometry is not None
    assert geometry.spacing_mm == (1.0, 1.0, 1.0)


def test_a_sheared_affine_is_refused() -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.3
    with pytest.raises(UnreadableScan, match="sheared"):
        decode_volume(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), affine).to_bytes())


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "not_nifti"), (b"hello" * 200, "not_nifti"), (b"\x1f\x8b12", "truncated")]
)
def test_junk_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableScan) as refusal:
        decode_volume(data)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("n_kept", [30, 300, 2000])
def test_a_truncated_file_is_refused(n_kept: Any) -> None:
    data = encode_volume(Volume(np.random.default_rng(0).integers(0, 999, (9, 30, 30)).astype(np.int16), OBLIQUE))
    with pytest.raises(UnreadableScan):
        decode_volume(data[:n_kept])


def window(low: float = -1000, high: float = 400, shape: tuple[int, ...] = (5, 20, 30)) -> Volume:
    voxels = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    voxels.flat[:2] = low, high
    return Volume(voxels, OBLIQUE)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(-1000, 400, 1 / 32), (-4, 6, 2**-12), (0, 1, 2**-14), (0, 60000, 2)]
)
def test_rounded_voxels_are_multiples_of_the_least_step_that_16_bits_can_count(
    low: float, high: float, step: float
) -> None:
    volume = window(low, high)
    assert rounding_step(volume.voxels) == step
    back = decode_volume(encode_rounded(volume)[0])
    assert np.abs(back.voxels.astype(float) - volume.voxels).max() <= step / 2
    assert (back.voxels / step == np.rint(back.voxels / step)).all()


@given(some.arrays(np.float32, (2, 9, 9), elements=st.floats(-1e6, 1e6, width=32)))
def test_the_hash_of_a_rounded_volume_is_that_of_what_a_reader_gets(voxels: Any) -> None:
    volume = Volume(voxels, OBLIQUE)
    data, told = encode_rounded(volume)
    back = decode_volume(data)
    assert volume_sha256(back) == told
    assert back.voxels.dtype == np.float32
    assert back.geometry == OBLIQUE
    assert np.abs(back.voxels.astype(float) - voxels).max() <= np.abs(voxels).max() / 32767


def test_other_tools_read_the_rounded_numbers() -> None:
    data = encode_rounded(window())[0]
    image = _foreign(data)
    assert image.get_data_dtype() == np.int16
    found = np.asarray(image.dataobj, dtype=np.float64).T
    assert np.array_equal(found, decode_volume(data).voxels)


def test_rounding_twice_changes_nothing() -> None:
    data, told = encode_rounded(window())
    assert encode_rounded(decode_volume(data)) == (data, told)


@pytest.mark.parametrize(
    "voxels",
    [
        window().voxels.astype(np.int16),
        np.zeros((3, 9, 9), np.float32),
        window(0, 32767).voxels,
        np.where(np.arange(243).reshape(3, 9, 9) == 7, np.float32(1e9), window(0, 1, (3, 9, 9)).voxels),
        np.where(np.arange(243).reshape(3, 9, 9) == 7, np.float32(np.nan), window(0, 1, (3, 9, 9)).voxels),
        np.where(np.arange(243).reshape(3, 9, 9) == 7, np.float32(np.inf), window(0, 1, (3, 9, 9)).voxels),
        window(0, 1e-38).voxels,
    ],
    ids=["integers", "zero", "a step of one", "one voxel outshines all", "nan", "infinite", "below single precision"],
)
def test_where_rounding_would_harm_the_voxels_are_kept(voxels: Any) -> None:
    volume = Volume(voxels, OBLIQUE)
    data, told = encode_rounded(volume)
    assert told == volume_sha256(volume)
    assert data == encode_volume(volume)


def test_scale_factors_of_others_are_applied_in_double_precision() -> None:
    codes = np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10)
    for slope, inter in ((0.5, 0.0), (0.3, 0.0), (0.25, 7.5), (1.0, 0.0)):
        image = nib.Nifti1Image(codes.T, np.eye(4))
        image.header.set_slope_inter(slope, inter)
        raw = image.to_bytes()
        found = decode_volume(raw).voxels
        stored = np.asarray(nib.Nifti1Image.from_bytes(raw).dataobj).T
        assert np.array_equal(found, stored.astype(found.dtype))


def test_a_turned_bit_in_a_compressed_file_is_refused_or_harmless() -> None:
    volume = Volume(np.random.default_rng(0).integers(-900, 900, (6, 24, 24)).astype(np.int16))
    data = bytearray(encode_volume(volume))
    reasons = set()
    for place in range(0, len(data), 7):
        broken = bytes(data[:place]) + bytes([data[place] ^ 64]) + bytes(data[place + 1 :])
        try:
            decode_volume(broken)
        except UnreadableScan as error:
            reasons.add(error.reason)
    assert "truncated" in reasons
