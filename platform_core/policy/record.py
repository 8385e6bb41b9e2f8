"""Decisions as rows: appended when made and whenever their status changes, never overwritten."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from platform_core import layout
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.serving import Serving
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision, Status
from platform_core.provenance import digest
from platform_core.queries import load
from platform_core.storage.tables import rows_of

HERE = "platform_core.policy"


def record_decision(
    workspace: Workspace,
    decision: Decision,
    *,
    finding: Mapping[str, Any],
    status: Status,
    serving_before: Serving | None,
    serving_after: Serving | None,
    evidence: Mapping[str, Any] | None,
    run: str,
    at: datetime,
    strategy: str | None = None,
) -> str:
    """Write one decision, or a new status of it, once.

    Args:
        workspace: Where it is written.
        decision: What was decided.
        finding: The row of `out__finding` behind it: site, target and finding_key are read.
        status: How far it is; a decision has one row per status.
        serving_before: What the site ran; None if nothing yet.
        serving_after: What it runs now; None if nothing changed.
        evidence: JSON-able: `before` and `after` (each log_loss, balanced_error and auroc as [value, low, high] or
            None, and n), `gate`, `receipt`.
        run: The run that decided.
        at: The moment, UTC.
        strategy: Which of a fine-tuning's candidates was made; None before one was.

    Returns:
        decision_key: the same for every status of one decision.
    """
    site, finding_key = str(finding["site"]), str(finding["finding_key"])
    key = decision_key(site, finding_key, decision)
    told = {"approval": decision.approval} if decision.approval else {}
    row = {
        "site": site,
        "decision_key": key,
        "decided_at": at,
        "step": _step(workspace, site, finding_key, key),
        "finding_key": finding_key,
        "target": finding["target"],
        "action": decision.action,
        "strategy": strategy,
        "because": decision.because,
        "status": status,
        "rule": decision.rule,
        "approved_by": decision.approved_by,
        "serving_before": None if serving_before is None else serving_before.to_json(),
        "serving_after": None if serving_after is None else serving_after.to_json(),
        "evidence": json.dumps(dict(evidence or {}) | told, sort_keys=True, allow_nan=False),
        "run": run,
    }
    record_row(workspace, row)
    return key


def record_row(workspace: Workspace, row: Mapping[str, Any]) -> bool:
    """Append a row of `out__decision`, once per decision and status; whether it was not there."""
    name = f"decision/{row['decision_key']}/{row['status']}"
    return bool(workspace.lake.append(layout.DECISION, rows_of(DECISION, [dict(row)]), transaction=name))


def _step(workspace: Workspace, site: str, finding_key: str, key: str) -> int:
    """How many other decisions about the finding came before."""
    rows = decisions(workspace, site).to_pylist()
    mine = [row for row in rows if row["finding_key"] == finding_key]
    return next((int(row["step"]) for row in mine if row["decision_key"] == key), len(mine))


def decision_key(site: str, finding_key: str, decision: Decision) -> str:
    """One name per finding and action, so that a repeated run does not decide twice; holds are told apart by their row.

    A person who has lifted one hold may be asked about the next one of the same finding.
    """
    asked = [decision.rule] if decision.action == "hold" else []
    return digest([site, finding_key, decision.action, *asked])


def decisions(workspace: Workspace, site: str | None = None) -> pa.Table:
    """Every decision at its latest status, all columns of `out__decision` and `first_decided_at`, oldest first."""
    with workspace.lake.connect([layout.DECISION]) as db:
        return load(HERE, "decisions").run(db, site=site)
