"""Express a brain MR in spreads of its normal white matter.

For brains without skull and scalp: fat is brighter than white matter on T1, and would be taken for it.
"""

from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.foreground import evenly, otsu_threshold
from platform_core.imaging.volume import Volume, Voxels

Floats = npt.NDArray[np.float64]

MAX_VOXELS = 200_000
"""Order statistics of the foreground that its histogram is made of."""
N_BINS = 1024
BRIGHTEST = 0.999
"""The histogram ends at this quantile: vessels and spikes would stretch it."""
SIGNIFICANT = 0.2
"""A peak lower than this share of the highest is no tissue class of a whole brain. Ours."""
PROMINENT = 0.02
"""A peak that rises less than this share of the highest above the valley beside it is a ripple. Ours."""
CHANCE = 4.0
"""Nor is it a peak if it rises less than this many standard errors of the density at the highest. Ours."""
ROUNDING = 1 / sqrt(12)
"""Standard deviation that rounding to whole steps alone gives, in steps: that of a uniform variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiteStripe:
    """Where white matter is sought, and how much of it is taken."""

    contrast: Literal["t1", "t2", "flair", "pd"] = "t1"
    """Which peak is white matter's: the brightest on T1, the highest on T2 and FLAIR, the darkest on PD."""
    width: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of the foreground that is taken on either side of the peak."""
    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground (0 suits brains cut out); left out: Otsu's threshold of each volume."""


def white_stripe(volume: Volume, settings: WhiteStripe, learned: Learned) -> Volume:  # noqa: ARG001
    """Subtract the mean of the white stripe and divide by its standard deviation.

    The stripe is those voxels of the foreground whose rank is within `width` of that of white matter's
    peak. Gain and offset go. Lesions take no part, but as they add to the foreground they widen the
    stripe: by about their share of it. The spread counts as no less than what rounding to grey levels gives,
    so that coarse scans are not blown up.

    Args:
        volume: Still volume (z, y, x) of a brain, any unit.
        settings: Which peak.
        learned: Not used.

    Returns:
        float32 volume on the same grid, 0 at normal white matter, in its standard deviations; zero everywhere
        where the foreground has no spread, as in a constant volume.

    Raises:
        UnreadableScan: `empty_foreground` if no voxel is above the stated threshold; `no_tissue_peak` if the
            histogram of the foreground has no peak, so that no value stands for a tissue.

    Source:
        Shinohara et al. 2014, NeuroImage Clin. 6:9-19, doi:10.1016/j.nicl.2014.08.008. How the
        histogram is smoothed and the least spread are ours.
    """
    stated = settings.foreground_above
    threshold = otsu_threshold(volume.voxels) if stated is None else stated
    if threshold is None:
        return _zero(volume)
    ordered = np.sort(volume.voxels[volume.voxels > threshold])
    if ordered.size == 0:
        raise UnreadableScan("empty_foreground", f"no voxel above {threshold:g}")
    sample = evenly(ordered, MAX_VOXELS).astype(np.float64)
    if sample[0] == sample[-1]:
        return _zero(volume)
    grey_level = float(np.median(np.diff(np.unique(sample))))
    peak = _white_matter(sample, threshold, grey_level, settings.contrast)
    stripe = _about(ordered, np.searchsorted(sample, peak) / len(sample), settings.width)
    spread = max(float(stripe.std(dtype=np.float64)), ROUNDING * grey_level)
    voxels = np.subtract(volume.voxels, np.float32(stripe.mean(dtype=np.float64)), dtype=np.float32)
    voxels /= np.float32(spread)
    return replace(volume, voxels=voxels)


def _zero(volume: Volume) -> Volume:
    return replace(volume, voxels=np.zeros(volume.voxels.shape, dtype=np.float32))


def _white_matter(sample: Floats, threshold: float, grey_level: float, contrast: str) -> float:
    """The value of white matter's peak in the smoothed histogram of an ordered foreground."""
    from scipy.signal import find_peaks

    middles, density, error = _smooth_histogram(sample, threshold, grey_level)
    highest = density.max()
    least = max(PROMINENT * highest, CHANCE * error)
    peaks, _ = find_peaks(density, height=SIGNIFICANT * highest, prominence=least)
    if len(peaks) == 0:
        raise UnreadableScan("no_tissue_peak", "the histogram of the foreground has no peak")
    found = {"t1": peaks[-1], "pd": peaks[0]}.get(contrast, peaks[np.argmax(density[peaks])])
    return float(middles[found])


def _smooth_histogram(sample: Floats, threshold: float, grey_level: float) -> tuple[Floats, Floats, float]:
    """Middles of bins, counts smoothed by a Gaussian at least a grey level wide, and their greatest standard error.

    Mirrored at the lower end, which is a cut through what lies around the threshold: so the cut makes no peak.
    The greatest value is left out, since a clipped or saturated scan has a pile there.

    Source:
        Width: Silverman 1986, Density Estimation for Statistics and Data Analysis, equation 3.31. Error: Poisson
        counts weighted by a Gaussian of `sigma` bins, whose squares sum to 1 / (2 sqrt(pi) sigma).
    """
    from scipy.ndimage import gaussian_filter1d

    n = len(sample)
    quarters = np.quantile(sample, [0.25, 0.75])
    spread = min(s for s in (float(sample.std()), float(np.ptp(quarters)) / 1.34) if s > 0)
    width = max(0.9 * spread * n**-0.2, grey_level)
    end = sample[int(BRIGHTEST * (n - 1))] + 4 * width
    start = max(threshold, sample[0] - grey_level / 2)
    unclipped = sample[: np.searchsorted(sample, sample[-1])]
    counts, edges = np.histogram(unclipped, bins=N_BINS, range=(start, end))
    sigma = max(width / (edges[1] - edges[0]), 2.0)
    density = gaussian_filter1d(counts.astype(np.float64), sigma, mode="reflect")
    return (edges[:-1] + edges[1:]) / 2, density, sqrt(density.max() / (2 * sqrt(pi) * sigma))


def _about(ordered: Voxels, rank: float, width: float) -> Voxels:
    """The values within `width` of a rank in [0, 1]; at least one."""
    n = len(ordered)
    first = min(max(int((rank - width) * n), 0), n - 1)
    return ordered[first : max(int((rank + width) * n), first + 1)]


WHITE_STRIPE = Harmonizer(name="white_stripe", settings=WhiteStripe, apply=white_stripe)
