"""Features against independent implementations and known truths."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from platform_core.features.measure import measure
from platform_core.features.slices import cut_slices
from platform_core.imaging.foreground import foreground, otsu_threshold
from platform_core.imaging.volume import Geometry, Volume

Array = npt.NDArray[np.floating]


def told(voxels: Array, feature: str, *, spacing_mm: float = 1.0, modality: str = "CT") -> float:
    value = measure(Volume(voxels.astype(np.float32), Geometry((spacing_mm, spacing_mm, 2.0))), modality)[feature]
    assert value is not None
    return value


def flat(sd: float, seed: int = 0, shape: tuple[int, int, int] = (8, 64, 64)) -> Array:
    return np.random.default_rng(seed).normal(40, sd, shape)


def disk(blur_mm: float, spacing_mm: float, noise: float = 5.0, n: int = 96) -> Array:
    """An off-centre disk in air, blurred by a Gaussian on a grid eight times as fine as the pixels."""
    fine = 8
    y, x = np.mgrid[: n * fine, : n * fine] / fine
    truth = np.where((y - 0.51 * n) ** 2 + (x - 0.47 * n) ** 2 < (0.33 * n) ** 2, 40.0, -1000.0)
    smooth = ndimage.gaussian_filter(truth, blur_mm / spacing_mm * fine) if blur_mm else truth
    pixels = smooth.reshape(n, fine, n, fine).mean(axis=(1, 3))
    noisy: Array = pixels + np.random.default_rng(1).normal(0, noise, (4, n, n))
    return noisy


def power_law(alpha: float, spacing_mm: float, n: int = 256, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(n, spacing_mm)[:, None], np.fft.fftfreq(n, spacing_mm))
    frequency[0, 0] = np.inf
    shaped = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * frequency ** (-alpha / 2)).real for _ in range(12)]
    return np.stack(shaped)


@given(st.integers(0, 1000), st.floats(0.5, 20))
@settings(max_examples=20, deadline=None)
def test_otsu_agrees_with_simpleitk(seed: int, contrast: float) -> None:
    rng = np.random.default_rng(seed)
    voxels = np.concatenate([rng.normal(0, 1, 3000), rng.normal(contrast, 1, 2000)]).reshape(5, 20, 50)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(256)
    otsu.Execute(sitk.GetImageFromArray(voxels))
    bin_width = float(np.ptp(voxels)) / 256
    found = otsu_threshold(voxels)
    assert found is not None
    assert abs(found - otsu.GetThreshold()) <= 1.01 * bin_width


def test_the_body_of_a_ct_begins_above_minus_500_hu() -> None:
    voxels = np.array([[[-1000.0, -500.0, -499.0, 40.0]]])
    assert foreground(voxels, "CT").ravel().tolist() == [False, False, True, True]


def test_slices_lie_evenly_in_the_central_four_fifths() -> None:
    depth = np.broadcast_to(np.arange(200, dtype=np.float32)[:, None, None], (200, 8, 8))
    chosen = cut_slices(Volume(depth), "MR").voxels[:, 0, 0]
    assert len(chosen) == 12
    assert (chosen[0], chosen[-1]) == (20, 179)
    assert np.ptp(np.diff(chosen)) <= 1


def test_quantiles_agree_with_numpy() -> None:
    voxels = flat(100)
    slices = cut_slices(Volume(voxels.astype(np.float32)), "CT").voxels
    for name, level in (("q01_hu", 0.01), ("q50_hu", 0.5), ("q99_hu", 0.99)):
        assert told(voxels, name) == pytest.approx(float(np.quantile(slices, level)), rel=1e-5)


@pytest.mark.parametrize("feature", ["noise_immerkaer_hu", "noise_haar_hu"])
@pytest.mark.parametrize("sd", [3.0, 12.0, 40.0])
def test_white_noise_is_told_with_its_sd(feature: str, sd: float) -> None:
    assert told(flat(sd), feature) == pytest.approx(sd, rel=0.05)


@pytest.mark.parametrize("feature", ["noise_immerkaer_hu", "noise_haar_hu"])
@given(st.integers(0, 100), st.floats(1.0, 30.0))
@settings(max_examples=10, deadline=None)
def test_twice_the_noise_is_told_as_twice(feature: str, seed: int, sd: float) -> None:
    noise = flat(1, seed) - 40
    once, twice = (told(40 + factor * sd * noise, feature) for factor in (1, 2))
    assert twice == pytest.approx(2 * once, rel=1e-4)


def test_immerkaer_agrees_with_a_convolution_by_scipy() -> None:
    voxels = flat(12).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    per_slice = [
        math.sqrt(math.pi / 2) / 6 * np.abs(ndimage.convolve(plane, mask)[1:-1, 1:-1]).mean()
        for plane in cut_slices(Volume(voxels), "CT").voxels.astype(np.float64)
    ]
    assert told(voxels, "noise_immerkaer_hu") == pytest.approx(float(np.median(per_slice)), rel=1e-4)


def test_an_edge_of_the_body_is_no_noise_to_haar_and_little_to_immerkaer() -> None:
    quiet = disk(0, 1.0, noise=3.0)
    assert told(quiet, "noise_haar_hu") == pytest.approx(3, rel=0.1)
    assert told(quiet, "noise_immerkaer_hu") < 1.5 * 3


@pytest.mark.parametrize("sd", [5.0, 15.0, 30.0])
def test_air_outside_the_body_tells_the_noise(sd: float) -> None:
    assert told(disk(0.8, 1.0, noise=sd), "noise_air_hu") == pytest.approx(sd, rel=0.1)


def test_noise_in_the_lungs_is_not_air_noise() -> None:
    voxels = disk(0, 1.0, noise=5.0)
    voxels[:, 40:56, 36:54] = np.random.default_rng(2).normal(-900, 60, voxels[:, 40:56, 36:54].shape)
    assert told(voxels, "noise_air_hu") == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("padding", [-3024.0, -2000.0, -1100.0])
def test_padding_around_the_field_of_view_is_not_air(padding: float) -> None:
    voxels = disk(0, 1.0, noise=10.0)
    voxels[:, :, :8] = padding
    assert told(voxels, "noise_air_hu") == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("floor", [-1000.0, -1005.0, -995.0])
def test_air_that_is_cut_off_tells_no_noise(floor: float) -> None:
    voxels = np.maximum(disk(0, 1.0, noise=10.0), floor).astype(np.float32)
    assert measure(Volume(voxels, Geometry((1.0, 1.0, 2.0))), "CT")["noise_air_hu"] is None


@pytest.mark.parametrize(
    ("blur_mm", "spacing_mm"), [(0.5, 1.0), (0.6, 0.5), (0.8, 1.5), (1.0, 0.7), (1.5, 1.0), (2.0, 1.0), (2.0, 1.5)]
)
def test_the_edge_of_a_blurred_disk_is_as_wide_as_its_blur(blur_mm: float, spacing_mm: float) -> None:
    """10-90 % of a Gaussian edge is 2.563 SDs; pixels that average over themselves add a twelfth of their square."""
    truth = 2.563 * math.hypot(blur_mm, spacing_mm / math.sqrt(12))
    assert told(disk(blur_mm, spacing_mm), "edge_width_mm", spacing_mm=spacing_mm) == pytest.approx(truth, rel=0.06)


def test_a_step_is_narrower_than_a_pixel() -> None:
    assert told(disk(0.0, 1.0), "edge_width_mm") < 1


def test_blur_widens_edges_and_takes_fine_structure() -> None:
    widths, energies = (
        [told(disk(blur, 1.0, noise=1.0), name) for blur in (0.5, 0.8, 1.2, 1.8)]
        for name in ("edge_width_mm", "power_30_40_log_hu2_mm2")
    )
    assert widths == sorted(widths)
    assert energies == sorted(energies, reverse=True)


def test_millimetres_are_not_pixels() -> None:
    """The same disk on a grid half as fine has the same edge."""
    fine, coarse = disk(2.0, 0.6, n=160), disk(2.0, 1.2, n=80)
    assert told(fine, "edge_width_mm", spacing_mm=0.6) == pytest.approx(
        told(coarse, "edge_width_mm", spacing_mm=1.2), rel=0.1
    )


def test_the_laplacian_agrees_with_scipy() -> None:
    voxels = flat(10).astype(np.float32)
    slices = cut_slices(Volume(voxels), "CT").voxels.astype(np.float64)
    energy = np.mean([np.mean(ndimage.laplace(plane)[1:-1, 1:-1] ** 2) for plane in slices])
    assert told(voxels, "laplacian_log_hu2_mm4") == pytest.approx(math.log(energy), rel=1e-5)
    coarser = told(voxels, "laplacian_log_hu2_mm4", spacing_mm=2.0)
    assert coarser == pytest.approx(math.log(energy / 2**4), rel=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("spacing_mm", [0.8, 1.5])
def test_a_power_law_is_told_with_its_exponent(alpha: float, spacing_mm: float) -> None:
    found = told(power_law(alpha, spacing_mm), "spectrum_slope", spacing_mm=spacing_mm)
    assert found == pytest.approx(alpha, abs=0.12)


@pytest.mark.parametrize("spacing_mm", [0.6, 0.9])
def test_the_spectrum_of_white_noise_is_its_variance_times_the_pixel_area(spacing_mm: float) -> None:
    expected = math.log(12.0**2 * spacing_mm**2)
    for band in ("05_10", "10_20", "20_30", "30_40", "40_50"):
        found = told(flat(12, shape=(12, 160, 128)), f"power_{band}_log_hu2_mm2", spacing_mm=spacing_mm)
        assert found == pytest.approx(expected, abs=0.1)


def test_a_wave_shows_in_its_own_band() -> None:
    x = np.arange(128) * 0.8
    wave = 40 + 100 * np.cos(2 * np.pi * 0.35 * x) + np.random.default_rng(0).normal(0, 0.1, (4, 128, 128))
    power = {band: told(wave, f"power_{band}_log_hu2_mm2", spacing_mm=0.8) for band in ("20_30", "30_40", "40_50")}
    assert max(power, key=lambda band: power[band]) == "30_40"


def test_bands_above_nine_tenths_of_nyquist_are_not_told() -> None:
    scan = Volume(flat(12).astype(np.float32), Geometry((1.0, 1.0, 2.0)))
    features = measure(scan, "CT")
    assert features["power_30_40_log_hu2_mm2"] is not None
    assert features["power_40_50_log_hu2_mm2"] is None
    coarse = measure(Volume(scan.voxels, Geometry((1.0, 2.2, 2.0))), "CT")
    assert coarse["spectrum_slope"] is None


def test_the_foreground_of_a_disk_is_its_area() -> None:
    assert told(disk(0, 1.0), "foreground_fraction") == pytest.approx(math.pi * 0.33**2, rel=0.02)


def test_geometry_is_that_of_the_whole_volume() -> None:
    features = measure(Volume(flat(1, shape=(40, 20, 30)), Geometry((0.5, 0.7, 3.0))), "CT")
    assert features["spacing_x_mm"] == 0.5
    assert features["spacing_z_mm"] == 3.0
    assert features["extent_x_mm"] == 15.0
    assert features["extent_z_mm"] == 120.0
    single = measure(Volume(flat(1, shape=(1, 20, 30)), Geometry((0.5, 0.7, 3.0))), "CT")
    assert single["spacing_z_mm"] is None
