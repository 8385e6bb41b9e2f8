"""What a source holds that is new: set aside by a rule, or noted for its series; then series at rest go into shards.

A page of the listing is looked at, its files are noted in the door book, and only then does
the cursor move on: memory stays flat, and a listing that breaks off goes on where it was.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from platform_core import layout
from platform_core.dicom.elements import claims_to_be_dicom, may_be_dicom
from platform_core.dicom.rules import HEAD_BYTES, glance, glance_at_head
from platform_core.errors import BadSetting, NoSuchPlace, UnreadableScan
from platform_core.imaging.plain import image_format
from platform_core.manifest.arrivals import IGNORED, QUARANTINED, WAITING, Arrival, Outcome, write_arrivals
from platform_core.manifest.book import Entry
from platform_core.manifest.index import read_index
from platform_core.manifest.place import Place, bytes_of, enter, entry_of
from platform_core.manifest.workspace import Workspace
from platform_core.sources.contract import Item

IMAGE_NAMES = (".png", ".jpg", ".jpeg", ".nii", ".nii.gz", ".npz")
N_LOOKS = 8
"""Files of a remote place that are looked at side by side: what counts there is the wait for answers."""
N_BUFFERED = 20_000
"""Files noted before the ledger is written: one commit for many."""
MAX_FILE_BYTES = 1 << 32
HASHED_BYTES = 1 << 26
"""Files that are set aside are told by their bytes up to here, larger ones by their size: they are not read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a source lists and what of it is new; `shards` are opaque names for `ingest_shard`."""

    site: str
    n_listed: int = 0
    n_new: int = 0
    """Files that this run gives an outcome: set aside here, waiting, or in one of the shards."""
    shards: tuple[str, ...] = ()
    is_busy: bool = False
    """Another run is at work on the site; its files are left to it."""


@dataclass(slots=True, repr=False)
class _Found:
    """What a few pages came to."""

    aside: list[Arrival] = field(default_factory=list)
    pending: list[tuple[Item, str]] = field(default_factory=list)
    touched: list[Entry] = field(default_factory=list)
    n_listed: int = 0


def discover(workspace: Workspace, site: str, *, run: str, at: datetime) -> Discovery:
    """List the source, skip what the door book knows, and cut the series that are at rest into shards.

    Files that are set aside by a rule, files that cannot be read at all, and files of series
    that are still arriving get their rows in the ledger here.

    Raises:
        NoSuchPlace: If the source or the index is not there.
        BadSetting: If plain images lack a stated modality, or the source does not let us in.
        SiteUnavailable: If the source does not answer.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    place = enter(workspace, site, run, at)
    _check_settings(place)
    if not place.book.begin(run, workspace.lake.identity(layout.ARRIVAL)):
        return Discovery(site=site, is_busy=True)
    n_listed = _list(place)
    now_ns = int(at.timestamp() * 1e9)
    limit_ns = now_ns - int(place.settings.quiet_s * 1e9)
    _let_wait(place, list(place.book.series_moving(limit_ns)))
    bases = list(place.book.series_at_rest(limit_ns))
    shards = place.book.put_shards(run, bases, workspace.settings.shard_size)
    n_new = place.book.n_settled(run) + place.book.n_pending()  # asked of the book: a repeated call knows no first one
    return Discovery(site=site, n_listed=n_listed, n_new=n_new, shards=shards)


def _check_settings(place: Place) -> None:
    if place.source.holds == "image" and place.settings.modality is None:
        file = layout.site_file(place.site)
        raise BadSetting(file, "modality", "is missing", 'plain images carry none: add, say, modality = "DX"')
    if place.settings.index:
        read_index(place.settings.index)


def _list(place: Place) -> int:
    """Note everything that is new; returns how much was listed."""
    n_listed = 0
    cursor = place.book.cursor()
    found = _Found()
    for page in place.source.pages(place.settings, cursor):
        _look_over(place, page.items, found)
        cursor = page.cursor
        if found.n_listed >= N_BUFFERED:
            n_listed += found.n_listed
            _note(place, found, cursor)
            found = _Found()
    _note(place, found, cursor)
    return n_listed + found.n_listed


def _note(place: Place, found: _Found, cursor: str) -> None:
    """Write down what was found, then that it was listed."""
    write_arrivals(place.workspace, place.site, found.aside, run=place.run, at=place.at)
    place.book.settle([arrival.entry for arrival in found.aside], place.run)
    place.book.touch(found.touched)
    place.book.list_pending(found.pending, int(place.at.timestamp() * 1e9))
    place.book.save_cursor(cursor)


def _look_over(place: Place, items: Sequence[Item], found: _Found) -> None:
    found.n_listed += len(items)
    known = place.book.known([item.address for item in items])
    new = [item for item in items if not _is_known(place, item, known.get(item.address), found)]
    for item, base, end in _each(partial(_sort_out, place), new, is_remote=place.is_remote):
        if end is not None:
            found.aside.append(Arrival(_read_entry(place, item), end, is_listed=True))
        elif base:
            found.pending.append((item, base))


def _each(
    sort: Callable[[Item], tuple[Item, str, Outcome | None]], items: Sequence[Item], *, is_remote: bool
) -> Iterator[tuple[Item, str, Outcome | None]]:
    if not is_remote:
        yield from map(sort, items)
        return
    with ThreadPoolExecutor(N_LOOKS) as pool:
        yield from pool.map(sort, items)


def _is_known(place: Place, item: Item, entry: Entry | None, found: _Found) -> bool:
    """Whether the book has this file already; a file that was only touched counts as known."""
    if entry is None or entry.n_bytes != item.n_bytes:
        return False
    if entry.modified_ns == item.modified_ns:
        return True
    if not entry.content or _content(place, item) != entry.content:
        return False
    found.touched.append(entry.at(item))
    return True


def _sort_out(place: Place, item: Item) -> tuple[Item, str, Outcome | None]:
    """The series that a new file belongs to, or the outcome that sets it aside; neither if it cannot be read now."""
    if item.series_uid:
        return item, place.door.series_base(place.site, item.series_uid), None
    if item.refusal:
        is_settled = not place.is_moving(item)
        return item, "", Outcome(QUARANTINED, item.refusal) if is_settled else None
    if item.n_bytes > MAX_FILE_BYTES:
        return item, "", Outcome(QUARANTINED, "too_large", f"more than {MAX_FILE_BYTES >> 30} GiB in one file")
    try:
        base, end = _of_dicom(place, item) if place.source.holds == "dicom" else _of_image(place, item)
    except NoSuchPlace:
        return item, "", None
    except UnreadableScan as error:
        is_settled = error.reason != "unreadable_path" or not place.is_moving(item)
        return item, "", Outcome(QUARANTINED, error.reason, error.detail) if is_settled else None
    return item, base, end


def _of_dicom(place: Place, item: Item) -> tuple[str, Outcome | None]:
    head = place.source.head(place.settings, item.address, HEAD_BYTES)
    if not may_be_dicom(head):
        is_meant = claims_to_be_dicom(item.address, head)
        return "", Outcome(QUARANTINED if is_meant else IGNORED, "not_dicom", "expected a DICOM header, found none")
    look = glance_at_head(head) or glance(place.source.open(place.settings, item.address))
    if look.rule is not None:
        return "", Outcome(IGNORED, look.rule)
    return place.door.series_base(place.site, look.series_uid), None


def _of_image(place: Place, item: Item) -> tuple[str, Outcome | None]:
    if image_format(place.source.head(place.settings, item.address, HEAD_BYTES)) is not None:
        data = place.source.open(place.settings, item.address)
        return place.door.series_base(place.site, f"image/{place.door.content_hash(data)}"), None
    is_meant = item.address.lower().endswith(IMAGE_NAMES)
    return "", Outcome(QUARANTINED, "unreadable_image") if is_meant else Outcome(IGNORED, "not_an_image")


def _read_entry(place: Place, item: Item) -> Entry:
    """The line of the door book for a file that is set aside; what must not be opened is told by its size alone."""
    if item.refusal or item.n_bytes > HASHED_BYTES:
        return entry_of(place, item, None)
    try:
        return entry_of(place, item, bytes_of(place, item))
    except UnreadableScan:
        return entry_of(place, item, None)


def _content(place: Place, item: Item) -> str:
    """The keyed hash of a file; empty if it cannot be read whole."""
    try:
        data = bytes_of(place, item)
    except UnreadableScan:
        return ""
    return "" if data is None else place.door.content_hash(data)


def _let_wait(place: Place, bases: Sequence[str]) -> None:
    """Tell the ledger of files whose series is still arriving."""
    detail = f"the series changed less than {place.settings.quiet_s:g} s ago: more of it may come"
    waiting: list[Arrival] = []
    for base in bases:
        entries = [entry_of(place, entry.item, None, base, entry) for entry in place.book.group(base).pending]
        waiting += [Arrival(entry, Outcome(WAITING, "still_arriving", detail), is_listed=True) for entry in entries]
        if len(waiting) >= N_BUFFERED:
            _tell_waiting(place, waiting)
            waiting = []
    _tell_waiting(place, waiting)


def _tell_waiting(place: Place, waiting: Sequence[Arrival]) -> None:
    write_arrivals(place.workspace, place.site, waiting, run=place.run, at=place.at)
    place.book.settle([arrival.entry for arrival in waiting], place.run, is_done=False)
