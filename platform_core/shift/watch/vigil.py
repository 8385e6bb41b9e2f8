"""The nightly watch over a site: rank what is new against its accepted state, and keep what the bets have won.

A watch says at once, and with a promise that holds however often it is asked, that something has changed; it does
not name the kind. Its alarm begins a period (`raised`), and the finding on that period does.

Two things are watched per stratum: native features, and the score of what the site runs, which alone shows another
prevalence. Another model or recipe makes other scores: a generation of its own, ranked once from the accepted state on.

A watch alarms once. It is followed by another when a state is accepted: after an action, or when the patients since
the alarm show nothing that matters. Families of streams share alpha, so every restart makes the next alarm dearer.

A night costs what is new. Ranks that were written are not read again, and neither are the site's periods while the
accepted state stays where it was: series are found by the moment they were taken in (`LATE_DAYS`). Every
`N_NIGHTS` batches the whole manifest is looked through for what may have been missed.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.serving import current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.settings import ShiftSettings
from platform_core.shift.adapted import trained_version
from platform_core.shift.samples import AcceptedDays, Sample, accepted_days, modalities_of, period_samples, sample_of
from platform_core.shift.scores import label_and_score_rows
from platform_core.shift.watch.alarms import advance, catch_up, open_watch
from platform_core.shift.watch.bets import Step, prevalence_bets
from platform_core.shift.watch.kept import (
    HERE,
    LATE_DAYS,
    Kept,
    Watched,
    every_watch,
    is_ranked,
    path_of,
    read_kept,
    watched_in,
    with_seen,
    write_kept,
)
from platform_core.shift.watch.power import false_alarms_per_year
from platform_core.shift.watch.raised import Alarm, alarms, key_of, raise_alarm
from platform_core.shift.watch.ranks import open_reference, rank_rows

ARRIVED = ["series_key", "patient_key", "stratum", "observed_on", "ingested_at"]


def keep_watch(
    workspace: Workspace, site: str, target: str | None, *, run: str, at: datetime | None = None
) -> list[Kept]:
    """Take in what came since the last time, stratum by stratum; opens a watch where an accepted state has none.

    A stratum is watched from its first sound period on, against that period; after an accepted action against the
    period that was adapted to, with what is left of alpha. What alarms is written to `out__alarm`, once.

    Args:
        workspace: Where features and scores lie, and where ranks and watches are kept.
        site: The site.
        target: Whose accepted periods and scores count; None before there is a target.
        run: The run.
        at: The moment, UTC, that an alarm is dated with.
    """
    every = every_watch(workspace, site)
    modality = None if target is None else workspace.target(target).modality
    arrived = _arrived(workspace, site, modality, every)
    serving = None if target is None else current_serving(workspace, site, target)
    about = [Watched(), *([] if serving is None else [Watched(model=serving.model, recipe=serving.recipe)])]
    days = accepted_days(workspace, site, target)
    chosen = _going_on(workspace, site, every, about, days, arrived)
    if chosen is None:
        return _look_through(workspace, site, target, about, days, arrived, run, at)
    kept = []
    for before in chosen:
        mine = _unseen(workspace, before, arrived)
        kept.append(_taken_in(workspace, before, mine.column("series_key").to_pylist(), mine, run))
    if _is_untold(workspace, site, kept):
        return _look_through(workspace, site, target, about, days, arrived, run, at)
    return kept


def alarms_tonight(
    workspace: Workspace, site: str, target: str | None, *, run: str, at: datetime | None = None
) -> list[Alarm]:
    """Keep watch, and tell of alarms that this run has raised; one that stands since another night is known."""
    kept = keep_watch(workspace, site, target, run=run, at=at)
    raised = alarms(workspace, site) if any(one.watch.is_closed for one in kept) else []
    return [alarm for alarm in raised if alarm.run == run]


def kept_watches(workspace: Workspace, site: str) -> list[Kept]:
    """The latest watches of every stratum, on features and on scores, as the last run has left them."""
    every = every_watch(workspace, site)
    latest = {(one.watch.scope.stratum, watched_in(one.watch.scope).model is not None): one for one in every}
    return [kept for _, kept in sorted(latest.items(), key=lambda item: item[0])]


def unwatched_sentences(workspace: Workspace, site: str, kept: Sequence[Kept]) -> list[str]:
    """Which strata of a site none of its watches is on, because no period has had patients enough; in name order."""
    watched = {one.watch.scope.stratum for one in kept}
    least = workspace.settings.shift.min_scans
    most = {stratum: max(p.n for p in periods) for stratum, periods in period_samples(workspace, site, None).items()}
    few = {stratum: n for stratum, n in sorted(most.items()) if n < least and stratum not in watched}
    return [f"{stratum}: none yet: at most {n} of {least} patients in a period" for stratum, n in few.items()]


def promise_of(settings: ShiftSettings, n_sites: int) -> str:
    """What the alarms of a fleet promise, in a sentence."""
    per_year = false_alarms_per_year(settings.alpha, n_sites)
    return (
        f"at most {settings.alpha:.0%} of sites ever raise a false alarm: of {n_sites}, {per_year:.2g} a year at most"
    )


def _is_untold(workspace: Workspace, site: str, kept: Sequence[Kept]) -> bool:
    """Whether a watch has closed whose alarm is not written yet: tonight, or on a night that was cut short."""
    closed = {key_of(one.watch.scope) for one in kept if one.watch.is_closed}
    return bool(closed) and not closed <= {alarm.alarm_key for alarm in alarms(workspace, site)}


def _arrived(workspace: Workspace, site: str, modality: str | None, every: Sequence[Kept]) -> pa.Table:
    """Series of a modality that were taken in lately; all before there is a watch."""
    where = (pc.field("site") == site) & pc.field("volume_uri").is_valid()
    if modality is not None:
        where &= pc.field("modality").isin(modalities_of(modality))
    known = [kept.until for kept in every if kept.until is not None]
    if known:
        where &= pc.field("ingested_at") >= pa.scalar(max(known) - timedelta(days=LATE_DAYS))
    return workspace.lake.read(layout.SERIES, where, ARRIVED)


def _unseen(workspace: Workspace, kept: Kept, arrived: pa.Table) -> pa.Table:
    """Series of its stratum that a watch has not looked at; none from before its accepted state."""
    is_mine = (pc.field("stratum") == kept.watch.scope.stratum) & (pc.field("observed_on") >= pa.scalar(kept.since))
    seen = pa.array([key for key, _ in kept.recent], pa.string())
    mine = arrived.filter(is_mine & ~pc.field("series_key").isin(seen))
    return mine.filter(is_ranked(workspace, kept.watch.scope, mine.column("patient_key").to_pylist()))


def _in_force(every: Sequence[Kept], about: Sequence[Watched], days: AcceptedDays) -> dict[tuple[str, Watched], Kept]:
    """By stratum and what is watched, the watch that goes on; scans from long ago that come late open no other."""
    chosen: dict[tuple[str, Watched], Kept] = {}
    for kept in every:  # the first of its kind, until a decision accepts another state
        key = kept.watch.scope.stratum, watched_in(kept.watch.scope)
        day = key[1].accepted(days).get(key[0])
        if key[1] in about and (key not in chosen if day is None else kept.since == day):
            chosen[key] = kept
    return chosen


def _going_on(
    workspace: Workspace,
    site: str,
    every: Sequence[Kept],
    about: Sequence[Watched],
    days: AcceptedDays,
    arrived: pa.Table,
) -> list[Kept] | None:
    """The watches that go on as they are; None if the periods must be read: one is missing, or it is time to look."""
    chosen = _in_force(every, about, days)
    watched = {stratum for stratum, _ in chosen}
    recent = set(pc.unique(arrived.column("stratum")).to_pylist())
    strata = {*days.images, *days.scores, *(recent & watched), *_enough(workspace, site, recent - watched)}
    wanted = [(stratum, one) for stratum in sorted(strata) for one in about]
    must_look = any(key not in chosen or chosen[key].is_due for key in wanted)
    return None if must_look else [chosen[key] for key in wanted]


def _enough(workspace: Workspace, site: str, strata: Collection[str]) -> set[str]:
    """Those of some strata that may have a period with patients enough to be watched."""
    if not strata:
        return set()
    settings = workspace.settings.shift
    where = (pc.field("site") == site) & pc.field("volume_uri").is_valid() & pc.field("stratum").isin(sorted(strata))
    rows = workspace.lake.read(layout.SERIES, where, ["stratum", "patient_key", "observed_on"])
    visits = rows.group_by(rows.column_names).aggregate([])
    found = set()
    for stratum in strata:
        days = visits.filter(pc.field("stratum") == stratum).column("observed_on").to_numpy().astype("datetime64[D]")
        days.sort()
        until = np.searchsorted(days, days + np.timedelta64(settings.period_days, "D"))
        if np.max(until - np.arange(len(days)), initial=0) >= settings.min_scans:
            found.add(stratum)
    return found


def _look_through(
    workspace: Workspace,
    site: str,
    target: str | None,
    about: Sequence[Watched],
    days: AcceptedDays,
    arrived: pa.Table,
    run: str,
    at: datetime | None,
) -> list[Kept]:
    """As `keep_watch`, from all the site's periods."""
    modality = None if target is None else workspace.target(target).modality
    least = workspace.settings.shift.min_scans
    going_on = _in_force(every_watch(workspace, site), about, days)
    kept = []
    for stratum, periods in period_samples(workspace, site, modality, target).items():
        for one in about:
            before = going_on.get((stratum, one))
            day = one.accepted(days).get(stratum) if before is None else before.since
            accepted = sample_of(periods, day, least)
            if before is None and accepted.n >= least:
                before = _watch_of(workspace, one, accepted, target, run)
            if before is not None:
                kept.append(_looked_through(workspace, before, accepted, periods, arrived, run, at))
    return kept


def _looked_through(
    workspace: Workspace,
    before: Kept,
    accepted: Sample,
    periods: list[Sample],
    arrived: pa.Table,
    run: str,
    at: datetime | None,
) -> Kept:
    """A watch with all series of the accepted period and later that have no rank; its alarm is written."""
    scope = before.watch.scope
    rows = workspace.lake.read(layout.RANK, scope.rows, ["series_key"])
    known = set(pc.unique(rows.column("series_key")).to_pylist())
    is_since = (pc.field("site") == scope.site) & (pc.field("observed_on") >= pa.scalar(before.since))
    later_keys = workspace.lake.read(layout.SERIES, is_since, ["series_key"]).column("series_key")
    wanted = set(later_keys.to_pylist()) - known
    later = [sample for sample in periods if sample.period_start >= accepted.period_start]
    scans = [pair for sample in later for pair in zip(sample.keys, sample.patients, strict=True)]
    counts = is_ranked(workspace, scope, [patient for _, patient in scans]).to_pylist()
    due = [key for (key, _), is_due in zip(scans, counts, strict=True) if is_due and key in wanted]
    taken = _taken_in(workspace, before, due, _unseen(workspace, before, arrived), run, known)
    now = replace(taken, n_looked=taken.watch.n_batches)
    if now != taken:
        write_kept(workspace, now)
    if now.watch.is_closed:
        raise_alarm(workspace, now.verdict, periods, accepted, run=run, at=at)
    return now


def _watch_of(workspace: Workspace, one: Watched, accepted: Sample, target: str | None, run: str) -> Kept | None:
    """The watch against an accepted state, opened if need be; None if too little of it is known."""
    scope = one.scope(accepted)
    path = path_of(scope)
    if workspace.objects.exists(path):
        return read_kept(workspace, path)
    n_written = open_reference(workspace, scope, one.values(workspace, scope, accepted.keys), run=run)
    if not n_written and not workspace.lake.read(layout.RANK, scope.rows, ["sequence"]).num_rows:
        return None
    n_opened = len(workspace.objects.list(f"{HERE}/{scope.site}"))
    steps = {} if one.model is None or target is None else _bets_on_prevalence(workspace, target, one.model)
    alpha = workspace.settings.shift.alpha
    watch = open_watch(workspace, scope, alpha=alpha, n_opened=n_opened, steps=steps)
    return Kept(watch=watch, n_reference=accepted.n)


def _bets_on_prevalence(workspace: Workspace, target: str, model: str) -> dict[str, tuple[Step, ...]]:
    """More bets on the score, from the held-out labelled patients of the model's reference; none with too few."""
    source = workspace.target(target).source_site
    serving = current_serving(workspace, source, target)
    if serving is None:
        return {}
    trained = trained_version(workspace, model)
    known = label_and_score_rows(workspace, source, target, trained, serving.recipe, part="evaluation")
    try:
        return {"score": prevalence_bets(known.score, known.y)}
    except EmptySample:
        return {}


def _taken_in(
    workspace: Workspace, kept: Kept, due: Sequence[str], arrived: pa.Table, run: str, known: Collection[str] = ()
) -> Kept:
    """Rank what is due, take in the ranks, and keep what is known now; what has no features yet is asked again."""
    scope, watch, looked_at = kept.watch.scope, kept.watch, set(arrived.column("series_key").to_pylist())
    if due and not watch.is_closed:
        values = watched_in(scope).values(workspace, scope, due)
        looked_at &= {*known, *pc.unique(values.column("series_key")).to_pylist()}
        rows = rank_rows(workspace, scope, values, run=run)
        is_next = rows.num_rows and rows.column("batch")[0].as_py() == watch.n_batches
        watch = replace(advance(watch, rows), n_batches=watch.n_batches + 1) if is_next else catch_up(workspace, watch)
    is_known = pc.is_in(arrived.column("series_key"), pa.array(sorted(looked_at), pa.string()))
    now = with_seen(replace(kept, watch=watch), arrived.filter(is_known))
    if now != kept or not workspace.objects.exists(path_of(scope)):
        write_kept(workspace, now)
    return now
