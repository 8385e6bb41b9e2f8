"""N4 on a phantom whose field is known."""

from pathlib import Path

import numpy as np
import pytest

from platform_core.harmonize.bias_field import BiasField, remove_bias_field
from platform_core.imaging.nifti import decode_volume
from platform_core.imaging.volume import Geometry, Volume, Voxels

DEFAULT = BiasField()
SPACING_MM = (2.0, 2.0, 4.0)


def phantom(n_z: int = 12, *, strength: float = 1.0, gain: float = 1.0) -> tuple[Volume, Voxels, Voxels]:
    """A volume of two tissues under exp(polynomial), the planted log field, and where the outer tissue is."""
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(np.linspace(-1, 1, n_z) if n_z > 1 else [0.0], *[np.linspace(-1, 1, 96)] * 2, indexing="ij")
    radius = np.hypot(x / 0.8, y / 0.7)
    tissue = np.where(radius < 1, np.where(radius < 0.5, 300.0, 200.0), 0.0)
    log_field = strength * (0.3 * x + 0.25 * y**2 - 0.2 * x * y - 0.1 * z * (n_z > 2))
    voxels = np.abs(tissue * np.exp(log_field) + rng.normal(0, 4, tissue.shape))
    return Volume(np.rint(voxels * gain).astype(np.int16), Geometry(SPACING_MM)), log_field, tissue == 200


def variation(voxels: Voxels) -> float:
    return float(voxels.std() / voxels.mean())


@pytest.mark.parametrize("n_z", [1, 2, 3, 12])
def test_the_planted_field_is_found_and_tissue_becomes_even(n_z: int) -> None:
    volume, log_field, outer = phantom(n_z)
    out = remove_bias_field(volume, DEFAULT, {}).voxels
    found = np.log(volume.voxels[outer] / out[outer])
    assert np.corrcoef(found, log_field[outer])[0, 1] > 0.9
    assert variation(volume.voxels[outer]) > 0.13
    assert variation(out[outer]) < 0.05


def test_tissues_keep_their_contrast() -> None:
    volume, log_field, outer = phantom()
    out = remove_bias_field(volume, DEFAULT, {}).voxels
    inner = volume.voxels / np.exp(log_field) > 260
    assert out[inner].mean() / out[outer].mean() == pytest.approx(1.5, rel=0.05)


def test_the_scale_of_a_scan_stays() -> None:
    volume, _, outer = phantom()
    out = remove_bias_field(volume, DEFAULT, {}).voxels
    assert np.log(out[outer]).mean() == pytest.approx(np.log(volume.voxels[outer]).mean(), abs=0.05)


def test_a_gain_of_8_multiplies_the_result_and_nothing_else() -> None:
    out, loud = (remove_bias_field(phantom(2, gain=gain)[0], DEFAULT, {}).voxels for gain in (1, 8))
    outer = phantom(2)[2]
    assert variation(loud[outer] / out[outer]) < 0.02


def test_an_even_scan_is_left_nearly_as_it_is() -> None:
    volume, _, outer = phantom(2, strength=0.0)
    out = remove_bias_field(volume, DEFAULT, {}).voxels
    assert np.abs(out[outer] / volume.voxels[outer] - 1).max() < 0.03


def test_zero_stays_zero_and_signs_stay() -> None:
    volume = phantom(2)[0]
    signed = Volume(volume.voxels - np.int16(3), volume.geometry)
    out = remove_bias_field(signed, DEFAULT, {}).voxels
    assert np.array_equal(np.sign(out), np.sign(signed.voxels))


@pytest.mark.parametrize("voxels", [np.zeros((3, 20, 20)), np.full((3, 20, 20), 9.0), -phantom(2)[0].voxels])
def test_without_positive_foreground_nothing_is_changed(voxels: Voxels) -> None:
    dark = Volume(np.minimum(voxels, voxels.flat[0]).astype(np.float32), Geometry(SPACING_MM))
    assert np.array_equal(remove_bias_field(dark, DEFAULT, {}).voxels, dark.voxels)


def test_a_speck_is_no_foreground() -> None:
    voxels = np.zeros((2, 32, 32), dtype=np.float32)
    voxels[0, 4:6, 4:6] = 100
    volume = Volume(voxels, Geometry((4.0, 4.0, 4.0)))
    assert np.array_equal(remove_bias_field(volume, DEFAULT, {}).voxels, voxels)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 200), (200, 8, 8), (3, 17, 33)])
def test_odd_shapes_pass(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    voxels = rng.normal(300, 10, shape)
    voxels[..., : shape[2] // 4] = 2
    out = remove_bias_field(Volume(voxels, Geometry((1.0, 1.0, 1.0))), DEFAULT, {}).voxels
    assert np.isfinite(out).all()
    assert out.shape == shape


def test_a_finer_grid_finds_the_same_field() -> None:
    volume, _, outer = phantom(4)
    coarse, fine = (remove_bias_field(volume, BiasField(grid_spacing_mm=mm), {}).voxels[outer] for mm in (4.0, 2.0))
    assert np.abs(coarse / fine - 1).mean() < 0.01


def test_iterations_need_a_level() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        BiasField(iterations=())


def test_a_real_scan_with_a_planted_field_comes_out_as_without(test_data: Path) -> None:
    """What N4 takes from the scan itself is taken from both."""
    scan = decode_volume((test_data / "dicom/dcm_qa_ts/Ref/1.nii").read_bytes()).first()
    x, y = np.linspace(-1, 1, 64), np.linspace(-1, 1, 64)[:, None]
    planted = Volume((scan.voxels * np.exp(0.3 * x - 0.2 * y)).astype(np.float32), scan.geometry)
    brain = scan.voxels > 500
    quick = BiasField(grid_spacing_mm=6.5)
    before = variation(planted.voxels[brain] / scan.voxels[brain])
    one, other = (remove_bias_field(v, quick, {}).voxels[brain] for v in (scan, planted))
    assert variation(other / one) < 0.35 * before
