"""Is a mean over patients above 0? One-sided, far out in the tail, where a thousand resamples cannot look."""

from collections.abc import Sequence

import numpy as np

from platform_core.errors import EmptySample
from platform_core.shift.risk import Reals


def chance_of_no_gain(saved: Reals, patients: Sequence[str], weight: Reals | None = None) -> float:
    """One-sided p value of "the mean is 0 or below" against "it is above 0", in [0, 1].

    Student's t of the patients' sums about the mean per scan (a ratio, linearised), corrected for skewness where the
    correction is unfavourable: rare large losses make the plain t pass too often, rare large gains too seldom.
    A loss so rare that no patient of the sample shows it is beyond any test.

    Args:
        saved: One value per scan.
        patients: Of every scan; all of one patient count as one observation.
        weight: Of every scan; None: all 1.

    Raises:
        EmptySample: If there are fewer than two patients.

    Source:
        Hall 1992, "On the removal of skewness by transformation", J. R. Stat. Soc. B 54(1), 221-228,
        doi:10.1111/j.2517-6161.1992.tb01876.x, for the cubic transformation of the t statistic.
    """
    from scipy.special import stdtr

    names, row = np.unique(np.asarray(patients), return_inverse=True)
    m = len(names)
    if m < 2:
        raise EmptySample("patients to compare", 2, m)
    weight = np.ones(len(saved)) if weight is None else weight
    sums, sizes = (np.bincount(row, weights=w, minlength=m) for w in (weight * saved, weight))
    mean = sums.sum() / sizes.sum()
    about = (sums - mean * sizes) / sizes.mean()
    spread = float(np.sqrt(np.sum(about**2) / (m - 1)))
    if spread == 0:
        return 0.0 if mean > 0 else 1.0
    t = float(np.sqrt(m) * mean / spread)
    skewness = float(np.mean(about**3)) / spread**3
    return float(stdtr(m - 1, -min(t, _unskewed(t, skewness, m))))


def _unskewed(t: float, skewness: float, m: int) -> float:
    a = skewness / np.sqrt(m)
    return float(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6)
