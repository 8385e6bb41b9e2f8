"""The index of plain images: a CSV at the door that says whose image a file is."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from platform_core.dicom.header import EARLIEST
from platform_core.errors import NoSuchPlace, SchemaMismatch

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class ByFile:
    """Rows by the file that they speak of.

    A row matches an address if one ends with the other, at a folder's border: an index may
    be written from a folder above the source or below it. The longest match wins; of two
    equally long ones neither does.
    """

    rows: Mapping[str, tuple[tuple[str, ...], ...]]
    facts: Mapping[tuple[str, ...], Row]

    def find(self, address: str) -> Row | None:
        """The row of a file, None if there is none or no single one."""
        path = tuple(address.split("/"))
        matches = [(_shared(path, other), other) for other in self.rows.get(path[-1], ())]
        matches = [match for match in matches if match[0]]
        if not matches:
            return None
        best = max(n_shared for n_shared, _ in matches)
        winners = [other for n_shared, other in matches if n_shared == best]
        return self.facts[winners[0]] if len(winners) == 1 else None


def by_file(rows: Iterable[Row]) -> ByFile:
    """Rows that have a column `file`, ready to be asked."""
    names: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    facts: dict[tuple[str, ...], Row] = {}
    for row in rows:
        path = tuple(part for part in row["file"].strip().replace("\\", "/").split("/") if part not in ("", "."))
        if path and path not in facts:
            facts[path] = row
            names[path[-1]].append(path)
    return ByFile({name: tuple(paths) for name, paths in names.items()}, facts)


def read_index(path: str) -> ByFile:
    """The index of a site.

    Raises:
        NoSuchPlace: If there is no such file.
        SchemaMismatch: If it lacks a column.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise NoSuchPlace(path, "a CSV with the columns file and patient_id", "correct `index` in the site's settings")
    return _read(file, file.stat().st_mtime_ns)


def day_of(text: str | None) -> date | None:
    """An ISO date; None for anything else, and for days before all imaging, which say nothing."""
    try:
        day = date.fromisoformat((text or "").strip()[:10])
    except ValueError:
        return None
    return day if day >= EARLIEST else None


def read_rows(file: Path, needed: Iterable[str]) -> list[Row]:
    """The rows of a CSV with a header.

    Raises:
        SchemaMismatch: If it is no such CSV or lacks a column.
    """
    return [row for _, row in read_numbered_rows(file, needed)]


def read_numbered_rows(file: Path, needed: Iterable[str]) -> list[tuple[int, Row]]:
    """As `read_rows`, each row with the line of the file that it ends on, 2 for the first one.

    Raises:
        SchemaMismatch: As `read_rows`.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            found = list(reader.fieldnames or [])
            rows: list[tuple[int, Row]] = [
                (reader.line_num, {key: value or "" for key, value in row.items() if key}) for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SchemaMismatch(file.name, ["a CSV with a header in UTF-8"], []) from error
    missing = [name for name in needed if name not in found]
    if missing:
        raise SchemaMismatch(file.name, missing, found)
    return rows


@lru_cache(maxsize=4)
def _read(file: Path, modified_ns: int) -> ByFile:  # noqa: ARG001 - a changed file is another entry
    return by_file(read_rows(file, ["file", "patient_id"]))


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Folders and name that two paths share at their end, if the shorter one is all shared; else 0."""
    n = min(len(one), len(other))
    return n if one[-n:] == other[-n:] else 0
