"""What is kept of a watch between two nights, and what is watched.

A watch lies in a file of its own under `watches/`, one per scope; the latest of its kind is the one that goes on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.samples import AcceptedDays, Sample, scored_by
from platform_core.shift.scores import has_learned_at
from platform_core.shift.watch.alarms import SCANS_PER_CHECK, WatchVerdict, judge
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.power import Promise, smallest_shift
from platform_core.shift.watch.ranks import features_of_days, scores_of_days
from platform_core.shift.watch.streams import Watch, from_facts, to_facts

HERE = "watches"
N_NIGHTS = 7
"""Batches of ranks after which the whole manifest is looked through for a series that was measured later than that."""
LATE_DAYS = 30
"""A series is looked for among those that were taken in up to so many days before the latest that is known."""
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
    n_looked: int = -1
    """Batches that it had taken in when the whole manifest was last looked through; -1 before."""

    @property
    def since(self) -> date:
        """First day of the accepted state."""
        return date.fromisoformat(self.watch.scope.reference.rpartition("@")[2])

    @property
    def is_due(self) -> bool:
        """The whole manifest is to be looked through for what it may have missed; a closed watch misses nothing."""
        has_looked = self.n_looked >= 0 and self.watch.n_batches - self.n_looked < N_NIGHTS
        return not self.watch.is_closed and not has_looked

    @property
    def name(self) -> str:
        """Stratum, and whose score if it is one."""
        model = watched_in(self.watch.scope).model
        return f"{self.watch.scope.stratum}{'' if model is None else f', score of {model}'}"

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
        watched = "the score" if watched_in(self.watch.scope).model else "a feature"
        what = watched if stream.size == SCANS_PER_CHECK else f"the daily median of {watched}"
        return f"{self.verdict.sentence}; {N_REVEALING} patient-days would reveal {shown} of {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What of a scan is watched: its native features, or its score by what the site runs."""

    model: str | None = None
    """`model@version`; None for features."""
    recipe: str = layout.NATIVE

    def scope(self, accepted: Sample) -> Scope:
        """Its scope against an accepted state."""
        name = f"{accepted.site}@{accepted.period_start}"
        reference = name if self.model is None else f"{self.model}/{name}"
        return Scope(site=accepted.site, stratum=accepted.stratum, recipe=self.recipe, reference=reference)

    def values(self, workspace: Workspace, scope: Scope, keys: Sequence[str]) -> pa.Table:
        """Of some series and of all others of their days."""
        if self.model is None:
            return features_of_days(workspace, scope.site, scope.stratum, keys, self.recipe)
        rows = scores_of_days(workspace, scope.site, scope.stratum, keys, model=self.model, recipe=self.recipe)
        return rows.filter(is_ranked(workspace, scope, rows.column("patient_key").to_pylist()))

    def accepted(self, days: AcceptedDays) -> dict[str, date]:
        """The days on which it was accepted as it is."""
        return days.images if self.model is None else days.scores


def is_ranked(workspace: Workspace, scope: Scope, patients: Sequence[str]) -> pa.Array:
    """Which patients count: of scores, where the model has learned from some, only those it never learns from.

    A network is surer of those it was trained on, so among them every new patient is a change.
    """
    model, split = scored_by(scope.reference), workspace.settings.split
    if model is None or not has_learned_at(workspace, scope.site, model):
        return pa.repeat(pa.scalar(value=True), len(patients))
    return pa.array([part_of(patient, split) == "evaluation" for patient in patients], pa.bool_())


def watched_in(scope: Scope) -> Watched:
    """What a scope is about."""
    return Watched(model=scored_by(scope.reference), recipe=scope.recipe)


def every_watch(workspace: Workspace, site: str) -> list[Kept]:
    """All watches that the site ever had, in the order in which they were opened."""
    found = [read_kept(workspace, path) for path in workspace.objects.list(f"{HERE}/{site}")]
    return sorted(found, key=lambda kept: kept.watch.n_opened)


def with_seen(kept: Kept, arrived: pa.Table) -> Kept:
    """What is known of series after some were looked at."""
    until = pc.max(arrived.column("ingested_at")).as_py() or kept.until
    if until is None:
        return kept
    first = (max(until, kept.until or until) - timedelta(days=LATE_DAYS)).date()
    days = [moment.date() for moment in arrived.column("ingested_at").to_pylist()]
    seen = dict(kept.recent) | dict(zip(arrived.column("series_key").to_pylist(), days, strict=True))
    recent = tuple(sorted((key, day) for key, day in seen.items() if day >= first))
    return replace(kept, until=max(until, kept.until or until), recent=recent)


def write_kept(workspace: Workspace, kept: Kept) -> None:
    """Keep a watch until the next night."""
    facts = {
        "n_reference": kept.n_reference,
        "until": None if kept.until is None else kept.until.isoformat(),
        "recent": [[key, day.isoformat()] for key, day in kept.recent],
        "n_looked": kept.n_looked,
        "watch": to_facts(kept.watch),
    }
    workspace.objects.put(path_of(kept.watch.scope), json.dumps(facts, sort_keys=True, allow_nan=False).encode())


def read_kept(workspace: Workspace, path: str) -> Kept:
    """The watch that lies at a path."""
    facts = json.loads(workspace.objects.get(path))
    until = facts.get("until")
    return Kept(
        watch=from_facts(facts["watch"]),
        n_reference=facts["n_reference"],
        until=None if until is None else datetime.fromisoformat(until),
        recent=tuple((key, date.fromisoformat(day)) for key, day in facts.get("recent", [])),
        n_looked=facts.get("n_looked", -1),
    )


def path_of(scope: Scope) -> str:
    """Where the watch of a scope lies."""
    return f"{HERE}/{scope.site}/{digest(asdict(scope))}.json"
