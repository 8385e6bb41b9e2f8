"""The nightly watch over a site: rank what is new against its accepted state, and keep what the bets have won.

A watch says at once, and with a promise that holds however often it is asked, that something has changed; it does
not name the kind. Its alarm begins a period (`raised`), and the finding on that period does.

A watch alarms once. It is followed by another when a state is accepted: after an action, or when the patients since
the alarm show nothing that matters. Families of streams share alpha, so every restart makes the next alarm dearer.

A night costs what is new. Ranks that were written are not read again, and neither are the site's periods while the
accepted state stays where it was: series are found by the moment they were taken in (`LATE_DAYS`). Every
`N_NIGHTS` nights the whole manifest is looked through for what may have been missed.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.settings import ShiftSettings
from platform_core.shift.samples import Sample, accepted_days, accepted_sample, period_samples
from platform_core.shift.watch.alarms import SCANS_PER_CHECK, WatchVerdict, advance, catch_up, judge, open_watch
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.power import Promise, false_alarms_per_year, smallest_shift
from platform_core.shift.watch.raised import Alarm, alarms, raise_alarm
from platform_core.shift.watch.ranks import features_of_days, open_reference, rank_rows
from platform_core.shift.watch.streams import Watch, from_facts, to_facts

HERE = "watches"
LATE_DAYS = 30
"""A series is looked for among those that were taken in up to so many days before the latest that is known."""
N_NIGHTS = 7
"""Batches of ranks after which the whole manifest is looked through for a series that was measured later than that."""
ARRIVED = ["series_key", "stratum", "ingested_at"]
N_REVEALING = 100
"""Patient-days after a change for which the smallest shift that they reveal is stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A watch as it was kept, and what it says."""

    watch: Watch
    n_reference: int
    """Patients of the accepted state."""
    until: datetime | None = None
    """When the latest series was taken in that is known."""
    recent: tuple[tuple[str, date], ...] = ()
    """Series that were looked at, and the day each was taken in, as far back as others may still come."""

    @property
    def since(self) -> date:
        """First day of the accepted state."""
        return date.fromisoformat(self.watch.scope.reference.rpartition("@")[2])

    @property
    def verdict(self) -> WatchVerdict:
        """What it says now."""
        return judge(self.watch)

    @property
    def n_seen(self) -> int:
        """Patient-days, or days, that the longest stream has taken in."""
        return max((stream.n_seen for stream in self.watch.streams), default=0)

    @property
    def sentence(self) -> str:
        """For the person on call: the verdict, and what a change would have to be to show."""
        if self.verdict.is_alarm:
            return self.verdict.sentence
        stream = sorted(self.watch.streams, key=lambda stream: stream.size)[len(self.watch.streams) // 2]
        per_value = SCANS_PER_CHECK / stream.size
        least = smallest_shift(
            round(N_REVEALING / per_value),
            Promise(
                alpha=self.watch.alpha,
                n_features=len(self.watch.streams),
                n_reference=round(self.n_reference / per_value),
                n_before=stream.n_seen,
                n_opened=self.watch.n_opened,
                size=stream.size,
            ),
        )
        shown = "no shift up to 3 SD" if least is None else f"a shift of {least:.2f} SD"
        what = "a feature" if stream.size == SCANS_PER_CHECK else "most features' daily medians"
        return f"{self.verdict.sentence}; {N_REVEALING} patient-days would reveal {shown} of {what}"


def keep_watch(
    workspace: Workspace, site: str, target: str | None, *, run: str, at: datetime | None = None
) -> list[Kept]:
    """Take in what came since the last time, stratum by stratum; opens a watch where an accepted state has none.

    A stratum is watched from its first sound period on, against that period; after an accepted action against the
    period that was adapted to, with what is left of alpha. What alarms is written to `out__alarm`, once.

    Args:
        workspace: Where features lie, and where ranks and watches are kept.
        site: The site.
        target: Whose accepted periods count; None before there is a target.
        run: The run.
        at: The moment, UTC, that an alarm is dated with.
    """
    every = _every_watch(workspace, site)
    arrived = _arrived(workspace, site, every)
    chosen = _going_on(every, accepted_days(workspace, site, target), arrived)
    if chosen is None:
        return _look_through(workspace, site, target, arrived, run, at)
    kept = []
    for before in chosen:
        due = arrived.filter(pc.equal(arrived.column("stratum"), before.watch.scope.stratum))
        now = _taken_in(workspace, before, due.column("series_key").to_pylist(), due, run)
        if now.watch.is_closed and not before.watch.is_closed:
            return _look_through(workspace, site, target, arrived, run, at)
        kept.append(now)
    return kept


def alarms_tonight(
    workspace: Workspace, site: str, target: str | None, *, run: str, at: datetime | None = None
) -> list[Alarm]:
    """Keep watch, and tell of alarms that this run has raised; one that stands since another night is known."""
    kept = keep_watch(workspace, site, target, run=run, at=at)
    raised = alarms(workspace, site) if any(one.watch.is_closed for one in kept) else []
    return [alarm for alarm in raised if alarm.run == run]


def kept_watches(workspace: Workspace, site: str) -> list[Kept]:
    """The latest watch of every stratum of a site, as it was left by the last run, in the order of strata."""
    latest = {kept.watch.scope.stratum: kept for kept in _every_watch(workspace, site)}
    return [kept for _, kept in sorted(latest.items())]


def promise_of(settings: ShiftSettings, n_sites: int) -> str:
    """What the alarms of a fleet promise, in a sentence."""
    per_year = false_alarms_per_year(settings.alpha, n_sites)
    return (
        f"at most {settings.alpha:.0%} of sites ever raise a false alarm: of {n_sites}, {per_year:.2g} a year at most"
    )


def _every_watch(workspace: Workspace, site: str) -> list[Kept]:
    """All watches that the site ever had, in the order in which they were opened."""
    found = [_read(workspace, path) for path in workspace.objects.list(f"{HERE}/{site}")]
    return sorted(found, key=lambda kept: kept.watch.n_opened)


def _arrived(workspace: Workspace, site: str, every: Sequence[Kept]) -> pa.Table:
    """Series that no watch has looked at yet, of those that were taken in lately; all before there is a watch."""
    where = (pc.field("site") == site) & pc.field("volume_uri").is_valid()
    known = [kept.until for kept in every if kept.until is not None]
    if known:
        where &= pc.field("ingested_at") >= pa.scalar(max(known) - timedelta(days=LATE_DAYS))
    rows = workspace.lake.read(layout.SERIES, where, ARRIVED)
    seen = pa.array([key for kept in every for key, _ in kept.recent], pa.string())
    return rows.filter(pc.invert(pc.is_in(rows.column("series_key"), seen)))


def _going_on(every: Sequence[Kept], accepted: dict[str, date], arrived: pa.Table) -> list[Kept] | None:
    """The watches that go on as they are; None if the periods must be read: one is missing, or it is time to look."""
    chosen: dict[str, Kept] = {}
    for kept in every:  # the first of a stratum, until a decision accepts another state
        stratum = kept.watch.scope.stratum
        if kept.since == accepted[stratum] if stratum in accepted else stratum not in chosen:
            chosen[stratum] = kept
    is_time = any(kept.watch.n_batches % N_NIGHTS == 0 for kept in chosen.values())
    wanted = {*accepted, *pc.unique(arrived.column("stratum")).to_pylist()}
    return None if is_time or not chosen or wanted - chosen.keys() else [chosen[stratum] for stratum in sorted(chosen)]


def _look_through(
    workspace: Workspace, site: str, target: str | None, arrived: pa.Table, run: str, at: datetime | None
) -> list[Kept]:
    """As `keep_watch`, from all the site's periods."""
    modality = None if target is None else workspace.target(target).modality
    settings = workspace.settings.shift
    kept = []
    for stratum, periods in period_samples(workspace, site, modality).items():
        accepted = accepted_sample(workspace, target, periods)
        before = _watch_of(workspace, accepted, settings, run) if accepted.n >= settings.min_scans else None
        if before is None:
            continue
        scope = before.watch.scope
        known = set(pc.unique(workspace.lake.read(layout.RANK, scope.rows, ["series_key"])["series_key"]).to_pylist())
        later = [sample for sample in periods if sample.period_start >= accepted.period_start]
        due = [key for sample in later for key in sample.keys if key not in known]
        mine = arrived.filter(pc.equal(arrived.column("stratum"), stratum))
        now = _taken_in(workspace, before, due, mine, run, known)
        if now.watch.is_closed:
            raise_alarm(workspace, now.verdict, periods, accepted, run=run, at=at)
        kept.append(now)
    return kept


def _watch_of(workspace: Workspace, accepted: Sample, settings: ShiftSettings, run: str) -> Kept | None:
    """The watch against an accepted state, opened if need be; None if too few of its features are known."""
    scope = Scope(site=accepted.site, stratum=accepted.stratum, reference=f"{accepted.site}@{accepted.period_start}")
    path = _path(scope)
    if workspace.objects.exists(path):
        return _read(workspace, path)
    values = features_of_days(workspace, accepted.site, accepted.stratum, accepted.keys, layout.NATIVE)
    n_written = open_reference(workspace, scope, values, run=run)
    if not n_written and not workspace.lake.read(layout.RANK, scope.rows, ["sequence"]).num_rows:
        return None
    n_opened = len(workspace.objects.list(f"{HERE}/{scope.site}"))
    watch = open_watch(workspace, scope, alpha=settings.alpha, n_opened=n_opened)
    return Kept(watch=watch, n_reference=accepted.n)


def _taken_in(
    workspace: Workspace, kept: Kept, due: Sequence[str], arrived: pa.Table, run: str, known: Collection[str] = ()
) -> Kept:
    """Rank what is due, take in the ranks, and keep what is known now; what has no features yet is asked again."""
    scope, watch, looked_at = kept.watch.scope, kept.watch, set(arrived.column("series_key").to_pylist())
    if due and not watch.is_closed:
        values = features_of_days(workspace, scope.site, scope.stratum, due, scope.recipe)
        looked_at &= {*known, *pc.unique(values.column("series_key")).to_pylist()}
        rows = rank_rows(workspace, scope, values, run=run)
        is_next = rows.num_rows and rows.column("batch")[0].as_py() == watch.n_batches
        watch = replace(advance(watch, rows), n_batches=watch.n_batches + 1) if is_next else catch_up(workspace, watch)
    is_known = pc.is_in(arrived.column("series_key"), pa.array(sorted(looked_at), pa.string()))
    now = _with_seen(replace(kept, watch=watch), arrived.filter(is_known))
    if now != kept or not workspace.objects.exists(_path(scope)):
        _write(workspace, now)
    return now


def _with_seen(kept: Kept, arrived: pa.Table) -> Kept:
    """What is known of series after some were looked at."""
    until = pc.max(arrived.column("ingested_at")).as_py() or kept.until
    if until is None:
        return kept
    first = (max(until, kept.until or until) - timedelta(days=LATE_DAYS)).date()
    days = [moment.date() for moment in arrived.column("ingested_at").to_pylist()]
    seen = dict(kept.recent) | dict(zip(arrived.column("series_key").to_pylist(), days, strict=True))
    recent = tuple(sorted((key, day) for key, day in seen.items() if day >= first))
    return replace(kept, until=max(until, kept.until or until), recent=recent)


def _write(workspace: Workspace, kept: Kept) -> None:
    facts = {
        "n_reference": kept.n_reference,
        "until": None if kept.until is None else kept.until.isoformat(),
        "recent": [[key, day.isoformat()] for key, day in kept.recent],
        "watch": to_facts(kept.watch),
    }
    workspace.objects.put(_path(kept.watch.scope), json.dumps(facts, sort_keys=True, allow_nan=False).encode())


def _read(workspace: Workspace, path: str) -> Kept:
    facts = json.loads(workspace.objects.get(path))
    until = facts.get("until")
    return Kept(
        watch=from_facts(facts["watch"]),
        n_reference=facts["n_reference"],
        until=None if until is None else datetime.fromisoformat(until),
        recent=tuple((key, date.fromisoformat(day)) for key, day in facts.get("recent", [])),
    )


def _path(scope: Scope) -> str:
    return f"{HERE}/{scope.site}/{digest(asdict(scope))}.json"
