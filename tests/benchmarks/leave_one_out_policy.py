"""What the platform would do by itself, without a label, at a hospital that is left out: its finding, policy and gates.

The adaptation experiment runs them in memory (`adaptation/responder.py`); here it is shown radiographs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from platform_core.features.measure import FEATURES, measure
from platform_core.harmonize.recipe import FittedRecipe, Recipe, apply_recipe
from platform_core.imaging.volume import Volume
from platform_core.learn.data import Loaded
from platform_core.shift.risk import Reals
from tests.benchmarks.adaptation import source as simulated
from tests.benchmarks.adaptation.responder import Case, Knowledge, respond
from tests.benchmarks.adaptation.seen import Period, Seen

if TYPE_CHECKING:
    from tests.benchmarks.adaptation.slabs import Slabs

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
MOST_PATIENTS = 300
"""Of a period, and of the reference: as the adaptation experiment, which has some hundreds, and so that it is quick."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures(Sequence[Volume]):
    """Radiographs as the responder takes slabs."""

    pixels: Sequence[npt.NDArray[np.generic]]
    y: Reals
    measured: dict[int, Reals]
    """Features of the images that were asked for so far."""

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Any:
        return Volume(self.pixels[index][None])

    def native(self, rows: Rows) -> Reals:
        """(n, feature) of images as they came."""
        for row in rows:
            if int(row) not in self.measured:
                self.measured[int(row)] = features_of(self[row])
        return np.stack([self.measured[int(row)] for row in rows])

    @property
    def values(self) -> Mapping[Any, Reals]:
        """As the responder asks for them: by rows."""
        return cast("Mapping[Any, Reals]", _ByRows(self))


@dataclass(frozen=True, slots=True)
class _ByRows:
    pictures: Pictures

    def __getitem__(self, rows: Rows) -> Reals:
        return self.pictures.native(rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked(Seen):
    """Patients of a period, one radiograph each."""

    framed: Callable[[Rows, FittedRecipe], Array]

    def arrays(self, recipe: FittedRecipe) -> Array:
        """(n, 1, y, x), what the network sees."""
        if recipe.name not in self._arrays:
            self._arrays[recipe.name] = self.framed(self.rows, recipe)
        return self._arrays[recipe.name]

    def values(self, recipe: FittedRecipe, n: int | None = None) -> Reals:
        """(n, feature) by a recipe."""
        return np.stack([features_of(apply_recipe(recipe, self.slabs[int(row)]).volume) for row in self.rows[:n]])


def features_of(volume: Volume) -> Reals:
    """(feature,), NaN where one cannot be told of a plain image."""
    told = measure(volume, "DX")
    return np.array([np.nan if told[name] is None else told[name] for name in FEATURES], dtype=np.float64)


def answer_of(
    pictures: Pictures,
    framed: Callable[[Rows, FittedRecipe], Array],
    *,
    recipe: Recipe,
    served: simulated.Served,
    train: Loaded,
    validation: Loaded,
    reference: Rows,
    period: Rows,
    seed: int,
) -> Case:
    """Find, decide, act and be judged until nothing more is asked for; nobody labels anything.

    Args:
        pictures: Of everybody.
        framed: What a network sees of rows by a recipe.
        recipe: Its steps.
        served: What the source model runs with.
        train: What it has learned from.
        validation: What it was calibrated on.
        reference: Labelled rows that it has not seen, one per patient.
        period: Rows of the site, one per patient, in random order.
        seed: Of whatever is drawn.
    """
    slabs, reference, period = cast("Slabs", pictures), reference[:MOST_PATIENTS], period[:MOST_PATIENTS]
    source = simulated.Source(
        seed=seed,
        slabs=slabs,
        train=train,
        validation=validation,
        reference=reference,
        reference_arrays=framed(reference, served.recipe),
        reference_values=pictures.native(reference),
        served=served,
        fitted_even=served.recipe,
    )
    seen = Looked(slabs=slabs, rows=period, framed=framed)
    known = Period(seen=seen, y=np.full(len(period), np.nan))
    steps = [{"harmonizer": step.harmonizer.name} for step in recipe.steps]
    with patch.object(simulated, "RECIPE", steps):
        return respond(Knowledge(source=source, period=known, others={}))
