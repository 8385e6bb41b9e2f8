"""One training from start to registered version: weights, calibration, files, row.

Which scans may be in it is decided in `train.py`, not here.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from platform_core import layout
from platform_core.learn.bundle import Bundle, SourceWeights, describe, write_bundle
from platform_core.learn.calibrate import Platt, fit_platt, log_odds, smoothed_share
from platform_core.learn.contract import Strategy
from platform_core.learn.data import Loaded, Scan, even_weights, framing_of
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, weights_sha256
from platform_core.learn.phases import TrainingSet
from platform_core.learn.registry import ModelRef, champion, next_epoch, next_version, register
from platform_core.learn.resume import Bookmark, fit_key
from platform_core.manifest.serving import Calibration
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest, number_of
from platform_core.settings import TargetSettings, TrainSettings
from platform_core.shift.risk import auroc, log_loss
from platform_core.storage.objects import Objects

Reals = npt.NDArray[np.float64]
Learn = Callable[[Loaded], Classifier]

ENOUGH_TO_CALIBRATE = 10
"""Held-out scans of each class from which the validation part alone sets slope and intercept."""
N_FOLDS = 3
STOPPING_SHARE = 1 / 7
"""Of the patients of the train part, whose loss says when to stop, if a target asks for that."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """What a training starts from and sees."""

    strategy: Strategy
    network_name: str
    start: Classifier
    train: Loaded
    validation: Loaded
    parent: str | None
    """model@version; None if the weights come from nothing."""
    recipe: str
    calibration: Calibration
    n_left_out: Mapping[str, int]
    """Per site, labelled scans of the train part that move no weight: unreadable, or of a person who is evaluated."""
    source_weights: SourceWeights | None = None


def make(
    workspace: Workspace, target: str, settings: TargetSettings, training: Training, *, run: str, at: datetime
) -> ModelRef:
    """Train, calibrate, store and register; the target's first model becomes champion, any other challenger.

    A training that was killed goes on where it was, if it is asked for again with the same scans and settings.
    """
    reference = _reference(training.train.scans)
    folder = layout.training_path(target, _training_key(training, reference))

    def learn(data: Loaded) -> Classifier:
        return _trained(training, data, settings.train, workspace.objects, folder)

    network = learn(training.train)
    platt, metrics = _calibrated(training, network, learn)
    bundle = Bundle(
        network_name=training.network_name,
        network=network,
        framing=framing_of(settings),
        platt=platt,
        reference=reference,
        source_weights=training.source_weights,
    )
    epoch = next_epoch(workspace, target)  # before anything else is read: an event that comes between makes it stale
    version = next_version(workspace, target)
    made = ModelRef(
        model=target,
        version=version,
        alias="challenger" if champion(workspace, target) else "champion",
        parent=training.parent,
        strategy=training.strategy.name,
        reference=digest(reference.to_pylist()),
        recipe=training.recipe,
        metrics=metrics,
        calibration=training.calibration,
        bundle_uri=write_bundle(workspace, bundle, layout.model_path(target, version)),
        created_at=at,
        since=at,
        epoch=epoch,
    )
    describe(workspace, made)
    register(workspace, made, run=run)
    for path in workspace.objects.list(folder):
        workspace.objects.delete(path)
    return made


def labels_of(scans: Sequence[Scan]) -> Reals:
    """(n,), 1 positive, 0 negative."""
    return np.array([scan.y for scan in scans], dtype=np.float64)


def uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return number_of(key) / 2**64


def _trained(training: Training, data: Loaded, settings: TrainSettings, objects: Objects, folder: str) -> Classifier:
    """A copy of the start, trained on `data`."""
    network = deepcopy(training.start)
    moving, stopping = _split_off(data) if settings.patience else (data, None)
    parts = [_tensors(part) for part in (moving, stopping) if part is not None]
    bookmark = Bookmark(
        objects=objects,
        path=f"{folder}/{fit_key(network, parts, training.strategy, settings)}.pt",
        every_s=60 * settings.checkpoint_minutes,
    )
    held_out = parts[1] if len(parts) > 1 else None
    fit(network, parts[0], training.strategy, settings, bookmark=bookmark, held_out=held_out)
    return network


def _tensors(data: Loaded) -> TrainingSet:
    return TrainingSet(
        x=torch.from_numpy(data.arrays),
        y=torch.from_numpy(labels_of(data.scans)).float(),
        weight=torch.from_numpy(even_weights(data.scans)),
    )


def _split_off(data: Loaded) -> tuple[Loaded, Loaded | None]:
    """Some patients whose loss says when to stop; None of them if a class would be missing on either side."""
    is_off = np.array([uniform(f"stop/{scan.patient_key}") < STOPPING_SHARE for scan in data.scans], dtype=bool)
    moving, stopping = _rows(data, ~is_off), _rows(data, is_off)
    if any(len({scan.y for scan in part.scans}) < 2 for part in (moving, stopping)):
        return data, None
    return moving, stopping


def _training_key(training: Training, reference: pa.Table) -> str:
    facts = {
        "start": weights_sha256(training.start),
        "strategy": training.strategy.name,
        "recipe": training.recipe,
        "reference": reference.to_pylist(),
    }
    return digest(facts)


def _calibrated(training: Training, network: Classifier, learn: Learn) -> tuple[Platt, dict[str, dict[str, float]]]:
    """Slope and intercept on held-out scans, and what they give per site.

    The validation part alone if it is large enough; else together with the train part, each
    third of it as predicted by a network that was trained without it.
    """
    scans, logits = list(training.validation.scans), _logits(network, training.validation)
    if min(sum(scan.y == y for scan in scans) for y in (0, 1)) < ENOUGH_TO_CALIBRATE:
        folded, more = _cross_fitted(training.train, learn)
        scans, logits = [*scans, *folded], np.concatenate([logits, more])
    platt = fit_platt(logits, labels_of(scans), [scan.site for scan in scans])
    return platt, _metrics(scans, platt.score(logits), training)


def _cross_fitted(train: Loaded, learn: Learn) -> tuple[list[Scan], Reals]:
    """Every scan of the train part with its logit by a network trained without its patient.

    A fine-tuning starts from a champion that has seen the replayed source patients, so for those it is too sure.
    """
    fold = np.array([int(uniform(f"fold/{scan.patient_key}") * N_FOLDS) for scan in train.scans])
    scans: list[Scan] = []
    logits: list[Reals] = []
    for number in range(N_FOLDS):
        left_out, rest = _rows(train, fold == number), _rows(train, fold != number)
        scans += left_out.scans
        logits.append(_logits(learn(rest), left_out))
    return scans, np.concatenate(logits)


def _metrics(scans: Sequence[Scan], scores: Reals, training: Training) -> dict[str, dict[str, float]]:
    """Per site: scans trained on and left out, and log-loss and AUROC on its held-out scans at its own prevalence.

    Optimistic by two parameters, slope and intercept, which were fitted on the same scans; the
    gate judges on other patients.
    """
    found: dict[str, dict[str, float]] = {}
    trained_on = training.train.scans
    for site in sorted({scan.site for scan in trained_on}):
        rows = np.array([scan.site == site for scan in scans], dtype=bool)
        y = labels_of(scans)[rows]
        facts = {"n_train": float(sum(scan.site == site for scan in trained_on)), "n_held_out": float(len(y))}
        if site in training.n_left_out:
            facts["n_left_out"] = float(training.n_left_out[site])
        if 0 < y.sum() < len(y):
            p = 1 / (1 + np.exp(-(scores[rows] + log_odds(smoothed_share(y)))))
            facts |= {"log_loss": log_loss(y, p), "auroc": auroc(y, p)}
        found[site] = facts
    return found


def _rows(data: Loaded, wanted: npt.NDArray[np.bool_]) -> Loaded:
    scans = tuple(scan for scan, is_wanted in zip(data.scans, wanted, strict=True) if is_wanted)
    return Loaded(scans, data.arrays[wanted], {})


def _logits(network: Classifier, data: Loaded) -> Reals:
    if not data.scans:
        return np.empty(0)
    logits, _ = logits_and_embeddings(network, torch.from_numpy(data.arrays))
    return np.asarray(logits.numpy(), dtype=np.float64)


def _reference(scans: Sequence[Scan]) -> pa.Table:
    rows = [{"site": scan.site, "series_key": scan.series_key, "revision": scan.revision} for scan in scans]
    return pa.Table.from_pylist(rows).sort_by([("site", "ascending"), ("series_key", "ascending")])
