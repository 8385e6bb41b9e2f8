"""What waits for a person: asked once, answered by name, carried out by the next run, and no after some days."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.manifest.free_text import refuse_identifying
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision
from platform_core.policy.history import CARRIED_OUT, History, Past, read_history
from platform_core.policy.record import decisions, record_row
from platform_core.policy.rules import Action
from platform_core.queries import load

HERE = "platform_core.policy"
NOBODY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One question to a person, as `sitedrift decision list` shows it."""

    decision_key: str
    site: str
    target: str
    stratum: str
    action: Action
    because: str
    since: datetime
    """When it was first asked for this period."""
    no_on: date | None
    """The day from which it counts as rejected; None for a `hold`, which stays."""


def waiting_decisions(workspace: Workspace) -> list[Waiting]:
    """What a person may approve or reject now, oldest question first: the latest decision of each question."""
    with workspace.lake.connect([layout.FINDING]) as db:
        db.register("decided", decisions(workspace))
        rows = load(HERE, "waiting_decisions").run(db).to_pylist()
    days = timedelta(days=workspace.settings.policy.approval_days)
    return [Waiting(**row, no_on=None if row["action"] == "hold" else (row["since"] + days).date()) for row in rows]


def answer_decision(
    workspace: Workspace, key: str, *, is_approved: bool, by: str, note: str | None, run: str, at: datetime
) -> str:
    """Approve or reject a decision that waits, or reject one whose challenger is in the shadow; the next run acts.

    Args:
        workspace: Where it waits.
        key: Its decision_key, or enough of its beginning.
        is_approved: Yes or no.
        by: Who says so.
        note: Why, in a few words without identifiers.
        run: The run that the answer is filed under.
        at: The moment, UTC.

    Returns:
        A sentence about what comes next.

    Raises:
        UnknownName: If no decision of that key waits.
        BadRequest: If the name or the note could identify a patient.
    """
    refuse_identifying(by, note)
    rows = {str(row["decision_key"]): row for row in decisions(workspace).to_pylist()}
    known = {one.decision_key for one in waiting_decisions(workspace)}
    if not is_approved:
        known |= {name for name, row in rows.items() if row["status"] == "shadow"}
    found = [name for name in known if key and name.startswith(key)]
    if len(found) != 1:
        raise UnknownName("decision that waits for a person", key, known)
    row = rows[found[0]]
    _write_answer(workspace, row, "approved" if is_approved else "rejected", by=by, note=note, run=run, at=at)
    return _what_next(row, is_approved=is_approved)


def drop_unanswered(workspace: Workspace, finding: Mapping[str, Any], *, run: str, at: datetime) -> None:
    """Reject, in nobody's name, what has waited too long in the finding's period; a `hold` stays until it is lifted."""
    days = workspace.settings.policy.approval_days
    about = read_history(workspace, finding).of_period
    answered = {one.action for one in about if one.status != "waiting"}
    for one in (one for one in about if one.status == "waiting" and one.action not in {"hold", *answered}):
        if at - one.first_decided_at > timedelta(days=days):
            rows = decisions(workspace, str(finding["site"])).to_pylist()
            row = next(row for row in rows if row["decision_key"] == one.decision_key)
            note = f"nobody answered within {days} days"
            _write_answer(workspace, row, "rejected", by=NOBODY, note=note, run=run, at=at)


def with_consent(decision: Decision, history: History) -> Decision:
    """The decision with what a person has said to it: to be carried out in their name, or settled as it is."""
    if decision.status != "waiting":
        return decision
    if decision.action == "hold":
        is_kept = any(one.status == "rejected" and one.rule == decision.rule for one in history.of_period)
        return replace(decision, status="done") if is_kept else decision
    granted = _granted(decision.action, history.past)
    if granted is None:
        return decision
    return replace(decision, status="proposed", approved_by=granted.approved_by, approval=_approval_of(granted))


def _granted(action: Action, past: Sequence[Past]) -> Past | None:
    """The approval of an action in the episode that no action has used yet."""
    used = {one.evidence.get("approval") for one in past if one.status in CARRIED_OUT}
    approved = [one for one in past if one.action == action and one.status == "approved"]
    begun = [one for one in past if one.action == action and one.status == "proposed" and one.approved_by != NOBODY]
    return next((one for one in (*approved, *begun) if _approval_of(one) not in used), None)


def _approval_of(one: Past) -> str:
    return str(one.evidence.get("approval", one.decision_key))


def _write_answer(
    workspace: Workspace, row: Mapping[str, Any], status: str, *, by: str, note: str | None, run: str, at: datetime
) -> None:
    """The decision's row once more, at its new status."""
    evidence = json.loads(row["evidence"] or "{}") | ({"note": note} if note else {})
    told = f"; {status} by {by}" + (f": {note}" if note else "")
    news = {
        "status": status,
        "decided_at": at,
        "approved_by": by,
        "because": row["because"] + told,
        "evidence": json.dumps(evidence, sort_keys=True, allow_nan=False),
        "run": run,
    }
    kept = {name: row[name] for name in DECISION.names}
    record_row(workspace, kept | news)


def _what_next(row: Mapping[str, Any], *, is_approved: bool) -> str:
    if row["action"] == "hold":
        then = "what held it is passed over until the episode closes" if is_approved else "it stays held"
    elif row["status"] == "shadow":
        then = "the next run refuses the challenger in the shadow"
    else:
        then = "the next run carries it out if the finding still asks for it" if is_approved else "it is dropped"
    return f"{row['site']}, {row['target']}: {row['action']} {'approved' if is_approved else 'rejected'}; {then}"
