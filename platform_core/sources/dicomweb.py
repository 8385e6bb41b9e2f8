"""A DICOMweb server: listed by QIDO-RS or by the change feed of Orthanc, read by WADO-RS (DICOM PS3.18).

The path is the root of its services, `https://host/dicom-web`. An address is `study/series/instance`, by
UID. `secret_env` names a variable with `user:password` or a token. Certificates are verified.

A server without a change feed is listed whole every time, study by study. It does not say when an
instance came: `modified_ns` is 0, and a series is at rest when it was seen unchanged for long enough.
Its pages may move while something is added or deleted; what a listing so misses, the next one finds.
An object comes in the encoding in which the server stores it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote

from platform_core.errors import NoSuchPlace, SiteUnavailable
from platform_core.settings import SiteSettings
from platform_core.sources.contract import Item, Page, Source
from platform_core.sources.orthanc import feed_pages, find_feed
from platform_core.sources.paging import PAGE
from platform_core.sources.web import WHAT, Server, Transient, again, attempts, server_of

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""As stored: PS3.18, 8.7.3.5.2."""
FEW = 3
"""Up to so many instances are fetched one by one: one late slice is no reason to fetch a whole series."""
LIMIT = 500
"""Records of one query."""
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
N_SERIES, N_INSTANCES = "00201206", "00201209"
_UID = re.compile(r"[0-9A-Za-z._-]*[0-9A-Za-z_-][0-9A-Za-z._-]*")
"""Wider than the standard, because servers are, but nothing that means something in an address."""

_Place = tuple[int, int, int]
"""Number of the study, of the series in it, of the instance in that."""


def _pages(settings: SiteSettings, cursor: str) -> Iterator[Page]:
    server = server_of(settings)
    root = find_feed(server)
    if root is None:
        yield from _query_pages(server, cursor)
        return
    server.ask(f"{server.base}/studies", {"limit": 1})  # the feed lies beside the address that the settings name
    yield from feed_pages(server, root, cursor)


def _query_pages(server: Server, cursor: str) -> Iterator[Page]:
    """By QIDO-RS; the cursor is `query:<study>/<series>/<instance>`, the next to be listed, by number."""
    kind, _, rest = cursor.partition(":")
    study, series, instance = map(int, rest.split("/")) if kind == "query" else (0, 0, 0)
    page: list[Item] = []
    for place, item in _instances(server, (study, series, instance)):
        if len(page) == PAGE:
            yield Page(tuple(page), "query:{}/{}/{}".format(*place))
            page = []
        page.append(item)
    yield Page(tuple(page))


def _instances(server: Server, start: _Place) -> Iterator[tuple[_Place, Item]]:
    for i, study in _records(server, "studies", STUDY, start[0]):
        within = f"studies/{quote(_value(study, STUDY), safe='')}/series"
        first = start[1] if i == start[0] else 0
        for j, series in _records(server, within, SERIES, first, _number(study, N_SERIES)):
            within_series = f"{within}/{quote(_value(series, SERIES), safe='')}/instances"
            first = start[2] if (i, j) == start[:2] else 0
            for k, instance in _records(server, within_series, INSTANCE, first, _number(series, N_INSTANCES)):
                yield (i, j, k), _item(study, series, instance)


def _records(
    server: Server, path: str, key: str, offset: int, n_stated: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """All records of a query from `offset` on, each with its number.

    A server may give fewer than it was asked for, so the end is where no more come; the number that it
    states only spares that last question. One that knows no offset gives the same records again.
    """
    first = None
    counts = {"studies": N_SERIES, "series": N_INSTANCES}.get(path.rpartition("/")[2])
    more = {"includefield": counts} if counts else {}
    while True:
        found = server.ask(f"{server.base}/{path}", {"limit": LIMIT, "offset": offset, **more})
        if not found or found[0].get(key) == first:
            return
        first = found[0].get(key)
        for record in found:
            yield offset, record
            offset += 1
        if n_stated is not None and offset >= n_stated and len(found) < LIMIT:
            return


def _item(study: dict[str, Any], series: dict[str, Any], instance: dict[str, Any]) -> Item:
    uids = _value(study, STUDY), _value(series, SERIES), _value(instance, INSTANCE)
    refusal = "" if all(_UID.fullmatch(uid) for uid in uids) else "unsafe_uid"
    return Item("/".join(quote(uid, safe="") for uid in uids), -1, 0, uids[1], refusal)


def _value(record: dict[str, Any], tag: str) -> str:
    try:
        return str(record[tag]["Value"][0])
    except (KeyError, IndexError, TypeError):
        raise SiteUnavailable(WHAT, "its answer lacks the UIDs that QIDO-RS promises") from None


def _number(record: dict[str, Any], tag: str) -> int | None:
    try:
        return int(record[tag]["Value"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _open(settings: SiteSettings, address: str) -> bytes:
    server = server_of(settings)
    found: list[bytes] = again(lambda: list(server.parts(_url(server, address), ACCEPT)))
    if not found:
        raise _gone()
    return found[0]


def _head(settings: SiteSettings, address: str, _n_bytes: int) -> bytes:
    return _open(settings, address)


def _open_all(settings: SiteSettings, items: Sequence[Item]) -> Iterator[tuple[Item, bytes]]:
    by_series: dict[str, dict[str, Item]] = {}
    for item in items:
        series, _, instance = item.address.rpartition("/")
        by_series.setdefault(series, {})[instance] = item
    server = server_of(settings)
    for series, wanted in by_series.items():
        if len(wanted) > FEW:
            yield from _whole_series(server, series, wanted)
        yield from _one_by_one(settings, wanted)


def _whole_series(server: Server, series: str, wanted: dict[str, Item]) -> Iterator[tuple[Item, bytes]]:
    """What is wanted of a series, in one request if it does not break off; takes what came out of `wanted`."""
    for _ in attempts():
        try:
            with closing(server.parts(_url(server, series), ACCEPT)) as parts:
                for data in parts:
                    item = wanted.pop(_instance_uid(data), None)
                    if item is not None:
                        yield item, data
        except Transient:
            continue
        except NoSuchPlace:
            return
        else:
            return


def _one_by_one(settings: SiteSettings, wanted: dict[str, Item]) -> Iterator[tuple[Item, bytes]]:
    for item in wanted.values():
        try:
            yield item, _open(settings, item.address)
        except NoSuchPlace:
            continue


def _url(server: Server, address: str) -> str:
    """Of `study/series` or `study/series/instance`."""
    uids = address.split("/")
    if not 2 <= len(uids) <= 3 or not all(_UID.fullmatch(uid) for uid in uids):
        raise _gone()
    levels = ("studies", "series", "instances")
    return "/".join([server.base, *(f"{level}/{uid}" for level, uid in zip(levels, uids, strict=False))])


def _gone() -> NoSuchPlace:
    return NoSuchPlace("an instance of the source", "an instance that was listed", "run again")


def _instance_uid(data: bytes) -> str:
    """(0002,0003) of a file, empty if none; the file meta information is explicit little endian (PS3.10, 7.1)."""
    at = 132
    while data[at : at + 2] == b"\2\0":
        is_long = data[at + 4 : at + 6] in {b"OB", b"UN"}
        start = at + (12 if is_long else 8)
        end = start + int.from_bytes(data[start - (4 if is_long else 2) : start], "little")
        if data[at + 2 : at + 4] == b"\3\0":
            return data[start:end].decode("ascii", "replace").rstrip("\0 ")
        at = end
    return ""


DICOMWEB = Source(name="dicomweb", holds="dicom", pages=_pages, open=_open, head=_head, open_all=_open_all)
