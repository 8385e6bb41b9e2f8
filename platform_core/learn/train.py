"""Which scans make a model, and what it starts from: the first at the source site, later ones from the champion.

Only patients of the train part move weights; those of the validation part set the
calibration; those of the evaluation part are for the gate and are never read here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from platform_core.errors import BadRequest, EmptySample
from platform_core.learn.built_in import NOTHING, built_in_path
from platform_core.learn.bundle import SourceWeights, read_bundle
from platform_core.learn.calibrate import smoothed_share
from platform_core.learn.checkpoints import find_checkpoint
from platform_core.learn.contract import Tell, untold
from platform_core.learn.data import (
    Loaded,
    Scan,
    find_scans,
    framing_of,
    in_part,
    source_recipe,
)
from platform_core.learn.masks import load_labelled
from platform_core.learn.networks import Classifier, build_network, require_fit
from platform_core.learn.registry import ModelRef, champion
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.trained import joined, labels_of, some, uniform
from platform_core.learn.training import CrossFitted, Training, make
from platform_core.learn.transplant import transplant
from platform_core.manifest.serving import Calibration, log_odds
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace

FROM_WEIGHTS = "from_weights"
"""The strategy by which a source model is trained from another task's weights."""
CONTRADICTORY = "contradictory_labels"
FEWEST_PATIENTS, FEWEST_OF_A_CLASS = 20, 5
"""Labelled patients of the train part, in all and of each class, below which a network only learns who they are."""


def train_source(
    workspace: Workspace, target: str, *, run: str, at: datetime, recipe: str | None = None, tell: Tell = untold
) -> ModelRef:
    """Train the source model, from nothing or from the target's `source_weights`.

    The target's first model becomes champion, a later one challenger.

    Args:
        workspace: Where scans, labels and models live.
        target: The task.
        run: The run that trains.
        at: The moment, UTC.
        recipe: Recipe of the source site's volumes; by default `source_recipe`.
        tell: Told how far it is, every epoch.

    Raises:
        UnknownName: If there is no such target or network.
        BadRequest: If the network needs a larger grid.
        UnusableWeights: If the source weights are unsafe, damaged, or of another architecture.
        EmptySample: If labelled patients, or patients of one class, are too few.
    """
    settings = workspace.target(target)
    site = settings.source_site
    workspace.site(site)
    start, source_weights = source_network(workspace, target)
    recipe = recipe or source_recipe(workspace, target)
    scans = _labelled(find_scans(workspace, target, site, recipe))
    train = _load(workspace, target, in_part(workspace, scans, "train"))
    refuse_few(train, f"{site} that training may use")
    validation = _load(workspace, target, in_part(workspace, scans, "validation"))
    prevalence = smoothed_share(labels_of(train.scans + validation.scans))
    training = Training(
        strategy=STRATEGIES[FROM_WEIGHTS if source_weights else "from_scratch"],
        network_name=settings.network,
        start=start,
        train=train,
        validation=validation,
        parent=None,
        recipe=recipe,
        calibration=Calibration(logit_offset=log_odds(prevalence), prevalence=prevalence, threshold=settings.threshold),
        n_left_out={site: _n_of_train(workspace, scans) - len(train.scans)},
        site=site,
        source_weights=source_weights,
    )
    return make(workspace, target, settings, training, run=run, at=at, tell=tell)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What a fine-tuning at one site starts from and may see; every strategy gets the same."""

    target: str
    site: str
    recipe: str
    """Of the site's volumes."""
    parent: ModelRef
    """The champion."""
    network_name: str
    start: Classifier
    """The champion's weights."""
    own: Loaded
    """The site's labelled scans of the train part."""
    replay: Loaded
    """Some of the source's, which are trained on as well so that the source is not forgotten."""
    validation: Loaded
    """Of both."""
    n_left_out: int
    """Labelled scans of the site's train part that move no weight."""


def gather(workspace: Workspace, target: str, site: str, *, keys: Sequence[str], recipe: str) -> Material:
    """Read what a fine-tuning for one site may see.

    Args:
        workspace: Where scans, labels and models live.
        target: The task.
        site: The site that needs it.
        keys: Series that may be used; those without a label, or of another part than train, move no weight.
        recipe: Recipe of the site's volumes.

    Raises:
        UnknownName: If there is no such target or site.
        BadRequest: If the target has no champion yet.
        EmptySample: If labelled patients, or patients of one class, are too few.
    """
    workspace.site(site)
    parent = champion(workspace, target)
    if parent is None:
        raise BadRequest(f"{target} has no champion to start from; train its source model first: `sitedrift train`")
    own = _labelled(find_scans(workspace, target, site, recipe, keys=keys))
    train = _load(workspace, target, in_part(workspace, own, "train"))
    refuse_few(train, f"{site} that training may use")
    source = _source_scans(workspace, target, without={scan.series_key for scan in own})
    replay = _some(in_part(workspace, source, "train"), workspace.target(target).train.source_replay)
    before = read_bundle(workspace, parent.bundle_uri)
    return Material(
        target=target,
        site=site,
        recipe=recipe,
        parent=parent,
        network_name=before.network_name,
        start=before.network,
        own=train,
        replay=_load(workspace, target, replay),
        validation=_load(workspace, target, in_part(workspace, [*own, *source], "validation")),
        n_left_out=_n_of_train(workspace, own) - len(train.scans),
    )


def fine_tune(
    workspace: Workspace,
    material: Material,
    strategy: str,
    *,
    run: str,
    at: datetime,
    cross_fitted: CrossFitted | None = None,
    race_key: str | None = None,
    tell: Tell = untold,
) -> ModelRef:
    """Train a challenger from the champion on one site's labelled scans, mixed with some of the source's.

    Args:
        workspace: Where models live.
        material: What it starts from and sees.
        strategy: One of the strategies.
        run: The run that trains.
        at: The moment, UTC.
        cross_fitted: What the race that the strategy has won says of scans that it held out.
        race_key: Of that race.
        tell: Told how far it is, every epoch.

    Raises:
        UnknownName: If there is no such strategy.
        BadRequest: If the loss is no number any more.
        TooLittleMemory: If not even two scans fit the device.
        DeviceLost: If a GPU fails.
        StorageUnavailable: If the workspace cannot be written.
    """
    settings = workspace.target(material.target)
    chosen = STRATEGIES[strategy]
    is_new = chosen.starts_from == "nothing"
    training = Training(
        strategy=chosen,
        network_name=settings.network if is_new else material.network_name,
        start=new_network(workspace, material.target) if is_new else material.start,
        train=joined(material.own, material.replay),
        validation=material.validation,
        parent=material.parent.name,
        recipe=material.recipe,
        calibration=material.parent.calibration,
        n_left_out={material.site: material.n_left_out},
        site=material.site,
        cross_fitted=cross_fitted,
        race_key=race_key,
    )
    return make(workspace, material.target, settings, training, run=run, at=at, tell=tell)


def refuse_few(data: Loaded, whose: str) -> None:
    """Refuse scans of too few patients; of a classification, of too few of one class.

    Raises:
        EmptySample: With `whose` patients they are.
    """
    n_patients = len({scan.patient_key for scan in data.scans})
    if n_patients < FEWEST_PATIENTS:
        raise EmptySample(f"labelled patients of {whose}", FEWEST_PATIENTS, n_patients)
    classes = ((0, "negative"), (1, "positive")) if data.masks is None else ((1, "positive"),)
    for y, word in classes:
        n_class = len({scan.patient_key for scan in data.scans if scan.y == y})
        if n_class < FEWEST_OF_A_CLASS:
            raise EmptySample(f"{word} patients of {whose}", FEWEST_OF_A_CLASS, n_class)


def source_network(workspace: Workspace, target: str) -> tuple[Classifier, SourceWeights | None]:
    """A new network with the weights that the target names; if it names none, with the built-in ones if they fit.

    Raises:
        UnknownName: If there is no such target or network.
        BadRequest: If the network needs a larger grid.
        UnusableWeights: If the source weights are unsafe, damaged, or of another architecture.
        StorageUnavailable: If they could not be fetched.
    """
    settings = workspace.target(target)
    network = new_network(workspace, target)
    built_in = built_in_path(settings.network, settings.dimensions)
    if settings.source_weights == NOTHING or (settings.source_weights is None and not built_in.exists()):
        return network, None
    place = settings.source_weights or str(built_in)
    found = find_checkpoint(workspace, place, sha256=settings.source_weights_sha256)
    match = transplant(found, network, settings.network, settings.dimensions)
    where = found.where if settings.source_weights else f"built-in {built_in.stem}"
    return network, SourceWeights(where=where, sha256=found.sha256, share=match.share)


def new_network(workspace: Workspace, target: str) -> Classifier:
    """The target's network with weights drawn from its seed."""
    settings = workspace.target(target)
    require_fit(settings.network, settings.grid, settings.task)
    return build_network(settings.network, settings.dimensions, seed=settings.train.seed)


def _source_scans(workspace: Workspace, target: str, *, without: set[str]) -> list[Scan]:
    """Labelled scans of the source site by its own recipe."""
    site = workspace.target(target).source_site
    found = _labelled(find_scans(workspace, target, site, source_recipe(workspace, target)))
    return [scan for scan in found if scan.series_key not in without]


def _some(scans: Sequence[Scan], share: float) -> list[Scan]:
    """A share of the scans, always the same ones."""
    return [scan for scan in scans if uniform(f"replay/{scan.series_key}") < share]


def _load(workspace: Workspace, target: str, scans: Sequence[Scan]) -> Loaded:
    settings = workspace.target(target)
    return _without_contradictions(load_labelled(workspace, scans, settings, framing_of(settings)))


def _n_of_train(workspace: Workspace, scans: Sequence[Scan]) -> int:
    """Scans of the train part, whoever else may have them."""
    return sum(part_of(scan.patient_key, workspace.settings.split) == "train" for scan in scans)


def _labelled(scans: Sequence[Scan]) -> list[Scan]:
    return [scan for scan in scans if scan.y is not None]


def _without_contradictions(loaded: Loaded) -> Loaded:
    """Without scans that are the same picture, bit for bit, under both classes: one of the labels is wrong."""
    pictures = [hashlib.sha256(array.tobytes()).digest() for array in loaded.arrays]
    told: dict[bytes, set[int | None]] = {}
    for picture, scan in zip(pictures, loaded.scans, strict=True):
        told.setdefault(picture, set()).add(scan.y)
    is_sure = np.array([len(told[picture]) == 1 for picture in pictures], dtype=bool)
    unsure = [scan.series_key for scan, sure in zip(loaded.scans, is_sure, strict=True) if not sure]
    return replace(some(loaded, is_sure), refused=loaded.refused | dict.fromkeys(unsure, CONTRADICTORY))
