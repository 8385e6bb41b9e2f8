"""A site's first serving: the target's recipe fitted to its scans, the champion, the champion's calibration."""

from datetime import datetime

from platform_core import layout
from platform_core.errors import EmptySample, HarmfulRecipe
from platform_core.harmonize.stage import fit_site_recipe
from platform_core.learn.registry import champion
from platform_core.manifest.serving import Serving, change_serving, current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.samples import period_samples
from platform_core.trial.combat_trial import try_combat
from platform_core.trial.recipe_trial import RecipeTrial, fit_tried_recipe, try_recipe
from platform_core.trial.trial_rows import keep_trial

FEWEST_SERIES = 10
"""Series below which a site's intensities cannot be told from one patient's."""


def sound_series(workspace: Workspace, site: str, target: str) -> list[str]:
    """Keys of all series of the target's modality that passed quality, in order."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        rows = load(__package__, "sound_series").run(db, site=site, modality=workspace.target(target).modality)
    return [str(key) for key in rows.column("series_key").to_pylist()]


def fit_reference(workspace: Workspace, target: str, *, run: str, at: datetime) -> str:
    """Fit the target's recipe on its source site; returns the recipe's name.

    Raises:
        EmptySample: If the source site has too few series of the target's modality.
    """
    source = workspace.target(target).source_site
    workspace.site(source)
    keys = sound_series(workspace, source, target)
    if len(keys) < FEWEST_SERIES:
        raise EmptySample(f"series of {source} for the reference of {target}", FEWEST_SERIES, len(keys))
    return fit_site_recipe(workspace, source, target, keys, run=run, at=at, reference=None)


def ensure_serving(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> Serving | None:
    """The serving in force, or the site's first; None without a champion or with too few series.

    At the source site the first serving is the reference's own recipe; elsewhere the
    recipe is fitted to the site's scans, against the reference.

    Raises:
        HarmfulRecipe: If a fixed step of the recipe does harm at the site.
    """
    present = current_serving(workspace, site, target)
    best = champion(workspace, target)
    if present is not None or best is None:
        return present
    source = workspace.target(target).source_site
    recipe = best.recipe if site == source else _first_recipe(workspace, site, target, run=run, at=at)
    if recipe is None:
        return None
    first = Serving(site=site, target=target, model=best.name, recipe=recipe, calibration=best.calibration, epoch=-1)
    return change_serving(workspace, first, decision_key=None, at=at, run=run)


def try_served_recipes(workspace: Workspace, site: str, *, run: str, at: datetime) -> list[RecipeTrial]:
    """Try what the site runs for each target on its latest period, and ComBat on its features; keep what was found."""
    source = {name: target.source_site for name, target in workspace.settings.target.items()}
    servings = [current_serving(workspace, site, target) for target in source if source[target] != site]
    trials = [
        try_recipe(
            workspace, site, serving.target, serving.recipe, _latest_period(workspace, site, serving.target), run=run
        )
        for serving in servings
        if serving is not None and serving.recipe != layout.NATIVE
    ]
    on_features = [_try_combat(workspace, site, tried.model.partition("@")[0], run=run, at=at) for tried in trials]
    trials += [tried for tried in on_features if tried is not None]
    for tried in trials:
        keep_trial(workspace, tried)
    return trials


def _try_combat(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> RecipeTrial | None:
    sound = {name: sound_series(workspace, name, target) for name in workspace.sites}
    return try_combat(workspace, site, target, sound, run=run, at=at)


def _latest_period(workspace: Workspace, site: str, target: str) -> tuple[str, ...]:
    """The first scans of all patients in the latest period, of every stratum."""
    strata = period_samples(workspace, site, workspace.target(target).modality, target)
    latest = max(periods[-1].period_start for periods in strata.values())
    return tuple(key for periods in strata.values() for key in periods[-1].keys if periods[-1].period_start == latest)


def _first_recipe(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> str | None:
    keys = sound_series(workspace, site, target)
    if len(keys) < FEWEST_SERIES:
        return None
    trials = fit_tried_recipe(workspace, site, target, keys, run=run, at=at)
    for tried in trials:
        keep_trial(workspace, tried)
    last = trials[-1]
    if last.refused and workspace.target(target).refuse_harmful_steps:
        raise HarmfulRecipe(site, target, last.because)
    return last.recipe
