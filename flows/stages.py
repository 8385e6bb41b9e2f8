"""The stages of a series, in order, over the shards of one site."""

from collections.abc import Callable
from typing import Any

from prefect import unmapped

from flows.log import log
from platform_core import layout
from platform_core.manifest.serving import Serving
from platform_core.manifest.stages import StageCount
from tasks import door, series, site


def take_in(uri: str, name: str, run: str, at: Any) -> list[Any]:
    """Ingest what is new: discover, then every shard; the ledger must close."""
    found = door.discover(uri, name, run, at)
    if found.is_busy:
        log.info("%s: another run is at work on this site; its files are left to it", name)
    futures = door.ingest_shard.map(unmapped(uri), unmapped(name), list(found.shards), unmapped(run), unmapped(at))
    counts = [future.result() for future in futures]
    door.check_ledger(uri, name, run, found.n_new)
    if counts:
        n_planted, n_died = sum(count.n_planted for count in counts), sum(count.n_died for count in counts)
        log.info("%s: %d of %d planted identities died at the door", name, n_died, n_planted)
    return counts


def examine(uri: str, name: str, run: str) -> list[StageCount]:
    """Native features, then quality."""
    native = layout.NATIVE
    series.mark_copies(uri, name, run)
    shards = site.plan(uri, name, "feature", native, ("unique", native))
    counts = _over(series.measure_shard, shards, uri, name, recipe=native, run=run)
    return [*counts, series.check_quality(uri, name, run)]


def harmonize(uri: str, name: str, recipe: str, keys: list[str], run: str) -> None:
    """Volumes by recipe and their features, for the named series."""
    if keys:
        owed = site.plan(uri, name, "harmonize", recipe, ("quality", layout.NATIVE), only=keys)
        _over(series.harmonize_shard, owed, uri, name, recipe=recipe, run=run)
    owed = site.plan(uri, name, "feature", recipe, ("harmonize", recipe))
    _over(series.measure_shard, owed, uri, name, recipe=recipe, run=run)


def predict(uri: str, serving: Serving, run: str) -> None:
    """Scores and embeddings of everything that the serving's recipe has seen and its model has not."""
    name, recipe, model = serving.site, serving.recipe, serving.model
    owed = site.plan(uri, name, "predict", recipe, ("feature", recipe), model=model)
    _over(series.predict_shard, owed, uri, name, target=serving.target, model=model, recipe=recipe, run=run)


def sketch(uri: str, name: str, target: str, run: str) -> None:
    """Native features of everything that is not in a sketch yet, on the champion's reference."""
    reference = site.freeze_reference(uri, target, run)
    if reference is None:
        return
    owed = site.plan(uri, name, "sketch", layout.NATIVE, ("feature", layout.NATIVE), model=reference)
    _over(series.sketch_shard, owed, uri, name, reference=reference, run=run)


def _over(task: Callable[..., Any], shards: Any, uri: str, name: str, **same: Any) -> list[StageCount]:
    constant = {key: unmapped(value) for key, value in same.items()}
    futures = task.map(uri=unmapped(uri), site=unmapped(name), keys=shards, **constant)  # type: ignore[attr-defined]
    return [future.result() for future in futures]
