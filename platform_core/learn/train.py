"""Which scans make a model, and what it starts from: the first at the source site, later ones from the champion.

Only patients of the train part move weights; those of the validation part set the
calibration; those of the evaluation part are for the gate and are never read here.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from platform_core.errors import BadRequest, EmptySample
from platform_core.learn.bundle import SourceWeights, read_bundle
from platform_core.learn.calibrate import log_odds, smoothed_share
from platform_core.learn.checkpoints import find_checkpoint
from platform_core.learn.data import (
    Loaded,
    Scan,
    find_scans,
    framing_of,
    in_part,
    load_scans,
    source_recipe,
)
from platform_core.learn.networks import Classifier, build_network, require_fit
from platform_core.learn.registry import ModelRef, champion
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.training import Training, labels_of, make, uniform
from platform_core.learn.transplant import transplant
from platform_core.manifest.serving import Calibration
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace

FROM_WEIGHTS = "lp_ft"
"""How a source model is trained from another task's weights: its head is new and must not drag the features first
(Kumar et al. 2022, arXiv:2202.10054)."""
FEWEST_PATIENTS, FEWEST_OF_A_CLASS = 20, 5
"""Labelled patients of the train part, in all and of each class, below which a network only learns who they are."""


def train_source(workspace: Workspace, target: str, *, run: str, at: datetime, recipe: str | None = None) -> ModelRef:
    """Train the source model, from nothing or from the target's `source_weights`.

    The target's first model becomes champion, a later one challenger.

    Args:
        workspace: Where scans, labels and models live.
        target: The task.
        run: The run that trains.
        at: The moment, UTC.
        recipe: Recipe of the source site's volumes; by default `source_recipe`.

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
    _refuse_few(train.scans, site)
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
        source_weights=source_weights,
    )
    return make(workspace, target, settings, training, run=run, at=at)


def fine_tune(
    workspace: Workspace,
    target: str,
    site: str,
    *,
    strategy: str,
    keys: Sequence[str],
    recipe: str,
    run: str,
    at: datetime,
) -> ModelRef:
    """Train a challenger from the champion on one site's labelled scans, mixed with some of the source's.

    Args:
        workspace: Where scans, labels and models live.
        target: The task.
        site: The site that needs it.
        strategy: One of the strategies.
        keys: Series that may be used; those without a label, or of another part than train, move no weight.
        recipe: Recipe of the site's volumes.
        run: The run that trains.
        at: The moment, UTC.

    Raises:
        UnknownName: If there is no such target, site or strategy.
        BadRequest: If the target has no champion yet.
        EmptySample: If labelled patients, or patients of one class, are too few.
    """
    settings = workspace.target(target)
    workspace.site(site)
    chosen = STRATEGIES[strategy]
    parent = champion(workspace, target)
    if parent is None:
        raise BadRequest(f"{target} has no champion to start from; train its source model first: `sitedrift train`")
    own = _labelled(find_scans(workspace, target, site, recipe, keys=keys))
    train = _load(workspace, target, in_part(workspace, own, "train"))
    _refuse_few(train.scans, site)
    source = _source_scans(workspace, target, without={scan.series_key for scan in own})
    replay = _some(in_part(workspace, source, "train"), settings.train.source_replay)
    is_new = chosen.starts_from == "nothing"
    before = read_bundle(workspace, parent.bundle_uri)
    training = Training(
        strategy=chosen,
        network_name=settings.network if is_new else before.network_name,
        start=_new_network(workspace, target) if is_new else before.network,
        train=_joined(train, _load(workspace, target, replay)),
        validation=_load(workspace, target, in_part(workspace, [*own, *source], "validation")),
        parent=parent.name,
        recipe=recipe,
        calibration=parent.calibration,
        n_left_out={site: _n_of_train(workspace, own) - len(train.scans)},
    )
    return make(workspace, target, settings, training, run=run, at=at)


def source_network(workspace: Workspace, target: str) -> tuple[Classifier, SourceWeights | None]:
    """A new network, with the weights that the target names, if it names any.

    Raises:
        UnknownName: If there is no such target or network.
        BadRequest: If the network needs a larger grid.
        UnusableWeights: If the source weights are unsafe, damaged, or of another architecture.
        StorageUnavailable: If they could not be fetched.
    """
    settings = workspace.target(target)
    network = _new_network(workspace, target)
    if settings.source_weights is None:
        return network, None
    found = find_checkpoint(workspace, settings.source_weights, sha256=settings.source_weights_sha256)
    match = transplant(found, network, settings.network, settings.dimensions)
    return network, SourceWeights(where=found.where, sha256=found.sha256, share=match.share)


def _new_network(workspace: Workspace, target: str) -> Classifier:
    settings = workspace.target(target)
    require_fit(settings.network, settings.grid)
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
    return load_scans(workspace, scans, settings, framing_of(settings))


def _n_of_train(workspace: Workspace, scans: Sequence[Scan]) -> int:
    """Scans of the train part, whoever else may have them."""
    return sum(part_of(scan.patient_key, workspace.settings.split) == "train" for scan in scans)


def _labelled(scans: Sequence[Scan]) -> list[Scan]:
    return [scan for scan in scans if scan.y is not None]


def _joined(a: Loaded, b: Loaded) -> Loaded:
    return Loaded(a.scans + b.scans, np.concatenate([a.arrays, b.arrays]), a.refused | b.refused)


def _refuse_few(scans: Sequence[Scan], site: str) -> None:
    n_patients = len({scan.patient_key for scan in scans})
    if n_patients < FEWEST_PATIENTS:
        raise EmptySample(f"labelled patients of {site} that training may use", FEWEST_PATIENTS, n_patients)
    for y, word in ((0, "negative"), (1, "positive")):
        n_class = len({scan.patient_key for scan in scans if scan.y == y})
        if n_class < FEWEST_OF_A_CLASS:
            raise EmptySample(f"{word} patients of {site} that training may use", FEWEST_OF_A_CLASS, n_class)
