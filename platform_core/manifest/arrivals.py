"""What becomes of arrivals: the rows of the ledger, and when one is written again.

An arrival has one row per decision. The row of the latest run counts. A decision made
anew because later files arrived keeps its `arrived_at`, which is how the ledger of a run
tells it from what the run listed.
"""

from collections.abc import Mapping, Sequence
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


def past_outcomes(workspace: Workspace, site: str) -> dict[str, tuple[Outcome, datetime]]:
    """The outcome in force of every arrival of a site, and when it arrived."""
    columns = ["arrival_key", "run", "arrived_at", "outcome", "reason", "series_key"]
    rows = workspace.lake.read(layout.ARRIVAL, pc.field("site") == site, columns).to_pylist()
    latest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["run"], row["arrived_at"])):
        latest[row["arrival_key"]] = row
    return {
        key: (Outcome(row["outcome"], row["reason"], None, row["series_key"]), row["arrived_at"])
        for key, row in latest.items()
    }


def recorded_keys(workspace: Workspace, site: str) -> frozenset[str]:
    """Keys of all arrivals that the ledger of a site holds and that need not be looked at again."""
    where = (pc.field("site") == site) & (pc.field("outcome") != WAITING)
    return frozenset(workspace.lake.read(layout.ARRIVAL, where, ["arrival_key"]).column(0).to_pylist())


def write_arrivals(
    workspace: Workspace,
    site: str,
    arrivals: Sequence[Arrival],
    past: Mapping[str, tuple[Outcome, datetime]],
    *,
    run: str,
    at: datetime,
) -> None:
    """Write what this run listed, and what it decided anew about earlier arrivals; the same call twice writes once."""
    rows = []
    for arrival in arrivals:
        if arrival.is_listed:
            rows.append(_row(site, arrival, run, at))
            continue
        before = past.get(arrival.entry.arrival_key)
        if before is not None and _is_news(before[0], arrival.end):
            rows.append(_row(site, arrival, run, before[1]))
    told = sorted((row["arrival_key"], row["outcome"], row["reason"] or "") for row in rows)
    workspace.lake.append(layout.ARRIVAL, rows_of(ARRIVAL, rows), transaction=transaction("arrive", site, run, told))


def _is_news(before: Outcome, now: Outcome) -> bool:
    """A sound arrival stays so: a later quarantine of its series leaves the revision that it is in."""
    if before.outcome in (ACCEPTED, DUPLICATE):
        return False
    return replace(before, detail=None) != replace(now, detail=None)


def _row(site: str, arrival: Arrival, run: str, arrived_at: datetime) -> dict[str, Any]:
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
