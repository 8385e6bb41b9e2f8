"""The rows of a CSV of labels, and the scans that they are about; it is read at the door and stays there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from platform_core.errors import BadInput, NoSuchPlace, SchemaMismatch
from platform_core.manifest.book import Entry, open_book
from platform_core.manifest.door import Door
from platform_core.manifest.free_text import what_identifies
from platform_core.manifest.index import Row, by_file, read_numbered_rows
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace

WHOSE = ("series_key", "series_uid", "study_uid", "file")
"""Columns that say which scan a row is about; the first that is filled in counts."""
MAX_TOLD = 10


@dataclass(frozen=True, slots=True)
class StatedRow:
    """A row that states a class."""

    line: int
    row: Row
    value: str
    """The class as the target spells it."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a CSV of labels states."""

    n_rows: int
    stated: tuple[StatedRow, ...]
    n_not_stated: int
    refused: tuple[int, ...]
    """Lines with what is no class, that are meant for another target, or in which `fault_in` finds something."""


def read_label_file(file: Path, target: str, classes: Sequence[str], value_column: str) -> LabelFile:
    """Read a CSV of labels; a row that cannot be used is refused by its line, the others go on.

    Raises:
        NoSuchPlace: If there is no such file.
        SchemaMismatch: If columns are missing.
        BadInput: If no row states a class: the column or the classes are others.
    """
    rows = read_rows(file, value_column)
    spelt = {value: as_class(value, classes) for value in {row[value_column].strip() for _, row in rows}}
    stated, refused, n_not_stated = [], [], 0
    for line, row in rows:
        text = row[value_column].strip()
        value = spelt[text]
        if not text:
            n_not_stated += 1
        elif value is None or row.get("target", "").strip() not in ("", target) or fault_in(row):
            refused.append(line)
        else:
            stated.append(StatedRow(line, row, value))
    if refused and not stated:
        raise BadInput(
            f"labels: expected {' or '.join(map(repr, classes))} of target {target} in column {value_column!r}, found "
            f"neither in {spelt_lines(refused)}; nothing was written: correct the file, the value column, or `classes` "
            "of the target; a row is also refused for another target, a sampling_probability that is not above 0 and "
            "at most 1, or a guideline or reader that could identify a patient (a reader's code, like R1, does not)"
        )
    return LabelFile(len(rows), tuple(stated), n_not_stated, tuple(refused))


def read_rows(file: Path, column: str) -> list[tuple[int, Row]]:
    """Every row of a CSV with that column and one of `WHOSE`, with its line.

    Raises:
        NoSuchPlace: If there is no such file.
        SchemaMismatch: If columns are missing.
    """
    if not file.is_file():
        raise NoSuchPlace(str(file), "a CSV of labels", "correct the name of the file")
    rows = read_numbered_rows(file, [column])
    columns = list(rows[0][1]) if rows else list(WHOSE)
    if not set(WHOSE) & set(columns):
        raise SchemaMismatch(file.name, [" or ".join(WHOSE)], columns)
    return rows


def fault_in(row: Row) -> str | None:
    """Why what a row says beside its class cannot be taken in, in words that repeat none of it; None if it can.

    A reader's name becomes a key at the door, which is why it must not be a patient's: a withdrawal looks for patients
    under their own keys, and a column of patients taken for readers would make every row a reader of its own.
    """
    chance = row.get("sampling_probability", "").strip()
    if chance and not 0 < (number_in(chance) or 0) <= 1:
        return "sampling_probability: expected a number above 0 and at most 1"
    for column in ("guideline", "reader"):
        found = what_identifies(row.get(column, "").strip())
        if found:
            return f"{column}: found {found}"
    return None


def as_class(value: str, classes: Sequence[str]) -> str | None:
    """A value as the target spells it: `1.0` and `1` are one class; None if it is no class."""
    if value in classes:
        return value
    number = number_in(value)
    return next((name for name in classes if number is not None and number_in(name) == number), None)


def number_in(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def spelt_lines(lines: Sequence[int]) -> str:
    """Lines of a file, the first ten of them: what they hold is not repeated, as it may name somebody."""
    told = ", ".join(map(str, lines[:MAX_TOLD])) + (", ..." if len(lines) > MAX_TOLD else "")
    return f"line {told}" if len(lines) == 1 else f"lines {told}"


@dataclass(frozen=True)
class Matcher:
    """Finds the series that rows of one file are about; nothing is read before a row asks for it."""

    workspace: Workspace
    site: str
    door: Door
    rows: Sequence[StatedRow]

    def series_of(self, row: Row) -> list[str]:
        """Keys of the series that a row is about; none if the manifest does not know them."""
        column = next((name for name in WHOSE if row.get(name, "").strip()), None)
        if column is None:
            return []
        return self._ways[column](row[column].strip())

    @cached_property
    def _ways(self) -> Mapping[str, Callable[[str], list[str]]]:
        return {
            "series_key": lambda key: [key] if key in self._known else [],
            "series_uid": self._by_series,
            "study_uid": lambda uid: self._by_study.get(self.door.study_key(self.site, uid), []),
            "file": lambda name: self._by_name.get(name, []),
        }

    def _by_series(self, uid: str) -> list[str]:
        keys = (self.door.series_key(self.site, uid, part) for part in range(self._n_parts))
        return [key for key in keys if key in self._known]

    @cached_property
    def _known(self) -> dict[str, tuple[str, int]]:
        """Series, with their study and number of parts."""
        columns = ["series_key", "study_key", "n_parts"]
        rows = current_series(self.workspace, self.site).select(columns).to_pylist()
        return {row["series_key"]: (row["study_key"], int(row["n_parts"])) for row in rows}

    @cached_property
    def _n_parts(self) -> int:
        return max((n for _, n in self._known.values()), default=0)

    @cached_property
    def _by_study(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, (study, _) in self._known.items():
            found.setdefault(study, []).append(key)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Series by the files that rows name, by the addresses of the door book."""
        index = by_file(one.row for one in self.rows if one.row.get("file", "").strip())
        keys: dict[str, list[str]] = {}
        for entry in open_book(self.door, self.site).entries():
            row = index.find(entry.address)
            if row is not None:
                keys.setdefault(row["file"].strip(), []).extend(keys_of(self.door, entry))
        return {name: list(dict.fromkeys(found)) for name, found in keys.items()}


def keys_of(door: Door, entry: Entry) -> list[str]:
    """Keys of the series that a file of the door book went into."""
    return [] if entry.base is None else [door.part_key(entry.base, part) for part in entry.parts]
