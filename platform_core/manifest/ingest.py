"""Taking scans in at the door: shard by shard decode, decide and store what `discover` found new.

Order of writing: volumes, `core__series`, `core__stage`, `raw__arrival`, the door book. A
crash between two of them leaves files that the next run finds new, and what was written
before is recognised by its hash and not written again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.dicom.header import VIEWS
from platform_core.errors import SiteUnavailable, UnreadableScan
from platform_core.imaging.nifti import volume_sha256
from platform_core.manifest.arrivals import (
    ACCEPTED,
    DUPLICATE,
    IGNORED,
    OUTCOMES,
    QUARANTINED,
    WAITING,
    Arrival,
    Outcome,
    Past,
    past_outcomes,
    write_arrivals,
)
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.discovery import Discovery, discover
from platform_core.manifest.index import ByFile, Row, day_of, read_index
from platform_core.manifest.place import Place, enter, entry_of, fetch
from platform_core.manifest.reading import File, Reading, Room, Taken, open_file, read_image, read_series
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

    def __add__(self, other: "IngestCount") -> "IngestCount":
        names = [field.name for field in fields(self) if field.name != "site"]
        return IngestCount(site=self.site, **{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True, repr=False)
class _Fetched:
    """One file, decoded as far as it goes."""

    entry: Entry
    file: File
    content: bytes
    """Its bytes, of a plain image alone."""
    is_listed: bool


@dataclass(frozen=True, slots=True, repr=False)
class _Present:
    """What `core__series` holds of one part."""

    revision: int
    geometry: str
    volume_sha256: str | None
    n_files: int


@dataclass(frozen=True, slots=True, repr=False)
class _Decided:
    """One part, its place in the manifest, and the row to write if it is news."""

    key: str
    part: int
    taken: Taken
    revision: int
    row: dict[str, Any] | None


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
    present = _present(workspace, site)
    past = past_outcomes(workspace, site, [entry.arrival_key for group in groups for entry in group.done])
    came = _Came()
    for group in groups:
        _take_in(place, group, came, index, present, past)
    _write_series(place, came.parts)
    write_arrivals(workspace, site, came.arrivals, run=run, at=at)
    _settle(place, came.arrivals)
    return _count(site, came)


@dataclass(slots=True, repr=False)
class _Came:
    """What the series of a shard came to."""

    arrivals: list[Arrival] = field(default_factory=list)
    parts: list[_Decided] = field(default_factory=list)
    n_unreachable: int = 0


def _take_in(
    place: Place,
    group: Group,
    came: _Came,
    index: ByFile | None,
    present: Mapping[str, _Present],
    past: Mapping[str, Past],
) -> None:
    if not group.pending:
        return
    room = Room(len(group.pending) + len(group.done))
    try:
        fetched, gone = _fetch_group(place, group, room)
    except SiteUnavailable as error:
        came.n_unreachable += 1
        if came.n_unreachable >= MAX_UNREACHABLE:
            raise
        came.arrivals += [_waits(place, entry, "source_unavailable", str(error)) for entry in group.pending]
        return
    came.arrivals += gone
    if not fetched:
        return
    reading = _read(place, group.base, fetched, room, past, index)
    parts = _decide(place, group.base, reading, fetched, present, index)
    came.parts += parts
    came.arrivals += _ends(place, group.base, reading, fetched, parts)


def _settle(place: Place, arrivals: Sequence[Arrival]) -> None:
    """Note in the door book what is done and what still waits; files of earlier runs keep their run."""
    done = [arrival for arrival in arrivals if arrival.end.outcome != WAITING]
    place.book.settle([a.entry for a in done if a.is_listed], place.run)
    place.book.settle([a.entry for a in done if not a.is_listed], "")
    place.book.settle([a.entry for a in arrivals if a.end.outcome == WAITING], place.run, is_done=False)


def _fetch_group(place: Place, group: Group, room: Room) -> tuple[list[_Fetched], list[Arrival]]:
    """The files of a series in the order of their addresses, earlier ones among them; and those that are gone."""
    new = {entry.address for entry in group.pending}
    fetched, gone = [], []
    is_whole = True
    for entry, data in fetch(place, sorted((*group.pending, *group.done), key=lambda entry: entry.address)):
        is_listed = entry.address in new
        if data is not None:
            fetched.append(_open(place, entry, data, room, is_listed=is_listed))
        elif is_listed:
            gone.append(_vanished(place, entry))
        else:
            is_whole = False
    fetched.sort(key=lambda one: one.entry.address)
    if not is_whole:
        return [], gone + [_orphan(file) for file in fetched if file.is_listed]
    return (fetched if any(file.is_listed for file in fetched) else []), gone


def _open(place: Place, entry: Entry, data: bytes | UnreadableScan, room: Room, *, is_listed: bool) -> _Fetched:
    if isinstance(data, UnreadableScan):
        file = File(refusal=(data.reason, data.detail))
        return _Fetched(entry_of(place, entry.item, None, entry.base, entry), file, b"", is_listed)
    known = entry_of(place, entry.item, data, entry.base, entry) if is_listed else entry
    if place.source.holds == "dicom":
        return _Fetched(known, open_file(data, room), b"", is_listed)
    return _Fetched(known, File(), data, is_listed)


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
    return Arrival(tried, Outcome(IGNORED, "gone_before_read", detail), is_listed=True)


def _orphan(file: _Fetched) -> Arrival:
    """A late file of a series whose earlier files cannot be read any more: alone it would replace a whole volume."""
    detail = "earlier files of this series are gone from the source; put them back and run again"
    return Arrival(file.entry, Outcome(WAITING, "earlier_files_gone", detail), is_listed=True)


def _read(
    place: Place,
    base: str,
    fetched: Sequence[_Fetched],
    room: Room,
    past: Mapping[str, Past],
    index: ByFile | None,
) -> Reading:
    def was_accepted(n: int) -> bool:
        before = past.get(fetched[n].entry.arrival_key)
        return before is not None and before.end.outcome == ACCEPTED

    is_released = place.book.is_released(base)
    if place.source.holds == "dicom":
        files = [file.file for file in fetched]
        return read_series(files, room, was_accepted, may_show_text=is_released)
    view = _view(_index_row(index, fetched))
    content = fetched[0].content
    return read_image(content, len(fetched), place.settings, view, was_accepted, may_show_text=is_released)


def _view(row: Row) -> str | None:
    """The projection, if it is one of the terms that are kept."""
    stated = (row.get("view") or "").strip().upper()
    return stated if stated in VIEWS else None


def _index_row(index: ByFile | None, fetched: Sequence[_Fetched]) -> Row:
    """The row of the first copy that the index knows."""
    rows: Iterator[Row | None] = (index.find(file.entry.address) for file in fetched) if index else iter(())
    return next((row for row in rows if row is not None), {})


def _present(workspace: Workspace, site: str) -> dict[str, _Present]:
    """The latest revision of every part of a site, refused ones included."""
    columns = ["series_key", "revision", "geometry", "volume_sha256", "n_files"]
    rows = workspace.lake.read(layout.SERIES, pc.field("site") == site, columns).to_pylist()
    latest: dict[str, _Present] = {}
    for row in sorted(rows, key=lambda row: int(row["revision"])):
        latest[row["series_key"]] = _Present(row["revision"], row["geometry"], row["volume_sha256"], row["n_files"])
    return latest


def _decide(
    place: Place,
    base: str,
    reading: Reading,
    fetched: Sequence[_Fetched],
    present: Mapping[str, _Present],
    index: ByFile | None,
) -> list[_Decided]:
    """Number the parts, see which are news, and store the volumes of those that are."""
    decided = []
    n_parts = len(reading.parts)
    for part, taken in zip(_numbers(reading, fetched), reading.parts, strict=True):
        key = place.door.part_key(base, part)
        sha = None if taken.volume is None else volume_sha256(taken.volume)
        before = present.get(key)
        if before is not None and _is_same(before, taken, sha):
            decided.append(_Decided(key, part, taken, before.revision, None))
            continue
        revision = 1 if before is None else before.revision + 1
        row = _series_row(place, taken, fetched, index) | {
            "series_key": key,
            "revision": revision,
            "part": part,
            "n_parts": n_parts,
            "volume_uri": _store(place, key, revision, taken),
            "volume_sha256": sha,
        }
        decided.append(_Decided(key, part, taken, revision, row))
    return decided


def _is_same(before: _Present, taken: Taken, sha: str | None) -> bool:
    if (before.geometry, before.volume_sha256) != (taken.geometry, sha):
        return False
    return sha is not None or before.n_files == taken.facts.get("n_files")


def _numbers(reading: Reading, fetched: Sequence[_Fetched]) -> list[int]:
    """A number for each part: the one that most of its known files had, else the next free one."""
    taken_numbers: set[int] = set()
    numbers: list[int | None] = []
    for taken in reading.parts:
        votes = [number for index in taken.files for number in fetched[index].entry.parts]
        free = [number for number in votes if number not in taken_numbers]
        number = max(set(free), key=lambda n: (free.count(n), -n)) if free else None
        numbers.append(number)
        if number is not None:
            taken_numbers.add(number)
    used = taken_numbers | {number for file in fetched for number in file.entry.parts}
    unused = (number for number in range(len(numbers) + len(used)) if number not in used)
    return [next(unused) if number is None else number for number in numbers]


def _store(place: Place, key: str, revision: int, taken: Taken) -> str | None:
    if taken.volume is None:
        return None
    uri = layout.volume_path(place.site, layout.NATIVE, key, revision)
    place.workspace.write_volume(uri, taken.volume)
    return uri


def _series_row(place: Place, taken: Taken, fetched: Sequence[_Fetched], index: ByFile | None) -> dict[str, Any]:
    """The columns of `core__series` that do not depend on the revision; identity becomes keys here."""
    door, site, who = place.door, place.site, taken.identity
    row = _index_row(index, fetched)
    if who is None:
        content = fetched[taken.files[0]].entry.content
        patient_id, study, acquired_on = row.get("patient_id", "").strip(), content, day_of(row.get("acquired_on"))
    else:
        patient_id, study, acquired_on = who.patient_id, who.study_uid, taken.acquired_on
    patient_key = door.patient_key(place.issuer, patient_id) if patient_id else door.unknown_patient_key(site, study)
    return taken.facts | {
        "site": site,
        "study_key": door.study_key(site, study),
        "patient_key": patient_key,
        "patient_known": bool(patient_id),
        "geometry": taken.geometry,
        "acquired_on": door.shift_date(site, acquired_on),
        "observed_on": door.shift_date(site, acquired_on or place.at.date()),
        "ingested_at": place.at,
        "run": place.run,
    }


def _ends(
    place: Place, base: str, reading: Reading, fetched: Sequence[_Fetched], parts: Sequence[_Decided]
) -> list[Arrival]:
    """How each file ended, from what became of the parts that it went into."""
    ends = []
    for number, (file, fact) in enumerate(zip(fetched, reading.files, strict=True)):
        kept = number if fact.copy_of is None else fact.copy_of
        mine = [part for part in parts if kept in part.taken.files]
        if fact.rule is not None:
            ends.append(Arrival(replace(file.entry, base=base), Outcome(IGNORED, fact.rule), file.is_listed))
            continue
        sound = next((part for part in mine if part.taken.refusal is None), None)
        key = (sound or mine[0]).key if mine else place.door.part_key(base, 0)
        if sound is not None and fact.refusal is None:
            end = Outcome(ACCEPTED, None, None, key) if kept == number else Outcome(DUPLICATE, "same_pixels", None, key)
        else:
            why = fact.refusal or next((part.taken.refusal for part in mine if part.taken.refusal), None)
            assert why is not None
            end = Outcome(QUARANTINED, _shared_reason(mine, why), why[1], key)
        entry = replace(file.entry, base=base, parts=tuple(part.part for part in mine))
        ends.append(Arrival(entry, end, file.is_listed))
    return ends


def _shared_reason(parts: Iterable[_Decided], why: tuple[str, str]) -> str:
    """All files of a refused part carry its reason; a broken copy beside a sound one keeps its own."""
    return next((part.taken.refusal[0] for part in parts if part.taken.refusal is not None), why[0])


def _write_series(place: Place, decided: Sequence[_Decided]) -> None:
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
