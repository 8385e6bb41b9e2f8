"""What every kind of source promises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from platform_core.settings import SiteSettings


@dataclass(frozen=True, slots=True)
class Item:
    """One file or object as the source lists it; `address` stays behind the door."""

    address: str
    n_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of place that scans come from; a hospital itself is configuration, never code.

    Contract: `items` lists the same place twice in the same order and raises `NoSuchPlace`
    if the place is not there; `open` returns the bytes of one address. `holds` says how the
    bytes are read: `dicom`, or `image` (PNG, JPEG, NIfTI, npz members).
    """

    name: str
    holds: Literal["dicom", "image"]
    items: Callable[[SiteSettings], Iterator[Item]]
    open: Callable[[SiteSettings, str], bytes]
