"""Synthetic identities go through the door with every shard; nothing may be left of them."""

from dataclasses import replace

from platform_core import layout
from platform_core.dicom.canary import Canary
from platform_core.dicom.rules import glance
from platform_core.errors import IdentityLeak
from platform_core.imaging.nifti import encode_volume
from platform_core.manifest.arrivals import arrival_row
from platform_core.manifest.book import Entry, Group
from platform_core.manifest.canaries import CanaryScore, Passage, plant, quality_row, send_through
from platform_core.manifest.fetched import open_entry, read_group
from platform_core.manifest.index import ByFile
from platform_core.manifest.parts import decide_parts, ends_of
from platform_core.manifest.place import Place
from platform_core.manifest.reading import Room
from platform_core.manifest.schemas import QUALITY
from platform_core.manifest.stages import transaction
from platform_core.sources import SOURCES
from platform_core.storage.tables import rows_of


def send_canaries(place: Place, shard: str, index: ByFile | None) -> CanaryScore:
    """Take in the canaries of a shard by the functions that real scans go through; search all that would be written.

    Raises:
        IdentityLeak: If anything of one was found: nothing of the shard is written then.
    """
    score = send_through(plant(place.door, shard), lambda canary: _rehearse(place, canary, index))
    row = rows_of(QUALITY, [quality_row(place.site, place.run, score)])
    place.workspace.lake.append(layout.QUALITY, row, transaction=transaction("canaries", place.site, shard))
    if not score.is_clean:
        raise IdentityLeak(place.site, score.survivors)
    return score


def _rehearse(place: Place, canary: Canary, index: ByFile | None) -> Passage:
    """What the door would write of one canary; the door book, which may know addresses, is left out."""
    place = replace(place, source=SOURCES["folder"])  # canaries are DICOM at every site
    base = place.door.series_base(place.site, glance(canary.files[0][1]).series_uid)
    room = Room(len(canary.files))
    entries = [Entry(address=name, n_bytes=len(data), modified_ns=0, base=base) for name, data in canary.files]
    fetched = [
        open_entry(place, entry, data, room, is_listed=True)
        for entry, (_, data) in zip(entries, canary.files, strict=True)
    ]
    group = Group(base, (), ())
    reading = read_group(place, group, fetched, room, {}, index)
    parts = decide_parts(place, group, reading, fetched, {}, index)
    ends = ends_of(place, base, reading, fetched, parts)
    volumes = [encode_volume(part.taken.volume) for part in parts if part.taken.volume is not None]
    rows = [part.row for part in parts]
    told = [arrival_row(place.site, end, place.run, place.at) for end in ends]
    refusal = next((part.taken.refusal[0] for part in parts if part.taken.refusal is not None), None)
    return Passage(refusal, (rows, told, volumes))
