"""One fetched file, decoded as far as it goes, and the reading of those of one series."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from platform_core.dicom.header import VIEWS
from platform_core.errors import UnreadableScan
from platform_core.manifest.arrivals import ACCEPTED, Past
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.index import ByFile, Row
from platform_core.manifest.place import Place, entry_of
from platform_core.manifest.reading import File, Reading, Room, open_file, read_image, read_series


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    """One file, decoded as far as it goes."""

    entry: Entry
    file: File
    content: bytes
    """Its bytes, of a plain image alone."""
    is_listed: bool


def open_entry(place: Place, entry: Entry, data: bytes | UnreadableScan, room: Room, *, is_listed: bool) -> Fetched:
    """Decode what was fetched; a file that is listed anew gets its content hash and arrival key here."""
    if isinstance(data, UnreadableScan):
        file = File(refusal=(data.reason, data.detail))
        return Fetched(entry_of(place, entry.item, None, entry.base, entry), file, b"", is_listed)
    known = entry_of(place, entry.item, data, entry.base, entry) if is_listed else entry
    if place.source.holds == "dicom":
        file = open_file(data, room)
        instance = "" if file.identity is None else place.door.instance_key(place.site, file.identity.sop_uid)
        return Fetched(replace(known, instance=instance), file, b"", is_listed)
    return Fetched(known, File(), data, is_listed)


def read_group(
    place: Place,
    group: Group,
    fetched: Sequence[Fetched],
    room: Room,
    past: Mapping[str, Past],
    index: ByFile | None,
) -> Reading:
    """Decide on the parts of one series."""

    def was_accepted(n: int) -> bool:
        before = past.get(fetched[n].entry.arrival_key)
        return before is not None and before.end.outcome == ACCEPTED

    def is_released(n: int) -> bool:
        return fetched[n].entry.content in group.released

    if fetched[0].content:
        view = _view(index_row(index, fetched))
        content = fetched[0].content
        return read_image(content, len(fetched), place.settings, view, was_accepted, is_released)
    return read_series([file.file for file in fetched], room, was_accepted, is_released)


def index_row(index: ByFile | None, fetched: Sequence[Fetched]) -> Row:
    """The row of the first copy that the index knows."""
    rows: Iterator[Row | None] = (index.find(file.entry.address) for file in fetched) if index else iter(())
    return next((row for row in rows if row is not None), {})


def _view(row: Row) -> str | None:
    """The projection, if it is one of the terms that are kept."""
    stated = (row.get("view") or "").strip().upper()
    return stated if stated in VIEWS else None
