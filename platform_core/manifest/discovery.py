"""What a source holds that is new: set aside by a rule, or grouped into shards of whole series."""

from dataclasses import dataclass, replace
from datetime import datetime

from platform_core import layout
from platform_core.dicom.elements import claims_to_be_dicom
from platform_core.dicom.rules import glance
from platform_core.errors import BadSetting, UnreadableScan
from platform_core.imaging.plain import image_format
from platform_core.manifest.arrivals import (
    IGNORED,
    QUARANTINED,
    WAITING,
    Arrival,
    Outcome,
    recorded_keys,
    write_arrivals,
)
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.index import read_index
from platform_core.manifest.place import Place, bytes_of, enter, entry_of, vanished
from platform_core.manifest.workspace import Workspace
from platform_core.sources.contract import Item, list_items

IMAGE_NAMES = (".png", ".jpg", ".jpeg", ".nii", ".nii.gz", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a source lists and what of it is new; `shards` are opaque names for `ingest_shard`."""

    site: str
    n_listed: int
    n_new: int
    shards: tuple[str, ...]


def discover(workspace: Workspace, site: str, *, run: str, at: datetime) -> Discovery:
    """List the source, skip what the door book knows, and group the rest into shards of whole series.

    Files that are set aside by a rule, and files that cannot be read at all, get their rows
    in the ledger here.

    Raises:
        NoSuchPlace: If the source or the index is not there.
        BadSetting: If plain images lack a stated modality.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    place = enter(workspace, site, run, at)
    _check_settings(place)
    known = place.book.read()
    recorded = recorded_keys(workspace, site) if known else frozenset()
    listed = list(list_items(place.source, place.settings))
    new = [item for item in listed if not _is_known(place, item, known.get(item.address), recorded)]
    groups: dict[str, list[Item]] = {}
    aside: list[Arrival] = []
    for item in new:
        base = _sort_out(place, item, aside)
        if base is not None:
            groups.setdefault(base, []).append(item)
    write_arrivals(workspace, site, aside, {}, run=run, at=at)
    place.book.append(arrival.entry for arrival in aside if arrival.end.outcome != WAITING)
    wholes = [Group(base, tuple(items)) for base, items in groups.items()]
    now_ns = int(at.timestamp() * 1e9)
    shards = place.book.put_shards(run, wholes, workspace.settings.shard_size, now_ns) if wholes else ()
    return Discovery(site=site, n_listed=len(listed), n_new=len(new), shards=shards)


def _check_settings(place: Place) -> None:
    if place.source.holds == "image" and place.settings.modality is None:
        file = layout.site_file(place.site)
        raise BadSetting(file, "modality", "is missing", 'plain images carry none: add, say, modality = "DX"')
    if place.settings.index:
        read_index(place.settings.index)


def _is_known(place: Place, item: Item, entry: Entry | None, recorded: frozenset[str]) -> bool:
    """Whether the ledger has this file already; a file that was only touched counts as known."""
    if entry is None or entry.n_bytes != item.n_bytes or entry.arrival_key not in recorded:
        return False
    if entry.modified_ns == item.modified_ns:
        return True
    data = bytes_of(place, item)
    if data is None or place.door.content_hash(data) != entry.content:
        return False
    place.book.append([replace(entry, modified_ns=item.modified_ns)])
    return True


def _sort_out(place: Place, item: Item, aside: list[Arrival]) -> str | None:
    """Pseudonym of the series that a new file belongs to; None if it was set aside."""
    data = bytes_of(place, item)
    if data is None:
        aside.append(vanished(place, item))
        return None
    try:
        if place.source.holds == "dicom":
            look = glance(data)
            if look.rule is None:
                return place.door.series_base(place.site, look.series_uid)
            end = Outcome(IGNORED, look.rule)
        elif image_format(data) is not None:
            return place.door.series_base(place.site, f"image/{place.door.content_hash(data)}")
        else:
            is_meant = item.address.lower().endswith(IMAGE_NAMES)
            end = Outcome(QUARANTINED, "unreadable_image") if is_meant else Outcome(IGNORED, "not_an_image")
    except UnreadableScan as error:
        is_other = error.reason == "not_dicom" and not claims_to_be_dicom(item.address, data)
        end = Outcome(IGNORED if is_other else QUARANTINED, error.reason, error.detail)
    aside.append(Arrival(entry_of(place, item, data), end, is_listed=True))
    return None
