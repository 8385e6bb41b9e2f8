"""The facts of a situation, read from the tables."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from platform_core import layout
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from platform_core.policy.situation import Kind, Situation, estimate_of
from platform_core.queries import load
from platform_core.shift.risk import Estimate
from platform_core.shift.watch.raised import alarm_behind

HERE = "platform_core.policy"


def read_situation(
    workspace: Workspace,
    finding: Mapping[str, Any],
    *,
    at: datetime,
    target_risk: Estimate | None = None,
    taken: tuple[str, ...] | None = None,
) -> Situation:
    """Put together what a decision about one finding is made from.

    Args:
        workspace: Where it is read.
        finding: A row of `out__finding`.
        at: The moment of the decision, UTC.
        target_risk: Log-loss on the period's labelled patients, if it was measured again after the finding
            (after a harmonization); by default what the finding says.
        taken: Actions already carried out for the period; by default those of `out__decision`.
    """
    rules = workspace.settings.policy
    target = str(finding["target"])
    patients, labelled = _patients(workspace, finding)
    alarm = alarm_behind(workspace, finding)
    in_training = [key for key in labelled if part_of(key, workspace.settings.split) == "train"]
    return Situation(
        kind=cast("Kind", finding["kind"]),
        size=estimate_of(finding, "size", "low", "high"),
        n_patients=len(patients),
        min_patients=workspace.settings.shift.min_scans,
        n_labels=len(labelled),
        n_train_labels=len(in_training),
        min_labels=rules.min_labels,
        accepted_risk=estimate_of(finding, "source_risk"),
        target_risk=target_risk or estimate_of(finding, "target_risk"),
        taken=actions_taken(workspace, finding) if taken is None else taken,
        days_since_fine_tune=_days_since_fine_tune(workspace, str(finding["site"]), target, at),
        cool_down_days=rules.cool_down_days,
        alarm=None if alarm is None else alarm.sentence,
        strategies=workspace.settings.target[target].strategies,
    )


def _patients(workspace: Workspace, finding: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Patients of the finding's period, and those of them with a label in force."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        db.register("label_in_force", labels_in_force(workspace, str(finding["target"])))
        names = ("site", "stratum", "period_start", "period_end")
        rows = load(HERE, "period_patients").run(db, **{name: finding[name] for name in names}).to_pylist()
    return {row["patient_key"] for row in rows}, {row["patient_key"] for row in rows if row["is_labelled"]}


def actions_taken(workspace: Workspace, finding: Mapping[str, Any]) -> tuple[str, ...]:
    """Actions that were carried out or refused for the finding's period, oldest first."""
    where = ("site", "stratum", "target", "period_start")
    with workspace.lake.connect([layout.FINDING, layout.DECISION]) as db:
        rows = load(HERE, "actions_taken").run(db, **{name: finding[name] for name in where})
    return tuple(rows.column("action").to_pylist())


def _days_since_fine_tune(workspace: Workspace, site: str, target: str, at: datetime) -> int | None:
    """Refused challengers count too: trying until one passes would wear out the gate."""
    moments = [
        row["decided_at"]
        for row in decisions(workspace, site).to_pylist()
        if (row["target"], row["action"]) == (target, "fine_tune") and row["status"] in ("done", "refused")
    ]
    return (at - max(moments)).days if moments else None
