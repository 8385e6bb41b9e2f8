"""Signal, contrast and clipping against planted truths."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats

from platform_core.features.measure import measure
from platform_core.features.scatter import RAYLEIGH
from platform_core.imaging.volume import Geometry, Volume

Array = npt.NDArray[np.floating]


def told(voxels: Array, modality: str, spacing_mm: float = 1.0) -> dict[str, float | None]:
    return measure(Volume(voxels.astype(np.float32), Geometry((spacing_mm, spacing_mm, 2.0))), modality)


def number(voxels: Array, feature: str, modality: str, spacing_mm: float = 1.0) -> float:
    value = told(voxels, modality, spacing_mm)[feature]
    assert value is not None
    return value


def two_tissues(dark: float, bright: float, sd: float, share: float = 0.4, seed: int = 0) -> Array:
    """`share` of the columns is bright; above are ten rows of air."""
    truth = np.where(np.arange(100) < 100 * share, bright, dark) * np.ones((12, 100, 1))
    truth[:, :10] = -1000
    return truth + np.random.default_rng(seed).normal(0, sd, truth.shape)


def magnitude(signal: Array, sd: float, seed: int = 0) -> Array:
    """What MR shows of a signal with noise of `sd` in each of two channels."""
    rng = np.random.default_rng(seed)
    return np.hypot(signal + rng.normal(0, sd, signal.shape), rng.normal(0, sd, signal.shape))


def head(signal: float = 800.0, n: int = 96, slices: int = 12) -> Array:
    """A disk in empty air."""
    y, x = np.mgrid[:n, :n]
    return np.broadcast_to(np.where((y - n / 2) ** 2 + (x - n / 2) ** 2 < (n / 3) ** 2, signal, 0.0), (slices, n, n))


def test_the_rayleigh_factor_is_that_of_the_distribution() -> None:
    assert pytest.approx(1) == RAYLEIGH * stats.rayleigh.std()


@pytest.mark.parametrize("sd", [4.0, 10.0])
def test_two_planted_tissues_of_a_ct_are_told(sd: float) -> None:
    """The larger is the main one; its signal counts from air."""
    scan = two_tissues(-20, 90, sd)
    assert number(scan, "tissue_snr_ratio", "CT") == pytest.approx((1000 - 20) / sd, rel=0.03)
    assert number(scan, "tissue_cnr_ratio", "CT") == pytest.approx(110 / sd, rel=0.03)
    assert number(scan, "tissue_cjv_ratio", "CT") == pytest.approx(2 * sd / 110, rel=0.03)


def test_bone_and_lung_do_not_move_the_split() -> None:
    scan = two_tissues(-20, 90, 8)
    once = told(scan, "CT")
    scan[:, 10:20], scan[:, 20:30] = 900, -450
    for feature in ("tissue_snr_ratio", "tissue_cjv_ratio"):
        assert number(scan, feature, "CT") == pytest.approx(once[feature], rel=0.05)


@pytest.mark.parametrize(("bright", "sd"), [(700.0, 15.0), (900.0, 40.0)])
def test_two_planted_tissues_of_an_mr_are_told(bright: float, sd: float) -> None:
    scan = head(400.0).copy()
    scan[:, :40][scan[:, :40] > 0] = bright
    scan = magnitude(scan, sd)
    assert number(scan, "tissue_cjv_ratio", "MR") == pytest.approx(2 * sd / (bright - 400), rel=0.1)
    assert number(scan, "tissue_cnr_ratio", "MR") == pytest.approx((bright - 400) / sd, rel=0.1)
    assert number(scan, "tissue_snr_air_ratio", "MR") == pytest.approx(400 / sd, rel=0.05)


@pytest.mark.parametrize("sd", [3.0, 20.0, 60.0])
def test_the_air_of_an_mr_tells_the_noise_of_a_channel(sd: float) -> None:
    assert number(magnitude(head(), sd), "noise_air_relative", "MR") == pytest.approx(sd / 800, rel=0.03)


def test_a_ghost_in_the_air_is_no_noise() -> None:
    scan = magnitude(head(), 10.0)
    scan[:, :3] += 120
    assert number(scan, "noise_air_relative", "MR") == pytest.approx(10 / 800, rel=0.05)


def test_air_that_was_filled_in_tells_no_noise() -> None:
    scan = magnitude(head(), 10.0)
    scan[head() == 0] = 0
    assert told(scan, "MR")["noise_air_relative"] is None
    assert told(scan, "MR")["tissue_snr_air_ratio"] is None
    partly = magnitude(head(), 10.0)
    partly[:, :, :8] = 0
    assert number(partly, "noise_air_relative", "MR") == pytest.approx(10 / 800, rel=0.03)


@pytest.mark.parametrize("slope", [0.1, 0.4])
def test_shading_is_told_with_its_range(slope: float) -> None:
    """Against a masked Gaussian by SciPy on the pixels themselves."""
    n, spacing_mm = 128, 1.5
    ramp = 1 + slope * (np.arange(n) - n / 2) / (n / 2)
    scan = magnitude(head(n=n) * ramp, 5.0)
    mask = head(n=n)[0] > 0
    sigma = 25 / spacing_mm
    truth = ndimage.gaussian_filter(mask * 800.0 * ramp, sigma, mode="constant", truncate=8)
    field = (truth / ndimage.gaussian_filter(mask.astype(float), sigma, mode="constant", truncate=8))[mask]
    expected = np.subtract(*np.quantile(field, [0.95, 0.05])) / 800
    assert number(scan, "bias_field_range_relative", "MR", spacing_mm) == pytest.approx(expected, rel=0.05)


def test_an_even_field_has_no_range_whatever_the_noise() -> None:
    assert number(magnitude(head(), 80.0), "bias_field_range_relative", "MR") < 0.02


def test_shares_at_the_ends_are_counted() -> None:
    scan = two_tissues(-20, 90, 30).round()
    scan[:] = scan[0]
    clipped = np.clip(scan, -1000, 130)
    assert number(clipped, "voxels_at_min_fraction", "CT") == pytest.approx(float(np.mean(scan <= -1000)), abs=1e-4)
    assert number(clipped, "voxels_at_max_fraction", "CT") == pytest.approx(float(np.mean(scan >= 130)), abs=1e-4)
    body = scan[scan > -500]
    assert number(clipped, "foreground_at_max_fraction", "CT") == pytest.approx(float(np.mean(body >= 130)), abs=1e-4)
    assert number(clipped, "n_levels", "CT") == len(np.unique(np.clip(body, None, 130)))
    assert number(scan, "voxels_at_min_fraction", "CT") <= 1e-4 >= number(scan, "voxels_at_max_fraction", "CT")


def test_padding_is_a_share_of_voxels() -> None:
    scan = two_tissues(-20, 90, 30)
    scan[:, :, -25:] = -2000
    assert number(scan, "voxels_at_min_fraction", "CT") == 0.25


def test_an_export_of_eight_bits_has_few_levels() -> None:
    scan = magnitude(head(), 30.0)
    assert number(np.floor(scan / scan.max() * 31), "n_levels", "MR") < 32
    assert number(scan, "n_levels", "MR") > 10_000


def test_without_noise_nothing_is_divided_by_zero() -> None:
    quiet = two_tissues(-20, 90, 0.0)
    assert told(quiet, "CT")["tissue_cnr_ratio"] is None
    assert told(quiet, "CT")["tissue_snr_ratio"] is None
    assert number(quiet, "tissue_cjv_ratio", "CT") == 0


def test_a_foreground_that_is_nowhere_thick_tells_no_contrast() -> None:
    """An angiogram: bright vessels of four pixels in the dark."""
    scan = np.abs(np.random.default_rng(0).normal(0, 5, (12, 96, 96)))
    scan[:, :, 20:24] = scan[:, 60:64] = 900
    assert told(scan, "MR")["tissue_cnr_ratio"] is None
    assert told(scan, "MR")["foreground_fraction"] == pytest.approx(8 * 96 / 96**2, abs=0.01)
