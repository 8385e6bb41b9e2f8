"""Labels: what readers say of scans. Hospital identifiers become keys here, in the calling process.

Readings of different readers stand side by side; what more of them say than anything else is the label in force. A
reader who reads again supersedes himself, a later guideline supersedes an earlier one, and where readings contradict
one another evenly there is no label until the reader `adjudicator` has spoken.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.index import Row, day_of
from platform_core.manifest.label_file import LabelFile, Matcher, number_in, read_label_file, spelt_lines
from platform_core.manifest.schemas import LABEL
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.storage.tables import rows_of

HERE = "platform_core.manifest"
ADJUDICATOR = "adjudicator"
"""A reader of this name, a role and nobody's own, decides between readings that contradict one another."""
IN_FORCE = ["site", "series_key", "value", "sampling_probability"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one row says of one series, identity gone."""

    value: str
    guideline: str | None
    reader: str | None
    labelled_on: date | None
    sampling_probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """What one file of labels came to: `n_rows = n_matched + n_not_stated + n_unknown + len(refused)`."""

    site: str
    target: str
    n_rows: int
    n_matched: int
    """Rows that label a scan the manifest knows."""
    n_not_stated: int
    """Rows without a value."""
    n_unknown: int
    """Rows about scans that the manifest does not know."""
    refused: tuple[int, ...] = ()
    """Lines of rows whose value is no class, that are meant for another target, or that `label_file.fault_in`
    refuses."""
    n_labels: int
    """Series that the file labels."""
    n_written: int
    """Readings that were new or have changed."""
    by_value: Mapping[str, int]
    """Readings of the file."""
    n_contradicting: int = 0
    """Series of the file whose readings, earlier ones included, differ."""
    n_undecided: int = 0
    """Those of them without a label in force: no value has more readings than every other."""
    n_asked: int = 0
    """Scans of the site that were ever asked for."""
    n_open: int = 0
    """Those of them that have no label yet."""

    @property
    def needs_a_person(self) -> bool:
        """Rows were refused, nothing matched, or readings stand against one another."""
        return bool(self.refused or self.n_undecided or not self.n_matched)

    @property
    def summary(self) -> str:
        """A few lines for the person at the terminal."""
        classes = ", ".join(f"{n} {value!r}" for value, n in self.by_value.items()) or "none"
        first = (
            f"{self.site}, {self.target}: {self.n_rows} rows: {self.n_matched} match a scan, {self.n_not_stated} have "
            f"no value, {self.n_unknown} match no scan here; labels: {classes}; {self.n_written} written"
        )
        lines = [first]
        if self.refused:
            lines.append(
                f"refused: {spelt_lines(self.refused)}: the value is no class, the row is for another target, its "
                "sampling_probability is not above 0 and at most 1, or its guideline or reader could identify a "
                "patient (a reader's code, like R1, does not)"
            )
        if self.n_contradicting:
            lines.append(
                f"readings contradict one another on {self.n_contradicting} series; {self.n_undecided} of them have no "
                f"label in force until one more reader, or the reader {ADJUDICATOR!r}, has read them"
            )
        if self.n_asked:
            lines.append(f"asked for: {self.n_asked} scans, of which {self.n_asked - self.n_open} have a label now")
        return "\n".join(lines)


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
    """Take in a CSV of labels; what a reader said before is superseded, an equal reading is not written again.

    The file has a header with `series_key`, `series_uid`, `study_uid` or `file` (a path that ends as the
    source lists it), the value column, and if known `reader`, `guideline`, `labelled_on`
    (ISO date) and `sampling_probability`, which is otherwise that of the request that asked for the scan.

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
        BadInput: If no row states a class of the target.
    """
    del at
    workspace.site(site)
    told = read_label_file(file, target, workspace.target(target).classes, value_column)
    door = open_door(workspace)
    asked = asked_chances(workspace, target, site)
    matcher = Matcher(workspace, site, door, told.stated)
    matched = [(one, matcher.series_of(one.row)) for one in told.stated]
    found: dict[str, list[Reading]] = defaultdict(list)
    for one, keys in matched:
        for key in keys:
            found[key].append(reading_in(door, site, one.row, one.value, asked.get(key)))
    n_written = _write(workspace, site, target, found, run)
    n_matched = sum(bool(keys) for _, keys in matched)
    return _counted(workspace, site, target, told, found, n_matched=n_matched, n_written=n_written, asked=asked)


def asked_chances(workspace: Workspace, target: str, site: str) -> dict[str, float | None]:
    """The scans of one site that were asked for, by series_key, with the chance of each."""
    rows = asked_table(workspace, target).filter(pc.field("site") == site).to_pylist()
    return {row["series_key"]: row["sampling_probability"] for row in rows}


def reading_in(door: Door, site: str, row: Row, value: str, asked: float | None) -> Reading:
    """What a row says beside its class, identity gone; `asked` is the chance by which its scan was asked for."""
    reader = row.get("reader", "").strip()
    stated = number_in(row.get("sampling_probability", ""))
    return Reading(
        value=value,
        guideline=row.get("guideline", "").strip() or None,
        reader=None if not reader else reader if reader == ADJUDICATOR else door.reader_key(site, reader),
        labelled_on=door.shift_date(site, day_of(row.get("labelled_on"))),
        sampling_probability=asked if stated is None else stated,
    )


def _counted(
    workspace: Workspace,
    site: str,
    target: str,
    told: LabelFile,
    found: Mapping[str, list[Reading]],
    *,
    n_matched: int,
    n_written: int,
    asked: Mapping[str, float | None],
) -> LabelCount:
    verdicts = label_verdicts(workspace, target).filter(pc.field("site") == site).to_pylist()
    differing = [row for row in verdicts if row["n_values"] > 1 and row["series_key"] in found]
    labelled = {row["series_key"] for row in verdicts if row["value"] is not None}
    by_value = Counter(reading.value for readings in found.values() for reading in set(readings))
    return LabelCount(
        site=site,
        target=target,
        n_rows=told.n_rows,
        n_matched=n_matched,
        n_not_stated=told.n_not_stated,
        n_unknown=len(told.stated) - n_matched,
        refused=told.refused,
        n_labels=len(found),
        n_written=n_written,
        by_value=dict(sorted(by_value.items())),
        n_contradicting=len(differing),
        n_undecided=sum(row["value"] is None for row in differing),
        n_asked=len(asked),
        n_open=len(asked.keys() - labelled),
    )


def labels_in_force(workspace: Workspace, target: str) -> pa.Table:
    """The label that counts for each series: (site, series_key, value, sampling_probability).

    Series whose readings contradict one another evenly have none.
    """
    return label_verdicts(workspace, target).filter(pc.field("value").is_valid()).select(IN_FORCE)


def label_verdicts(workspace: Workspace, target: str) -> pa.Table:
    """What the readings of every series come to: `labels_in_force`, n_readings and n_values; value null where even."""
    readings = read_readings(workspace, target)
    with workspace.lake.connect([]) as db:
        db.register("reading", readings)
        db.register("asked", asked_table(workspace, target))
        return load(HERE, "label_verdicts").run(db)


def read_readings(workspace: Workspace, target: str) -> pa.Table:
    """What each reader says of each series now, one row per reading; `counts` where it decides."""
    with workspace.lake.connect([layout.LABEL]) as db:
        return load(HERE, "readings").run(db, target=target, adjudicator=ADJUDICATOR)


def requested(workspace: Workspace, target: str) -> pa.Table:
    """Everybody who could have been asked for a label, one row per series, as it stands now."""
    with workspace.lake.connect([layout.REQUEST]) as db:
        return load(HERE, "requested").run(db, target=target)


def asked_table(workspace: Workspace, target: str) -> pa.Table:
    """Those of them who were asked."""
    return requested(workspace, target).filter(pc.field("drawn").is_valid())


def read_labels(workspace: Workspace, target: str, site: str) -> dict[str, int]:
    """Labels in force of a site by series_key: 1 positive, 0 negative.

    A value that is neither class (`uncertain`, say) counts as no label.
    """
    classes = workspace.target(target).classes
    table = labels_in_force(workspace, target)
    rows = table.filter(pc.field("site") == site).to_pylist()
    return {row["series_key"]: classes.index(row["value"]) for row in rows if row["value"] in classes}


def _write(workspace: Workspace, site: str, target: str, found: Mapping[str, list[Reading]], run: str) -> int:
    present = _present(workspace, site, target)
    wanted = _by_reader(found)
    news = sorted(key for key, readings in wanted.items() if present.get(key) != readings)
    rows: list[dict[str, Any]] = [
        {
            "site": site,
            "target": target,
            "series_key": series_key,
            "value": reading.value,
            "guideline": reading.guideline,
            "reader": reading.reader,
            "labelled_on": reading.labelled_on,
            "sampling_probability": reading.sampling_probability,
            "run": run,
        }
        for series_key, reader in news
        for reading in sorted(wanted[series_key, reader], key=repr)
    ]
    name = transaction("label", site, target, run, [tuple(row.values()) for row in rows])
    return workspace.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=name)


def _by_reader(found: Mapping[str, Iterable[Reading]]) -> dict[tuple[str, str], set[Reading]]:
    """Readings by series and reader; those whose reader is not named are one reader's."""
    named: dict[tuple[str, str], set[Reading]] = defaultdict(set)
    for key, readings in found.items():
        for reading in readings:
            named[key, reading.reader or ""].add(reading)
    return named


def _present(workspace: Workspace, site: str, target: str) -> dict[tuple[str, str], set[Reading]]:
    """What each reader was last imported to say of each series."""
    where = (pc.field("site") == site) & (pc.field("target") == target) & pc.field("value").is_valid()
    columns = ["series_key", "run", "value", "guideline", "reader", "labelled_on", "sampling_probability"]
    rows = workspace.lake.read(layout.LABEL, where, columns).to_pylist()
    last: dict[tuple[str, str], str] = {}
    for row in rows:
        whose = row["series_key"], row["reader"] or ""
        last[whose] = max(last.get(whose, ""), str(row["run"]))
    current: dict[str, list[Reading]] = defaultdict(list)
    for row in rows:
        key, run = row.pop("series_key"), row.pop("run")
        if last[key, row["reader"] or ""] == run:
            current[key].append(Reading(**row))
    return _by_reader(current)
