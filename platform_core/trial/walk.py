"""The same scans before any step of a recipe, after the first one, and so on to the last: what each state measures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from platform_core.errors import UnreadableScan
from platform_core.features.measure import FEATURES, measure
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe
from platform_core.imaging.foreground import foreground
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Volume
from platform_core.shift.risk import Reals

UNMOVED = float("nan"), float("nan")
See = Callable[[Volume], tuple[float, Reals]]
"""Score (a logit) and embedding of one volume by a network; raises `UnreadableScan` for what it does not take."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walk:
    """Some scans of one site at every state of a recipe; state 0 is as they came, state i is after step i."""

    steps: tuple[str, ...]
    """Harmonizers, in order."""
    keys: tuple[str, ...]
    """The scans that every step could be applied to."""
    features: Reals
    """(states, scans, features) in the order of `FEATURES`; NaN where a feature cannot be told."""
    scores: Reals
    """(states, scans); NaN without a network."""
    embeddings: Reals
    """(states, scans, dimensions); no dimensions without a network."""
    label_maps: Reals
    """(steps, scans, 2): by what share the volume of a label map grew, and how many mm its centroid moved; NaN where a
    step keeps the grid, and for plain images."""
    refused: dict[str, str]
    """Scans that some state has no volume of, with the reason."""


def walk(scans: Iterable[tuple[str, Volume]], fitted: FittedRecipe, *, modality: str, see: See | None) -> Walk:
    """Take scans through a recipe step by step, one at a time, and measure every state.

    Args:
        scans: Series key and native volume.
        fitted: The recipe as fitted to the scans' site.
        modality: Of the scans.
        see: A network; None where there is none yet.
    """
    seen: dict[str, tuple[Reals, Reals, Reals, Reals]] = {}
    refused: dict[str, str] = {}
    for key, volume in scans:
        try:
            seen[key] = _states(volume.first(), fitted, modality, see)
        except UnreadableScan as error:
            refused[key] = error.reason
    steps = tuple(one.step.harmonizer.name for one in fitted.steps)
    nothing = [np.empty((len(steps) + 1, 0, *axes)) for axes in ((len(FEATURES),), (), (0,))]
    parts = [np.stack(part, axis=1) for part in zip(*seen.values(), strict=True)]
    features, scores, embeddings, maps = parts or [*nothing, np.empty((len(steps), 0, 2))]
    return Walk(
        steps=steps,
        keys=tuple(seen),
        features=features,
        scores=scores,
        embeddings=embeddings,
        label_maps=maps,
        refused=refused,
    )


def _states(volume: Volume, fitted: FittedRecipe, modality: str, see: See | None) -> tuple[Reals, Reals, Reals, Reals]:
    """Features (states, features), scores (states,), embeddings (states, dimensions), label maps (steps, 2)."""
    check_usable(volume)
    label = Volume(foreground(volume.voxels, modality).astype(np.uint8), volume.geometry)
    states, maps = [_state(volume, modality, see)], []
    for one in fitted.steps:
        applied = apply_recipe(FittedRecipe((one,)), volume, label)
        assert applied.label is not None, "a label map went in"
        maps.append(_moved(label, applied.label) if one.step.harmonizer.changes_grid else UNMOVED)
        volume, label = applied.volume, applied.label
        check_usable(volume)
        states.append(_state(volume, modality, see))
    features, scores, embeddings = (np.asarray(part, dtype=np.float64) for part in zip(*states, strict=True))
    return features, scores, embeddings, np.asarray(maps, dtype=np.float64).reshape(-1, 2)


def _state(volume: Volume, modality: str, see: See | None) -> tuple[list[float], float, Reals]:
    told = measure(volume, modality)
    score, embedding = (float("nan"), np.empty(0)) if see is None else see(volume)
    return [np.nan if told[name] is None else float(told[name] or 0) for name in FEATURES], score, embedding


def _moved(before: Volume, after: Volume) -> tuple[float, float]:
    """Relative growth of the volume of a label map, and the distance of its centroids in mm; NaN where unknown."""
    if before.geometry is None or after.geometry is None or not before.voxels.any():
        return UNMOVED
    was, now = _extent(before), _extent(after)
    return now[0] / was[0] - 1, float(np.linalg.norm(now[1] - was[1]))


def _extent(label: Volume) -> tuple[float, Reals]:
    """Volume in mm^3 and centroid (x, y, z) in mm, LPS."""
    assert label.geometry is not None
    n = float(label.voxels.sum(dtype=np.float64))
    sums = [label.voxels.sum(axis=axes, dtype=np.float64) for axes in ((0, 1), (0, 2), (1, 2))]
    centre = [float(line @ np.arange(line.size)) / n if n else np.nan for line in sums]
    place = label.geometry.affine @ np.array([*centre, 1.0])
    return n * float(np.prod(label.geometry.spacing_mm)), np.asarray(place[:3], dtype=np.float64)
