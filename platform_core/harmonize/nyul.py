"""Bring every scan onto the standard scale of the reference, by landmarks of its own.

One map per scan: for MR, where each scan has a scale of its own, and for sites never seen, which need no fit.
The price is what `histogram_match` avoids by one map per site: all scans get the same quantiles, so
differences of case mix are eaten with the scanner's. A large bright lesion shifts its scan's upper
landmarks and is paid for by darker surroundings; a site with more disease looks like the reference.
Prefer `histogram_match` where a site's scans share a scale (CT), `white_stripe` for brains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.harmonize.landmarks import map_piecewise, merge_close
from platform_core.imaging.foreground import evenly, otsu_threshold
from platform_core.imaging.volume import Volume

Floats = npt.NDArray[np.float64]

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Deciles, and ends that a lesion of a few hundredths of the foreground does not reach."""
MAX_VOXELS = 200_000
"""Voxels looked at per volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nyul:
    """What counts as foreground when landmarks are found; the map itself is applied to every voxel."""

    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground; left out: Otsu's threshold of each volume, which moves with the gain."""


@dataclass(frozen=True, slots=True)
class _Landmarks:
    """Of one scan: the median of its background, if it has one, and quantiles of its foreground."""

    background: float | None
    foreground: Floats


def learn_standard_scale(settings: Nyul, sample: Sequence[Volume], reference: Learned | None) -> Learned:
    """Find the mean landmarks of the reference's scans.

    Each scan's landmarks are first brought linearly onto one range (the medians of the lowest and of the highest), so
    that scans of high gain weigh no more than others.

    Args:
        settings: What is foreground.
        sample: Volumes of the site; not looked at unless it is the reference.
        reference: What this step learned at the reference; None where the reference itself is fitted.

    Returns:
        `target`: the value that each of `QUANTILES` is mapped to, non-decreasing, empty (no map) if no volume has a
        foreground; `background`: the value that the background's median is mapped to, None without one.

    Source:
        Nyul & Udupa 1999, Magn. Reson. Med. 42(6):1072-1081,
        doi:10.1002/(SICI)1522-2594(199912)42:6<1072::AID-MRM11>3.0.CO;2-M;
        Nyul, Udupa & Zhang 2000, IEEE Trans. Med. Imaging 19(2):143-150, doi:10.1109/42.836373.
        The background landmark, and ends at 5 % and 95 %, are ours.
    """
    if reference is not None:
        return dict(reference)
    found = [landmarks for volume in sample if (landmarks := _landmarks(volume, settings)) is not None]
    scans = [scan for scan in found if scan.foreground[0] < scan.foreground[-1]]
    if not scans:
        return {"target": [], "background": None}
    low, high = (float(np.median([scan.foreground[end] for scan in scans])) for end in (0, -1))
    ranged = [(scan.foreground - scan.foreground[0]) / np.ptp(scan.foreground) for scan in scans]
    target = low + (high - low) * np.mean(ranged, axis=0)
    dark = [scan.background for scan in scans if scan.background is not None]
    background = _rounded(min(float(np.median(dark)), low)) if dark else None
    return {"target": [_rounded(value) for value in target], "background": background}


def map_to_standard_scale(volume: Volume, settings: Nyul, learned: Learned) -> Volume:
    """Map a scan piecewise-linearly from its own landmarks to the reference's.

    Non-decreasing; beyond the outermost landmarks the last segment goes on.

    Args:
        volume: Still volume (z, y, x), any unit.
        settings: As in the fit.
        learned: The reference's landmarks.

    Returns:
        float32 volume on the same grid, in the reference's unit; unchanged without a foreground,
        as in a constant volume, and where nothing was learned.
    """
    scan = _landmarks(volume, settings) if learned["target"] else None
    if scan is None:
        return replace(volume, voxels=volume.voxels.astype(np.float32))
    x, y = scan.foreground, np.asarray(learned["target"], dtype=np.float64)
    if scan.background is not None and learned["background"] is not None:
        x, y = np.insert(x, 0, scan.background), np.insert(y, 0, learned["background"])
    return replace(volume, voxels=map_piecewise(volume.voxels, *merge_close(x, y)))


def _landmarks(volume: Volume, settings: Nyul) -> _Landmarks | None:
    """None for a volume without foreground."""
    values = evenly(volume.voxels, MAX_VOXELS).astype(np.float64)
    threshold = otsu_threshold(values) if settings.foreground_above is None else settings.foreground_above
    if threshold is None or not (values > threshold).any():
        return None
    dark = values[values <= threshold]
    background = float(np.median(dark)) if dark.size else None
    return _Landmarks(background, np.quantile(values[values > threshold], QUANTILES))


def _rounded(value: float) -> float:
    """Six digits, so that a recipe's hash does not hang on the last bit of a sum."""
    return float(f"{value:.6g}")


NYUL = Harmonizer(name="nyul", settings=Nyul, fit=learn_standard_scale, apply=map_to_standard_scale)
