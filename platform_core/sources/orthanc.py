"""The change feed of an Orthanc server (1.9.4 or later), beside its DICOMweb root.

The first listing takes everything by pages of instances, having noted where the feed stood; each later
one takes the feed from there: new instances only, late slices among them. The cursor is

    all:<n>:<change>:<seal>:<last>   n instances are listed, the last of them named; the feed stood at <change>
    changes:<change>:<seal>          the feed is read up to <change>

The seal tells whether the change still is the one that it was: a server that was set up anew, or whose
feed was cleared, is listed from the beginning. So is a server from which something was deleted during
the first listing, because its pages then have moved.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from platform_core.errors import BadSetting, NoSuchPlace
from platform_core.sources.contract import Item, Page
from platform_core.sources.paging import PAGE
from platform_core.sources.web import Server


def find_feed(server: Server) -> str | None:
    """The root of the Orthanc server that this DICOMweb server belongs to; None if it is another product."""
    root = server.base.rpartition("/")[0]
    try:
        told = server.ask(f"{root}/system")
        is_orthanc = isinstance(told, dict) and {"ApiVersion", "Version", "Name"} <= told.keys()
        return root if is_orthanc and server.ask(f"{root}/tools/bulk-content", json={"Resources": []}) == [] else None
    except (NoSuchPlace, BadSetting):
        return None


def feed_pages(server: Server, root: str, cursor: str) -> Iterator[Page]:
    """What is new since the cursor; everything if it is empty or no longer means anything."""
    kind, _, rest = cursor.partition(":")
    if kind == "all":
        return _everything(server, root, rest)
    if kind == "changes":
        change, _, seal = rest.partition(":")
        if _sealed(server.ask(f"{root}/changes", {"since": int(change) - 1, "limit": 1})) == (int(change), seal):
            return _changes(server, root, int(change), seal)
    return _everything(server, root, "")


def _everything(server: Server, root: str, rest: str) -> Iterator[Page]:
    if rest:
        n_text, change_text, seal, last = rest.split(":")
        n_listed, change = int(n_text), int(change_text)
    else:
        change, seal = _sealed(server.ask(f"{root}/changes?last"))
        n_listed, last = 0, ""
    is_last = False
    while not is_last:
        start = max(0, n_listed - 1)
        keys = server.ask(f"{root}/instances", {"since": start, "limit": PAGE})
        is_last, n_listed = len(keys) < PAGE, start + len(keys)
        is_unmoved = bool(last) and keys[:1] == [last]
        if last and not is_unmoved:
            change, seal = 0, ""
        items = _items(server, root, keys[1:] if is_unmoved else keys)
        last = keys[-1] if keys else last
        then = f"changes:{change}:{seal}" if change else ""
        yield Page(items, then if is_last else f"all:{n_listed}:{change}:{seal}:{last}")


def _changes(server: Server, root: str, change: int, seal: str) -> Iterator[Page]:
    is_last = False
    while not is_last:
        told = server.ask(f"{root}/changes", {"since": change, "limit": PAGE})
        keys = dict.fromkeys(one["ID"] for one in told["Changes"] if one["ChangeType"] == "NewInstance")
        if told["Changes"]:
            change, seal = _sealed(told)
        is_last = told["Done"] or not told["Changes"]
        yield Page(_items(server, root, keys), f"changes:{change}:{seal}")


def _sealed(told: Any) -> tuple[int, str]:
    """The last change of an answer, and its seal."""
    if not told["Changes"]:
        return 0, ""
    last = told["Changes"][-1]
    return int(last["Seq"]), sha256(f"{last['ID']} {last['Date']}".encode()).hexdigest()[:16]


def _items(server: Server, root: str, keys: Iterable[str]) -> tuple[Item, ...]:
    """The instances of these keys that are still there, in this order."""
    instances = _resources(server, root, keys)
    series = _resources(server, root, dict.fromkeys(one["ParentSeries"] for one in instances))
    studies = _resources(server, root, dict.fromkeys(one["ParentStudy"] for one in series))
    study_uids = {one["ID"]: one["MainDicomTags"]["StudyInstanceUID"] for one in studies}
    uids = {
        one["ID"]: (study_uids[one["ParentStudy"]], one["MainDicomTags"]["SeriesInstanceUID"])
        for one in series
        if one["ParentStudy"] in study_uids
    }
    return tuple(_item(one, *uids[one["ParentSeries"]]) for one in instances if one["ParentSeries"] in uids)


def _resources(server: Server, root: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    wanted = list(keys)
    if not wanted:
        return []
    found = server.ask(f"{root}/tools/bulk-content", json={"Resources": wanted, "Metadata": True})
    by_key = {one["ID"]: one for one in found}
    return [by_key[key] for key in wanted if key in by_key]


def _item(instance: dict[str, Any], study_uid: str, series_uid: str) -> Item:
    address = f"{study_uid}/{series_uid}/{instance['MainDicomTags']['SOPInstanceUID']}"
    return Item(address, -1, _time_ns(instance.get("Metadata", {}).get("ReceptionDate", "")), series_uid)


def _time_ns(text: str) -> int:
    """Nanoseconds since 1970 of what Orthanc writes, UTC; 0 if it is no time."""
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()) * 10**9
    except ValueError:
        return 0
