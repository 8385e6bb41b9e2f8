"""Noise of flat tissue, and what slices smooth, against planted truths and other computations."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats

from platform_core.features.measure import measure
from platform_core.imaging.volume import Geometry, Volume

Array = npt.NDArray[np.floating]


def told(voxels: Array, feature: str, spacing_mm: tuple[float, float, float] = (0.7, 0.7, 2.0)) -> float:
    value = measure(Volume(voxels.astype(np.float32), Geometry(spacing_mm)), "CT")[feature]
    assert value is not None
    return value


def white(sd: float = 12.0, shape: tuple[int, int, int] = (12, 160, 160), seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(40, sd, shape)


def grainy(grain_mm: float, spacing_mm: float, sd: float = 12.0) -> Array:
    """White noise through a Gaussian, as a soft kernel leaves it."""
    smooth = ndimage.gaussian_filter(white(1, (12, 240, 240)) - 40, (0, *(grain_mm / spacing_mm,) * 2), mode="wrap")
    scaled: Array = 40 + sd * smooth / smooth.std()
    return scaled


@pytest.mark.parametrize("sd", [5.0, 20.0, 60.0])
def test_the_level_of_white_noise_is_its_sd(sd: float) -> None:
    assert told(white(sd), "noise_level_hu") == pytest.approx(sd, rel=0.05)


def test_the_level_agrees_with_a_sliding_window_and_a_kernel_density() -> None:
    """As published: 10 x 10 pixels at every place."""
    scan = grainy(0.5, 0.7)
    windows = np.lib.stride_tricks.sliding_window_view(scan, (10, 10), axis=(1, 2))[:, ::3, ::3]
    sds = windows.std(axis=(3, 4), ddof=1).ravel()
    grid = np.linspace(sds.min(), sds.max(), 400)
    mode = grid[np.argmax(stats.gaussian_kde(sds)(grid))]
    assert told(scan, "noise_level_hu") == pytest.approx(mode, rel=0.06)


def test_vessels_and_edges_are_no_noise() -> None:
    scan = white(10.0)
    y, x = np.mgrid[:160, :160]
    scan[:, (y % 40 < 4) | (np.hypot(y - 80, x - 80) < 20)] += 150
    assert told(scan, "noise_level_hu") == pytest.approx(10, rel=0.1)


def test_only_soft_tissue_counts() -> None:
    scan = white(10.0)
    scan[:, :80] = np.random.default_rng(1).normal(-100, 40, scan[:, :80].shape)
    assert told(scan, "noise_level_hu") == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("spacing_mm", [0.5, 0.8, 1.2])
def test_white_noise_lies_on_average_at_half_of_nyquist(spacing_mm: float) -> None:
    found = told(white(), "noise_mean_per_mm", (spacing_mm, spacing_mm, 2.0))
    assert found == pytest.approx(0.25 / spacing_mm, rel=0.06)


@pytest.mark.parametrize("grain_mm", [0.4, 0.6])
@pytest.mark.parametrize("spacing_mm", [0.4, 0.6])
def test_the_mean_frequency_of_grain_is_known(grain_mm: float, spacing_mm: float) -> None:
    """NPS ~ exp(-(2 pi s f)^2), whose mean frequency is 1 / (2 pi^1.5 s), whatever the grid; up to an eighth high."""
    found = told(grainy(grain_mm, spacing_mm), "noise_mean_per_mm", (spacing_mm, spacing_mm, 2.0))
    assert found == pytest.approx(1.08 / (2 * math.pi**1.5 * grain_mm), rel=0.06)


def test_dose_does_not_move_the_mean_frequency() -> None:
    scan = grainy(0.6, 0.7) - 40
    assert told(40 + 2 * scan, "noise_mean_per_mm") == pytest.approx(told(40 + scan, "noise_mean_per_mm"), rel=0.02)


@pytest.mark.parametrize("n_merged", [1, 2, 3])
@pytest.mark.parametrize("x_mm", [1.0, 0.7, 0.5])
def test_slices_thicker_than_their_distance_show_along_z(n_merged: int, x_mm: float) -> None:
    """Neighbours that share all but one of n layers differ by two of 2n: the energy falls to 1/n."""
    layers = white(12, (40, 96, 96)) - 40
    scan = 40 + np.mean([layers[k : len(layers) - n_merged + k] for k in range(n_merged)], axis=0)
    assert told(scan, "z_anisotropy_ratio", (x_mm, x_mm, 1.0)) == pytest.approx(1 / n_merged, rel=0.06)


def test_pixels_wider_than_slices_are_compared_at_their_own_size() -> None:
    assert told(white(), "z_anisotropy_ratio", (1.0, 1.0, 0.4)) == pytest.approx(1, rel=0.05)


def test_blur_in_the_plane_raises_the_ratio() -> None:
    scan = white()
    blurred = 40 + ndimage.gaussian_filter(scan - 40, (0, 1, 1))
    assert told(blurred, "z_anisotropy_ratio", (1.0, 1.0, 1.0)) > 1.5 * told(
        scan, "z_anisotropy_ratio", (1.0, 1.0, 1.0)
    )
