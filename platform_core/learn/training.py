"""One training from start to registered version: weights, calibration, files, row.

Which scans may be in it is decided in `train.py`, not here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import torch

from platform_core import layout
from platform_core.learn.bundle import Bundle, SourceWeights, describe, write_bundle
from platform_core.learn.calibrate import Platt, fit_platt, smoothed_share
from platform_core.learn.contract import Strategy, Tell, untold
from platform_core.learn.cost import n_passes_to_train
from platform_core.learn.data import Loaded, Scan, framing_of
from platform_core.learn.device import device_name
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.networks import Classifier, weights_sha256
from platform_core.learn.registry import ModelRef, champion, next_epoch, next_version, register
from platform_core.learn.resume import Bookmarks
from platform_core.learn.segment import dice, segment
from platform_core.learn.together import by_first
from platform_core.learn.tracking import track
from platform_core.learn.trained import Reals, labels_of, some, train_copy, uniform
from platform_core.manifest.serving import Calibration, log_odds
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.settings import TargetSettings
from platform_core.shift.risk import auroc, log_loss

Learn = Callable[[Loaded], Classifier]

ENOUGH_TO_CALIBRATE = 10
"""Held-out scans of each class from which the validation part alone sets slope and intercept."""
N_FOLDS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossFitted:
    """Scans of the train part, each with its logit by a network that was trained by the same strategy without it."""

    scans: tuple[Scan, ...]
    logits: Reals


@dataclass(slots=True, kw_only=True)
class Spent:
    """What a version cost, its folds included; a row of `out__model` has it as JSON."""

    seconds: float = 0.0
    """Of this process: what one that was killed had spent before is not among them."""
    n_scan_passes: float = 0.0
    """Forward and backward passes of one scan through the whole network (`cost.py`)."""
    device: str = field(default_factory=device_name)
    race_key: str | None = None
    """Of the race that its strategy has won."""
    site: str | None = None
    """Whose labels asked for it."""


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
    cross_fitted: CrossFitted | None = None
    """From the race that its strategy has won; None: made here if it is needed."""
    race_key: str | None = None
    site: str | None = None
    """Whose labels asked for it."""


def make(
    workspace: Workspace,
    target: str,
    settings: TargetSettings,
    training: Training,
    *,
    run: str,
    at: datetime,
    tell: Tell = untold,
) -> ModelRef:
    """Train, calibrate, store and register; the target's first model becomes champion, any other challenger.

    A training that was killed goes on where it was, if it is asked for again with the same scans and settings.
    """
    reference = _reference(training.train.scans)
    bookmarks = Bookmarks(
        objects=workspace.objects,
        folder=layout.training_path(target, _training_key(training, reference)),
        every_s=60 * settings.train.checkpoint_minutes,
    )
    spent, started = Spent(race_key=training.race_key, site=training.site), time.monotonic()

    def learn(data: Loaded) -> Classifier:
        found = train_copy(
            training.start, data, training.strategy, settings.train, bookmarks=bookmarks, tell=tell
        ).network
        spent.n_scan_passes += n_passes_to_train(training.strategy, found.block_names, len(data.scans), settings.train)
        return found

    network = learn(training.train)
    platt, metrics = _calibrated(training, network, learn)
    spent.seconds = time.monotonic() - started
    bundle = Bundle(
        network_name=training.network_name,
        network=network,
        framing=framing_of(settings),
        platt=platt,
        reference=reference,
        source_weights=training.source_weights,
    )

    def store() -> ModelRef:
        made = _registered(workspace, target, training, bundle, metrics, spent, run=run, at=at)
        bookmarks.forget()
        track(workspace, made)
        return made

    return by_first(store)


def _registered(
    workspace: Workspace,
    target: str,
    training: Training,
    bundle: Bundle,
    metrics: Mapping[str, Mapping[str, float]],
    spent: Spent,
    *,
    run: str,
    at: datetime,
) -> ModelRef:
    epoch = next_epoch(workspace, target)  # before anything else is read: an event that comes between makes it stale
    version = next_version(workspace, target)
    made = ModelRef(
        model=target,
        version=version,
        alias="challenger" if champion(workspace, target) else "champion",
        parent=training.parent,
        strategy=training.strategy.name,
        reference=digest(bundle.reference.to_pylist()),
        recipe=training.recipe,
        metrics=metrics,
        calibration=training.calibration,
        bundle_uri=write_bundle(workspace, bundle, layout.model_path(target, version)),
        created_at=at,
        since=at,
        epoch=epoch,
        training=asdict(spent),
    )
    describe(workspace, made)
    return register(workspace, made, run=run)


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
    third of it as predicted by a network that was trained without it; or with what a race has left of that.
    """
    if training.train.masks is not None:
        return _seen_in_masks(training, network)
    scans, logits = list(training.validation.scans), _logits(network, training.validation)
    if min(sum(scan.y == y for scan in scans) for y in (0, 1)) < ENOUGH_TO_CALIBRATE:
        folded = training.cross_fitted or _cross_fitted(training.train, learn)
        scans, logits = [*scans, *folded.scans], np.concatenate([logits, folded.logits])
    platt = fit_platt(logits, labels_of(scans), [scan.site for scan in scans])
    return platt, _metrics(scans, platt.score(logits), training)


def _seen_in_masks(training: Training, network: Classifier) -> tuple[Platt, dict[str, dict[str, float]]]:
    """Of a segmentation: its score, and per site the mean Dice of held-out scans, [0, 1].

    A score is the log-odds of the marked share; where enough held-out scans have and have not something to mark, it
    is fitted to which of them do.
    """
    held_out, metrics = training.validation, _metrics((), np.empty(0), training)
    assert held_out.masks is not None, "validation is loaded as training is"
    if not held_out.scans:
        return Platt(slope=1.0, intercept=0.0), metrics
    seen = segment(network, torch.from_numpy(held_out.arrays), threshold=training.calibration.threshold)
    found = dice(seen.marks, held_out.masks.voxels, held_out.masks.n_outside)
    sites, y = [scan.site for scan in held_out.scans], labels_of(held_out.scans)
    for site in sorted(set(sites) & set(metrics)):
        rows = np.array([name == site for name in sites], dtype=bool)
        metrics[site] |= {"n_held_out": float(rows.sum()), "dice": float(found[rows].mean())}
    if min(int((y == value).sum()) for value in (0, 1)) < ENOUGH_TO_CALIBRATE:
        return Platt(slope=1.0, intercept=0.0), metrics
    return fit_platt(np.asarray(seen.logits.numpy(), dtype=np.float64), y, sites), metrics


def _cross_fitted(train: Loaded, learn: Learn) -> CrossFitted:
    """Every scan of the train part with its logit by a network trained without its patient.

    A fine-tuning starts from a champion that has seen the replayed source patients, so for those it is too sure.
    """
    fold = np.array([int(uniform(f"fold/{scan.patient_key}") * N_FOLDS) for scan in train.scans])
    scans: list[Scan] = []
    logits: list[Reals] = []
    for number in range(N_FOLDS):
        left_out, rest = some(train, fold == number), some(train, fold != number)
        scans += left_out.scans
        logits.append(_logits(learn(rest), left_out))
    return CrossFitted(scans=tuple(scans), logits=np.concatenate(logits))


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


def _logits(network: Classifier, data: Loaded) -> Reals:
    if not data.scans:
        return np.empty(0)
    logits, _ = logits_and_embeddings(network, torch.from_numpy(data.arrays))
    return np.asarray(logits.numpy(), dtype=np.float64)


def _reference(scans: Sequence[Scan]) -> pa.Table:
    rows = [{"site": scan.site, "series_key": scan.series_key, "revision": scan.revision} for scan in scans]
    return pa.Table.from_pylist(rows).sort_by([("site", "ascending"), ("series_key", "ascending")])
