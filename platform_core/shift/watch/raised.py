"""Alarms as rows: what a watch said on the night when it alarmed, and where it cuts the calendar.

An alarm begins a period. What was observed before the change and what was observed since are two populations;
a finding on a month that holds both would be about neither.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import ALARM
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.samples import AcceptedDays, Sample, accepted_days, alarms_about, scored_by
from platform_core.shift.watch.alarms import WatchVerdict
from platform_core.shift.watch.pools import Scope
from platform_core.storage.tables import rows_of

SAME_START_DAYS = 7
"""A change that began so few days after a period did is taken to have begun with it: it is not known to the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One row of `out__alarm`; the schema describes its columns."""

    site: str
    alarm_key: str
    stratum: str
    recipe: str
    reference: str
    alarmed_on: date
    changed_on: date
    period_start: date
    feature: str
    meaning: str
    log_e: float
    threshold: float
    sentence: str
    raised_at: datetime | None
    run: str


def raise_alarm(
    workspace: Workspace,
    verdict: WatchVerdict,
    periods: list[Sample],
    accepted: Sample,
    *,
    run: str,
    at: datetime | None,
) -> bool:
    """Write a watch's alarm, once; whether this call was the one.

    Args:
        workspace: Where it is written.
        verdict: An alarm.
        periods: Of its stratum, oldest first.
        accepted: What the watch was opened against.
        run: The run.
        at: The moment, UTC; None if it was not told.
    """
    feature, crossing = verdict.carriers[0]
    alarm = Alarm(
        site=verdict.scope.site,
        alarm_key=key_of(verdict.scope),
        stratum=verdict.scope.stratum,
        recipe=verdict.scope.recipe,
        reference=verdict.scope.reference,
        alarmed_on=crossing.crossed_on,
        changed_on=crossing.changed_on,
        period_start=first_day(crossing.changed_on, crossing.crossed_on, periods, accepted),
        feature=feature,
        meaning=crossing.meaning,
        log_e=min(crossing.log_e, math.log(1e300)),
        threshold=verdict.threshold,
        sentence=verdict.sentence,
        raised_at=at,
        run=run,
    )
    rows = rows_of(ALARM, [asdict(alarm)])
    return workspace.lake.append(layout.ALARM, rows, transaction=f"alarm/{alarm.alarm_key}") > 0


def key_of(scope: Scope) -> str:
    """Names the one alarm that the watch of a scope can raise."""
    return digest(["alarm", asdict(scope)])


def alarms(workspace: Workspace, site: str) -> list[Alarm]:
    """Every alarm of a site, oldest first."""
    names = [field.name for field in fields(Alarm)]
    rows = workspace.lake.read(layout.ALARM, pc.field("site") == site, names).to_pylist()
    return sorted((Alarm(**row) for row in rows), key=lambda alarm: (alarm.alarmed_on, alarm.stratum))


def alarm_behind(workspace: Workspace, finding: Mapping[str, Any]) -> Alarm | None:
    """The alarm that a finding (a row of `out__finding`) is about: that which began its period, else an open one.

    A watch is closed until its alarm is answered. If the period that it began has passed, or never had enough
    patients, the latest alarm that no accepted state has answered is still told of.
    """
    site, target, start = str(finding["site"]), finding.get("target"), finding["period_start"]
    mine = set(alarms_about(workspace, site, target).column("alarm_key").to_pylist())
    found = [a for a in alarms(workspace, site) if a.alarm_key in mine and a.stratum == finding["stratum"]]
    found = [alarm for alarm in found if alarm.period_start <= start]
    begun = [alarm for alarm in found if alarm.period_start == start]
    if begun or not found:
        return begun[-1] if begun else None
    days = accepted_days(workspace, site, target)
    waiting = [alarm for alarm in found if not _is_answered(alarm, days)]
    return max(waiting, key=lambda alarm: (alarm.period_start, alarm.alarmed_on), default=None)


def _is_answered(alarm: Alarm, days: AcceptedDays) -> bool:
    accepted = days.images if scored_by(alarm.reference) is None else days.scores
    return accepted.get(alarm.stratum, date.min) >= alarm.period_start


def first_day(changed_on: date, crossed_on: date, periods: list[Sample], accepted: Sample) -> date:
    """The first day of the period that a change begins; always later than that of the accepted state.

    A scan that came late may date a change before the watch was opened; then the day of the alarm counts.
    """
    known = [day for day in (changed_on, crossed_on) if day > accepted.period_start]
    day = known[0] if known else accepted.period_end + timedelta(days=1)
    within = next((p for p in periods if p.period_start <= day <= p.period_end), None)
    if within is None or within.period_start == accepted.period_start:
        return day
    return within.period_start if (day - within.period_start).days < SAME_START_DAYS else day
