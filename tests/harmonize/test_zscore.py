"""Foreground mean 0 and standard deviation 1, against NumPy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnreadableScan
from platform_core.harmonize.zscore import ZScore, zscore
from platform_core.imaging.nifti import decode_volume
from platform_core.imaging.volume import Volume

OTSU = ZScore()
REAL = "dicom/dcm_qa_ts/Ref/1.nii"


def patient(seed: int, gain: float = 1.0, offset: float = 0.0, dtype: str = "int16") -> Volume:
    rng = np.random.default_rng(seed)
    voxels = np.abs(rng.normal(0, 10, (6, 40, 40)))
    voxels[:, 8:32, 8:32] = rng.normal(400, 60, (6, 24, 24))
    return Volume((np.rint(voxels) * gain + offset).astype(dtype))


def test_agrees_with_numpy_on_a_planted_foreground() -> None:
    volume = patient(0)
    tissue = volume.voxels[:, 8:32, 8:32].astype(np.float64)
    out = zscore(volume, ZScore(foreground_above=100), {}).voxels
    assert tissue.min() > 100
    np.testing.assert_allclose(out, (volume.voxels - tissue.mean()) / tissue.std(), rtol=1e-5, atol=1e-5)


@given(st.integers(0, 1000), st.floats(0.125, 50), st.floats(-3000, 3000))
def test_gain_and_offset_do_not_show(seed: int, gain: float, offset: float) -> None:
    plain = zscore(patient(seed), OTSU, {}).voxels
    other = zscore(patient(seed, gain, offset, "float64"), OTSU, {}).voxels
    np.testing.assert_allclose(other, plain, atol=2e-3)


def test_a_stored_gain_of_8_changes_no_bit_that_counts() -> None:
    np.testing.assert_allclose(zscore(patient(1, 8), OTSU, {}).voxels, zscore(patient(1), OTSU, {}).voxels, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1000.0, 3e-9, 1e30])
@pytest.mark.parametrize("above", [None, -5000.0])
def test_a_constant_volume_becomes_zero(value: float, above: float | None) -> None:
    out = zscore(Volume(np.full((2, 9, 9), value)), ZScore(foreground_above=above), {})
    assert not out.voxels.any()


def test_a_foreground_that_differs_by_rounding_only_becomes_zero() -> None:
    voxels = np.zeros((2, 9, 9), dtype=np.float32)
    voxels[:, 2:7, 2:7] = 7.0
    voxels[0, 3, 3] = np.nextafter(np.float32(7), np.float32(8))
    assert not zscore(Volume(voxels), OTSU, {}).voxels.any()


def test_small_units_are_not_taken_for_rounding() -> None:
    """Diffusivities in m2/s are about 1e-9."""
    out = zscore(patient(2, 1e-12, dtype="float64"), OTSU, {}).voxels
    np.testing.assert_allclose(out, zscore(patient(2), OTSU, {}).voxels, atol=1e-3)


def test_a_threshold_above_every_voxel_is_refused_with_a_reason() -> None:
    with pytest.raises(UnreadableScan) as caught:
        zscore(patient(0), ZScore(foreground_above=1e6), {})
    assert caught.value.reason == "empty_foreground"


def test_a_real_scan_has_mean_0_and_spread_1(test_data: Path) -> None:
    volume = decode_volume((test_data / REAL).read_bytes()).first()
    out = zscore(volume, ZScore(foreground_above=500), {}).voxels
    inside = out[volume.voxels > 500].astype(np.float64)
    assert (inside.mean(), inside.std()) == pytest.approx((0, 1), abs=1e-5)
