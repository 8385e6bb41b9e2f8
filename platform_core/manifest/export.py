"""Scans that leave: accepted series of a site as de-identified DICOM, written at the door.

The original files are read again, cleaned by the rules of `dicom/deidentify.py` and named by pseudonyms. A file that
has changed since it was taken in stays behind: nobody has looked at what it holds now. The same export twice gives
the same bytes; a folder that holds an earlier export is brought to the new one.
"""

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

from platform_core.dicom.confidentiality import CODES, EDITION
from platform_core.dicom.deidentify import Audit, Pseudonyms, deidentified
from platform_core.errors import BadRequest, NoSuchPlace, UnreadableScan
from platform_core.manifest.arrivals import ACCEPTED, past_outcomes
from platform_core.manifest.book import Book, Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES
from platform_core.sources.contract import Source

AUDIT, MANIFEST = "audit.json", "manifest.csv"
COLUMNS = ("file", "series_key", "revision", "study_key", "patient_key", "modality", "n_bytes", "sha256")
EXPORTED = re.compile(r"[0-9a-f]{20}\.dcm(\.part)?")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCount:
    """What an export came to; all but `n_series` count files."""

    site: str
    n_series: int = 0
    """Parts of series of which at least one file left."""
    n_files: int = 0
    n_held: int = 0
    """Stayed: a part that they also hold waits for a person, or they are copies of what left."""
    n_changed: int = 0
    """Stayed: gone from the source, or other bytes than were taken in."""
    n_refused: int = 0
    """Stayed: cannot be de-identified."""

    @property
    def summary(self) -> str:
        """One line for the person at the terminal."""
        stayed = f"{self.n_held} held back or copies, {self.n_changed} gone or changed, {self.n_refused} refused"
        return f"{self.site}: {self.n_files} files of {self.n_series} series exported; stayed: {stayed}"


@dataclass(frozen=True, slots=True, repr=False)
class _Way:
    """The way out of one site."""

    settings: SiteSettings
    source: Source
    door: Door
    folder: Path


def export_site(workspace: Workspace, site: str, folder: Path, *, keys: Sequence[str] = ()) -> ExportCount:
    """Write accepted series of a site as de-identified DICOM, with `manifest.csv` and `audit.json` beside them.

    Args:
        workspace: Where the site is.
        site: Whose scans.
        folder: Empty, new, or that of an earlier export, of which what is not exported now is removed.
        keys: Which series; all accepted ones by default.

    Raises:
        BadRequest: If the site holds plain images, a key names no accepted series, or the folder holds other things.
        UnknownName: If the site is not configured.
        WrongKey: If the pseudonym key is not this workspace's.
        SiteUnavailable: If the source does not answer.
    """
    settings, door = workspace.site(site), open_door(workspace)
    source = SOURCES[settings.source]
    if source.holds != "dicom":
        raise BadRequest(f"site {site!r} holds plain images; only DICOM has a header to de-identify, copy the files")
    rows = {str(row["series_key"]): row for row in current_series(workspace, site).to_pylist()}
    wanted = _wanted(site, rows, keys)
    _prepare(folder)
    way = _Way(settings, source, door, folder)
    entries = list(_taken_in(open_book(door, site)))
    past = past_outcomes(workspace, site, [entry.arrival_key for entry in entries])
    accepted = {key for key, before in past.items() if before.end.outcome == ACCEPTED}
    ends: Counter[str] = Counter()
    audit = Audit({})
    told: list[dict[str, Any]] = []
    for entry in entries:
        parts = [door.part_key(entry.base or "", part) for part in entry.parts]
        if wanted.isdisjoint(parts):
            continue
        is_whole = all(part in rows for part in parts) and entry.arrival_key in accepted
        end, counts, out = _send(way, entry, rows[parts[0]]) if is_whole else ("held", Audit({}), [])
        ends[end] += 1
        audit += counts
        told += [fact | _facts(rows[part]) for fact in out for part in parts if part in wanted]
    n_series = len({row["series_key"] for row in told})
    count = ExportCount(site=site, n_series=n_series, **{f"n_{end}": n for end, n in ends.items()})
    _finish(folder, told, audit, count)
    return count


def _wanted(site: str, rows: Mapping[str, Row], keys: Sequence[str]) -> set[str]:
    missing = sorted(set(keys) - set(rows))
    if missing:
        raise BadRequest(
            f"{site}: {', '.join(missing)}: no accepted series of this name; what is in quarantine is never exported"
        )
    return set(keys) or set(rows)


def _prepare(folder: Path) -> None:
    """A folder of this export alone; an audit that says `unfinished` marks it until the export is done."""
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"{folder} is a file; an export needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / AUDIT).exists():
        raise BadRequest(f"{folder} holds other files; choose an empty folder or that of an earlier export")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / AUDIT, b'{"state": "unfinished"}\n')


def _taken_in(book: Book) -> Iterator[Entry]:
    """Every file of the door book that went into a part, in the order of series and address."""
    yield from sorted(
        (entry for entry in book.entries() if entry.base and entry.parts), key=lambda e: (e.base or "", e.address)
    )


def _send(way: _Way, entry: Entry, row: Row) -> tuple[str, Audit, list[dict[str, Any]]]:
    """One file on its way out: how it ended, what was done to it, and what the manifest says of it."""
    try:
        data = way.source.open(way.settings, entry.address)
    except (NoSuchPlace, UnreadableScan):
        return "changed", Audit({}), []
    if way.door.content_hash(data) != entry.content:
        return "changed", Audit({}), []
    try:
        clean, audit = deidentified(data, _pseudonyms(way.door, row["patient_key"]))
    except UnreadableScan:
        return "refused", Audit({}), []
    file = f"{row['patient_key']}/{row['study_key']}/{entry.base}/{entry.arrival_key}.dcm"
    path = way.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, clean)
    return "files", audit, [{"file": file, "n_bytes": len(clean), "sha256": hashlib.sha256(clean).hexdigest()}]


def _pseudonyms(door: Door, patient_key: str) -> Pseudonyms:
    """Those of the patient under whom the manifest has the series: a corrected identity counts (`patients.py`)."""

    def shift(day: date) -> date:
        return door.shift_patient_date(patient_key, day)

    return Pseudonyms(patient=patient_key, uid=door.uid, shift_date=shift)


def _facts(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("series_key", "revision", "study_key", "patient_key", "modality")}


def _finish(folder: Path, told: Sequence[Row], audit: Audit, count: ExportCount) -> None:
    """Remove what an earlier export left, then say what is there."""
    kept = {folder / row["file"] for row in told}
    for path in sorted(folder.rglob("*.dcm*")):
        if path not in kept and EXPORTED.fullmatch(path.name):
            path.unlink()
    lines = StringIO(newline="")
    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(told, key=lambda row: (row["file"], row["series_key"])))
    _write(folder / MANIFEST, lines.getvalue().encode())
    facts = {
        "state": "done",
        "rules": EDITION,
        "options": dict(CODES),
        "files": asdict(count),
        "elements": audit.counts,
    }
    _write(folder / AUDIT, (json.dumps(facts, indent=2) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)  # noqa: PTH105 - says what it does
