"""Tasks that work through a shard of series: one row of `core__stage` for each."""

from collections.abc import Sequence

from prefect import task

from platform_core.manifest.stages import StageCount
from platform_core.manifest.workspace import open_workspace
from tasks.retries import TRANSIENT


@task(task_run_name="copies at {site}", **TRANSIENT)
def mark_copies(uri: str, site: str, run: str) -> StageCount:
    """Let each new series through, unless it shows the pixels of another one."""
    from platform_core.manifest import copies

    return copies.mark_copies(open_workspace(uri), site, run=run)


@task(task_run_name="features of {site} by {recipe}", **TRANSIENT)
def measure_shard(uri: str, site: str, keys: Sequence[str], recipe: str, run: str) -> StageCount:
    """Measure each volume of the shard."""
    from platform_core.features import stage

    return stage.measure_shard(open_workspace(uri), site, keys, recipe=recipe, run=run)


@task(task_run_name="quality of {site}", **TRANSIENT)
def check_quality(uri: str, site: str, run: str) -> StageCount:
    """Check the whole batch of a site in one Great Expectations run."""
    from platform_core.quality import stage

    return stage.check_quality(open_workspace(uri), site, run=run)


@task(task_run_name="harmonize {site} by {recipe}", **TRANSIENT)
def harmonize_shard(uri: str, site: str, keys: Sequence[str], recipe: str, run: str) -> StageCount:
    """Bring each volume of the shard closer to the reference."""
    from platform_core.harmonize import stage

    return stage.harmonize_shard(open_workspace(uri), site, keys, recipe=recipe, run=run)


@task(task_run_name="predict {site} by {model}", **TRANSIENT)
def predict_shard(
    uri: str, site: str, keys: Sequence[str], target: str, model: str, recipe: str, run: str
) -> StageCount:
    """Score and embed each volume of the shard."""
    from platform_core.learn import predict

    return predict.predict_shard(open_workspace(uri), site, keys, target=target, model=model, recipe=recipe, run=run)


@task(task_run_name="sketches of {site} on {reference}", **TRANSIENT)
def sketch_shard(uri: str, site: str, keys: Sequence[str], reference: str, run: str) -> StageCount:
    """Add the shard's patient-days to the sketches of their days."""
    from platform_core.shift.sketch.patient_days import Basis
    from platform_core.shift.sketch.sketches import sketch_shard as sketch

    return sketch(open_workspace(uri), site, keys, basis=Basis(reference=reference), run=run)
