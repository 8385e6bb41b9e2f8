"""What was decided in the episode that a finding belongs to, and what follows from it for the next decision."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Status
from platform_core.policy.episodes import ACTS, episodes
from platform_core.policy.record import decisions
from platform_core.policy.rules import Action
from platform_core.queries import load

HERE = "platform_core.policy"
CARRIED_OUT: tuple[Status, ...] = ("shadow", "passed", "refused", "done")
"""From here on the platform has done its part of an action, whatever a gate or the sites still do."""
UNGATED: tuple[Action, ...] = ("reharmonize", "calibrate")
"""A receipt that shows no gain, and labels that show none, say that nothing is to be had: no harm was done."""
RESTORE, ROLLBACK = "restore", "rollback"
"""What no finding asks for: a site's serving, or every site's champion, is put back; what was done holds no longer."""
ENOUGH_REDUCTION = 0.5
"""Share of the distance to the reference that a new recipe must take away (eta); proposed with the decision table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One decision at its latest status, with what its finding said."""

    decision_key: str
    action: Action
    rule: str | None
    status: Status
    approved_by: str
    evidence: Mapping[str, Any]
    first_decided_at: datetime
    decided_at: datetime
    kind: str
    size: float | None
    period_start: date

    @property
    def is_failed_gate(self) -> bool:
        """Refused for what it did; what could not even be tried failed at no gate."""
        return self.status == "refused" and self.action not in UNGATED and "refused" not in self.evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Decisions about one site, stratum and target since the episode opened, or about the period; oldest first."""

    past: tuple[Past, ...]
    period_start: date
    taken_back_at: datetime | None = None
    """When what the site ran was last put back, by a person or because its time was over."""

    @property
    def of_period(self) -> tuple[Past, ...]:
        """Those about the finding's period."""
        return tuple(one for one in self.past if one.period_start == self.period_start)

    @property
    def taken(self) -> tuple[str, ...]:
        """Actions that were carried out, refused or rejected for the period."""
        return _taken(self.of_period)

    @property
    def tried(self) -> tuple[str, ...]:
        """The same in the episode."""
        return _taken(self.past)

    @property
    def n_gates_failed(self) -> int:
        """Actions that a gate refused in the episode."""
        return sum(one.is_failed_gate for one in self.past)

    @property
    def released(self) -> tuple[str, ...]:
        """Rows whose `hold` a person has lifted in the episode."""
        return tuple(
            one.rule for one in self.past if (one.action, one.status) == ("hold", "approved") and one.rule is not None
        )

    @property
    def acted_before(self) -> Past | None:
        """The latest action that was carried out for an earlier period of the episode, and still holds.

        Scores that were fitted to labels are no answer to what changed: the period after is looked at anew.
        """
        done = [one for one in self.past if one.action in ACTS and one.action != "calibrate" and one.status == "done"]
        held = [one for one in done if self.taken_back_at is None or one.decided_at >= self.taken_back_at]
        return next((one for one in reversed(held) if one.period_start < self.period_start), None)

    def growth(self, kind: str, size: float | None) -> float | None:
        """Size of a finding over that of the one last acted upon; None unless both are of one kind and known."""
        before = self.acted_before
        if before is None or before.kind != kind or not before.size or size is None:
            return None
        return abs(size) / abs(before.size)

    @property
    def divergence_stays(self) -> bool | None:
        """Whether the period's new recipe left it as far away as half of before; None before one was tried."""
        tried = [one for one in self.of_period if one.action == "reharmonize" and one.status in ("done", "refused")]
        if not tried:
            return None
        reduction = (tried[-1].evidence.get("receipt") or {}).get("reduction") or {}
        return tried[-1].status == "refused" or reduction.get("value", 0.0) < ENOUGH_REDUCTION


def read_history(workspace: Workspace, finding: Mapping[str, Any]) -> History:
    """What was decided about the site, stratum and target of a finding (a row of `out__finding`) so far."""
    site, scope = str(finding["site"]), (finding["stratum"], finding["target"])
    every = decisions(workspace)
    with workspace.lake.connect([layout.FINDING]) as db:
        db.register("decided", every)
        about = load(HERE, "decisions_about").run(db, site=site, stratum=scope[0], target=scope[1]).to_pylist()
    past = [Past(**row | {"evidence": json.loads(row["evidence"] or "{}")}) for row in about]
    running = [e for e in episodes(workspace, site) if (e.stratum, e.target) == scope and e.state != "closed"]
    opened_at = running[0].opened_at if running else None
    start = finding["period_start"]
    mine = [
        one
        for one in past
        if one.period_start == start or (opened_at is not None and one.first_decided_at >= opened_at)
    ]
    moments = [
        row["decided_at"]
        for row in every.to_pylist()
        if (row["target"], row["status"]) == (finding["target"], "done")
        and (row["action"] == ROLLBACK or (row["action"], row["site"]) == (RESTORE, site))
    ]
    return History(past=tuple(mine), period_start=start, taken_back_at=max(moments, default=None))


def _taken(past: Iterable[Past]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.action for one in past if one.status in (*CARRIED_OUT, "rejected")))
