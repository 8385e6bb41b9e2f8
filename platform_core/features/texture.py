"""What noise looks like in flat tissue: how high a reader sees it, and how fine its grain is."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Floats, Slices

Doubles = npt.NDArray[np.float64]

SOFT_HU = (0.0, 100.0)
WINDOW_MM = 7.0
"""10 x 10 pixels of .7 mm."""
MIN_WINDOWS = 20
STEEP = 1.0
"""Rise across a window, in SDs of what is left without it, from where on it is an edge."""
LOG_STEP = 0.01
PATCH_MM = 20.0
MIN_PIXELS = 4
"""Pixels along a window or patch below which it has no spread or no frequencies of its own."""
MIN_PATCHES, MAX_PATCHES = 4, 400
LEAST_KEPT = 0.2
"""Below this share the surface has taken the noise, and nothing is given back beyond."""
FLAT = 1 / 3
"""Share of the patches, those of least SD, that count as flat."""


def measure_texture(slices: Slices) -> Mapping[str, float | None]:
    """Global noise level, and mean frequency of the noise.

    noise_level_hu (CT): the mode of the SD in windows of 7 mm side by side, whose mean lies from 0 to 100 HU. Each
        window loses its plane; where that rises by more than the SD of the rest, the window holds an edge and is
        left out. The mode is the peak of the density of ln SD. HU, positive, grows with noise of any
        frequency above .1 cycles/mm; of one voxel, so that white noise falls with the square root of its
        volume. None with fewer than 20 windows.
    noise_mean_per_mm: integral of f times NPS(f) over that of NPS(f), NPS being the power spectrum of the flattest
        third of patches of 20 mm in the foreground (CT: 0 to 100 HU) without their second-order surface (what that
        takes of white noise is given back), averaged over rings one frequency step wide up to the Nyquist frequency.
        Cycles/mm, positive; a kernel moves it, dose does not. Half the Nyquist frequency for white noise;
        free of the grid as far as the noise ends below Nyquist. Up to an eighth too high for coarse grain, of
        which flat patches have less. None with fewer than 4 patches.

    Both None for plain images.

    Source:
        Kuo et al. 2024, Phys. Med. Biol. 69(9), doi:10.1088/1361-6560/ad3883 (level; there by a sliding window and a
        map of gradients); AAPM Task Group 233 2019, doi:10.1002/mp.13763 (mean frequency; there in a phantom).
    """
    if slices.geometry is None or slices.image is None:
        return {}
    x_mm, y_mm, _ = slices.geometry.spacing_mm
    told = {"noise_mean_per_mm": _mean_frequency(slices, x_mm, y_mm)}
    return told | {"noise_level_hu": _level(slices, x_mm, y_mm)} if slices.modality == "CT" else told


def _level(slices: Slices, x_mm: float, y_mm: float) -> float | None:
    windows = _patches(slices, round(WINDOW_MM / y_mm), round(WINDOW_MM / x_mm))
    if len(windows) < MIN_WINDOWS:
        return None
    n_y, n_x = windows.shape[1:]
    values = windows.reshape(len(windows), -1)
    plane = values @ _surfaces(n_y, n_x)[:, :3]
    rest = np.einsum("ij,ij->i", values, values, dtype=np.float64) - np.square(plane).sum(axis=1, dtype=np.float64)
    sd = np.sqrt(np.clip(rest, 0, None) / (n_y * n_x - 3))
    # a slope b of unit steps has the coefficient b * sqrt(n * (n_axis^2 - 1) / 12); the rise is b * n_axis
    rise = np.sqrt(12 / (n_y * n_x)) * np.hypot(
        plane[:, 1] * n_y / np.sqrt(n_y**2 - 1), plane[:, 2] * n_x / np.sqrt(n_x**2 - 1)
    )
    flat = sd[(sd > 0) & (rise <= STEEP * sd)]
    return _mode(flat) if flat.size >= MIN_WINDOWS else None


def _mode(values: Doubles) -> float:
    """Peak of a Gaussian kernel density of the logarithms; Silverman's width from the quartiles."""
    logs = np.log(values)
    spread = float(np.subtract(*np.quantile(logs, [0.75, 0.25]))) / 1.349
    width = max(0.9 * spread * len(logs) ** -0.2 / LOG_STEP, 1.0)
    place = np.rint((logs - logs.min()) / LOG_STEP).astype(np.intp)
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    density = np.convolve(np.bincount(place), kernel, mode="full")[reach:-reach]
    return float(np.exp(logs.min() + LOG_STEP * np.argmax(density)))


def _mean_frequency(slices: Slices, x_mm: float, y_mm: float) -> float | None:
    patches = _patches(slices, round(PATCH_MM / y_mm), round(PATCH_MM / x_mm))
    if len(patches) < MIN_PATCHES:
        return None
    n_y, n_x = patches.shape[1:]
    values, surfaces = patches.reshape(len(patches), -1), _surfaces(n_y, n_x)
    rest = values - (values @ surfaces) @ surfaces.T
    n_flat = min(max(MIN_PATCHES, round(FLAT * len(rest))), MAX_PATCHES)
    flat = rest[np.argsort(rest.var(axis=1), kind="stable")[:n_flat]]
    spectra = np.fft.rfft2(flat.reshape(-1, n_y, n_x))
    power = np.mean(spectra.real**2 + spectra.imag**2, axis=0) / _kept(n_y, n_x)
    return _mean_of_rings(power, n_x, x_mm, y_mm)


@lru_cache(maxsize=32)
def _kept(n_y: int, n_x: int) -> Doubles:
    """Share of white noise that is left at each frequency of `rfft2` without the surface; its own frequency aside."""
    surfaces = np.fft.rfft2(_surfaces(n_y, n_x).T.reshape(-1, n_y, n_x).astype(np.float64))
    lost = (surfaces.real**2 + surfaces.imag**2).sum(axis=0) / (n_y * n_x)
    kept: Doubles = np.clip(1 - lost, LEAST_KEPT, 1)
    return kept


def _mean_of_rings(power: Doubles, n_x: int, x_mm: float, y_mm: float) -> float | None:
    """Integral of f P over that of P, by trapezia up to Nyquist; below the first ring P is taken to be level."""
    frequency = np.hypot(np.fft.fftfreq(len(power), y_mm)[:, None], np.fft.rfftfreq(n_x, x_mm))
    step = 1 / min(len(power) * y_mm, n_x * x_mm)
    ring = np.rint(frequency / step).astype(np.intp).ravel()
    weight = (np.where(np.arange(power.shape[1]) % (n_x / 2) == 0, 1.0, 2.0) * np.ones_like(power)).ravel()
    n_rings = int(0.5 / max(x_mm, y_mm) / step + 1e-6) + 1
    n, f, p = (
        np.bincount(ring, values)[:n_rings] for values in (weight, weight * frequency.ravel(), weight * power.ravel())
    )
    means, densities = f / n, p / n
    densities[0] = densities[1]
    total = float(np.trapezoid(densities, means))
    return float(np.trapezoid(means * densities, means)) / total if total > 0 else None


def _patches(slices: Slices, n_y: int, n_x: int) -> Floats:
    """(patch, y, x), side by side: those all of whose pixels are foreground, and in CT on average soft tissue."""
    assert slices.image is not None
    size = slices.image.shape
    rows, columns = (size[1] // n_y, size[2] // n_x) if min(n_y, n_x) >= MIN_PIXELS else (0, 0)
    if not rows * columns:
        return np.zeros((0, MIN_PIXELS, MIN_PIXELS), np.float32)
    cut = (slice(None), slice(rows * n_y), slice(columns * n_x))
    tiles = (size[0], rows, n_y, columns, n_x)
    inside = slices.foreground[cut].reshape(tiles).all(axis=(2, 4))
    patches: Floats = slices.image[cut].reshape(tiles).swapaxes(2, 3)[inside]
    if slices.modality != "CT":
        return patches
    means = patches.mean(axis=(1, 2))
    soft: Floats = patches[(means >= SOFT_HU[0]) & (means <= SOFT_HU[1])]
    return soft


@lru_cache(maxsize=32)
def _surfaces(n_y: int, n_x: int) -> Floats:
    """(pixel, 6): 1, y, x, xy, yy, xx, each orthonormal to those before it."""
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : n_y * 1j, -1 : 1 : n_x * 1j])
    basis, _ = np.linalg.qr(np.stack([np.ones_like(x), y, x, x * y, y * y, x * x], axis=1))
    return basis.astype(np.float32)


TEXTURE = Family(
    name="texture",
    features=(
        Feature(name="noise_level_hu", unit="HU", bank="acquisition", meaning="mode of the SD in soft tissue; CT"),
        Feature(name="noise_mean_per_mm", unit="1/mm", bank="acquisition", meaning="mean frequency of the noise"),
    ),
    measure=measure_texture,
)
