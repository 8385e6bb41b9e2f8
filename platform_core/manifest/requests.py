"""Scans that wait for a label: what was asked for, what is open, and the list by which the hospital finds them.

The list names files and series as the hospital does, so it is written at the site's door alone, for its owner's eyes,
outside every workspace. On another machine it holds pseudonyms only.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.dicom.rules import HEAD_BYTES, glance_at_head
from platform_core.errors import BadRequest, PlatformError, WrongKey
from platform_core.manifest.book import Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.label_file import keys_of
from platform_core.manifest.labels import asked_table, label_verdicts
from platform_core.manifest.workspace import Workspace
from platform_core.sources import SOURCES

COLUMNS = (
    "series_key",
    "series_uid",
    "file",
    "target",
    "classes",
    "value",
    "reader",
    "guideline",
    "labelled_on",
    "sampling_probability",
)
"""As `label import` reads them, and `mask_file` where masks are asked for; an empty `value` is not stated."""
OF_PERIOD = ("site", "target", "stratum", "period_start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    """What was written for the people who read scans."""

    site: str
    target: str
    n_scans: int
    file: Path | None
    """None if nothing is open, so that nothing was written."""
    n_placed: int
    """Scans of which the list says where they lie."""
    door: str
    """The worker at the site's door."""

    @property
    def summary(self) -> str:
        """A few lines for the person at the terminal."""
        if self.file is None:
            return f"{self.site}: no scan waits for a label of {self.target}; --n asks for some"
        back = f"sitedrift label import {self.file} --site {self.site} --target {self.target}"
        lines = [f"Wrote {self.file}: {self.n_scans} scans. Fill in `value`, then: {back}"]
        if self.n_placed < self.n_scans:
            n = self.n_scans - self.n_placed
            lines.append(
                f"{n} of them by series_key alone: where they lie stands in the door book of {self.site}, which is "
                f"with the worker {self.door!r}; run `sitedrift label request {self.site} --target {self.target}` there"
            )
        if self.n_placed:
            lines.append("The list names scans as the hospital does: keep it at the door, and delete it when done.")
        return "\n".join(lines)


def asked_scans(workspace: Workspace, target: str, site: str | None = None) -> list[dict[str, Any]]:
    """Every scan that was asked for: `requested`, target, is_open (no label in force) and is_undecided (contradicting).

    In order of site and series.
    """
    verdicts = label_verdicts(workspace, target).to_pylist()
    values = {(row["site"], row["series_key"]): row["value"] for row in verdicts}
    table = asked_table(workspace, target)
    rows = (table if site is None else table.filter(pc.field("site") == site)).to_pylist()
    told = []
    for row in rows:
        key = row["site"], row["series_key"]
        is_undecided = key in values and values[key] is None
        told.append(row | {"target": target, "is_open": values.get(key) is None, "is_undecided": is_undecided})
    return told


def request_counts(workspace: Workspace, site: str | None = None) -> list[dict[str, Any]]:
    """How many scans each period has asked for, and how many are open: one row per site, target, stratum and period."""
    rows = [row for target in workspace.settings.target for row in asked_scans(workspace, target, site)]
    rows.sort(key=lambda row: tuple(str(row[name]) for name in OF_PERIOD))
    counts = []
    for period, members in groupby(rows, key=itemgetter(*OF_PERIOD)):
        scans = list(members)
        counts.append(
            dict(zip(OF_PERIOD, period, strict=True))
            | {
                "asked": len(scans),
                "open": sum(row["is_open"] for row in scans),
                "undecided": sum(row["is_undecided"] for row in scans),
                "asked_since": min(row["requested_at"] for row in scans),
            }
        )
    return counts


def write_worklist(workspace: Workspace, site: str, target: str, file: Path) -> Worklist:
    """Write the open scans of a site and target as a CSV that `label import` takes back.

    Args:
        workspace: Where they were asked for.
        site: The hospital.
        target: The task.
        file: The list; only its owner may read it.

    Raises:
        UnknownName: If the site or target is not configured.
        BadRequest: If the file would lie in a workspace, or is there already: somebody may have begun to fill it in.
    """
    settings, classes = workspace.site(site), workspace.target(target).classes
    scans = [row for row in asked_scans(workspace, target, site) if row["is_open"]]
    if not scans:
        return Worklist(site=site, target=target, n_scans=0, file=None, n_placed=0, door=settings.door)
    _require_place(workspace, file)
    places = _places(workspace, site, [row["series_key"] for row in scans])
    is_drawn = workspace.target(target).task == "segmentation"
    blank = dict.fromkeys((*COLUMNS, "mask_file") if is_drawn else COLUMNS, "")
    rows = [
        blank
        | places.get(row["series_key"], {})
        | {
            "series_key": row["series_key"],
            "target": target,
            "classes": " | ".join(classes),
            "sampling_probability": str(row["sampling_probability"]),
        }
        for row in scans
    ]
    _write(file, rows)
    return Worklist(site=site, target=target, n_scans=len(rows), file=file, n_placed=len(places), door=settings.door)


def _require_place(workspace: Workspace, file: Path) -> None:
    here = file.expanduser().resolve()
    if any((folder / layout.SETTINGS).exists() or str(folder) == workspace.uri for folder in here.parents):
        raise BadRequest(
            f"{file} would lie inside a workspace, which others read, and the list names scans as the hospital does; "
            "choose another folder: --out FILE"
        )
    if here.exists():
        raise BadRequest(f"{file} is there already, and may be filled in; import it, or choose another name: --out")
    if not here.parent.is_dir():
        raise BadRequest(f"{here.parent} is no folder; make it, or choose another one: --out FILE")


def _write(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    text = StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    handle = os.open(file.expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
        out.write(text.getvalue())


def _places(workspace: Workspace, site: str, keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """Where the first file of each series lies, and its SeriesInstanceUID if it has one; nothing away from the door."""
    try:
        door = open_door(workspace)
    except WrongKey:
        return {}
    book = open_book(door, site)
    if not book.file.exists():
        return {}
    wanted, found = set(keys), {}
    for entry in book.entries():
        for key in wanted.intersection(keys_of(door, entry)):
            found[key] = {"file": entry.address, "series_uid": _series_uid(workspace, site, door, entry)}
            wanted.discard(key)
        if not wanted:
            break
    return found


def _series_uid(workspace: Workspace, site: str, door: Door, entry: Entry) -> str:
    """What the hospital calls the series; empty if the file is gone, has changed, or is no DICOM."""
    settings = workspace.site(site)
    source = SOURCES[settings.source]
    if source.holds != "dicom":
        return ""
    try:
        look = glance_at_head(source.head(settings, entry.address, HEAD_BYTES))
    except PlatformError:
        return ""
    uid = "" if look is None else look.series_uid
    return uid if uid and door.series_base(site, uid) == entry.base else ""
