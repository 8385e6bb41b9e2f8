"""What becomes of arrivals: the rows of the ledger, and when one is written again.

An arrival has one row per decision. The row of the latest run counts. A decision made
anew because later files arrived keeps its `arrived_at`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.book import Entry
from platform_core.manifest.schemas import ARRIVAL
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

ACCEPTED, DUPLICATE, QUARANTINED, WAITING, IGNORED = "accepted", "duplicate", "quarantined", "waiting", "ignored"
OUTCOMES = (ACCEPTED, DUPLICATE, QUARANTINED, WAITING, IGNORED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an arrival ended."""

    outcome: str
    reason: str | None = None
    detail: str | None = None
    series_key: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One file with its outcome; `is_listed` if this run found it new."""

    entry: Entry
    end: Outcome
    is_listed: bool


@dataclass(frozen=True, slots=True)
class Past:
    """What the ledger holds of an arrival."""

    end: Outcome
    arrived_at: datetime
    run: str


def past_outcomes(workspace: Workspace, site: str, arrival_keys: Iterable[str]) -> dict[str, Past]:
    """The outcome in force of those of the named arrivals that the ledger holds."""
    keys = [key for key in arrival_keys if key]
    if not keys:
        return {}
    columns = ["arrival_key", "run", "arrived_at", "outcome", "reason", "series_key"]
    where = (pc.field("site") == site) & pc.field("arrival_key").isin(keys)
    rows = workspace.lake.read(layout.ARRIVAL, where, columns).to_pylist()
    return {
        row["arrival_key"]: Past(
            Outcome(row["outcome"], row["reason"], None, row["series_key"]), row["arrived_at"], row["run"]
        )
        for row in sorted(rows, key=lambda row: (row["run"], row["arrived_at"]))
    }


def write_arrivals(
    workspace: Workspace,
    site: str,
    arrivals: Sequence[Arrival],
    *,
    run: str,
    at: datetime,
) -> None:
    """Write what is new, and what was decided anew; what the ledger says already is not said again."""
    past = past_outcomes(workspace, site, [arrival.entry.arrival_key for arrival in arrivals])
    rows = []
    for arrival in arrivals:
        before = past.get(arrival.entry.arrival_key)
        if before is None:
            rows.append(arrival_row(site, arrival, run, at))
        elif _is_news(before, arrival.end, run):
            rows.append(arrival_row(site, arrival, run, before.arrived_at))
    told = sorted((row["arrival_key"], row["outcome"], row["reason"] or "") for row in rows)
    workspace.lake.append(layout.ARRIVAL, rows_of(ARRIVAL, rows), transaction=transaction("arrive", site, run, told))


def _is_news(before: Past, now: Outcome, run: str) -> bool:
    """A sound arrival stays so: a later quarantine of its series leaves the revision that it is in.

    That a file still waits is said once in every run.
    """
    if before.end.outcome in (ACCEPTED, DUPLICATE):
        return False
    if now.outcome == WAITING and before.run != run:
        return True
    return replace(before.end, detail=None) != replace(now, detail=None)


def arrival_row(site: str, arrival: Arrival, run: str, arrived_at: datetime) -> dict[str, Any]:
    """The row of `raw__arrival` for one decision."""
    return {
        "site": site,
        "arrival_key": arrival.entry.arrival_key,
        "run": run,
        "arrived_at": arrived_at,
        "n_bytes": arrival.entry.n_bytes,
        "content_sha256": arrival.entry.content,
        "outcome": arrival.end.outcome,
        "reason": arrival.end.reason,
        "detail": arrival.end.detail,
        "series_key": arrival.end.series_key,
    }
