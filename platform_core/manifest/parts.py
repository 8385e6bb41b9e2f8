"""The parts of a series as the manifest knows them: numbered, compared with what was there, and made into rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.imaging.nifti import volume_sha256, voxels_sha256
from platform_core.imaging.volume import Volume
from platform_core.manifest.arrivals import ACCEPTED, DUPLICATE, IGNORED, QUARANTINED, Arrival, Outcome
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.door import Door
from platform_core.manifest.fetched import Fetched, index_row
from platform_core.manifest.index import ByFile, day_of
from platform_core.manifest.place import Place
from platform_core.manifest.reading import Reading, Taken
from platform_core.manifest.workspace import Workspace

MANY_PARTS = 64
"""Volumes that one multi-frame file may hold; beyond it a series that lost its door book gets new revisions."""


SHOWN = ("part", "revision", "geometry", "volume_sha256", "n_files", "observed_on")
"""Columns of `core__series` that number a part, tell its volume and its period."""
STATED = (
    *("patient_key", "patient_known", "study_key", "acquired_on", "modality", "body_part", "view", "stratum"),
    *("manufacturer", "scanner_model", "software", "kernel", "kvp", "field_strength_t"),
    *("repetition_time_ms", "echo_time_ms"),
)
"""Columns that a corrected header changes. A column that is added later stays out: older rows hold nothing in it."""


@dataclass(frozen=True, slots=True, repr=False)
class Present:
    """What `core__series` holds of one part."""

    part: int
    revision: int
    geometry: str
    volume_sha256: str | None
    n_files: int
    observed_on: date
    stated: Mapping[str, Any]
    """The columns of `STATED`."""


@dataclass(frozen=True, slots=True, repr=False)
class Decided:
    """One part, its place in the manifest, and the row to write if it is news."""

    key: str
    part: int
    taken: Taken
    revision: int
    row: dict[str, Any] | None


def present_parts(workspace: Workspace, door: Door, site: str, groups: Iterable[Group]) -> dict[str, Present]:
    """What `core__series` holds of the parts that these series may have; a part that lost its line in the book too."""
    keys = [door.part_key(group.base, part) for group in groups for part in _possible_parts(group)]
    columns = ["series_key", *SHOWN, *STATED]
    where = (pc.field("site") == site) & pc.field("series_key").isin(keys)
    rows = workspace.lake.read(layout.SERIES, where, columns).to_pylist()
    return {
        row["series_key"]: Present(**{name: row[name] for name in SHOWN}, stated=_stated(row))
        for row in sorted(rows, key=lambda row: int(row["revision"]))
    }


def _possible_parts(group: Group) -> Iterator[int]:
    files = (*group.pending, *group.done)
    numbers = [*(entry.parts for entry in files), *group.parts.values()]
    known = max((part for parts in numbers for part in parts), default=0)
    yield from range(known + len(files) + MANY_PARTS)


def decide_parts(
    place: Place,
    group: Group,
    reading: Reading,
    fetched: Sequence[Fetched],
    present: Mapping[str, Present],
    index: ByFile | None,
) -> list[Decided]:
    """Number the parts and see which are news; nothing is written."""
    decided = []
    n_parts = len(reading.parts)
    hashes = [_hashes(taken.volume) for taken in reading.parts]
    numbers = _numbers(_parts_before(group, reading, fetched), _parts_alike(place, group, hashes, present), group)
    for part, taken, (sha, voxels) in zip(numbers, reading.parts, hashes, strict=True):
        key = place.door.part_key(group.base, part)
        before = present.get(key)
        row = _series_row(place, taken, fetched, index)
        if before is not None and _is_same(before, taken, sha, _stated(row)):
            decided.append(Decided(key, part, taken, before.revision, None))
            continue
        if before is not None and row["acquired_on"] is None and before.stated["acquired_on"] is None:
            row["observed_on"] = before.observed_on  # the day of its arrival, not of its correction
        revision = 1 if before is None else before.revision + 1
        row |= {
            "series_key": key,
            "revision": revision,
            "part": part,
            "n_parts": n_parts,
            "volume_uri": None
            if taken.volume is None
            else layout.volume_path(place.site, layout.NATIVE, key, revision),
            "volume_sha256": sha,
            "voxels_sha256": voxels if taken.volume is not None and _says_something(taken.volume) else None,
        }
        decided.append(Decided(key, part, taken, revision, row))
    return decided


def _hashes(volume: Volume | None) -> tuple[str | None, str | None]:
    """Of the volume, and of its voxels alone."""
    if volume is None:
        return None, None
    voxels = voxels_sha256(volume)
    return volume_sha256(volume, voxels), voxels


def _says_something(volume: Volume) -> bool:
    """A blank image equals every other blank one, which makes neither the copy of the other."""
    return bool(volume.voxels.min() != volume.voxels.max())


def _stated(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in STATED}


def _is_same(before: Present, taken: Taken, sha: str | None, stated: Mapping[str, Any]) -> bool:
    """Whether there is no news of a part: neither another volume nor a corrected header."""
    if (before.geometry, before.volume_sha256, before.stated) != (taken.geometry, sha, stated):
        return False
    return sha is not None or before.n_files == taken.facts.get("n_files")


def _parts_before(group: Group, reading: Reading, fetched: Sequence[Fetched]) -> list[list[int]]:
    """The numbers that the instances of each part had; where the book knows no instance, those that its files had."""

    def numbers(entry: Entry) -> tuple[int, ...]:
        return group.parts.get(entry.instance, ()) if group.parts else entry.parts

    return [[number for index in taken.files for number in numbers(fetched[index].entry)] for taken in reading.parts]


def _parts_alike(
    place: Place, group: Group, hashes: Sequence[tuple[str | None, str | None]], present: Mapping[str, Present]
) -> list[list[int]]:
    """The numbers of parts that hold the very volume already: a door book may be lost, or older than these numbers."""
    same = defaultdict[str | None, list[tuple[str, int]]](list)
    for key, before in present.items():
        same[before.volume_sha256].append((key, before.part))
    return [
        [number for key, number in same.get(sha, []) if sha and key == place.door.part_key(group.base, number)]
        for sha, _ in hashes
    ]


def _numbers(before: Sequence[Sequence[int]], alike: Sequence[Sequence[int]], group: Group) -> list[int]:
    """A number for each part: the one that most of it had, else that of its equal, else the next free one."""
    numbers: dict[int, int] = {}
    taken: set[int] = set()
    for votes in (before, alike):
        for place, voted in enumerate(votes):
            free = Counter(number for number in voted if number not in taken)
            if place not in numbers and free:
                numbers[place], _ = max(free.items(), key=lambda vote: (vote[1], -vote[0]))
                taken.add(numbers[place])
    used = taken.union(*before, *group.parts.values())
    unused = (number for number in range(len(before) + len(used)) if number not in used)
    return [numbers[place] if place in numbers else next(unused) for place in range(len(before))]


def _series_row(place: Place, taken: Taken, fetched: Sequence[Fetched], index: ByFile | None) -> dict[str, Any]:
    """The columns of `core__series` that do not depend on the revision; identity becomes keys here."""
    door, site, who = place.door, place.site, taken.identity
    row = index_row(index, fetched)
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
        "observed_on": door.shift_date(site, _observed_on(acquired_on, place.at.date())),
        "ingested_at": place.at,
        "run": place.run,
    }


def _observed_on(acquired_on: date | None, arrived_on: date) -> date:
    """The day that a scan counts for: one that claims to be of a later day than it came has a clock that runs ahead.

    A scanner's day may be one ahead of ours, by its time zone.
    """
    is_ahead = acquired_on is not None and acquired_on > arrived_on + timedelta(days=1)
    return arrived_on if acquired_on is None or is_ahead else acquired_on


def ends_of(
    place: Place, base: str, reading: Reading, fetched: Sequence[Fetched], parts: Sequence[Decided]
) -> list[Arrival]:
    """How each file ended, from what became of the parts that it went into."""
    ends = []
    for number, (file, fact) in enumerate(zip(fetched, reading.files, strict=True)):
        kept = number if fact.copy_of is None else fact.copy_of
        mine = [part for part in parts if kept in part.taken.files]
        if fact.rule is not None:
            ends.append(Arrival(replace(file.entry, base=base, parts=()), Outcome(IGNORED, fact.rule), file.is_listed))
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


def _shared_reason(parts: Iterable[Decided], why: tuple[str, str]) -> str:
    """All files of a refused part carry its reason; a broken copy beside a sound one keeps its own."""
    return next((part.taken.refusal[0] for part in parts if part.taken.refusal is not None), why[0])
