"""What a model card states: sums over at least ten patients, verdicts and names of versions; never a scan."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from platform_core import layout
from platform_core.errors import BadInput
from platform_core.harmonize.stage import written_recipe
from platform_core.learn.registry import ModelRef, find, read_reference
from platform_core.lineage.walk import METADATA
from platform_core.manifest.labels import read_labels
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.settings import TargetSettings
from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.evaluation import POOLED, Answers, Evaluation, answers_of, evaluate_model, joined
from platform_core.trial.model_record import FEWEST_TOLD, Record, record_of

HERE = "platform_core.report"
MOST_BINS = 10
Z = 1.96
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedAt:
    """What one site gave to the training."""

    site: str
    n_patients: int
    n_scans: int
    prevalence: float | None
    """Share of positives among the labelled scans; None with fewer than ten patients of either class."""
    first_on: date
    last_on: date
    manufacturers: Mapping[str, int]
    """Patients of each; those with fewer than ten together as `others`, perhaps still fewer than ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Scans with about the same probability: what was foretold and what was found."""

    foretold: float
    found: Estimate
    """Share of positives, with Wilson's 95 % interval."""
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that the card says."""

    ref: ModelRef
    target: TargetSettings
    made_with: Mapping[str, Any]
    """Of the bundle's metadata."""
    steps: Sequence[Mapping[str, Any]]
    """Of the recipe."""
    trained: Sequence[TrainedAt]
    n_missing: int
    """Listed scans that the manifest has no more."""
    evaluated: Sequence[Evaluation]
    """By site, all sites together last; metrics are None where a site has too few patients to tell of."""
    bins: Sequence[Bin]
    record: Record
    limits: Sequence[str]


def card_of(workspace: Workspace, model: str) -> Card:
    """Gather everything about `model@version`.

    Raises:
        UnknownName: If there is no such model.
        BadInput: If its list of scans is missing.
    """
    ref = find(workspace, model)
    trained, n_missing = _trained(workspace, ref)
    record = record_of(workspace, ref)
    evaluated, answers = evaluate_model(workspace, model), _told(answers_of(workspace, model))
    made_with, target = _made_with(workspace, ref), workspace.target(ref.model)
    return Card(
        ref=ref,
        target=target,
        made_with=made_with,
        steps=_steps(workspace, ref),
        trained=trained,
        n_missing=n_missing,
        evaluated=evaluated,
        bins=calibration_bins(joined(answers)) if answers else [],
        record=record,
        limits=_limits(workspace, target, trained, evaluated, record),
    )


def _told(by_site: Mapping[str, Answers]) -> list[Answers]:
    """Without sites of fewer than ten patients, which a sum over all would give away."""
    return [one for one in by_site.values() if len(set(one.patients)) >= FEWEST_TOLD]


def calibration_bins(answers: Answers) -> list[Bin]:
    """Scans in bins of about equal number by probability, at least ten in each, with what was found in them.

    Each counts its weight, so that labels which were asked for stand for those that were not.

    Source:
        Interval: Wilson 1927, doi:10.1080/01621459.1927.10502953, at Kish's effective number of scans. It takes scans
        for independent.
    """
    order = np.argsort(answers.p, kind="stable")
    n_bins = min(MOST_BINS, len(order) // FEWEST_TOLD)
    parts = np.array_split(order, n_bins) if n_bins else []
    return [_bin(answers.y[rows], answers.p[rows], answers.weight[rows]) for rows in parts]


def _bin(y: Reals, p: Reals, weight: Reals) -> Bin:
    n = float(weight.sum() ** 2 / (weight**2).sum())
    share = float(np.average(y, weights=weight))
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    found = Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0))
    return Bin(foretold=float(np.average(p, weights=weight)), found=found, n=len(y))


def _trained(workspace: Workspace, ref: ModelRef) -> tuple[list[TrainedAt], int]:
    try:
        listed = read_reference(workspace, ref.bundle_uri)
    except BadInput:
        return [], 0
    with workspace.lake.connect([layout.SERIES]) as db:
        db.register("listed", listed)
        rows = load(HERE, "trained_scans").run(db).to_pylist()
    sites = sorted({row["site"] for row in rows})
    found = [_trained_at(workspace, ref.model, site, [row for row in rows if row["site"] == site]) for site in sites]
    return found, listed.num_rows - len(rows)


def _trained_at(workspace: Workspace, target: str, site: str, rows: Sequence[Mapping[str, Any]]) -> TrainedAt:
    y = read_labels(workspace, target, site)
    classes = {row["patient_key"]: y[row["series_key"]] for row in rows if row["series_key"] in y}
    labelled = [y[row["series_key"]] for row in rows if row["series_key"] in y]
    is_told = min(Counter(classes.values()).get(one, 0) for one in (0, 1)) >= FEWEST_TOLD
    days = [row["observed_on"] for row in rows]
    return TrainedAt(
        site=site,
        n_patients=len({row["patient_key"] for row in rows}),
        n_scans=len(rows),
        prevalence=float(np.mean(labelled)) if is_told else None,
        first_on=min(days),
        last_on=max(days),
        manufacturers=_manufacturers(rows),
    )


def _manufacturers(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    by_name = Counter(name for name, _ in {(row["manufacturer"] or "not stated", row["patient_key"]) for row in rows})
    told = {name: count for name, count in by_name.most_common() if count >= FEWEST_TOLD}
    others = sum(by_name.values()) - sum(told.values())
    return told | ({"others": others} if others else {})


def _made_with(workspace: Workspace, ref: ModelRef) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(workspace.objects.get(f"{ref.bundle_uri}/{METADATA}"))
    except FileNotFoundError:
        return {}
    if facts.get("source_weights"):
        facts["source_weights"]["where"] = facts["source_weights"]["where"].rstrip("/").rpartition("/")[2]
    return facts


def _steps(workspace: Workspace, ref: ModelRef) -> list[dict[str, Any]]:
    rows = workspace.lake.read(layout.RECIPE, columns=["recipe"]).column("recipe").to_pylist()
    if ref.recipe not in rows:
        return []
    steps: list[dict[str, Any]] = json.loads(written_recipe(workspace, ref.recipe))
    return steps


def _limits(
    workspace: Workspace,
    target: TargetSettings,
    trained: Sequence[TrainedAt],
    evaluated: Sequence[Evaluation],
    record: Record,
) -> list[str]:
    least = workspace.settings.policy.min_class_patients
    told = []
    if not target.intended_use:
        told.append("Its intended use is not stated by those who run it.")
    if len(trained) == 1:
        told.append(f"It was trained on scans of one site, {trained[0].site}.")
    few = f"fewer than {least} held-out patients of a class; nothing could be evaluated there"
    told += [f"{one.site}: {few}." for one in evaluated if not (one.log_loss or one.dice) and one.site != POOLED]
    unserved = sorted({*workspace.sites} - {one.site for one in evaluated})
    told += [f"{site}: nothing is served there, and nothing was evaluated." for site in unserved]
    if record.gate is None:
        told.append("No gate has judged it against another model.")
    else:
        told += [f"{v['site']}: the gate could not tell ({v['because']})." for v in record.gate["sites"]
                 if v["outcome"] == "not_evaluable"]  # fmt: skip
    told.append("Age, sex and ethnicity are not recorded by the platform; no result is broken down by them.")
    return told
