"""What a scan must show of the patient and of the scanner: planted blur, noise, spacing and class, measured back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.special import ndtr

from platform_core.phantom.acquire import AIR_HU, FLOOR_HU, Acquisition, acquire, expected_hu, origin_mm
from platform_core.phantom.anatomy import LESIONS, Anatomy, Array, draw_anatomy
from platform_core.phantom.vendors import EAST, NORTH, WEST, WEST_NEW

FINE = Acquisition(spacing_mm=(0.5, 0.5, 3.0), size=(160, 140, 5), psf_sigma_mm=0.9, noise_hu=10)
SCANNERS = pytest.mark.parametrize(
    "acquisition", [s.acquisition for s in (NORTH, EAST, WEST, WEST_NEW)], ids=["north", "east", "west", "west_new"]
)


def patient(seed: int = 0) -> Anatomy:
    return draw_anatomy("malignant", np.random.default_rng(seed))


def bare(seed: int = 0) -> Anatomy:
    """A patient of fat alone: no organ, texture, vessel or lesion."""
    anatomy = patient(seed)
    waves = replace(anatomy.waves, amplitude_hu=np.zeros_like(anatomy.waves.amplitude_hu))
    blobs = replace(anatomy.blobs, peak_hu=np.zeros_like(anatomy.blobs.peak_hu))
    return replace(anatomy, inner=(), waves=waves, blobs=blobs)


def noise_of(acquisition: Acquisition, seed: int = 0) -> Array:
    """Noise alone, where nothing is cut off: scan minus what was expected, HU."""
    anatomy = patient()
    voxels = acquire(anatomy, acquisition, np.random.default_rng(seed)).voxels
    truth = (expected_hu(anatomy, acquisition) - AIR_HU) * acquisition.gain + AIR_HU + acquisition.offset_hu
    inside = truth > -500
    return np.asarray((voxels - truth)[inside], dtype=np.float32)


@SCANNERS
def test_noise_in_a_voxel_is_what_was_asked_for(acquisition: Acquisition) -> None:
    assert noise_of(acquisition).std() == pytest.approx(acquisition.noise_hu, rel=0.04)


@SCANNERS
def test_noise_does_not_shift_the_mean(acquisition: Acquisition) -> None:
    noise = noise_of(acquisition)
    assert abs(noise.mean()) < 6 * acquisition.noise_hu / np.sqrt(len(noise))


@SCANNERS
def test_grid_is_the_scanners_own_and_centred_on_the_patient(acquisition: Acquisition) -> None:
    volume = acquire(patient(), acquisition, np.random.default_rng(0))
    assert volume.size == acquisition.size
    assert volume.geometry is not None
    assert volume.geometry.spacing_mm == acquisition.spacing_mm
    far = np.array(volume.geometry.origin_mm) + (np.array(volume.size) - 1) * volume.geometry.spacing_mm
    np.testing.assert_allclose(far, -np.array(volume.geometry.origin_mm))


@pytest.mark.parametrize("sigma_mm", [0.9, 1.8, 2.6])
def test_blur_measured_at_the_skin_is_what_was_asked_for(sigma_mm: float) -> None:
    acquisition = replace(FINE, psf_sigma_mm=sigma_mm)
    profile = expected_hu(bare(), acquisition)[2, 70, :80]
    x = np.arange(80) * 0.5
    rim = curve_fit(lambda x, at, sigma, step: AIR_HU + step * ndtr((x - at) / sigma), x, profile, p0=(9, 1, 900))[0]
    assert rim[1] == pytest.approx(sigma_mm, rel=0.03)


def test_skin_lies_where_the_body_ends() -> None:
    anatomy = bare()
    row = expected_hu(anatomy, FINE)[2, 70]
    level = AIR_HU + anatomy.body.step_hu / 2
    at = np.interp(level, row[:80], origin_mm(FINE)[0] + np.arange(80) * 0.5)
    assert -at == pytest.approx(anatomy.body.semi_axes_mm[2], abs=0.1)


def test_a_blob_keeps_its_mass_however_blurred() -> None:
    """The closed form of blur against what a convolution does: it moves HU about and makes none."""
    sharp, blunt = (_lesion_hu(sigma_mm).sum() for sigma_mm in (0.3, 3.0))
    assert blunt == pytest.approx(sharp, rel=0.01)
    assert _lesion_hu(3.0).max() < 0.5 * _lesion_hu(0.3).max()


def _lesion_hu(sigma_mm: float) -> Array:
    """The lesion alone in a body so wide that it has no rim in view, HU above it."""
    anatomy = bare()
    blobs = anatomy.blobs
    only = replace(
        blobs,
        centre_mm=blobs.centre_mm[:1] * 0,
        radius_mm=blobs.radius_mm[:1],
        peak_hu=np.full(1, 100.0),
        lean=blobs.lean[:1],
    )
    wide = replace(anatomy, blobs=only, body=replace(anatomy.body, semi_axes_mm=(np.inf, 1e4, 1e4)))
    grid = Acquisition(spacing_mm=(0.8, 0.8, 1.0), size=(50, 50, 31), psf_sigma_mm=sigma_mm, noise_hu=0)
    return expected_hu(wide, grid) - np.float32(AIR_HU + anatomy.body.step_hu)


@given(gain=st.floats(0.9, 1.1), offset_hu=st.floats(-20, 20))
def test_calibration_error_is_linear_and_leaves_air_but_for_the_offset(gain: float, offset_hu: float) -> None:
    exact = replace(NORTH.acquisition, noise_hu=0.0)
    off = replace(exact, gain=gain, offset_hu=offset_hu)
    true, measured = (acquire(patient(), a, np.random.default_rng(0)).voxels.astype(float) for a in (exact, off))
    expected = np.maximum((true - AIR_HU) * gain + AIR_HU + offset_hu, FLOOR_HU)
    np.testing.assert_allclose(measured, expected, atol=1.01 + abs(gain - 1))


def test_nothing_lies_below_what_a_scanner_stores() -> None:
    loud = replace(NORTH.acquisition, noise_hu=200.0)
    assert acquire(patient(), loud, np.random.default_rng(0)).voxels.min() == FLOOR_HU


def test_same_patient_looks_the_same_at_every_visit_but_for_noise() -> None:
    quiet = replace(NORTH.acquisition, noise_hu=0.0)
    a, b = (acquire(patient(7), quiet, np.random.default_rng(visit)).voxels for visit in (1, 2))
    np.testing.assert_array_equal(a, b)


def test_the_classes_differ_in_the_lesion_and_nowhere_else() -> None:
    benign, malignant = (draw_anatomy(lesion, np.random.default_rng(3)) for lesion in ("benign", "malignant"))
    difference = np.abs(expected_hu(benign, FINE) - expected_hu(malignant, FINE))
    _, y, x = benign.blobs.centre_mm[0]
    far = np.hypot.outer(np.arange(140) * 0.5 - 34.75 - y, np.arange(160) * 0.5 - 39.75 - x) > 15
    assert difference.max() > 5
    assert difference[:, far].max() < 1e-2


def test_both_classes_are_drawn_and_overlap() -> None:
    """No threshold on contrast alone is perfect, or there would be nothing to learn."""
    rng = np.random.default_rng(0)
    benign, malignant = (np.array([habit.contrast_hu.draw(rng) for _ in range(500)]) for habit in LESIONS.values())
    assert benign.mean() < malignant.mean()
    assert benign.max() > malignant.min()
