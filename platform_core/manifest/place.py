"""One site at its door, for one run, and how a file is fetched there."""

from dataclasses import dataclass, replace
from datetime import datetime

from platform_core.errors import NoSuchPlace
from platform_core.manifest.arrivals import WAITING, Arrival, Outcome
from platform_core.manifest.book import Book, Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES
from platform_core.sources.contract import Item, Source


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

    @property
    def issuer(self) -> str:
        """Who gives out the patient numbers."""
        return self.settings.issuer or self.site


def enter(workspace: Workspace, site: str, run: str, at: datetime) -> Place:
    """The site, its source, key and book.

    Raises:
        UnknownName: If the site or its kind of source does not exist.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    settings, door = workspace.site(site), open_door(workspace)
    return Place(workspace, site, settings, SOURCES[settings.source], door, open_book(door, site), run, at)


def bytes_of(place: Place, item: Item) -> bytes | None:
    """The bytes of a file; None if it is gone or is still being written."""
    try:
        data = place.source.open(place.settings, item.address)
    except NoSuchPlace:
        return None
    is_whole_file = "#" not in item.address
    return data if not is_whole_file or len(data) == item.n_bytes else None


def entry_of(place: Place, item: Item, data: bytes, base: str | None = None) -> Entry:
    """The line of the door book for a file."""
    content = place.door.content_hash(data)
    return Entry(
        address=item.address,
        n_bytes=item.n_bytes,
        modified_ns=item.modified_ns,
        content=content,
        arrival_key=place.door.arrival_key(place.site, item.address, content),
        base=base,
    )


def vanished(place: Place, item: Item) -> Arrival:
    """A file that was listed and is gone or growing: it waits for the next run."""
    detail = "the file was gone or still being written when it was read"
    entry = replace(entry_of(place, item, b"not at rest"), content="")
    return Arrival(entry, Outcome(WAITING, "not_at_rest", detail), is_listed=True)
