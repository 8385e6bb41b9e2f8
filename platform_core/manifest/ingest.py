"""Taking scans in at the door: shard by shard decode, decide and store what `discover` found new.

Order of writing: volumes, `core__series`, `core__stage`, `raw__arrival`, the door book. A
crash between two of them leaves files that the next run finds new, and what was written
before is recognised by its hash and not written again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import SiteUnavailable, UnreadableScan
from platform_core.imaging.nifti import encode_volume
from platform_core.manifest.arrivals import (
    IGNORED,
    OUTCOMES,
    WAITING,
    Arrival,
    Outcome,
    Past,
    past_outcomes,
    write_arrivals,
)
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.discovery import Discovery, discover
from platform_core.manifest.fetched import Fetched, index_row, open_entry, read_group
from platform_core.manifest.index import ByFile, read_index
from platform_core.manifest.parts import Decided, Present, decide_parts, ends_of, present_parts
from platform_core.manifest.place import Place, enter, entry_of, fetch
from platform_core.manifest.reading import Room
from platform_core.manifest.rehearsal import send_canaries
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.stages import Verdict, record_stage, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

MAX_UNREACHABLE = 3
"""Series of a shard that may fail to be fetched before the site counts as down."""
MAX_TRIES = 2
"""Runs in which a listed file may be gone before it is let go."""

__all__ = ["Discovery", "IngestCount", "discover", "ingest_shard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCount:
    """What one shard came to: `n_in` files by outcome, and parts of series."""

    site: str
    n_in: int = 0
    n_accepted: int = 0
    n_duplicate: int = 0
    n_quarantined: int = 0
    n_waiting: int = 0
    n_ignored: int = 0
    n_series: int = 0
    """Parts accepted."""
    n_refused: int = 0
    """Parts quarantined."""
    n_new_revisions: int = 0
    """Parts that were known and have changed."""
    n_planted: int = 0
    """Synthetic identities that went through with the shard."""
    n_died: int = 0
    """Those of which nothing was found in what the shard would have written: all of them, or the shard is refused."""

    def __add__(self, other: "IngestCount") -> "IngestCount":
        names = [field.name for field in fields(self) if field.name != "site"]
        return IngestCount(site=self.site, **{name: getattr(self, name) + getattr(other, name) for name in names})


def ingest_shard(workspace: Workspace, site: str, shard: str, *, run: str, at: datetime) -> IngestCount:
    """Decode the series of a shard, decide on each part and write what is new.

    When late files of a known series come, its earlier files are read again with them, and
    a part that has changed becomes a new revision.

    Raises:
        NoSuchPlace: If there is no such shard.
        StorageUnavailable: If the source or the store does not answer; call again.
    """
    place = enter(workspace, site, run, at)
    groups = [place.book.group(base) for base in place.book.get_shard(shard)]
    index = read_index(place.settings.index) if place.settings.index else None
    present = present_parts(workspace, place.door, site, groups)
    past = past_outcomes(workspace, site, [entry.arrival_key for group in groups for entry in group.done])
    came = _Came()
    score = send_canaries(place, shard, index)
    for group in groups:
        _take_in(place, group, came, index, present, past)
    _write_series(place, came.parts)
    write_arrivals(workspace, site, came.arrivals, run=run, at=at)
    _settle(place, came.arrivals)
    place.book.forget(came.moved)
    return replace(_count(site, came), n_planted=score.n_planted, n_died=score.n_died)


@dataclass(slots=True, repr=False)
class _Came:
    """What the series of a shard came to."""

    arrivals: list[Arrival] = field(default_factory=list)
    parts: list[Decided] = field(default_factory=list)
    moved: list[Entry] = field(default_factory=list)
    """Files of earlier runs that are gone, and of which nothing is missed."""
    n_unreachable: int = 0


def _take_in(
    place: Place,
    group: Group,
    came: _Came,
    index: ByFile | None,
    present: Mapping[str, Present],
    past: Mapping[str, Past],
) -> None:
    if not group.pending:
        return
    room = Room(len(group.pending) + len(group.done))
    try:
        fetched, gone, absent = _fetch_group(place, group, room)
    except SiteUnavailable as error:
        came.n_unreachable += 1
        if came.n_unreachable >= MAX_UNREACHABLE:
            raise
        came.arrivals += [_waits(place, entry, "source_unavailable", str(error)) for entry in group.pending]
        return
    came.arrivals += gone
    if _is_any_missed(absent, group, fetched):
        came.arrivals += [_orphan(file) for file in fetched if file.is_listed]
        return
    if not any(file.is_listed for file in fetched):
        return
    came.moved += absent
    if _is_of_withdrawn(place, fetched, index):
        came.arrivals += [_withdrawn(file) for file in fetched]
        return
    reading = read_group(place, group, fetched, room, past, index)
    parts = decide_parts(place, group, reading, fetched, present, index)
    came.arrivals += ends_of(place, group.base, reading, fetched, parts)
    came.parts += [_store(place, part) for part in parts]


def _store(place: Place, part: Decided) -> Decided:
    """Store the volume of a part that is news, and let go of it: a shard holds one volume at a time."""
    if part.row is not None and part.taken.volume is not None:
        place.workspace.objects.put(part.row["volume_uri"], encode_volume(part.taken.volume))
    return replace(part, taken=replace(part.taken, volume=None))


def _settle(place: Place, arrivals: Sequence[Arrival]) -> None:
    """Note in the door book what is done and what still waits; files of earlier runs keep their run."""
    done = [arrival for arrival in arrivals if arrival.end.outcome != WAITING]
    place.book.settle([a.entry for a in done if a.is_listed], place.run)
    place.book.settle([a.entry for a in done if not a.is_listed], "")
    place.book.settle([a.entry for a in arrivals if a.end.outcome == WAITING], place.run, is_done=False)


def _fetch_group(place: Place, group: Group, room: Room) -> tuple[list[Fetched], list[Arrival], list[Entry]]:
    """The files of a series in the order of their addresses, earlier ones among them; new and earlier ones gone."""
    new = {entry.address for entry in group.pending}
    fetched, gone, absent = [], [], []
    for entry, data in fetch(place, sorted((*group.pending, *group.done), key=lambda entry: entry.address)):
        is_listed = entry.address in new
        is_worse = isinstance(data, UnreadableScan) and entry.content and not is_listed  # it could be read once
        if data is not None and not is_worse:
            fetched.append(open_entry(place, entry, data, room, is_listed=is_listed))
        elif is_listed:
            gone.append(_vanished(place, entry))
        else:
            absent.append(entry)
    fetched.sort(key=lambda one: one.entry.address)
    return fetched, gone, absent


def _is_any_missed(absent: Sequence[Entry], group: Group, fetched: Sequence[Fetched]) -> bool:
    """Whether a volume would lose something without these files: they lie nowhere else, as they were or corrected."""
    contents = {file.entry.content for file in fetched}
    instances = {file.entry.instance for file in fetched if file.file.pixels is not None}
    return any(
        entry.parts and entry.content not in contents and group.instances.get(entry.content) not in instances
        for entry in absent
    )


def _waits(place: Place, entry: Entry, reason: str, detail: str) -> Arrival:
    waiting = replace(entry_of(place, entry.item, None, entry.base, entry), n_tries=entry.n_tries)
    return Arrival(waiting, Outcome(WAITING, reason, detail), is_listed=True)


def _vanished(place: Place, entry: Entry) -> Arrival:
    """A file that was listed and is gone or growing waits for the next run; gone again, it is let go."""
    first = _waits(place, entry, "not_at_rest", "the file was gone or still being written when it was read")
    tried = replace(first.entry, n_tries=entry.n_tries + 1)
    if tried.n_tries < MAX_TRIES:
        return Arrival(tried, first.end, is_listed=True)
    detail = f"listed, and in {tried.n_tries} runs not there to be read"
    let_go = replace(tried, base=None, parts=())
    return Arrival(let_go, Outcome(IGNORED, "gone_before_read", detail), is_listed=True)


def _orphan(file: Fetched) -> Arrival:
    """A late file of a series whose earlier files cannot be read any more: alone it would replace a whole volume."""
    detail = "earlier files of this series are gone or unreadable; put them back and run again"
    return Arrival(file.entry, Outcome(WAITING, "earlier_files_gone", detail), is_listed=True)


def _is_of_withdrawn(place: Place, fetched: Sequence[Fetched], index: ByFile | None) -> bool:
    """Whether a file of the series names a patient who was withdrawn."""
    named = {file.file.identity.patient_id for file in fetched if file.file.identity is not None}
    stated = index_row(index, fetched).get("patient_id", "").strip()
    return any(map(place.is_withdrawn, {*named, stated}))


def _withdrawn(file: Fetched) -> Arrival:
    """Ignored, and the door book keeps no more of it than that the file need not be read again."""
    entry = replace(file.entry, base=None, parts=(), content="", instance="")
    return Arrival(entry, Outcome(IGNORED, "withdrawn"), file.is_listed)


def _write_series(place: Place, decided: Sequence[Decided]) -> None:
    """Append what is news to `core__series`, and the answer of this stage where there is none yet."""
    rows = [part.row for part in decided if part.row is not None]
    told = sorted((row["series_key"], row["revision"], row["geometry"], row["volume_sha256"] or "") for row in rows)
    lake = place.workspace.lake
    lake.append(layout.SERIES, rows_of(SERIES, rows), transaction=transaction("series", place.site, told))
    answered = _answered(place)
    verdicts = [
        Verdict(
            series_key=part.key,
            revision=part.revision,
            reason=part.taken.refusal[0] if part.taken.refusal else None,
        )
        for part in decided
        if (part.key, part.revision) not in answered
    ]
    if verdicts:
        record_stage(place.workspace, place.site, "ingest", verdicts, run=place.run)


def _answered(place: Place) -> set[tuple[str, int]]:
    where = (pc.field("site") == place.site) & (pc.field("stage") == "ingest")
    rows = place.workspace.lake.read(layout.STAGE, where, ["series_key", "revision"])
    return {(str(row["series_key"]), int(row["revision"])) for row in rows.to_pylist()}


def _count(site: str, came: _Came) -> IngestCount:
    listed = [arrival.end.outcome for arrival in came.arrivals if arrival.is_listed]
    return IngestCount(
        site=site,
        n_in=len(listed),
        **{f"n_{outcome}": listed.count(outcome) for outcome in OUTCOMES},
        n_series=sum(part.taken.refusal is None for part in came.parts),
        n_refused=sum(part.taken.refusal is not None for part in came.parts),
        n_new_revisions=sum(part.row is not None and part.revision > 1 for part in came.parts),
    )
