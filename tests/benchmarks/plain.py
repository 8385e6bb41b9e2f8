"""The nightly run without an orchestrator: the same domain functions in the same order, one after the other."""

from dataclasses import replace
from datetime import datetime

from platform_core import layout
from platform_core.features.stage import measure_shard
from platform_core.harmonize.stage import harmonize_shard
from platform_core.learn.predict import predict_shard
from platform_core.learn.train import train_source
from platform_core.manifest import copies, ingest, ledger
from platform_core.manifest.serving import Serving, current_servings
from platform_core.manifest.stages import pending
from platform_core.manifest.workspace import Workspace
from platform_core.quality.stage import check_quality
from platform_core.shift.watch.vigil import keep_watch
from platform_core.trial import case as cases
from platform_core.trial import finetune, onboard, promotion, recalibrate, reharmonize
from platform_core.trial.case import Case, Next


def take_in(workspace: Workspace, site: str, run: str, at: datetime) -> None:
    """Ingest, native features, quality."""
    found = ingest.discover(workspace, site, run=run, at=at)
    for shard in found.shards:
        ingest.ingest_shard(workspace, site, shard, run=run, at=at)
    ledger.check_ledger(workspace, site, run, found.n_new)
    copies.mark_copies(workspace, site, run=run)
    owed = pending(workspace, site, "feature", after=("unique", layout.NATIVE))
    measure_shard(workspace, site, owed, recipe=layout.NATIVE, run=run)
    check_quality(workspace, site, run=run)


def train(workspace: Workspace, target: str, run: str, at: datetime) -> None:
    """The reference recipe and the first champion."""
    source = workspace.settings.target[target].source_site
    recipe = onboard.fit_reference(workspace, target, run=run, at=at)
    by_recipe(workspace, source, recipe, onboard.sound_series(workspace, source, target), run)
    train_source(workspace, target, recipe=recipe, run=run, at=at)


def decide(workspace: Workspace, site: str, target: str, run: str, at: datetime) -> None:
    """Harmonize, predict, keep watch, measure, decide, act."""
    serving = onboard.ensure_serving(workspace, site, target, run=run, at=at)
    assert serving is not None, "the benchmark trains before it decides"
    owed = pending(workspace, site, "harmonize", recipe=serving.recipe, after=("quality", layout.NATIVE))
    sound = set(onboard.sound_series(workspace, site, target))
    by_recipe(workspace, site, serving.recipe, sorted(sound.intersection(owed)), run)
    predict(workspace, serving, run)
    keep_watch(workspace, site, target, run=run, at=at)
    for case in cases.open_cases(workspace, site, target, run=run, at=at):
        respond(case)


def respond(case: Case) -> None:
    """Act until the policy asks for nothing more."""
    while (decided := cases.decide_next(case)).act:
        {"recalibrate": _recalibrate, "reharmonize": _reharmonize, "fine_tune": _fine_tune}[decided.act](case, decided)


def by_recipe(workspace: Workspace, site: str, recipe: str, keys: list[str], run: str) -> None:
    """Volumes by recipe, and their features."""
    harmonize_shard(workspace, site, keys, recipe=recipe, run=run)
    owed = pending(workspace, site, "feature", recipe=recipe, after=("harmonize", recipe))
    measure_shard(workspace, site, owed, recipe=recipe, run=run)


def predict(workspace: Workspace, serving: Serving, run: str) -> None:
    """Scores of everything that the serving's recipe has seen and its model has not."""
    recipe, model = serving.recipe, serving.model
    owed = pending(workspace, serving.site, "predict", recipe=recipe, model=model, after=("feature", recipe))
    predict_shard(workspace, serving.site, owed, target=serving.target, model=model, recipe=recipe, run=run)


def _recalibrate(case: Case, decided: Next) -> None:
    recalibrate.recalibrate(case, decided.decision)


def _reharmonize(case: Case, decided: Next) -> None:
    recipe = reharmonize.refit_recipe(case)
    by_recipe(case.workspace, case.site, recipe, list(case.keys), case.run)
    predict(case.workspace, replace(case.serving, recipe=recipe), case.run)
    reharmonize.settle_recipe(case, decided.decision, recipe)


def _fine_tune(case: Case, decided: Next) -> None:
    model = finetune.train_challenger(case, decided.decision)
    if model is None:
        return
    for serving in current_servings(case.workspace, case.target):
        predict(case.workspace, replace(serving, model=model), case.run)
    promotion.settle_challenger(case, decided.decision, model)
