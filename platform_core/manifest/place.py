"""One site at its door, for one run, and how a file is fetched there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from platform_core.errors import NoSuchPlace, UnreadableScan
from platform_core.manifest.book import Book, Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.withdrawn import read_tombstones
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES
from platform_core.sources.contract import Item, Source

MANY = 4
"""Files of one series from which a place that offers it is asked for all of them at once."""


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """One site at its door, for one run."""

    workspace: Workspace
    site: str
    settings: SiteSettings
    source: Source
    door: Door
    book: Book
    run: str
    at: datetime
    withdrawn: frozenset[str] = frozenset()
    """Tombstones of patients whose scans are not taken in."""

    @property
    def issuer(self) -> str:
        """Who gives out the patient numbers: as the settings say, else the site itself.

        Never the header's IssuerOfPatientID: archives add it, rewrite it and leave it out, so that one patient would
        become two, one in training and one in evaluation, of whom a withdrawal finds one. Two people under one
        number of one site count as one, which errs on the safe side; sites of their own keep their numbers apart.
        """
        return self.settings.issuer or self.site

    @property
    def is_remote(self) -> bool:
        """Whether scans come over a network: then waiting for answers is what takes the time."""
        return "://" in self.settings.path

    def is_withdrawn(self, patient_id: str) -> bool:
        """Whether this identifier is of a patient who was withdrawn."""
        if not self.withdrawn or not patient_id:
            return False
        return self.door.tombstone(self.door.patient_key(self.issuer, patient_id)) in self.withdrawn

    def is_moving(self, item: Item) -> bool:
        """Whether this file changed so shortly ago that more of it may come."""
        now_ns = int(self.at.timestamp() * 1e9)
        return min(item.modified_ns, now_ns) > now_ns - int(self.settings.quiet_s * 1e9)


def enter(workspace: Workspace, site: str, run: str, at: datetime) -> Place:
    """The site, its source, key and book.

    Raises:
        UnknownName: If the site or its kind of source does not exist.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    settings, door = workspace.site(site), open_door(workspace)
    book, withdrawn = open_book(door, site), read_tombstones(workspace)
    return Place(workspace, site, settings, SOURCES[settings.source], door, book, run, at, withdrawn)


def bytes_of(place: Place, item: Item) -> bytes | None:
    """The bytes of a file; None if it is gone or is still being written.

    Raises:
        UnreadableScan: If it lies there and can never be read.
        SiteUnavailable: If the place does not answer.
    """
    try:
        data = place.source.open(place.settings, item.address)
    except NoSuchPlace:
        return None
    return data if _is_whole(item, data) else None


def fetch(place: Place, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes | UnreadableScan | None]]:
    """The bytes of the files of one series, one by one; None for a file that is gone or is still being written."""
    left = {entry.address: entry for entry in entries}
    if place.source.open_all is not None and len(entries) >= MANY:
        try:
            for item, data in place.source.open_all(place.settings, [entry.item for entry in entries]):
                yield left.pop(item.address), data
        except UnreadableScan:
            pass  # of one of them: which one, and whether the others can be read, is found one by one
        else:
            yield from ((entry, None) for entry in left.values())
            return
    for entry in left.values():
        try:
            yield entry, bytes_of(place, entry.item)
        except UnreadableScan as error:
            yield entry, error


def entry_of(
    place: Place, item: Item, data: bytes | None, base: str | None = None, before: Entry | None = None
) -> Entry:
    """The line of the door book for a file; `data` is None for one that was not read.

    A file that waited, or is decided on anew, keeps its arrival key and the parts that it went into.
    """
    content = "" if data is None else place.door.content_hash(data)
    key = before.arrival_key if before is not None else ""
    return Entry(
        address=item.address,
        n_bytes=item.n_bytes,
        modified_ns=item.modified_ns,
        content=content,
        arrival_key=key or place.door.arrival_key(place.site, item.address, content or str(item.n_bytes)),
        base=base,
        parts=() if before is None else before.parts,
        n_tries=0 if before is None else before.n_tries,
    )


def _is_whole(item: Item, data: bytes) -> bool:
    return item.n_bytes < 0 or ".npz#" in item.address or len(data) == item.n_bytes
