"""Fit a site's recipe, and bring its volumes closer to the reference, a shard at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Volume
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
    reference_site: str | None,
) -> str:
    """Fit the target's recipe to a site and keep it in `core__recipe`.

    Args:
        workspace: Where.
        site: The site whose scans are looked at.
        target: Whose recipe.
        keys: Series to choose at most 40 from, evenly over their sorted keys.
        run: The run that asks.
        at: The present moment, UTC.
        reference_site: The site whose fitted recipe is the reference; None to fit the reference itself.

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
    reference = None if reference_site is None else latest_recipe(workspace, reference_site, target)
    chosen = _spread(series_rows(workspace, site, keys), N_SAMPLE)
    used = [row for row in chosen if _is_of_use(workspace, row, recipe)] if recipe.learns else chosen
    if not used:
        raise EmptySample(f"recipe of {target!r} at {site!r}")
    fitted = fit_recipe(recipe, _Stored(workspace, tuple(str(row["volume_uri"]) for row in used)), reference)
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
    """
    if recipe_id == layout.NATIVE:
        return FittedRecipe(())
    rows = workspace.lake.read(layout.RECIPE, ds.field("recipe") == recipe_id).to_pylist()
    if not rows:
        known = workspace.lake.read(layout.RECIPE, columns=["recipe"]).column("recipe").to_pylist()
        raise UnknownName("recipe", recipe_id, sorted({layout.NATIVE, *known}))
    return FittedRecipe.from_json(rows[0]["steps"])


def latest_recipe(workspace: Workspace, site: str, target: str) -> FittedRecipe:
    """The recipe fitted last at a site for a target.

    Raises:
        UnknownName: If there is none yet; lists the sites that have one.
    """
    rows = workspace.lake.read(layout.RECIPE, ds.field("target") == target).to_pylist()
    here = [row for row in rows if row["site"] == site]
    if not here:
        raise UnknownName(f"fitted recipe of {target!r} at site", site, sorted({row["site"] for row in rows}))
    return FittedRecipe.from_json(max(here, key=lambda row: row["created_at"])["steps"])


def harmonize_shard(workspace: Workspace, site: str, keys: Sequence[str], *, recipe: str, run: str) -> StageCount:
    """Apply a fitted recipe to each series that has no answer yet, and store the volumes.

    The native recipe stores nothing: its volume is the one that came. Refused with a reason: a volume that
    is missing, damaged, constant, too small, not finite or without a positive spacing.
    """
    fitted = load_recipe(workspace, recipe)
    owed = set(pending(workspace, site, "harmonize", recipe=recipe))
    rows, verdicts = [], []
    for series in series_rows(workspace, site, [key for key in keys if key in owed]):
        made, reason = _harmonize(workspace, series, fitted, recipe, run)
        rows += made
        verdicts.append(Verdict(series_key=series["series_key"], revision=series["revision"], reason=reason))
    name = transaction("harmonize", recipe, [(v.series_key, v.revision) for v in verdicts])
    workspace.lake.append(layout.VOLUME, rows_of(VOLUME, rows), transaction=name)
    return record_stage(workspace, site, "harmonize", verdicts, run=run, recipe=recipe)


def _harmonize(
    workspace: Workspace, series: Row, fitted: FittedRecipe, recipe: str, run: str
) -> tuple[list[Row], str | None]:
    """The row of `core__volume`, or none and the reason."""
    uri = str(series["volume_uri"])
    row = {key: series[key] for key in ("site", "series_key", "revision")} | {"recipe": recipe, "run": run}
    try:
        volume = workspace.read_volume(uri).first()
        check_usable(volume)
        applied = apply_recipe(fitted, volume)
        check_usable(applied.volume)
    except UnreadableScan as error:
        return [], error.reason
    except FileNotFoundError:
        return [], "volume_missing"
    sha256 = series["volume_sha256"]
    if fitted.steps:
        uri = layout.volume_path(row["site"], recipe, row["series_key"], row["revision"])
        sha256 = workspace.write_volume(uri, applied.volume, durable=False)
    return [row | {"volume_uri": uri, "volume_sha256": sha256, "skipped": ",".join(applied.skipped) or None}], None


def _recipe_of(workspace: Workspace, target: str) -> Recipe:
    return parse_recipe(workspace.target(target).recipe, where=f"target.{target}.recipe")


def _spread(rows: Sequence[Row], n: int) -> list[Row]:
    """At most `n` of the rows, evenly from first to last."""
    if len(rows) <= n:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (n - 1))] for number in range(n)]


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
