"""What can be looked at: patients of a site by any recipe, and what is known of a period. No truth is here."""

from dataclasses import dataclass, field

import numpy as np

from platform_core.harmonize.recipe import FittedRecipe
from platform_core.shift.risk import Reals, auroc, log_loss
from tests.benchmarks.adaptation.slabs import Rows, Slabs
from tests.benchmarks.adaptation.source import Array, Served, arrays_of, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one strategy costs on one hidden test."""

    error: float
    """Share of patients called wrongly, [0, 1]."""
    log_loss: float
    """Nats per patient."""
    auroc: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Patients whose scans can be looked at by any recipe; each look is kept."""

    slabs: Slabs
    rows: Rows
    _arrays: dict[str, Array] = field(default_factory=dict)
    _values: dict[str, Reals] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self, recipe: FittedRecipe) -> Array:
        """(n, 1, y, x), what the network sees."""
        if recipe.name not in self._arrays:
            self._arrays[recipe.name] = arrays_of(self.slabs, self.rows, recipe)
        return self._arrays[recipe.name]

    def values(self, recipe: FittedRecipe, n: int | None = None) -> Reals:
        """(n, feature) of the slabs of the first `n` patients by a recipe; by default of all."""
        name = f"{recipe.name}-{n}"
        if name not in self._values:
            self._values[name] = values_of(self.slabs, self.rows[:n], recipe)
        return self._values[name]

    @property
    def native(self) -> Reals:
        """(n, feature) of the whole volumes as they came."""
        return self.slabs.values[self.rows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Other:
    """Another site that the champion serves; whoever trains can ask it for labels of patients that no training saw."""

    seen: Seen
    recipe: FittedRecipe

    @property
    def y(self) -> Reals:
        """1 or 0."""
        return self.seen.slabs.y[self.seen.rows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Period:
    """All that anybody at the hospital knows."""

    seen: Seen
    y: Reals
    """1 or 0 as labelled there, NaN without a label."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def labelled(self) -> Rows:
        """Places of the labelled patients in the period."""
        return np.flatnonzero(np.isfinite(self.y))


def probability(served: Served, seen: Seen) -> Reals:
    """(n,), calibrated, of the positive class."""
    return served.calibration.probability(served.score(seen.arrays(served.recipe))[0])


def measured(y: Reals, p: Reals, threshold: float = 0.5) -> Measured:
    """Error, log-loss and AUROC of calibrated probabilities."""
    return Measured(error=float(((p >= threshold) != (y == 1)).mean()), log_loss=log_loss(y, p), auroc=auroc(y, p))
