"""ScoredPatients as rows of numbers: what a test that looks at all features of a patient at once is given."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.shift.risk import Reals


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPatients:
    """One row per patient of one stratum, in order of arrival."""

    features: tuple[str, ...]
    values: Reals
    """(patients, features), each in its unit, NaN where unknown."""
    score: Reals | None = None
    """(patients,), of the model, logit or any monotone unit, NaN where unknown; None before there is one."""
    y: Reals | None = None
    """(patients,), 1 positive, 0 negative, NaN unknown."""

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> "ScoredPatients":
        """The first `n` of them."""
        return self.taken(np.arange(min(n, len(self))))

    def taken(self, rows: npt.NDArray[np.intp]) -> "ScoredPatients":
        """Some of them, in that order."""
        score, y = (None if column is None else column[rows] for column in (self.score, self.y))
        return replace(self, values=self.values[rows], score=score, y=y)

    def column(self, feature: str) -> Reals:
        """The values of one feature, (patients,)."""
        return np.asarray(self.values[:, self.features.index(feature)], np.float64)
