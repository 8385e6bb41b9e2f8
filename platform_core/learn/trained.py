"""A copy of a network, trained: what a model's own training, a fold and a candidate of a race have in common."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from platform_core.learn.contract import Strategy, Tell, untold
from platform_core.learn.data import Loaded, Masks, Scan, even_weights
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier
from platform_core.learn.phases import TrainingSet
from platform_core.learn.resume import Bookmarks, fit_key
from platform_core.provenance import number_of
from platform_core.settings import TrainSettings

Reals = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]

STOPPING_SHARE = 1 / 7
"""Of the patients of the train part, whose loss says when to stop, if a target asks for that."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A copy and how it came about."""

    network: Classifier
    curve: tuple[float, ...]
    """Mean training loss of each epoch, all phases in order, nats."""


def train_copy(
    start: Classifier,
    data: Loaded,
    strategy: Strategy,
    settings: TrainSettings,
    *,
    embedded: torch.Tensor | None = None,
    bookmarks: Bookmarks | None = None,
    tell: Tell = untold,
) -> Trained:
    """Train a copy of `start`; what it starts from stays as it is.

    Args:
        start: Where the weights begin.
        data: Labelled scans.
        strategy: Which blocks, how fast, in which order.
        settings: Epochs, batches, learning rate, seed; with `patience` some patients only say when to stop.
        embedded: (n, channels), what goes into the head of `start` for each scan, if it is known already.
        bookmarks: Where the training keeps how far it has come.
        tell: Told how far it is, every epoch.

    Raises:
        BadRequest: If the loss is no number any more.
        TooLittleMemory: If not even two scans fit the device.
        DeviceLost: If a GPU fails.
        StorageUnavailable: If a bookmark cannot be written.
    """
    network = deepcopy(start)
    everything = np.ones(len(data.scans), dtype=bool)
    stops = _stopping_rows(data.scans) if settings.patience else ~everything
    moving, held_out = (_tensors(data, rows, embedded) for rows in (~stops, stops))
    parts = [moving, held_out] if stops.any() else [moving]
    bookmark = None if bookmarks is None else bookmarks.of(fit_key(network, parts, strategy, settings))
    held = held_out if stops.any() else None
    curve = fit(network, moving, strategy, settings, bookmark=bookmark, held_out=held, tell=tell)
    return Trained(network, tuple(curve))


def labels_of(scans: Sequence[Scan]) -> Reals:
    """(n,), 1 positive, 0 negative."""
    return np.array([scan.y for scan in scans], dtype=np.float64)


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return number_of(key) / 2**64


def some(data: Loaded, wanted: Rows) -> Loaded:
    """The wanted scans of them, in order."""
    scans = tuple(scan for scan, is_wanted in zip(data.scans, wanted, strict=True) if is_wanted)
    masks = data.masks and Masks(data.masks.voxels[wanted], data.masks.n_outside[wanted])
    return Loaded(scans, data.arrays[wanted], {}, masks)


def joined(a: Loaded, b: Loaded) -> Loaded:
    """The scans of both, and those that neither could use."""
    masks = None
    if a.masks is not None and b.masks is not None:
        voxels = np.concatenate([a.masks.voxels, b.masks.voxels])
        masks = Masks(voxels, np.concatenate([a.masks.n_outside, b.masks.n_outside]))
    return Loaded(a.scans + b.scans, np.concatenate([a.arrays, b.arrays]), a.refused | b.refused, masks)


def _stopping_rows(scans: Sequence[Scan]) -> Rows:
    """Scans of patients whose loss says when to stop; of none if a class would be missing on either side."""
    is_off = np.array([uniform(f"stop/{scan.patient_key}") < STOPPING_SHARE for scan in scans], dtype=bool)
    y = labels_of(scans)
    is_one_sided = any(len(set(y[rows])) < len(set(y)) for rows in (is_off, ~is_off))
    return np.zeros_like(is_off) if is_one_sided else is_off


def _tensors(data: Loaded, rows: Rows, embedded: torch.Tensor | None) -> TrainingSet:
    chosen = some(data, rows)
    if chosen.masks is not None:
        weight = torch.ones(len(chosen.scans))
        return TrainingSet(x=torch.from_numpy(chosen.arrays), y=torch.from_numpy(chosen.masks.voxels), weight=weight)
    return TrainingSet(
        x=torch.from_numpy(chosen.arrays),
        y=torch.from_numpy(labels_of(chosen.scans)).float(),
        weight=torch.from_numpy(even_weights(chosen.scans)),
        embedded=None if embedded is None else embedded[torch.from_numpy(rows)],
    )
