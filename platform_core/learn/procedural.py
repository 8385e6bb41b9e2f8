"""Images of nothing, with the statistics of natural ones: what our own source weights have learned from.

Overlapping ellipsoids of many sizes (dead leaves) and noise with a power spectrum |w|^-alpha, under a blur, noise and
gain; in half of them one or two soft spots. What was put in is known exactly, so it can be asked for. No scan, no
patient and no download is behind it.

Source:
    Dead leaves: Lee, Mumford & Huang 2001, doi:10.1023/A:1011109015675 (sizes as r^-3 give scale invariance). Spectra:
    Tolhurst et al. 1992, doi:10.1111/j.1475-1313.1992.tb01313.x. That networks learn from both: Baradad et al. 2021,
    "Learning to See by Looking at Noise", arXiv:2106.05963.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]

N_LEAVES = 60
SMALLEST_PX = (2.0, 6.0)
LARGEST = 0.6
"""Radius of the largest leaf, as a share of the last axis."""
ALPHA = (1.0, 3.5)
"""Slopes of power spectra: 1.7 to 3.3 in breast CT to mammography, 2.4 in natural images."""
TEXTURE = (0.02, 0.15)
"""Standard deviation of the texture in an image of [0, 1]."""
SPOT_PX = 1.0
LARGEST_SPOT = 0.14
"""As a share of the last axis."""
SPOT_CONTRAST = (1.5, 8.0)
"""Peak of a spot in standard deviations of the texture."""
FLATTEST = 0.35
"""Of a spot or leaf along z in a volume of few, thick slices."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What was put into an image, on scales of about 1."""

    has_spot: float
    is_bright: float
    """1, 0 for a dark spot; 0 without."""
    size: float
    contrast: float
    """ln of the peak over the texture's standard deviation; 0 without a spot."""
    slope: float
    blur: float
    noise: float
    leaves: float
    """Share of the texture that is leaves, centred."""


def draw(shape: Shape, rng: np.random.Generator) -> tuple[Array, Truth]:
    """One image, (z, y, x) or (y, x), in [0, 1], and what is in it."""
    grid = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    share, alpha, spread = rng.random(), rng.uniform(*ALPHA), _log_uniform(rng, TEXTURE)
    leaves = _dead_leaves(shape, grid, rng)
    texture = np.sqrt(share) * leaves / max(float(leaves.std()), 1e-3) + np.sqrt(1 - share) * _power_law(
        shape, alpha, rng
    )
    image = 0.5 + 0.1 * rng.standard_normal() + spread * texture
    has_spot, is_bright, size, contrast = rng.random() < 0.5, rng.random() < 0.7, 0.0, 0.0
    if has_spot:
        size, contrast = rng.uniform(SPOT_PX, LARGEST_SPOT * shape[-1]), _log_uniform(rng, SPOT_CONTRAST)
        sign = 1 if is_bright else -1
        image = image + sign * spread * contrast * _spots(shape, grid, size, rng)
    if rng.random() < 0.6:
        image = np.where(_body(shape, grid, rng), image, rng.uniform(0, 0.2))
    blur = rng.uniform(0, 0.9)
    image = gaussian_filter(image, [blur * _flatness(shape)] * (len(shape) - 2) + [blur] * 2)
    noise = spread * rng.uniform(0.1, 1.0)
    grain = [0.0] * (len(shape) - 2) + [0.6 * rng.random()] * 2
    image = image + noise * gaussian_filter(rng.standard_normal(shape), grain)
    truth = Truth(
        has_spot=float(has_spot),
        is_bright=float(has_spot and is_bright),
        size=8 * size / shape[-1],
        contrast=float(np.log(contrast)) if has_spot else 0.0,
        slope=alpha - float(np.mean(ALPHA)),
        blur=blur - 0.45,
        noise=float(np.log(noise)) + 3,
        leaves=share - 0.5,
    )
    return np.clip(image, 0, 1).astype(np.float32), truth


def _dead_leaves(shape: Shape, grid: Sequence[Array], rng: np.random.Generator) -> Array:
    """Each leaf covers what was there before."""
    found = np.zeros(shape, dtype=np.float32)
    smallest, largest = rng.uniform(*SMALLEST_PX), LARGEST * shape[-1]
    for _ in range(N_LEAVES):
        radius = smallest / np.sqrt(1 - rng.random() * (1 - (smallest / largest) ** 2))
        radii = radius * np.exp(0.3 * rng.standard_normal(len(shape)))
        found[_distance(grid, rng.random(len(shape)) * shape, _flat(radii, shape)) < 1] = rng.standard_normal()
    return found


def _power_law(shape: Shape, alpha: float, rng: np.random.Generator) -> Array:
    """Gaussian noise with the power spectrum |w|^-alpha, standard deviation 1."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    frequency = np.sqrt(sum(np.square(w) for w in np.meshgrid(*axes, indexing="ij", sparse=True)))
    frequency.flat[0] = np.inf
    white = np.fft.rfftn(rng.standard_normal(shape))
    coloured = np.fft.irfftn(white * frequency ** (-alpha / 2), s=shape, axes=range(len(shape)))
    return np.asarray(coloured / coloured.std(), dtype=np.float32)


def _spots(shape: Shape, grid: Sequence[Array], size: float, rng: np.random.Generator) -> Array:
    """One or two soft ellipsoids with a peak of 1."""
    found = np.zeros(shape, dtype=np.float32)
    for _ in range(1 if rng.random() < 0.7 else 2):
        centre = [n / 2 + 0.7 * n * (rng.random() - 0.5) for n in shape]
        radii = np.maximum(_flat(size * np.exp(0.15 * rng.standard_normal(len(shape))), shape), 0.6)
        found += np.exp(-0.7 * _distance(grid, centre, radii))
    return found


def _body(shape: Shape, grid: Sequence[Array], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """An ellipse in plane, the same in all slices."""
    plane, sides = list(grid[-2:]), shape[-2:]
    inside = _distance(plane, [n / 2 for n in sides], [n * rng.uniform(0.38, 0.75) for n in sides]) < 1
    return np.asarray(np.broadcast_to(inside, shape))


def _distance(grid: Sequence[Array], centre: Iterable[float], radii: Iterable[float]) -> Array:
    """Squared distance from a centre, in radii."""
    return np.asarray(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)), dtype=np.float32)


def _flat(radii: npt.NDArray[np.float64], shape: Shape) -> npt.NDArray[np.float64]:
    return np.asarray(radii * np.array([_flatness(shape)] * (len(shape) - 2) + [1.0, 1.0]), dtype=np.float64)


def _flatness(shape: Shape) -> float:
    """Voxels of a volume with few slices are long in z."""
    return max(shape[0] / shape[-1], FLATTEST) if len(shape) == 3 else 1.0


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
