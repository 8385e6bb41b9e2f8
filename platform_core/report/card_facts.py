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
from platform_core.manifest.serving import Serving
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.settings import TargetSettings
from platform_core.shift.risk import Estimate, Reals, RiskReport, measure_risk
from platform_core.trial.model_record import FEWEST_TOLD, Record, evaluated, record_of, servings_under

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
class EvaluatedAt:
    """What one site's evaluation patients say; `report` is None where there are fewer than ten of them."""

    site: str
    runs_it: bool
    n_patients: int
    n_positive: int
    report: RiskReport | None


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
    evaluated: Sequence[EvaluatedAt]
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
    at_sites, bins = _evaluated(workspace, ref, {serving.site for serving in record.run_by})
    made_with, target = _made_with(workspace, ref), workspace.target(ref.model)
    return Card(
        ref=ref,
        target=target,
        made_with=made_with,
        steps=_steps(workspace, ref),
        trained=trained,
        n_missing=n_missing,
        evaluated=at_sites,
        bins=bins,
        record=record,
        limits=_limits(workspace, target, trained, at_sites, record),
    )


def calibration_bins(y: Reals, p: Reals) -> list[Bin]:
    """Scans in bins of about equal number by probability, at least ten in each, with what was found in them.

    Args:
        y: (n,), 1 positive, 0 negative.
        p: (n,), calibrated probability of the positive class.

    Source:
        Interval: Wilson 1927, doi:10.1080/01621459.1927.10502953. It takes scans for independent.
    """
    order = np.argsort(p, kind="stable")
    n_bins = min(MOST_BINS, len(p) // FEWEST_TOLD)
    parts = np.array_split(order, n_bins) if n_bins else []
    return [_bin(y[rows], p[rows]) for rows in parts]


def _bin(y: Reals, p: Reals) -> Bin:
    n, share = len(y), float(y.mean())
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    found = Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0))
    return Bin(foretold=float(p.mean()), found=found, n=n)


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


def _evaluated(workspace: Workspace, ref: ModelRef, runs_it: set[str]) -> tuple[list[EvaluatedAt], list[Bin]]:
    found, ys, ps = [], [], []
    for serving in servings_under(workspace, ref):
        scans = evaluated(workspace, serving)
        p = serving.calibration.probability(scans.score)
        n_patients = len(set(scans.patient_key.tolist()))
        if n_patients:
            ys.append(scans.y)
            ps.append(p)
        report = (
            _report(workspace, serving, scans.y, p, scans.patient_key.tolist()) if n_patients >= FEWEST_TOLD else None
        )
        found.append(
            EvaluatedAt(
                site=serving.site,
                runs_it=serving.site in runs_it,
                n_patients=n_patients,
                n_positive=int(scans.y.sum()),
                report=report,
            )
        )
    return found, calibration_bins(np.concatenate(ys), np.concatenate(ps)) if ys else []


def _report(workspace: Workspace, serving: Serving, y: Reals, p: Reals, patients: Sequence[str]) -> RiskReport:
    least = workspace.settings.policy.min_class_patients
    return measure_risk(y, p, patients, threshold=serving.calibration.threshold, min_class_patients=least)


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
    at_sites: Sequence[EvaluatedAt],
    record: Record,
) -> list[str]:
    least = workspace.settings.policy.min_class_patients
    told = []
    if not target.intended_use:
        told.append("Its intended use is not stated by those who run it.")
    if len(trained) == 1:
        told.append(f"It was trained on scans of one site, {trained[0].site}.")
    for one in at_sites:
        if one.report is None:
            told.append(
                f"{one.site}: fewer than {FEWEST_TOLD} labelled patients are held out; nothing was evaluated there."
            )
        elif one.report.auroc is None:
            told.append(
                f"{one.site}: fewer than {least} held-out patients of a class; AUROC and balanced error say nothing."
            )
    unserved = sorted({*workspace.sites} - {one.site for one in at_sites})
    told += [f"{site}: nothing is served there, and nothing was evaluated." for site in unserved]
    if record.gate is None:
        told.append("No gate has judged it against another model.")
    else:
        told += [f"{v['site']}: the gate could not tell ({v['because']})." for v in record.gate["sites"]
                 if v["outcome"] == "not_evaluable"]  # fmt: skip
    told.append("Age, sex and ethnicity are not recorded by the platform; no result is broken down by them.")
    return told
