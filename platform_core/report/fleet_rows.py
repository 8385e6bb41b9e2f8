"""The fleet in rows: what came, what was found, what was done, what it changed. No plots in here.

`sitedrift status` prints these rows and the fleet page shows them, so both always agree.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, get_args

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.policy.episodes import ACTS
from platform_core.policy.record import decisions
from platform_core.policy.situation import estimate_of
from platform_core.queries import load
from platform_core.shift.risk import Estimate

HERE = "platform_core.report"
OUTCOMES = ("accepted", "duplicate", "quarantined", "waiting", "ignored")

State = Literal["needs a person", "in progress", "acted", "undetermined", "quiet", "not measured"]
STATES: tuple[State, ...] = get_args(State)
"""The most urgent first. `acted`: a shift was found and something was done; `undetermined`: no verdict yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a model costs on one set of scans; None where the set cannot tell."""

    log_loss: Estimate | None = None
    """Nats per scan, lower is better."""
    balanced_error: Estimate | None = None
    """[0, 1] at the served threshold, lower is better."""
    auroc: Estimate | None = None
    """[0, 1], higher is better."""
    n: int | None = None
    """Patients it was measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict on one site, target, stratum and period."""

    finding_key: str
    target: str | None
    """None before there is a task: images only."""
    stratum: str
    model: str | None
    period_start: date
    period_end: date
    kind: str
    size: Estimate | None
    n_needed: int | None
    explained_by: str | None
    source_risk: Estimate | None
    divergence: Estimate | None
    joint_risk: Estimate | None
    target_risk: Estimate | None
    expected_risk: Estimate | None = None
    """Foretold without labels of the site; nothing is decided on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One decision at its latest status."""

    action: str
    strategy: str | None
    status: str
    because: str
    approved_by: str | None
    decided_at: datetime
    target: str | None
    stratum: str | None
    period_start: date | None
    period_end: date | None
    before: Measures | None
    after: Measures | None
    gate: Mapping[str, Any] | None
    receipt: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSummary:
    """One site, target and stratum: the latest period with a finding, and what came of it."""

    site: str
    n_series: int = 0
    n_patients: int = 0
    last_scan_on: date | None = None
    """Moved by the site's secret offset, like every day in the tables."""
    ledger: Mapping[str, int] = field(default_factory=dict)
    """Arrivals by outcome."""
    n_refused: int = 0
    """Scans that a stage after the door refused."""
    n_warned: int = 0
    """Scans that fail a quality rule of severity `warn`."""
    finding: Finding | None = None
    actions: tuple[Taken, ...] = ()
    """Decisions about the finding's period, oldest first."""

    @property
    def before(self) -> Measures | None:
        """The site's risk before anything was done about the period; if nothing was, what the finding says."""
        measured = next((taken.before for taken in self.actions if taken.before), None)
        known = self.finding.target_risk if self.finding else None
        return measured or (Measures(log_loss=known) if known else None)

    @property
    def after(self) -> Measures | None:
        """The risk of what the site runs now; None if nothing was changed."""
        done = [taken.after for taken in self.actions if taken.status == "done" and taken.after]
        return done[-1] if done else None

    @property
    def state(self) -> State:
        """Where the site stands, in a word or three."""
        if self.finding is None:
            return "not measured"
        acts = [taken for taken in self.actions if taken.action in ACTS and taken.status != "rejected"]
        if any(taken.action in ("request_labels", "hold") for taken in self.actions[-1:]):
            return "needs a person"
        if any(taken.status in ("waiting", "refused") for taken in acts):
            return "needs a person"
        if acts:
            return "acted" if acts[-1].status == "done" else "in progress"
        if self.finding.kind in ("none", "undetermined"):
            return "quiet" if self.finding.kind == "none" else "undetermined"
        return "needs a person"


def fleet_rows(workspace: Workspace) -> list[SiteSummary]:
    """One row per site, target and stratum; a site without a finding has one row. In name order."""
    counts = site_counts(workspace)
    taken = _taken_by_period(workspace)
    found = _latest_findings(workspace)
    rows = []
    for site in sorted({*workspace.sites, *counts}):
        facts = counts.get(site, {})
        for finding in found.get(site, [None]):
            actions = taken.get((site, _period(finding)), []) if finding else []
            rows.append(SiteSummary(site=site, finding=finding, actions=tuple(actions), **facts))
    return rows


def decisions_of(workspace: Workspace, site: str) -> list[Taken]:
    """Every decision about a site at its latest status, oldest first."""
    about = _findings_by_key(workspace)
    return [_taken(row, about.get((site, row["finding_key"]))) for row in decisions(workspace, site).to_pylist()]


def findings_of(workspace: Workspace, site: str) -> list[Finding]:
    """The latest finding of every period of a site, oldest period first."""
    return [_finding(row) for row in _finding_rows(workspace) if row["site"] == site]


def site_counts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Scans, patients, ledger and quality of each site that sent anything."""
    with workspace.lake.connect([layout.ARRIVAL, layout.SERIES, layout.STAGE, layout.QUALITY]) as db:
        ledger = load(HERE, "ledger").run(db).to_pylist()
        scans = load(HERE, "site_scans").run(db).to_pylist()
    facts: dict[str, dict[str, Any]] = {row.pop("site"): row for row in scans}
    for row in ledger:
        counts = facts.setdefault(row["site"], {}).setdefault("ledger", {})
        counts[row["outcome"]] = row["n"]
    return facts


def _finding_rows(workspace: Workspace) -> list[dict[str, Any]]:
    with workspace.lake.connect([layout.FINDING, layout.DECISION]) as db:
        return list(load(HERE, "findings").run(db).to_pylist())


def _findings_by_key(workspace: Workspace) -> dict[tuple[str, str], dict[str, Any]]:
    """What every finding is about, those that a later one replaces included."""
    with workspace.lake.connect([layout.FINDING]) as db:
        every = load(HERE, "every_finding").run(db).to_pylist()
    return {(row["site"], row["finding_key"]): row for row in every}


def _latest_findings(workspace: Workspace) -> dict[str, list[Finding]]:
    """Per site, the last period of each target and stratum."""
    latest = {(row["site"], row["target"], row["stratum"]): row for row in _finding_rows(workspace)}
    by_site: dict[str, list[Finding]] = {}
    for (site, *_), row in sorted(latest.items(), key=lambda item: str(item[0])):
        by_site.setdefault(site, []).append(_finding(row))
    return by_site


def _taken_by_period(workspace: Workspace) -> dict[tuple[str, Any], list[Taken]]:
    by_key = _findings_by_key(workspace)
    taken: dict[tuple[str, Any], list[Taken]] = {}
    for row in decisions(workspace).to_pylist():
        about = by_key.get((row["site"], row["finding_key"]))
        if about is not None:
            scope = (about["target"], about["stratum"], about["period_start"])
            taken.setdefault((row["site"], scope), []).append(_taken(row, about))
    return taken


def _period(finding: Finding) -> tuple[str | None, str, date]:
    return finding.target, finding.stratum, finding.period_start


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        finding_key=row["finding_key"],
        target=row["target"],
        stratum=row["stratum"],
        model=row["model"],
        period_start=row["period_start"],
        period_end=row["period_end"],
        kind=row["kind"],
        size=estimate_of(row, "size", "low", "high"),
        n_needed=row["n_needed"],
        explained_by=row["explained_by"],
        source_risk=estimate_of(row, "source_risk"),
        divergence=estimate_of(row, "divergence"),
        joint_risk=estimate_of(row, "joint_risk"),
        target_risk=estimate_of(row, "target_risk"),
        expected_risk=estimate_of(row, "expected_risk"),
    )


def _taken(row: Mapping[str, Any], about: Mapping[str, Any] | None) -> Taken:
    evidence = json.loads(row["evidence"] or "{}")
    names = ("action", "strategy", "status", "because", "approved_by")
    return Taken(
        **{name: row[name] for name in names},
        decided_at=row["first_decided_at"],
        target=row["target"],
        stratum=about["stratum"] if about else None,
        period_start=about["period_start"] if about else None,
        period_end=about["period_end"] if about else None,
        before=measures_of(evidence.get("before")),
        after=measures_of(evidence.get("after")),
        gate=evidence.get("gate"),
        receipt=evidence.get("receipt"),
    )


def measures_of(facts: Mapping[str, Any] | None) -> Measures | None:
    """Measures as the evidence of a decision spells them; None if there are none."""
    if not facts:
        return None
    names = ("log_loss", "balanced_error", "auroc")
    return Measures(**{name: _triple(facts.get(name)) for name in names}, n=facts.get("n"))


def _triple(numbers: Iterable[float | None] | None) -> Estimate | None:
    known = [float(number) for number in numbers or () if number is not None]
    return Estimate(*known) if len(known) == 3 else None
