"""Try a recipe as it is fitted to a site, step by step."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import nothing_to_learn
from platform_core.harmonize.recipe import FittedRecipe
from platform_core.harmonize.stage import fit_site_recipe, load_recipe, spread
from platform_core.imaging.volume import Volume
from platform_core.learn.predict import network_of
from platform_core.learn.registry import ModelRef, champion
from platform_core.manifest.labels import read_labels
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Reals
from platform_core.shift.samples import reference_samples
from platform_core.trial.first_features import first_of_each_patient
from platform_core.trial.steps import Sides, StepReceipt, implied_prevalence, receipts_of
from platform_core.trial.walk import See, Walk, walk

N_SITE, N_REFERENCE = 60, 100
"""Scans of either side that are taken through the recipe, at most; one per patient."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeTrial:
    """What every step of one fitted recipe did to the scans of one stratum and period of a site."""

    run: str
    site: str
    recipe: str
    model: str
    """The network whose embeddings and scores were looked at."""
    stratum: str
    period_start: date
    period_end: date
    receipts: tuple[StepReceipt, ...]
    """Empty where the reference has no scan of the stratum."""
    implied_prevalence: float | None = None
    """Share of positives that the scores imply, where labels do not tell it."""

    @property
    def refused(self) -> tuple[StepReceipt, ...]:
        """Steps that should not be taken."""
        return tuple(receipt for receipt in self.receipts if receipt.refusals)

    @property
    def because(self) -> str:
        """One sentence, the refused steps with their numbers."""
        if not self.receipts:
            return f"no step could be measured: the reference has no scan of {self.stratum}"
        told = [receipt.because for receipt in self.refused] or ["no step does harm"]
        return "; ".join(told)


def fit_tried_recipe(
    workspace: Workspace, site: str, target: str, keys: Sequence[str], *, run: str, at: datetime
) -> list[RecipeTrial]:
    """Fit the target's recipe to a site, without the learned steps that do harm there.

    A step that learns and is refused does at the site what it does at the reference; the recipe is then fitted and
    tried again. A fixed step (a spacing, a window) is part of what the model was trained on and cannot be
    left out at one site: it stays, and the trial names it as refused.

    Returns:
        Every trial; the last one is of the recipe that may be served.
    """
    bench = _bench(workspace, site, target, keys)
    prevalence: float | None = None
    left_out: frozenset[int] = frozenset()
    trials: list[RecipeTrial] = []
    while True:
        recipe = fit_site_recipe(
            workspace,
            site,
            target,
            keys,
            run=run,
            at=at,
            reference=bench.model.recipe,
            prevalence=prevalence,
            as_reference=left_out,
        )
        trials.append(_try(bench, recipe, run))
        harmful = _learned_steps(load_recipe(workspace, recipe)) & _refused_steps(trials[-1]) - left_out
        if prevalence is None and trials[-1].implied_prevalence is not None:
            prevalence = trials[-1].implied_prevalence
        elif harmful and workspace.target(target).refuse_harmful_steps:
            left_out |= {min(harmful)}
        else:
            return trials


def try_recipe(
    workspace: Workspace, site: str, target: str, recipe: str, keys: Sequence[str], *, run: str
) -> RecipeTrial:
    """Take scans of the site and of the reference through the recipe, each by its own fit, and compare every state.

    Args:
        workspace: Where volumes, labels and models lie.
        site: The site.
        target: The task; it has a champion.
        recipe: As fitted to the site.
        keys: Series to choose from: of the stratum that most belong to, the first scans of at most 60 patients.
        run: The run that asks.
    """
    return _try(_bench(workspace, site, target, keys), recipe, run)


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every recipe that is tried for one site has in common: the scans, and the reference on its own way."""

    workspace: Workspace
    site: str
    target: str
    model: ModelRef
    stratum: str
    rows: Sequence[Row]

    @property
    def source(self) -> str:
        return self.workspace.target(self.target).source_site

    @cached_property
    def see(self) -> See:
        return network_of(self.workspace, self.model)

    @cached_property
    def fitted_there(self) -> FittedRecipe:
        return load_recipe(self.workspace, self.model.recipe)

    @cached_property
    def rows_there(self) -> list[Row]:
        return _reference_rows(self.workspace, self.target, self.stratum, self.model.created_at)

    @cached_property
    def reference(self) -> Walk:
        return self.walk(self.rows_there, self.fitted_there)

    def walk(self, rows: Sequence[Row], fitted: FittedRecipe) -> Walk:
        """Scans of either side through a recipe."""
        modality = self.workspace.target(self.target).modality
        return walk(_volumes(self.workspace, rows), fitted, modality=modality, see=self.see)

    def y(self, site: str, walked: Walk) -> Reals:
        """Labels of the scans: 1, 0, NaN where unknown."""
        labels = read_labels(self.workspace, self.target, site)
        return np.array([labels.get(key, np.nan) for key in walked.keys], dtype=np.float64)


def _bench(workspace: Workspace, site: str, target: str, keys: Sequence[str]) -> _Bench:
    model = champion(workspace, target)
    assert model is not None, "a recipe is tried for a site that a model is to serve"
    stratum, rows = _one_stratum(series_rows(workspace, site, keys))
    return _Bench(workspace=workspace, site=site, target=target, model=model, stratum=stratum, rows=rows)


def _try(bench: _Bench, recipe: str, run: str) -> RecipeTrial:
    days = [row["observed_on"] for row in bench.rows]
    sides = _sides(bench, recipe)
    return RecipeTrial(
        run=run,
        site=bench.site,
        recipe=recipe,
        model=bench.model.name,
        stratum=bench.stratum,
        period_start=min(days),
        period_end=max(days),
        receipts=() if sides is None else receipts_of(sides),
        implied_prevalence=None if sides is None or sides.has_labels else sides.prevalence,
    )


def _learned_steps(fitted: FittedRecipe) -> set[int]:
    """Steps (0, 1, ...) that learn."""
    return {n for n, one in enumerate(fitted.steps) if one.step.harmonizer.fit is not nothing_to_learn}


def _refused_steps(tried: RecipeTrial) -> set[int]:
    return {receipt.number - 1 for receipt in tried.refused}


def _one_stratum(rows: Sequence[Row]) -> tuple[str, list[Row]]:
    """Of the stratum that most of the series belong to, the first scans of some patients, evenly over time."""
    stratum = max(Counter(sorted(row["stratum"] for row in rows)).items(), key=lambda item: item[1])[0]
    return stratum, spread(first_of_each_patient([row for row in rows if row["stratum"] == stratum]), N_SITE)


def _sides(bench: _Bench, recipe: str) -> Sides | None:
    """Both sides on their way; None where they have no common recipe or stratum."""
    ours = load_recipe(bench.workspace, recipe)
    if not bench.rows_there or ours.recipe != bench.fitted_there.recipe:
        return None
    here = bench.walk(bench.rows, ours)
    sides = Sides(
        site=here,
        y=bench.y(bench.site, here),
        reference=bench.reference,
        y_reference=bench.y(bench.source, bench.reference),
    )
    if sides.has_labels:
        return replace(sides, prevalence=float(np.nanmean(sides.y)))
    pushed = bench.walk(bench.rows_there, ours)
    return replace(
        sides,
        prevalence=implied_prevalence(sides, min(_learned_steps(ours), default=len(ours.steps))),
        pushed=pushed,
        y_pushed=bench.y(bench.source, pushed),
    )


def _reference_rows(workspace: Workspace, target: str, stratum: str, made_at: datetime) -> list[Row]:
    """Held-out patients of the reference: the network has not seen their labels."""
    settings, split = workspace.target(target), workspace.settings.split
    samples = reference_samples(
        workspace, settings.source_site, settings.modality, observed_before=None, ingested_by=made_at
    )
    if stratum not in samples:
        return []
    rows = series_rows(workspace, settings.source_site, samples[stratum].keys)
    return spread([row for row in rows if part_of(row["patient_key"], split) == "evaluation"], N_REFERENCE)


def _volumes(workspace: Workspace, rows: Sequence[Row]) -> Iterator[tuple[str, Volume]]:
    """Native volumes that can be read, one at a time."""
    for row in rows:
        try:
            yield row["series_key"], workspace.read_volume(str(row["volume_uri"]))
        except (UnreadableScan, FileNotFoundError):
            continue
