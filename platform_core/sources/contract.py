"""What every kind of source promises."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from platform_core.settings import SiteSettings


@dataclass(frozen=True, slots=True)
class Item:
    """One file or object as the source lists it; `address` stays behind the door."""

    address: str
    n_bytes: int
    """Size; -1 where the place does not tell (a DICOMweb server)."""
    modified_ns: int
    """When these bytes came to lie here, ns since 1970: of a folder the change time, which no copying tool can set.

    0 where the place does not tell (plain QIDO-RS): then whoever asks notes when it was first seen."""
    series_uid: str = ""
    """SeriesInstanceUID, where the place tells it without opening the file."""
    refusal: str = ""
    """Stable reason code of what must not be opened at all (an archive that cannot be listed safely)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what the source lists, and where the listing goes on.

    `cursor` is saved once the page has been written down. A listing that broke off goes on
    behind it. On the last page it says where the NEXT listing begins: the place in a change
    feed, or empty where the next listing must look at everything again.
    """

    items: tuple[Item, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of place that scans come from; a hospital itself is configuration, never code.

    Contract: `pages` lists the same place twice in the same order, in pages of bounded size, and
    raises `NoSuchPlace` if the place is not there, `SiteUnavailable` if it does not answer now,
    `BadSetting` if it does not let us in.
    `open` returns all bytes of one address, `head` at least the first `n_bytes` of it (or all);
    both raise `NoSuchPlace` if it is gone, `SiteUnavailable` if the place does not answer, and
    `UnreadableScan` if this file alone cannot be read (no rights, a damaged member of an archive).
    `open_all`, where there is one, fetches the items of one series in fewer requests, in any
    order; what it leaves out is gone. `holds` says how the bytes are read: `dicom`, or `image`
    (PNG, JPEG, NIfTI, npz members).
    """

    name: str
    holds: Literal["dicom", "image"]
    pages: Callable[[SiteSettings, str], Iterator[Page]]
    open: Callable[[SiteSettings, str], bytes]
    head: Callable[[SiteSettings, str, int], bytes]
    open_all: Callable[[SiteSettings, Sequence[Item]], Iterator[tuple[Item, bytes]]] | None = None


def list_items(source: Source, settings: SiteSettings) -> Iterator[Item]:
    """Everything at the place, from its beginning; lazy."""
    for page in source.pages(settings, ""):
        yield from page.items
