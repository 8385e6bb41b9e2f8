"""Labels: what readers say of scans. Hospital identifiers become keys here, in the calling process."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadInput, NoSuchPlace, SchemaMismatch
from platform_core.manifest.book import Entry, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.index import Row, by_file, day_of, read_rows
from platform_core.manifest.schemas import LABEL
from platform_core.manifest.stages import current_series, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.storage.tables import rows_of

HERE = "platform_core.manifest"
WHOSE = ("series_uid", "study_uid", "file")
"""Columns that say which scan a row is about; the first that the file has is used."""
MAX_TOLD = 10

Keys = Callable[[Row], Sequence[str]]
Told = tuple[str, str | None, str | None, str | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """What one file of labels came to: `n_rows = n_matched + n_not_stated + n_unknown`."""

    site: str
    target: str
    n_rows: int
    n_matched: int
    """Rows that label a scan the manifest knows."""
    n_not_stated: int
    """Rows without a value."""
    n_unknown: int
    """Rows about scans that the manifest does not know."""
    n_labels: int
    """Labels in the file, one per series."""
    n_written: int
    """Labels that were new or have changed."""
    by_value: Mapping[str, int]

    @property
    def summary(self) -> str:
        """One line for the person at the terminal."""
        classes = ", ".join(f"{n} {value!r}" for value, n in self.by_value.items()) or "none"
        return (
            f"{self.site}, {self.target}: {self.n_rows} rows: {self.n_matched} match a scan, {self.n_not_stated} have "
            f"no value, {self.n_unknown} match no scan here; labels: {classes}; {self.n_written} written"
        )


def import_labels(
    workspace: Workspace,
    site: str,
    target: str,
    file: Path,
    *,
    run: str,
    at: datetime,
    value_column: str = "value",
) -> LabelCount:
    """Take in a CSV of labels; a label given before is superseded, an equal one is not written again.

    The file has a header with `series_uid`, `study_uid` or `file` (a path that ends as the
    source lists it), the value column, and if known `reader`, `guideline`, `labelled_on`
    (ISO date) and `sampling_probability`.

    Args:
        workspace: Where the labels go.
        site: Whose scans they are about.
        target: The task, as configured.
        file: The CSV, which stays at the door.
        run: The run that imports.
        at: The moment of it, UTC.
        value_column: The column with the class.

    Raises:
        UnknownName: If the site or target is not configured.
        NoSuchPlace: If there is no such file.
        SchemaMismatch: If columns are missing.
        BadInput: If a value is none of the target's classes; all such values are named, and nothing is written.
    """
    del at
    workspace.site(site)
    classes = workspace.target(target).classes
    if not file.is_file():
        raise NoSuchPlace(str(file), "a CSV of labels", "correct the name of the file")
    rows = read_rows(file, [value_column])
    stated = [(row, row[value_column].strip()) for row in rows if row[value_column].strip()]
    values = _as_classes((value for _, value in stated), classes)
    door = open_door(workspace)
    keys_of = _matcher(workspace, site, door, file, rows)
    matched = [(row, values[value], keys_of(row)) for row, value in stated]
    found = {key: _told(door, site, row, value) for row, value, keys in matched for key in keys}
    n_written = _write(workspace, site, target, found, run)
    n_matched = sum(bool(keys) for _, _, keys in matched)
    return LabelCount(
        site=site,
        target=target,
        n_rows=len(rows),
        n_matched=n_matched,
        n_not_stated=len(rows) - len(stated),
        n_unknown=len(stated) - n_matched,
        n_labels=len(found),
        n_written=n_written,
        by_value=dict(sorted(Counter(told[0] for told in found.values()).items())),
    )


def labels_in_force(workspace: Workspace, target: str) -> pa.Table:
    """The label that counts for each series: (site, series_key, value, sampling_probability)."""
    with workspace.lake.connect([layout.LABEL]) as db:
        return load(HERE, "labels_in_force").run(db, target=target)


def read_labels(workspace: Workspace, target: str, site: str) -> dict[str, int]:
    """Labels in force of a site by series_key: 1 positive, 0 negative.

    A value that is neither class (`uncertain`, say) counts as no label.
    """
    classes = workspace.target(target).classes
    table = labels_in_force(workspace, target)
    rows = table.filter(pc.field("site") == site).to_pylist()
    return {row["series_key"]: classes.index(row["value"]) for row in rows if row["value"] in classes}


def _as_classes(values: Iterable[str], classes: Sequence[str]) -> dict[str, str]:
    """Each value as the target spells it: `1.0` and `1` are one class.

    Raises:
        BadInput: If a value is no class.
    """
    spelt = {value: _as_class(value, classes) for value in dict.fromkeys(values)}
    bad = sorted(value for value, name in spelt.items() if name is None)
    if bad:
        told = ", ".join(repr(value) for value in bad[:MAX_TOLD]) + (", ..." if len(bad) > MAX_TOLD else "")
        raise BadInput(
            f"labels: expected {' or '.join(map(repr, classes))}, found {told}; "
            "nothing was written: correct the file, the value column, or `classes` of the target"
        )
    return {value: name for value, name in spelt.items() if name is not None}


def _as_class(value: str, classes: Sequence[str]) -> str | None:
    if value in classes:
        return value
    number = _number(value)
    return next((name for name in classes if number is not None and _number(name) == number), None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _matcher(workspace: Workspace, site: str, door: Door, file: Path, rows: Sequence[Row]) -> Keys:
    """How rows of this file find their series."""
    names = list(rows[0]) if rows else list(WHOSE)
    column = next((name for name in WHOSE if name in names), None)
    if column is None:
        raise SchemaMismatch(file.name, [" or ".join(WHOSE)], names)
    if column == "file":
        return _match_files(site, door, rows)
    known = current_series(workspace, site).select(["series_key", "study_key", "n_parts"]).to_pylist()
    if column == "study_uid":
        by_study: dict[str, list[str]] = {}
        for series in known:
            by_study.setdefault(series["study_key"], []).append(series["series_key"])
        return lambda row: by_study.get(door.study_key(site, row["study_uid"].strip()), [])
    keys = {series["series_key"] for series in known}
    n_parts = max((int(series["n_parts"]) for series in known), default=0)
    return lambda row: [
        key for part in range(n_parts) if (key := door.series_key(site, row["series_uid"].strip(), part)) in keys
    ]


def _match_files(site: str, door: Door, rows: Sequence[Row]) -> Keys:
    """Rows by the addresses of the door book: a row is asked for once per file that it names."""
    index = by_file(rows)
    keys: dict[str, list[str]] = {}
    for entry in open_book(door, site).entries():
        row = index.find(entry.address)
        if row is not None:
            keys.setdefault(row["file"], []).extend(_keys(door, entry))
    return lambda row: list(dict.fromkeys(keys.get(row["file"], [])))


def _keys(door: Door, entry: Entry) -> list[str]:
    return [] if entry.base is None else [door.part_key(entry.base, part) for part in entry.parts]


def _told(door: Door, site: str, row: Row, value: str) -> Told:
    """Value, guideline, reader, day and sampling probability of one row, identity gone."""
    reader, day = row.get("reader", "").strip(), door.shift_date(site, day_of(row.get("labelled_on")))
    chance = _number(row.get("sampling_probability", ""))
    return (
        value,
        row.get("guideline", "").strip() or None,
        door.reader_key(site, reader) if reader else None,
        day.isoformat() if day else None,
        chance,
    )


def _write(workspace: Workspace, site: str, target: str, found: Mapping[str, Told], run: str) -> int:
    present = _present(workspace, site, target)
    news = sorted(key for key, told in found.items() if present.get(key) != told)
    rows: list[dict[str, Any]] = []
    for key in news:
        value, guideline, reader, day, chance = found[key]
        facts = {"value": value, "guideline": guideline, "reader": reader, "labelled_on": day_of(day)}
        rows.append(
            facts | {"site": site, "target": target, "series_key": key, "sampling_probability": chance, "run": run}
        )
    name = transaction("label", site, target, run, [(key, found[key]) for key in news])
    return workspace.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=name)


def _present(workspace: Workspace, site: str, target: str) -> dict[str, Told]:
    """What is told of each series now, by the latest run."""
    where = (pc.field("site") == site) & (pc.field("target") == target)
    latest: dict[str, Told] = {}
    for row in sorted(workspace.lake.read(layout.LABEL, where).to_pylist(), key=lambda row: str(row["run"])):
        day = row["labelled_on"].isoformat() if row["labelled_on"] else None
        latest[row["series_key"]] = (row["value"], row["guideline"], row["reader"], day, row["sampling_probability"])
    return latest
