"""The samples that plots compare: a site's periods, its accepted state, and the reference.

Who is in a sample is decided in `shift/`, so that plots show what was tested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.serving import serving_history
from platform_core.manifest.workspace import Workspace
from platform_core.report.fleet_rows import Finding
from platform_core.shift.compare import by_feature
from platform_core.shift.labels.prevalence import P_FIT, estimate_prevalence
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.samples import Sample, accepted_sample, feature_values, period_samples, reference_samples
from platform_core.shift.scores import ScoredScans, score_rows

if TYPE_CHECKING:
    from platform_core.manifest.splits import Part

MOST_POINTS = 201
"""A sample is drawn from at most this many evenly spaced quantiles: the shape stays, the file stays small."""
MOST_PERIODS = 4

Role = Literal["reference", "accepted", "earlier", "latest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a plot: the values of one feature in one sample."""

    label: str
    role: Role
    values: Reals
    """In the unit of the feature; empty if nothing is known."""

    @property
    def n(self) -> int:
        """Patients with a value."""
        return int(self.values.size)

    @property
    def median(self) -> float | None:
        """In the unit of the feature; None without values."""
        return float(np.median(self.values)) if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One sample of patients that gets a row in every plot."""

    label: str
    role: Role
    sample: Sample
    recipes: tuple[str, ...]
    """Recipes of its site, the one in force first."""


def shown_samples(workspace: Workspace, site: str, finding: Finding) -> list[Shown]:
    """The reference, the accepted state, the last periods before the finding's, and the finding's own.

    The accepted state is the one that the finding was compared with: a period that was adapted to is its own
    accepted state from then on, but was held against the one before.
    """
    target = workspace.settings.target.get(finding.target or "")
    every = period_samples(workspace, site, target.modality if target else None, finding.target).get(
        finding.stratum, []
    )
    periods = [sample for sample in every if sample.period_start <= finding.period_start]
    if not periods:
        return []
    accepted = accepted_sample(workspace, finding.target, periods[:-1] or periods)
    chosen = [sample for sample in periods if sample is accepted or sample in periods[-MOST_PERIODS:]]
    recipes = _recipes(workspace, site, finding.target)
    shown = [
        Shown(label=f"period {periods.index(sample) + 1}", role=_role(sample, accepted, periods), sample=sample,
              recipes=recipes)
        for sample in chosen
    ]  # fmt: skip
    return [*_reference(workspace, finding), *shown]


def feature_rows(workspace: Workspace, shown: Sequence[Shown], *, is_native: bool) -> dict[str, list[Row]]:
    """Rows of every feature, as scanned or by the newest recipe of the site that a sample was harmonized with."""
    found = [_features(workspace, one, is_native=is_native) for one in shown]
    names = sorted({name for features in found for name in features})
    empty = np.empty(0)
    return {
        name: [
            Row(label=label_of(one), role=one.role, values=features.get(name, empty))
            for one, features in zip(shown, found, strict=True)
        ]
        for name in names
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Raw scores (logits) of one model, and the prevalence they imply."""

    rows: list[Row]
    prevalences: Mapping[str, Estimate]
    """Share of positives by label of the row; left out where no mixture of the reference's classes fits."""


def read_scores(workspace: Workspace, shown: Sequence[Shown], finding: Finding) -> Scores:
    """Scores of the model that the finding is about.

    The reference is held-out patients only: scores of patients that were trained on are too good.
    """
    if finding.target is None or finding.model is None:
        return Scores(rows=[], prevalences={})
    found = [(one, _scans(workspace, one, finding)) for one in shown]
    rows = [Row(label=label_of(one), role=one.role, values=scans.score) for one, scans in found]
    reference = next((scans for one, scans in found if one.role == "reference"), None)
    estimates = {
        label_of(one): _prevalence(scans, reference)
        for one, scans in found
        if one.role != "reference" and reference is not None
    }
    return Scores(rows=rows, prevalences={label: known for label, known in estimates.items() if known is not None})


def thin(values: Reals) -> Reals:
    """At most `MOST_POINTS` evenly spaced quantiles of the finite values, increasing."""
    known = np.sort(values[np.isfinite(values)])
    if known.size <= MOST_POINTS:
        return np.asarray(known, dtype=np.float64)
    levels = (np.arange(MOST_POINTS) + 0.5) / MOST_POINTS
    return np.asarray(np.quantile(known, levels), dtype=np.float64)


def _reference(workspace: Workspace, finding: Finding) -> list[Shown]:
    target = workspace.settings.target.get(finding.target or "")
    if target is None or finding.model is None:
        return []
    made_at = _made_at(workspace, finding.model)
    found = reference_samples(
        workspace, target.source_site, target.modality, observed_before=None, ingested_by=made_at
    ).get(finding.stratum)
    if found is None:
        return []
    recipes = _recipes(workspace, target.source_site, finding.target)
    return [Shown(label=f"reference: {target.source_site}", role="reference", sample=found, recipes=recipes)]


def _made_at(workspace: Workspace, model: str) -> datetime | None:
    name, _, version = model.rpartition("@")
    rows = workspace.lake.read(layout.MODEL, pc.field("model") == name, ["version", "created_at"]).to_pylist()
    return min((row["created_at"] for row in rows if str(row["version"]) == version.lstrip("0")), default=None)


def _recipes(workspace: Workspace, site: str, target: str | None) -> tuple[str, ...]:
    history = serving_history(workspace, site, target) if target else []
    return tuple(dict.fromkeys(serving.recipe for serving in reversed(history)))


def _features(workspace: Workspace, one: Shown, *, is_native: bool) -> Mapping[str, Reals]:
    recipes = (layout.NATIVE,) if is_native else tuple(name for name in one.recipes if name != layout.NATIVE)
    for recipe in recipes:
        values = feature_values(workspace, one.sample, recipe)
        if values.num_rows:
            return by_feature(values)
    return {}


def _scans(workspace: Workspace, one: Shown, finding: Finding) -> ScoredScans:
    assert finding.target is not None
    assert finding.model is not None
    part: Part | None = "evaluation" if one.role == "reference" else None
    scope = (workspace, one.sample.site, finding.target, finding.model)
    found = [score_rows(*scope, recipe, keys=one.sample.keys, part=part) for recipe in one.recipes or (layout.NATIVE,)]
    return next((scans for scans in found if len(scans)), found[0])


def _prevalence(scans: ScoredScans, reference: ScoredScans) -> Estimate | None:
    known = reference.where(reference.is_labelled)
    try:
        found = estimate_prevalence(scans.score, known.score, known.y, assumed=0.5, n_simulated=1)
    except EmptySample:
        return None
    return Estimate.of(found) if found.p_fit > P_FIT else None


def _role(sample: Sample, accepted: Sample, periods: Sequence[Sample]) -> Role:
    if sample is periods[-1]:
        return "latest"
    return "accepted" if sample is accepted else "earlier"


def label_of(one: Shown) -> str:
    """The row of a sample in every plot."""
    return one.label + {"accepted": ", accepted", "latest": ", latest"}.get(one.role, "")
