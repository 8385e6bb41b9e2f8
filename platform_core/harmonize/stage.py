"""Fit a site's recipe, and bring its volumes closer to the reference, a shard at a time."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from platform_core import layout
from platform_core.errors import EmptySample, UnknownName, UnreadableScan
from platform_core.harmonize.contract import nothing_to_learn
from platform_core.harmonize.recipe import (
    FittedRecipe,
    FittedStep,
    Recipe,
    apply_recipe,
    fit_recipe,
    parse_recipe,
)
from platform_core.imaging.freed_memory import keep_freed_memory
from platform_core.imaging.memory import budget
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Volume
from platform_core.manifest.labels import read_labels
from platform_core.manifest.schemas import FITTED_RECIPE, VOLUME
from platform_core.manifest.stages import (
    StageCount,
    Verdict,
    pending,
    record_stage,
    series_rows,
    transaction,
)
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.storage.tables import rows_of

N_SAMPLE = 40
"""Volumes that a recipe is fitted on at most, so that a fit takes seconds and not a pass over the site."""

MIN_CLASS_PATIENTS = 10
"""Labelled patients of each class without whom the sample of a fit is not chosen by class."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Stored(Sequence[Volume]):
    """Volumes of the object store, read when asked for, so that one is in memory at a time."""

    workspace: Workspace
    uris: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Stored(self.workspace, self.uris[index])
        return self.workspace.read_volume(self.uris[index]).first()


def fit_site_recipe(
    workspace: Workspace,
    site: str,
    target: str,
    keys: Sequence[str],
    *,
    run: str,
    at: datetime,
    reference: str | None,
    prevalence: float | None = None,
    as_reference: Collection[int] = (),
) -> str:
    """Fit the target's recipe to a site and keep it in `core__recipe`.

    A map that is fitted across a difference in prevalence eats a part of it. So where ten patients of each class
    are labelled, the sample holds as many of one as of the other. A site without labels is held against the
    reference at the site's prevalence, where that is known, and else at the reference's own: what remains of a
    difference is then eaten, and nothing but labels can tell.

    Args:
        workspace: Where.
        site: The site whose scans are looked at.
        target: Whose recipe.
        keys: Series to choose at most 40 from, evenly over their sorted keys.
        run: The run that asks.
        at: The present moment, UTC.
        reference: The recipe of the source site that the model was trained on; None to fit the source site itself.
        prevalence: Share of positives among the site's patients, as told without labels; None if unknown.
        as_reference: Steps (0, 1, ...) that must do at the site what they do at the reference.

    Returns:
        The recipe's id, `target-site-hash`; the id that exists where the fit finds the same again, and
        `native` if the target has no recipe.

    Raises:
        UnknownName: If the target, a harmonizer, or the reference's recipe does not exist.
        BadSetting: If a parameter is unknown, missing or out of range, or is not what the reference was fitted with.
        EmptySample: If a step must learn and none of the series can be used.
    """
    recipe = _recipe_of(workspace, target)
    if not recipe.steps:
        return layout.NATIVE
    rows = series_rows(workspace, site, keys)
    y = read_labels(workspace, target, site) if recipe.learns else {}
    is_balanced = _has_both(rows, y)
    used = _usable(workspace, _spread_evenly(rows, y, 0.5 if is_balanced else None), recipe)
    if not used:
        raise EmptySample(f"recipe of {target!r} at {site!r}")
    there = None if reference is None else load_recipe(workspace, reference)
    if there is not None and recipe.learns and not is_balanced:
        there = _reference_at(workspace, there, target, prevalence)
    fitted = fit_recipe(recipe, _stored(workspace, used), there, as_reference=as_reference)
    name = f"{target}-{site}-{fitted.name}"
    row = {
        "site": site,
        "target": target,
        "recipe": name,
        "steps": fitted.to_json(),
        "fitted_on": digest([[row["series_key"], row["revision"]] for row in used]),
        "n_fitted": len(used),
        "created_at": at,
        "run": run,
    }
    workspace.lake.append(layout.RECIPE, rows_of(FITTED_RECIPE, [row]), transaction=transaction("recipe", name))
    return name


def load_recipe(workspace: Workspace, recipe_id: str) -> FittedRecipe:
    """The fitted recipe of this id; `native` has no steps.

    Raises:
        UnknownName: If there is none; lists those that exist.
        BadSetting: If this installation cannot repeat it.
    """
    return FittedRecipe.from_json(written_recipe(workspace, recipe_id))


def written_recipe(workspace: Workspace, recipe_id: str) -> str:
    """The fitted recipe of this id as it was written: JSON, a list of `harmonizer`, `settings` and `learned`.

    Raises:
        UnknownName: If there is none; lists those that exist.
    """
    if recipe_id == layout.NATIVE:
        return "[]"
    rows = workspace.lake.read(layout.RECIPE, ds.field("recipe") == recipe_id).to_pylist()
    if not rows:
        known = workspace.lake.read(layout.RECIPE, columns=["recipe"]).column("recipe").to_pylist()
        raise UnknownName("recipe", recipe_id, sorted({layout.NATIVE, *known}))
    return str(rows[0]["steps"])


def harmonize_shard(workspace: Workspace, site: str, keys: Sequence[str], *, recipe: str, run: str) -> StageCount:
    """Apply a fitted recipe to each series that has no answer yet, and store the volumes.

    The native recipe stores nothing: its volume is the one that came. Refused with a reason: a volume that
    is missing, damaged, constant, too small, not finite or without a positive spacing.
    """
    keep_freed_memory()
    fitted = load_recipe(workspace, recipe)
    owed = set(pending(workspace, site, "harmonize", recipe=recipe))
    due = series_rows(workspace, site, [key for key in keys if key in owed])

    def one(series: Row) -> tuple[list[Row], str | None]:
        return _harmonize(workspace, series, fitted, recipe, run)

    with ThreadPoolExecutor(budget().n_workers) as pool:
        made = list(pool.map(one, due))
    verdicts = [
        Verdict(series_key=series["series_key"], revision=series["revision"], reason=reason)
        for series, (_, reason) in zip(due, made, strict=True)
    ]
    name = transaction("harmonize", recipe, [(v.series_key, v.revision, v.reason) for v in verdicts])
    rows = [row for found, _ in made for row in found]
    workspace.lake.append(layout.VOLUME, rows_of(VOLUME, rows), transaction=name)
    return record_stage(workspace, site, "harmonize", verdicts, run=run, recipe=recipe)


def _harmonize(
    workspace: Workspace, series: Row, fitted: FittedRecipe, recipe: str, run: str
) -> tuple[list[Row], str | None]:
    """The row of `core__volume`, or none and the reason."""
    row = {key: series[key] for key in ("site", "series_key", "revision")} | {"recipe": recipe, "run": run}
    try:
        with budget().room(_bytes_needed(series, fitted)):
            return [row | _apply(workspace, series, fitted, recipe)], None
    except UnreadableScan as error:
        return [], error.reason
    except FileNotFoundError:
        return [], "volume_missing"


def _apply(workspace: Workspace, series: Row, fitted: FittedRecipe, recipe: str) -> Row:
    """Where the harmonized volume lies now, its hash, and the steps that did not apply."""
    uri, sha256 = str(series["volume_uri"]), series["volume_sha256"]
    volume = workspace.read_volume(uri).first()
    check_usable(volume)
    applied = apply_recipe(fitted, volume)
    del volume
    check_usable(applied.volume)
    if fitted.steps:
        uri = layout.volume_path(series["site"], recipe, series["series_key"], series["revision"])
        sha256 = workspace.write_volume(uri, applied.volume, durable=False, rounded=True)
    return {"volume_uri": uri, "volume_sha256": sha256, "skipped": ",".join(applied.skipped) or None}


def _bytes_needed(series: Row, fitted: FittedRecipe) -> int:
    """At most: the stored voxels, twice, as bytes and as numbers, and five float32 volumes on the largest grid."""
    n_in = float((series["n_x"] or 1) * (series["n_y"] or 1) * (series["n_z"] or 1))
    n_largest = n_in
    native_mm = [series[f"spacing_{axis}_mm"] for axis in "xyz"]
    for one in fitted.steps:
        spacing_mm = getattr(one.step.settings, "spacing_mm", None)
        if spacing_mm is not None and all(native_mm):
            n_largest = max(n_largest, n_in * float(np.prod(native_mm) / np.prod(spacing_mm)))
    return int(8 * n_in * (series["n_t"] or 1) + 20 * n_largest)


def _recipe_of(workspace: Workspace, target: str) -> Recipe:
    return parse_recipe(workspace.target(target).recipe, where=f"target.{target}.recipe")


def _reference_at(workspace: Workspace, fitted: FittedRecipe, target: str, prevalence: float | None) -> FittedRecipe:
    """The recipe as the source site would teach it at another prevalence; as it is if too few of a class are labelled.

    Args:
        workspace: Where.
        fitted: The recipe of the source site, fitted on as many of one class as of the other.
        target: The task.
        prevalence: Share of positives; None: the share among the source's labelled patients.
    """
    site = workspace.target(target).source_site
    y = read_labels(workspace, target, site)
    passed = _passed_quality(workspace, site)
    rows = [row for row in series_rows(workspace, site, list(y)) if (row["series_key"], row["revision"]) in passed]
    if not _has_both(rows, y):
        return fitted
    share = float(np.mean([y[row["series_key"]] for row in rows])) if prevalence is None else prevalence
    sample = _usable(workspace, _spread_evenly(rows, y, share), fitted.recipe)
    return fit_recipe(fitted.recipe, _stored(workspace, sample), None) if sample else fitted


def _passed_quality(workspace: Workspace, site: str) -> set[tuple[str, int]]:
    chosen = (ds.field("site") == site) & (ds.field("stage") == "quality") & (ds.field("outcome") == "done")
    rows = workspace.lake.read(layout.STAGE, chosen, ["series_key", "revision"]).to_pylist()
    return {(row["series_key"], row["revision"]) for row in rows}


def _has_both(rows: Sequence[Row], y: Mapping[str, int]) -> bool:
    """Whether enough patients of each class are labelled to choose a sample by class."""
    patients = {(y.get(row["series_key"]), row["patient_key"]) for row in rows}
    return all(sum(label == value for label, _ in patients) >= MIN_CLASS_PATIENTS for value in (0, 1))


def _spread_evenly(rows: Sequence[Row], y: Mapping[str, int], share: float | None) -> list[Row]:
    """At most `N_SAMPLE` rows, evenly from first to last; with a share of positives, so many of each class."""
    if share is None:
        return spread(rows, N_SAMPLE)
    classes = [[row for row in rows if y.get(row["series_key"]) == value] for value in (0, 1)]
    n = min(N_SAMPLE, *(int(len(c) / part) for c, part in zip(classes, (1 - share, share), strict=True) if part > 0))
    n_positive = round(n * share)
    return [*spread(classes[0], n - n_positive), *spread(classes[1], n_positive)]


def spread(rows: Sequence[Row], n: int) -> list[Row]:
    """At most `n` of the rows, evenly from first to last."""
    if len(rows) <= n:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / max(n - 1, 1))] for number in range(n)]


def _stored(workspace: Workspace, rows: Sequence[Row]) -> _Stored:
    return _Stored(workspace, tuple(str(row["volume_uri"]) for row in rows))


def _usable(workspace: Workspace, rows: Sequence[Row], recipe: Recipe) -> list[Row]:
    return [row for row in rows if _is_of_use(workspace, row, recipe)] if recipe.learns else list(rows)


def _is_of_use(workspace: Workspace, row: Row, recipe: Recipe) -> bool:
    """Whether a volume passes as far as the first step that learns."""
    learns_at = next(n for n, step in enumerate(recipe.steps) if step.harmonizer.fit is not nothing_to_learn)
    fixed = FittedRecipe(tuple(FittedStep(step, {}) for step in recipe.steps[:learns_at]))
    try:
        volume = workspace.read_volume(str(row["volume_uri"])).first()
        check_usable(volume)
        apply_recipe(fixed, volume)
    except (UnreadableScan, FileNotFoundError):
        return False
    return True
