"""What is held back at the door: shown, decided on again, or released by a person."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from platform_core import layout
from platform_core.dicom.burned_in import BURNED_IN_TEXT
from platform_core.errors import BadRequest, UnknownName
from platform_core.manifest.book import Book, Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load


def held_files(
    workspace: Workspace, site: str | None = None, *, reason: str | None = None, key: str | None = None
) -> list[dict[str, Any]]:
    """Files in quarantine or waiting: site, series_key, arrival_key, outcome, reason, detail, arrived_at."""
    with workspace.lake.connect([layout.ARRIVAL]) as db:
        query = load("platform_core.manifest", "held_files")
        return list(query.run(db, site=site, reason=reason, key=key).to_pylist())


def replay(workspace: Workspace, site: str, *, reason: str | None = None, key: str | None = None) -> int:
    """Let the next run decide again on what is held; returns the number of files it will look at.

    Only at the site's door. Nothing is decided here, and what is sound stays untouched.

    Raises:
        UnknownName: If nothing is held under this reason or key.
    """
    book, bases, alone = _found(workspace, site, reason, key)
    return book.reopen(sorted(bases), sorted(alone))


def release(workspace: Workspace, site: str, key: str, *, because: str) -> int:
    """Say that a person has looked at the pixels of a series: the next run takes it in; returns its files.

    What is released is these files as they are: others of the same series, and those that come later, are looked at.

    Raises:
        UnknownName: If nothing is held under this key.
        BadRequest: If it is held for another reason than what looks like text, or no reason is given.
    """
    held = held_files(workspace, site, key=key)
    reasons = {row["reason"] for row in held}
    if reasons and reasons != {BURNED_IN_TEXT}:
        told = ", ".join(sorted(reasons))
        raise BadRequest(f"{key} is held for {told}: only {BURNED_IN_TEXT} can be released; mend it and replay")
    if not because.strip():
        raise BadRequest("say why it may be released, so that the next person need not look again: --because")
    book, bases, _ = _found(workspace, site, None, key)
    door, keys = open_door(workspace), {row["series_key"] for row in held}
    shown = [entry for base in bases for entry in book.group(base).done if not keys.isdisjoint(_keys_of(door, entry))]
    book.release(shown, because)
    book.reopen(sorted(bases))
    return len(shown)


def _keys_of(door: Door, entry: Entry) -> set[str]:
    """The series that a file went into."""
    return {door.part_key(entry.base or "", part) for part in entry.parts}


def _found(workspace: Workspace, site: str, reason: str | None, key: str | None) -> tuple[Book, set[str], set[str]]:
    """The door book; in it the series, and the files of no series, that are held under a reason or key."""
    workspace.site(site)
    rows = held_files(workspace, site, reason=reason, key=key)
    if not rows:
        known = sorted({str(row["reason"]) for row in held_files(workspace, site)})
        raise UnknownName(f"reason or key held at {site}", reason or key or "any", known)
    book = open_book(open_door(workspace), site)
    series = _series_of(book, [row["arrival_key"] for row in rows])
    bases = {base for base in series.values() if base}
    return book, bases, {arrival for arrival, base in series.items() if not base}


def _series_of(book: Book, arrival_keys: Sequence[str]) -> Mapping[str, str]:
    wanted = set(arrival_keys)
    found: dict[str, str] = defaultdict(str)
    for entry in book.entries():
        if entry.arrival_key in wanted:
            found[entry.arrival_key] = entry.base or ""
    return found
