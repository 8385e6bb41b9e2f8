"""The facts of a situation, read from the tables."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.agreement import label_noise
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.serving import current_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.policy.costs import MONTH, hours_of_training
from platform_core.policy.history import CARRIED_OUT, read_history
from platform_core.policy.record import decisions
from platform_core.policy.running import is_training_running
from platform_core.policy.situation import Kind, Situation, estimate_of
from platform_core.queries import load
from platform_core.shift.risk import Estimate
from platform_core.shift.watch.raised import Alarm, alarm_behind

HERE = "platform_core.policy"
FROM_LABELS, THROUGH_SCANNER = "prevalence_from_labels", "prevalence_through_scanner"
"""Statistics of `out__shift` that may deny an adaptation; none of them moves a prior."""

FEWEST_DOUBLE_READINGS = 20
"""Series read twice from which disagreement is told; 4 of 20 have a 95 % interval of 0.08 to 0.42. Proposed."""


def read_situation(
    workspace: Workspace,
    finding: Mapping[str, Any],
    *,
    at: datetime,
    target_risk: Estimate | None = None,
    accepted_risk: Estimate | None = None,
) -> Situation:
    """Put together what a decision about one finding is made from.

    Args:
        workspace: Where it is read.
        finding: A row of `out__finding`.
        at: The moment of the decision, UTC.
        target_risk: Log-loss on the period's labelled patients, if it was measured again after the finding
            (after a harmonization); by default what the finding says.
        accepted_risk: Log-loss where the model was accepted, at the period's share of positives; by default as above.
    """
    rules = workspace.settings.policy
    site, target, kind = str(finding["site"]), str(finding["target"]), cast("Kind", finding["kind"])
    patients, labelled = _patients(workspace, finding)
    parts = Counter(part_of(key, workspace.settings.split) for key in labelled)
    alarm = alarm_behind(workspace, finding)
    history = read_history(workspace, finding)
    noise = label_noise(workspace, target, site)
    size = estimate_of(finding, "size", "low", "high")
    return Situation(
        kind=kind,
        size=size,
        n_patients=len(patients),
        min_patients=workspace.settings.shift.min_scans,
        n_labels=len(labelled),
        n_train_labels=parts["train"],
        n_evaluation_labels=parts["evaluation"],
        min_labels=rules.min_labels,
        accepted_risk=accepted_risk or estimate_of(finding, "source_risk"),
        target_risk=target_risk or estimate_of(finding, "target_risk"),
        taken=history.taken,
        tried=history.tried,
        n_gates_failed=history.n_gates_failed,
        is_watching=history.acted_before is not None,
        growth=history.growth(kind, None if size is None else size.value),
        divergence_stays=history.divergence_stays,
        has_prevalence_moved=_has_prevalence_moved(workspace, finding),
        label_noise=None if noise is None or noise.n < FEWEST_DOUBLE_READINGS else noise.value,
        has_guideline_changed=_has_guideline_changed(workspace, finding),
        n_sites_alarmed=0 if alarm is None else _n_sites_alarmed(workspace, alarm),
        is_training_running=is_training_running(workspace, target, site=site, at=at),
        gpu_hours_used=hours_of_training(workspace, since=at - MONTH, until=at),
        gpu_hours_per_month=rules.gpu_hours_per_month,
        days_since_fine_tune=_days_since_fine_tune(workspace, site, target, at),
        cool_down_days=rules.cool_down_days,
        alarm=None if alarm is None else alarm.sentence,
        strategies=workspace.settings.target[target].strategies,
        approve=rules.approve,
        released=history.released,
    )


def _patients(workspace: Workspace, finding: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Patients of the finding's period, and those of them with a label in force."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        db.register("label_in_force", labels_in_force(workspace, str(finding["target"])))
        names = ("site", "stratum", "period_start", "period_end")
        rows = load(HERE, "period_patients").run(db, **{name: finding[name] for name in names}).to_pylist()
    return {row["patient_key"] for row in rows}, {row["patient_key"] for row in rows if row["is_labelled"]}


def _has_prevalence_moved(workspace: Workspace, finding: Mapping[str, Any]) -> bool | None:
    """Whether an estimate that can be believed lies beyond chance and materially off the prevalence that is assumed."""
    if finding["kind"] in ("label", "mixed"):
        return True
    serving = current_serving(workspace, str(finding["site"]), str(finding["target"]))
    if serving is None:
        return None
    told = [estimate for estimate in _prevalences(workspace, finding, serving.recipe) if estimate is not None]
    if not told:
        return None
    assumed, material = serving.calibration.prevalence, workspace.settings.shift.material_prevalence
    return any(abs(e.value - assumed) >= material and not e.low <= assumed <= e.high for e in told)


def _prevalences(workspace: Workspace, finding: Mapping[str, Any], recipe: str) -> list[Estimate | None]:
    """From labels, whatever the recipe; through the scanner only by the one in force: another one's scores moved."""
    same = ("site", "stratum", "period_start", "period_end")
    shown = (pc.field("statistic") == THROUGH_SCANNER) & (pc.field("recipe") == recipe)
    where = ((pc.field("statistic") == FROM_LABELS) | shown) & (pc.field("reference") == finding.get("model"))
    for name in same:
        where &= pc.field(name) == finding[name]
    rows = workspace.lake.read(layout.SHIFT, where, ["statistic", "value", "low", "high", "run"]).to_pylist()
    latest = {row["statistic"]: row for row in sorted(rows, key=lambda row: str(row["run"]))}
    return [estimate_of(row, "value", "low", "high") for row in latest.values()]


def _has_guideline_changed(workspace: Workspace, finding: Mapping[str, Any]) -> bool:
    names = ("site", "target", "period_start", "period_end")
    source = workspace.target(str(finding["target"])).source_site
    with workspace.lake.connect([layout.LABEL, layout.SERIES]) as db:
        query = load(HERE, "new_guidelines")
        return bool(query.run(db, source=source, **{name: finding[name] for name in names}).num_rows)


def _n_sites_alarmed(workspace: Workspace, alarm: Alarm) -> int:
    """Sites with an alarm of the same feature in the same direction, told on the same day.

    Days of the tables cannot be compared between sites, whose dates are moved; the day on which an alarm was told can.
    """
    same = (pc.field("feature") == alarm.feature) & (pc.field("meaning") == alarm.meaning)
    rows = workspace.lake.read(layout.ALARM, same, ["site", "raised_at", "run"]).to_pylist()
    night = _night(alarm.raised_at, alarm.run)
    return len({alarm.site} | {row["site"] for row in rows if _night(row["raised_at"], row["run"]) == night})


def _night(raised_at: datetime | None, run: str) -> object:
    return run if raised_at is None else raised_at.date()


def _days_since_fine_tune(workspace: Workspace, site: str, target: str, at: datetime) -> int | None:
    """Refused challengers and races that none won count too: trying until one passes would wear out the gate."""
    moments = [
        row["decided_at"]
        for row in decisions(workspace, site).to_pylist()
        if (row["target"], row["action"]) == (target, "fine_tune") and _was_tried(row)
    ]
    return (at - max(moments)).days if moments else None


def _was_tried(row: Mapping[str, Any]) -> bool:
    """Whether candidates were trained; what was given up before a race ended has learned from nobody."""
    evidence = json.loads(row["evidence"] or "{}")
    return "race" in evidence or (row["status"] in CARRIED_OUT and "refused" not in evidence)
