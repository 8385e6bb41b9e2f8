"""Bring a site's intensities onto the reference's by one saved map per site.

One map for all scans of a site, never one per scan. Matching each scan to a common histogram
forces the same share of every intensity on all of them: a large lesion is then paid for by
darkening its surroundings, and what tells a sick scan from a healthy one is eaten. One monotone
map per site corrects how the site's scanner spells intensities (gain, offset, gamma) and
cannot change which of two voxels, or of two scans, is the brighter. It undoes neither blur nor
noise, and it still follows the site's case mix a little: do not fit it anew because prevalence moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.harmonize.landmarks import map_piecewise, merge_close
from platform_core.imaging.foreground import evenly, otsu_threshold
from platform_core.imaging.volume import Volume

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Deciles, as Nyul, Udupa & Zhang 2000 found to serve better than few landmarks. Not nearer to the ends: lesions are
often a hundredth of the foreground, and the 99 % quantile would follow how many patients have one."""
MAX_VOXELS = 200_000
"""Voxels looked at per volume of the sample."""
N_PER_VOLUME = 501
"""Order statistics that stand for one volume, so that every volume of the sample weighs the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramMatch:
    """What counts as foreground when landmarks are learned; the map itself is applied to every voxel."""

    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground (-500 HU suits CT); left out: Otsu's threshold of each volume."""


def learn_landmarks(settings: HistogramMatch, sample: Sequence[Volume], reference: Learned | None) -> Learned:
    """Find the site's landmarks: the median of its background, then quantiles of its foreground.

    The background median keeps air where air is; quantiles of the foreground alone do not move with
    the field of view. Foreground voxels are pooled over the sample, every volume with equal weight.

    Args:
        settings: What is foreground.
        sample: Volumes of one site.
        reference: What this step learned at the reference; None where the reference itself is fitted.

    Returns:
        `site` and `target`: equally long, non-decreasing. They are equal at the reference, and empty
        (no map) if no volume of the sample has a foreground.

    Source:
        Nyul & Udupa 1999, Magn. Reson. Med. 42(6):1072-1081,
        doi:10.1002/(SICI)1522-2594(199912)42:6<1072::AID-MRM11>3.0.CO;2-M;
        Nyul, Udupa & Zhang 2000, IEEE Trans. Med. Imaging 19(2):143-150, doi:10.1109/42.836373.
        Pooling per site instead of mapping each scan, and the background landmark, are ours.
    """
    site = _landmarks(settings, sample)
    target = (reference or {}).get("target") or site
    return {"site": site, "target": target} if site else {"site": [], "target": target}


def map_to_target(volume: Volume, settings: HistogramMatch, learned: Learned) -> Volume:  # noqa: ARG001
    """Map intensities piecewise-linearly from the site's landmarks to the target's; float32, same grid.

    Non-decreasing; beyond the outermost landmarks the last segment goes on. The identity at the
    reference itself, and where nothing was learned.
    """
    site, target = learned["site"], learned["target"]
    if not site or site == target:
        return replace(volume, voxels=volume.voxels.astype(np.float32))
    x, y = merge_close(np.asarray(site, dtype=np.float64), np.asarray(target, dtype=np.float64))
    return replace(volume, voxels=map_piecewise(volume.voxels, x, y))


def _landmarks(settings: HistogramMatch, sample: Sequence[Volume]) -> list[float]:
    background, pool = [], []
    for volume in sample:
        values = evenly(volume.voxels, MAX_VOXELS).astype(np.float64)
        threshold = otsu_threshold(values) if settings.foreground_above is None else settings.foreground_above
        if threshold is None or not (values > threshold).any():
            continue
        pool.append(np.quantile(values[values > threshold], np.linspace(0, 1, N_PER_VOLUME)))
        if (values <= threshold).any():
            background.append(float(np.median(values[values <= threshold])))
    if not pool:
        return []
    found = np.quantile(np.concatenate(pool), QUANTILES)
    first = min(float(np.median(background)), float(found[0])) if background else float(found[0])
    return [_rounded(value) for value in (first, *found)]


def _rounded(value: float) -> float:
    """Six digits, so that a recipe's hash does not hang on the last bit of a sum."""
    return float(f"{value:.6g}")


HISTOGRAM_MATCH = Harmonizer(
    name="histogram_match", settings=HistogramMatch, fit=learn_landmarks, apply=map_to_target, version=2
)
