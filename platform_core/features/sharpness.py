"""How fast intensities rise where the patient ends, and how much fine structure there is."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import MIN_VOXELS, Floats, Mask, Slices
from platform_core.imaging.foreground import evenly

PROFILE_MM = 6.0
"""Half the length of a profile across the edge; the widest edge that can be told is about as wide."""
MAX_PROFILES = 1000
MIN_PROFILES = 20
RISE_10_90 = 2.5631
"""10 % to 90 % of a normal distribution function, in standard deviations."""
SAMPLING = 1 / 6
"""Half of it is the difference over a pixel, half its distance from the steepest place; exact for steps and blurs."""


def measure_sharpness(slices: Slices) -> Mapping[str, float | None]:
    """Width of the foreground's edge, and energy of the Laplacian.

    edge_width_mm: 10-90 % rise distance of the Gaussian-blurred step that has the height and the steepest slope of
        the profile: 2.563 / sqrt(2 pi) * height / slope, less the share of sampling: the steepest of differences a
        pixel apart makes the Gaussian wider, by a sixth of the pixel's square in its variance. Profiles of 6 mm
        to both sides run along x or y, whichever is nearer to the gradient, and are shortened by its cosine; the
        median of at most 1000 of them, those across the higher half of the steps. mm, not negative, grows with
        blur; 0 for a step within one pixel. None with fewer than 20 profiles.
    laplacian_log_*: natural logarithm of the mean square of d2I/dx2 + d2I/dy2 in the foreground's interior. Any real
        number; grows with sharpness and with noise. HU^2/mm^4 for CT, others 1/mm^4 after division by the
        foreground's median. Of one pixel: it sees all frequencies up to Nyquist, the highest most.

    None for plain images: nothing in mm can be said of them.

    Source:
        The air-skin edge as a measure of resolution: Sanders, Hurwitz & Samei 2016,
        doi:10.1118/1.4958208 (there its modulation transfer function, here only its width).
    """
    if slices.geometry is None or slices.image is None:
        return {}
    x_mm, y_mm, _ = slices.geometry.spacing_mm
    name = "laplacian_log_hu2_mm4" if slices.modality == "CT" else "laplacian_log_relative_mm4"
    return {
        "edge_width_mm": _edge_width_mm(slices, x_mm, y_mm),
        name: _laplacian(slices.image, slices.interior, x_mm, y_mm),
    }


def _laplacian(image: Floats, interior: Mask, x_mm: float, y_mm: float) -> float | None:
    middle = image[:, 1:-1, 1:-1]
    along_x = (image[:, 1:-1, 2:] + image[:, 1:-1, :-2] - 2 * middle) / x_mm**2
    along_y = (image[:, 2:, 1:-1] + image[:, :-2, 1:-1] - 2 * middle) / y_mm**2
    inside = (along_x + along_y)[interior]
    energy = float(np.mean(np.square(inside), dtype=np.float64)) if inside.size >= MIN_VOXELS else 0.0
    return math.log(energy) if energy > 0 else None


def _edge_width_mm(slices: Slices, x_mm: float, y_mm: float) -> float | None:
    """Profiles along x, then, with the axes swapped, along y."""
    along_x = _profiles(slices.voxels, slices.foreground, x_mm, y_mm)
    swapped = slices.voxels.swapaxes(1, 2), slices.foreground.swapaxes(1, 2)
    heights, widths = np.concatenate([along_x, _profiles(*swapped, y_mm, x_mm)], axis=1)
    if len(heights) < MIN_PROFILES:
        return None
    high = heights >= np.median(heights)
    return float(np.median(widths[high]))


def _profiles(image: Floats, mask: Mask, along_mm: float, across_mm: float) -> npt.NDArray[np.float64]:
    """Height and width in mm, (2, profile), of edges along the last axis."""
    half = max(2, round(PROFILE_MM / along_mm))
    n_pixels = image.shape[2]
    crossing = mask[:, 1:-1, half : n_pixels - half] != mask[:, 1:-1, half - 1 : n_pixels - half - 1]
    places = evenly(np.flatnonzero(crossing), MAX_PROFILES // 2)
    z, y, x = np.unravel_index(places, crossing.shape)
    y, x = y + 1, x + half
    steps = np.arange(-half, half)
    profile = image[z[:, None], y[:, None], x[:, None] + steps].astype(np.float64)
    height = np.abs(profile[:, -2:].mean(axis=1) - profile[:, :2].mean(axis=1))
    slope = np.abs(np.diff(profile, axis=1)).max(axis=1) / along_mm
    across = np.abs(_mean_of_pair(image, z, y + 1, x) - _mean_of_pair(image, z, y - 1, x)) / (2 * across_mm)
    along = np.abs(profile[:, half] - profile[:, half - 1]) / along_mm
    steep = (along >= across) & (slope > 0) & (height > 0)
    cosine = along[steep] / np.hypot(along[steep], across[steep])
    seen = height[steep] / slope[steep] / math.sqrt(2 * math.pi)
    sd = np.sqrt(np.clip(seen**2 - SAMPLING * along_mm**2, 0, None))
    return np.stack([height[steep], RISE_10_90 * sd * cosine])


def _mean_of_pair(
    image: Floats, z: npt.NDArray[np.intp], y: npt.NDArray[np.intp], x: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Mean of the two pixels on either side of the crossing."""
    pair: npt.NDArray[np.float64] = (image[z, y, x].astype(np.float64) + image[z, y, x - 1]) / 2
    return pair


SHARPNESS = Family(
    name="sharpness",
    features=(
        Feature(name="edge_width_mm", unit="mm", bank="acquisition", meaning="10-90 % width of the foreground's edge"),
        Feature(
            name="laplacian_log_hu2_mm4",
            unit="ln(HU^2/mm^4)",
            bank="acquisition",
            meaning="energy of the Laplacian; CT",
        ),
        Feature(
            name="laplacian_log_relative_mm4",
            unit="ln(1/mm^4)",
            bank="acquisition",
            meaning="energy of the Laplacian relative to the foreground's median; not CT",
        ),
    ),
    measure=measure_sharpness,
)
