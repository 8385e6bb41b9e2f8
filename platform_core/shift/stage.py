"""Measure the latest period of a site and write what was found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import FINDING, SHIFT
from platform_core.manifest.workspace import Workspace
from platform_core.shift.bound import Bound
from platform_core.shift.compare import FeatureShift
from platform_core.shift.diagnosis import Verdict, bound_under, diagnose
from platform_core.shift.evidence import Evidence, evidence_of
from platform_core.shift.inputs import Inputs, material_of, read_inputs
from platform_core.shift.labels.bbse import CalledPrevalence
from platform_core.shift.labels.labelled_prevalence import LabelledPrevalence
from platform_core.shift.labels.prevalence import PrevalenceEstimate
from platform_core.shift.newcomer import newcomer_rows
from platform_core.shift.risk import columns_of
from platform_core.storage.tables import rows_of

HasInterval = PrevalenceEstimate | CalledPrevalence | LabelledPrevalence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of `out__finding`; the schema describes its columns."""

    site: str
    finding_key: str
    stratum: str
    target: str | None
    model: str | None
    period_start: date
    period_end: date
    reference: str
    kind: str
    size: float | None
    low: float | None
    high: float | None
    n_needed: int | None
    explained_by: str
    source_risk: float | None = None
    source_risk_low: float | None = None
    source_risk_high: float | None = None
    divergence: float | None = None
    divergence_low: float | None = None
    divergence_high: float | None = None
    joint_risk: float | None = None
    joint_risk_low: float | None = None
    joint_risk_high: float | None = None
    target_risk: float | None = None
    target_risk_low: float | None = None
    target_risk_high: float | None = None
    expected_risk: float | None = None
    expected_risk_low: float | None = None
    expected_risk_high: float | None = None
    run: str


def measure_shift(
    workspace: Workspace,
    site: str,
    *,
    target: str | None,
    run: str,
    at: datetime,  # noqa: ARG001 - every stage is told the moment; findings are dated by their period
) -> list[Finding]:
    """Measure and diagnose the latest period of a site: one finding per stratum, most patients first.

    Equal inputs make an equal `finding_key`, and what was found already is not written again.

    Args:
        workspace: Where everything is read and written.
        site: The hospital.
        target: The task that the site is measured for; None before there is one (images only).
        run: The run that asks.
        at: The moment, UTC.

    Raises:
        UnknownName: If there is no such target.
    """
    if target is not None:
        workspace.target(target)
    known = {finding.finding_key: finding for finding in findings(workspace, site)}
    every = read_inputs(workspace, site, target)
    return [known.get(inputs.key) or _find(inputs, run) for inputs in every]


def findings(workspace: Workspace, site: str | None = None) -> list[Finding]:
    """Every finding of a site, or of all, oldest period first."""
    where = None if site is None else pc.field("site") == site
    names = [field.name for field in fields(Finding)]
    rows = workspace.lake.read(layout.FINDING, where, names).to_pylist()
    return sorted((Finding(**row) for row in rows), key=lambda f: (f.period_start, f.site, f.stratum))


def _find(inputs: Inputs, run: str) -> Finding:
    evidence = evidence_of(material_of(inputs))
    verdict = diagnose(evidence, inputs.workspace.settings.shift)
    finding = _finding(inputs, verdict, bound_under(verdict, evidence), run)
    lake = inputs.workspace.lake
    lake.append(layout.SHIFT, rows_of(SHIFT, _shift_rows(inputs, evidence, run)), transaction=f"shift/{inputs.key}")
    lake.append(layout.FINDING, rows_of(FINDING, [asdict(finding)]), transaction=f"finding/{inputs.key}")
    return finding


def _finding(inputs: Inputs, verdict: Verdict, bound: Bound, run: str) -> Finding:
    model = None if inputs.serving is None else inputs.serving.model
    accepted = f"{inputs.accepted.site}@{inputs.accepted.period_start}"
    terms = ("source_risk", "divergence", "joint_risk", "target_risk", "expected_risk")
    return Finding(
        site=inputs.current.site,
        finding_key=inputs.key,
        stratum=inputs.current.stratum,
        target=inputs.target,
        model=model,
        period_start=inputs.current.period_start,
        period_end=inputs.current.period_end,
        reference=model if inputs.is_accepted and model is not None else accepted,
        kind=verdict.kind,
        **columns_of("size", verdict.size, "low", "high"),
        n_needed=verdict.n_needed,
        explained_by=verdict.explained_by,
        run=run,
        **{name: value for term in terms for name, value in columns_of(term, getattr(bound, term)).items()},
    )


def _shift_rows(inputs: Inputs, evidence: Evidence, run: str) -> list[dict[str, Any]]:
    about = {
        "site": inputs.current.site,
        "stratum": inputs.current.stratum,
        "period_start": inputs.current.period_start,
        "period_end": inputs.current.period_end,
        "run": run,
    }
    accepted = f"{inputs.accepted.site}@{inputs.accepted.period_start}"
    rows = _feature_rows(layout.NATIVE, accepted, evidence.since_accepted)
    if inputs.serving is not None:
        model, recipe = inputs.serving.model, inputs.serving.recipe
        rows += _feature_rows(layout.NATIVE, model, evidence.native)
        rows += _feature_rows(recipe, model, evidence.from_reference)
        rows += _feature_rows(recipe, model, (evidence.score,) if evidence.score else ())
        told = [*_embedding_rows(inputs, evidence), *_prevalence_rows(evidence), *_label_rows(evidence)]
        told += newcomer_rows(inputs)
        rows += [{"recipe": recipe, "reference": model} | row for row in told]
    return [about | row for row in rows]


def _feature_rows(recipe: str, reference: str, shifts: Sequence[FeatureShift]) -> list[dict[str, Any]]:
    """One row per statistic; only the Kolmogorov-Smirnov distance has an interval and a p-value."""
    return [
        {
            "recipe": recipe,
            "reference": reference,
            "feature": shift.feature,
            "statistic": statistic,
            "value": value,
            "n_current": shift.n_after,
            "n_reference": shift.n_before,
            **(
                {"low": shift.distance.low, "high": shift.distance.high, "evidence": shift.p}
                if statistic == "ks"
                else {}
            ),
        }
        for shift in shifts
        for statistic, value in shift.values.items()
    ]


def _embedding_rows(inputs: Inputs, evidence: Evidence) -> list[dict[str, Any]]:
    if evidence.embedding is None:
        return []
    row = {
        "feature": "embedding",
        "statistic": "mmd",
        "value": evidence.embedding.value,
        "low": evidence.embedding.low,
        "high": evidence.embedding.high,
        "evidence": evidence.embedding.p,
        "n_current": len(inputs.scores or ()),
        "n_reference": len(inputs.reference_scores or ()),
    }
    return [row]


def _prevalence_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Every estimate from scores; the evidence is that against the assumed prevalence, of calls that against scores."""
    rows = []
    by_scores = {"prevalence_from_scores": evidence.prevalence.by_scores} if evidence.prevalence else {}
    if evidence.through_scanner is not None:
        by_scores["prevalence_through_scanner"] = evidence.through_scanner
    for statistic, found in by_scores.items():
        rows.append(_estimated("score", statistic, found, found.p_changed, n_reference=found.n_reference))
        fit = {"feature": "score", "statistic": statistic.replace("prevalence", "fit"), "evidence": found.p_fit}
        rows.append(fit | {"n_current": found.n, "n_reference": found.n_reference})
    if evidence.prevalence is not None:
        calls, p_agree = evidence.prevalence.by_calls, evidence.prevalence.p_agree
        rows.append(_estimated("score", "prevalence_from_calls", calls, p_agree, n_reference=calls.n_reference))
    return rows


def _label_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """What labels tell of prevalence."""
    found = evidence.labelled_prevalence
    if found is None:
        return []
    return [_estimated("label", "prevalence_from_labels", found, evidence.p_labelled, n_reference=None)]


def _estimated(
    feature: str, statistic: str, found: HasInterval, p: float | None, *, n_reference: int | None
) -> dict[str, Any]:
    return {
        "feature": feature,
        "statistic": statistic,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "evidence": p,
        "n_current": found.n,
        "n_reference": n_reference,
    }
