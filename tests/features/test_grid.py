"""The same object rendered on two grids: same blur in mm, same noise per mm. Nothing is resampled.

An image that is resampled loses noise and sharpness, so features could not agree on it. Here the
blurred object is a formula, evaluated at the middle of each pixel, and noise has one spectral
density: the SD of a voxel falls with the square root of its area, as it does in a scanner.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.special import ndtr

from platform_core.features import FAMILIES
from platform_core.features.acquisition import STATED
from platform_core.features.measure import FEATURES, measure
from platform_core.features.spectrum import BANDS
from platform_core.imaging.volume import Geometry, Volume

Array = npt.NDArray[np.floating]

FINE_MM, COARSE_MM = 0.75, 1.2
RATIO = FINE_MM / COARSE_MM
FIELD_MM, SLICE_MM, N_SLICES = 144.0, 3.0, 24
BLUR_MM, GRAIN_MM = 0.9, 1.0
SEEDS = range(3)
TRUSTED = 0.8 / (2 * COARSE_MM)
"""Cycles/mm up to which the two must agree."""

PHYSICAL = {
    "foreground_fraction",
    "edge_width_mm",
    "spectrum_slope",
    "tissue_cjv_ratio",
    "z_anisotropy_ratio",
    "spacing_z_mm",
    "extent_x_mm",
    "extent_z_mm",
    *(f"bias_field_range_{unit}" for unit in ("hu", "relative")),
}
"""Of the object and the scanner alone; a ratio of 1 where structure outweighs noise."""
QUANTILES = {name for name in FEATURES if name.startswith("q")}
"""Of the object; compared in parts of the range from the 5 % to the 95 % quantile."""
LOG_POWER = {name for name in FEATURES if name.startswith("power_")}
"""Of the object and the scanner; compared as powers, in bands that lie below 0.8 of the coarser Nyquist frequency."""
VOXEL = {
    **{f"noise_{method}_{unit}": 1 for method in ("immerkaer", "haar", "air") for unit in ("hu", "relative")},
    "noise_level_hu": 1,
    "noise_mean_per_mm": 1,
    **dict.fromkeys(("tissue_snr_ratio", "tissue_snr_air_ratio", "tissue_cnr_ratio"), -1),
    "laplacian_log_hu2_mm4": 6,
    "laplacian_log_relative_mm4": 6,
}
"""Of one voxel: where noise is white, they go as this power of one over the pixel's side."""
COUNTED = {"voxels_at_min_fraction", "voxels_at_max_fraction", "foreground_at_max_fraction", "n_levels", "spacing_x_mm"}
"""Of the grid itself, or of whether values were cut off."""


@cache
def render(seed: int, pixel_mm: float, *, texture_hu: float) -> Array:
    """(z, y, x) HU: an ellipse of tissue with an organ in it, and waves in all directions of 5 to 50 mm."""
    rng = np.random.default_rng(seed)
    n = round(FIELD_MM / pixel_mm)
    axis = (np.arange(n) - (n - 1) / 2) * pixel_mm
    y, x, z = axis[:, None], axis, np.arange(N_SLICES) * SLICE_MM
    y0, x0 = rng.uniform(-3, 3, 2)
    radius = np.hypot((y - y0) / 54, (x - x0) / 62)
    slope = np.hypot((y - y0) / 54**2, (x - x0) / 62**2) / np.maximum(radius, 1e-6)
    body = ndtr((1 - radius) / np.maximum(slope, 1e-6) / BLUR_MM)
    organ = ndtr((22 - np.hypot(y - y0 - 10, x - x0 + 15)) / BLUR_MM)
    hu: Array = -1000 + body * (
        1020 + 90 * organ + (texture_hu * _waves(rng, z, y, x) if texture_hu else np.zeros((N_SLICES, 1, 1)))
    )
    return hu


def _waves(rng: np.random.Generator, z: Array, y: Array, x: Array) -> Array:
    """Each damped by the blur in the plane and the thickness of the slice; SD about 1 before that."""
    way = rng.normal(size=(200, 3))
    way *= np.geomspace(0.02, 0.2, 200)[:, None] / np.linalg.norm(way, axis=1, keepdims=True)
    damped = np.sinc(way[:, 0] * SLICE_MM) * np.exp(-2 * (np.pi * BLUR_MM) ** 2 * (way[:, 1:] ** 2).sum(axis=1))
    damped *= math.sqrt(2 / 200)
    turn = 2 * np.pi
    along = turn * (z[:, None, None] * way[:, 0] + y * way[:, 1]) + rng.uniform(0, turn, 200)
    across = turn * way[:, 2:] * x
    along, across = along.astype(np.float32), across.astype(np.float32)
    damped = damped.astype(np.float32)
    summed: Array = (damped * np.cos(along)) @ np.cos(across) - (damped * np.sin(along)) @ np.sin(across)
    return summed


def white(rng: np.random.Generator, shape: tuple[int, ...], pixel_mm: float) -> Array:
    """Of one spectral density: an SD of 1 in a pixel of 1 mm."""
    return rng.standard_normal(shape) / pixel_mm


def grainy(rng: np.random.Generator, shape: tuple[int, ...], pixel_mm: float) -> Array:
    """As a kernel leaves it: the SD of a voxel is 1 on any grid that is fine enough for the grain."""
    sigma = GRAIN_MM / pixel_mm
    smooth: Array = ndimage.gaussian_filter(rng.standard_normal(shape), (0, sigma, sigma), mode="wrap")
    return smooth * 2 * math.sqrt(math.pi) * sigma


Noise = Callable[[np.random.Generator, tuple[int, ...], float], Array]


def scan(seed: int, pixel_mm: float, modality: str, noise_hu: float, noise: Noise, texture_hu: float) -> Volume:
    """CT in HU; MR as the magnitude of two channels, air being nearly 0."""
    truth = render(seed, pixel_mm, texture_hu=texture_hu)
    rng = np.random.default_rng(seed + 100)
    first, second = (noise_hu * noise(rng, truth.shape, pixel_mm) for _ in range(2))
    voxels = truth + first if modality == "CT" else np.hypot(truth + 1000 + first, second)
    return Volume(voxels.astype(np.float32), Geometry((pixel_mm, pixel_mm, SLICE_MM)))


@cache
def told(seed: int, modality: str, noise_hu: float, noise: Noise, texture_hu: float) -> list[dict[str, float | None]]:
    """On the fine and on the coarse grid."""
    grids = (FINE_MM, COARSE_MM)
    return [measure(scan(seed, pixel_mm, modality, noise_hu, noise, texture_hu), modality) for pixel_mm in grids]


def ratio(feature: str, modality: str, noise_hu: float, noise: Noise, texture_hu: float) -> float:
    """Coarse over fine, the median of three objects; of the power where a logarithm is told."""
    found = []
    for seed in SEEDS:
        fine, coarse = (each[feature] for each in told(seed, modality, noise_hu, noise, texture_hu))
        assert fine is not None
        assert coarse is not None
        found.append(math.exp(coarse - fine) if "_log_" in feature else coarse / fine)
    return float(np.median(found))


def modality_of(feature: str) -> tuple[str, ...]:
    if "_relative" in feature or feature == "tissue_snr_air_ratio":
        return ("MR",)
    return ("CT",) if "_hu" in feature else ("CT", "MR")


def cases(features: set[str]) -> list[tuple[str, str]]:
    return [(feature, modality) for feature in sorted(features) for modality in modality_of(feature)]


def test_every_feature_of_the_image_is_in_one_list() -> None:
    lists = (PHYSICAL, QUANTILES, LOG_POWER, set(VOXEL), COUNTED)
    assert sorted(name for each in lists for name in each) == sorted(set(FEATURES) - set(STATED))
    assert {feature.name for feature in FAMILIES["acquisition"].features} == set(STATED)


@pytest.mark.parametrize(("feature", "modality"), cases(PHYSICAL))
def test_what_is_physical_is_free_of_the_grid(feature: str, modality: str) -> None:
    assert ratio(feature, modality, 3.0, white, 30.0) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise_hu", [3.0, 12.0])
@pytest.mark.parametrize(("feature", "modality"), cases(LOG_POWER))
def test_power_below_four_fifths_of_nyquist_is_free_of_the_grid(feature: str, modality: str, noise_hu: float) -> None:
    if not any(f"{100 * low:02.0f}_{100 * high:02.0f}" in feature and high <= TRUSTED for low, high in BANDS):
        assert told(0, modality, noise_hu, white, 30.0)[1][feature] is None or feature.startswith("power_30_40")
        return
    assert ratio(feature, modality, noise_hu, white, 30.0) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("feature", "modality"), cases(QUANTILES))
def test_quantiles_are_free_of_the_grid(feature: str, modality: str) -> None:
    unit = "hu" if modality == "CT" else "relative"
    moved = []
    for seed in SEEDS:
        fine, coarse = told(seed, modality, 3.0, white, 30.0)
        low, high = fine[f"q05_{unit}"], fine[f"q95_{unit}"]
        before, after = fine[feature], coarse[feature]
        assert None not in (low, high, before, after)
        moved.append((after - before) / (high - low))  # type: ignore[operator]
    assert np.median(moved) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("feature", "modality"), cases(set(VOXEL)))
def test_what_is_of_one_voxel_goes_as_it_says(feature: str, modality: str) -> None:
    power = VOXEL[feature]
    loud = 60.0 if feature.startswith("laplacian") else 15.0  # where edges would outweigh noise
    found = ratio(feature, modality, loud, white, 0.0)
    assert math.log(found) / math.log(RATIO) == pytest.approx(power, abs=0.05 * abs(power) / abs(math.log(RATIO)))


@pytest.mark.parametrize("feature", ["noise_level_hu", "noise_air_hu", "noise_mean_per_mm", "tissue_snr_ratio"])
def test_noise_that_ends_below_nyquist_is_free_of_the_grid(feature: str) -> None:
    assert ratio(feature, "CT", 15.0, grainy, 0.0) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise_hu", [3.0, 12.0])
def test_noise_does_not_narrow_edges(noise_hu: float) -> None:
    assert ratio("edge_width_mm", "CT", noise_hu, white, 30.0) == pytest.approx(1, abs=0.05)
    for each in told(0, "CT", noise_hu, white, 30.0):
        assert each["edge_width_mm"] == pytest.approx(2.563 * BLUR_MM, rel=0.1)
