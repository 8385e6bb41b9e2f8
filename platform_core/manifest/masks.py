"""Masks: where readers drew the positive class. Files stay at the door; what is stored lies on the grid of its series.

A mask is one reading of one series, as a class is: `core__label.value` is then the class that the mask shows, the
positive one if it marks any voxel. An empty mask says that there is nothing to mark.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadInput, GeometryMismatch, UnreadableScan
from platform_core.imaging.lattice import onto_grid
from platform_core.imaging.nifti import volume_sha256
from platform_core.imaging.plain import decode_image
from platform_core.imaging.volume import Volume
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.index import Row
from platform_core.manifest.label_file import MAX_TOLD, Matcher, StatedRow, as_class, fault_in, read_rows
from platform_core.manifest.labels import ADJUDICATOR, asked_chances, labels_in_force, reading_in
from platform_core.manifest.schemas import LABEL
from platform_core.manifest.stages import series_rows, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.storage.tables import rows_of

HERE = "platform_core.manifest"
MASK_FILE = "mask_file"
"""The column that names a mask: NIfTI, PNG or NumPy; relative to the CSV, or absolute."""
FOREGROUND = ((0, 1), (0, 255))
"""What voxels of a mask may be: background and foreground; drawing programs write 255 for white."""
COLUMNS = ["value", "mask_uri", "guideline", "reader", "labelled_on", "sampling_probability"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row whose mask was not taken in."""

    line: int
    """Of the CSV."""
    reason: str
    """Short stable code."""
    detail: str
    """For the person at the terminal; never an identifier, never a name of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCount:
    """What one file of masks came to: `n_rows = n_taken + n_not_stated + n_unknown + len(refused)`."""

    site: str
    target: str
    n_rows: int
    n_taken: int
    """Rows whose mask lies on a scan that the manifest knows."""
    n_not_stated: int
    """Rows that name no mask."""
    n_unknown: int
    """Rows about scans that the manifest does not know."""
    refused: tuple[Refusal, ...]
    n_empty: int
    """Masks that mark nothing."""
    n_written: int
    """Readings that were new or have changed."""
    by_value: Mapping[str, int]

    @property
    def needs_a_person(self) -> bool:
        """Rows were refused, or nothing was taken in."""
        return bool(self.refused or not self.n_taken)

    @property
    def summary(self) -> str:
        """A few lines for the person at the terminal."""
        classes = ", ".join(f"{n} {value!r}" for value, n in self.by_value.items()) or "none"
        first = (
            f"{self.site}, {self.target}: {self.n_rows} rows: {self.n_taken} masks taken in, {self.n_not_stated} rows "
            f"name none, {self.n_unknown} match no scan here; masks show: {classes}; {self.n_written} written"
        )
        lines = [first]
        if self.n_empty:
            lines.append(f"{self.n_empty} masks are empty: they count as read, and nothing was there")
        lines += [f"line {one.line} refused: {one.reason}: {one.detail}" for one in self.refused[:MAX_TOLD]]
        if len(self.refused) > MAX_TOLD:
            lines.append(f"and {len(self.refused) - MAX_TOLD} more rows refused")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One mask on the grid of one series."""

    line: int
    series_key: str
    row: Row
    voxels: Volume
    value: str


def import_masks(workspace: Workspace, site: str, target: str, file: Path, *, run: str) -> MaskCount:
    """Take in a CSV that names masks; a row that cannot be used is refused with its reason, the others go on.

    The file has a header with `series_key`, `series_uid`, `study_uid` or `file`, `mask_file`, and if known `value`
    (a class: the mask must agree), `reader`, `guideline`, `labelled_on` (ISO date) and `sampling_probability`. A mask
    has 0 where nothing is and 1 (or 255) where the positive class is, on the voxels of the series as it came; axes
    may be swapped or flipped.

    Args:
        workspace: Where the masks go.
        site: Whose scans they are about.
        target: The task, a segmentation.
        file: The CSV, which stays at the door, as its masks do.
        run: The run that imports.

    Raises:
        UnknownName: If the site or target is not configured.
        NoSuchPlace: If there is no such file.
        SchemaMismatch: If columns are missing.
    """
    workspace.site(site)
    classes = workspace.target(target).classes
    rows = read_rows(file, MASK_FILE)
    stated = [StatedRow(line, row, "") for line, row in rows if row[MASK_FILE].strip()]
    door = open_door(workspace)
    matcher = Matcher(workspace, site, door, stated)
    drawn: list[_Drawn] = []
    refused: list[Refusal] = []
    n_unknown = 0
    for one in stated:
        keys = matcher.series_of(one.row)
        if not keys:
            n_unknown += 1
            continue
        try:
            drawn += _drawn(workspace, site, keys, one, file.parent, classes)
        except _RowRefused as error:
            refused.append(Refusal(one.line, error.reason, error.detail))
    n_written = _write(workspace, site, target, door, drawn, run)
    return MaskCount(
        site=site,
        target=target,
        n_rows=len(rows),
        n_taken=len({one.line for one in drawn}),
        n_not_stated=len(rows) - len(stated),
        n_unknown=n_unknown,
        refused=tuple(refused),
        n_empty=sum(one.value == classes[0] for one in drawn),
        n_written=n_written,
        by_value=dict(sorted(Counter(one.value for one in drawn).items())),
    )


def masks_in_force(workspace: Workspace, target: str, site: str) -> dict[str, str]:
    """The mask that counts for each series of a site, by series_key: the adjudicator's, else the latest.

    Only of readings that say what the label in force says: without one, a series has no mask.
    """
    with workspace.lake.connect([layout.LABEL]) as db:
        db.register("label_in_force", labels_in_force(workspace, target))
        query = load(HERE, "masks_in_force")
        rows = query.run(db, site=site, target=target, adjudicator=ADJUDICATOR).to_pylist()
    return {row["series_key"]: row["mask_uri"] for row in rows}


class _RowRefused(BadInput):
    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)


def _drawn(
    workspace: Workspace, site: str, keys: Sequence[str], one: StatedRow, folder: Path, classes: Sequence[str]
) -> list[_Drawn]:
    """The row's mask on every series of the row that has its grid; a study may hold several, of which one fits."""
    fault = fault_in(one.row)
    if fault is not None:
        raise _RowRefused("unusable_value", fault)
    mask = _foreground(_decoded(folder / one.row[MASK_FILE].strip()))
    value = classes[int(mask.voxels.any())]
    _refuse_contradiction(one.row, value, classes)
    fitting, misfits = [], []
    for series in series_rows(workspace, site, keys):
        try:
            image = workspace.read_volume(str(series["volume_uri"]))
            fitting.append(_Drawn(one.line, str(series["series_key"]), one.row, onto_grid(mask, image), value))
        except FileNotFoundError:
            misfits.append(("volume_missing", "the volume of the series is not there"))
        except GeometryMismatch as error:
            misfits.append(("other_grid", str(error)))
    if not fitting:
        raise _RowRefused(*misfits[0])
    return fitting


def _decoded(path: Path) -> Volume:
    try:
        volume = decode_image(path.read_bytes())
    except OSError as error:
        raise _RowRefused("mask_missing", f"the file that {MASK_FILE} names cannot be read") from error
    except UnreadableScan as error:
        raise _RowRefused("mask_unreadable", str(error)) from error
    if volume.n_t > 1:
        raise _RowRefused("mask_unreadable", f"expected one volume, found {volume.n_t}")
    return volume.first()


def _foreground(mask: Volume) -> Volume:
    """The mask as 0 and 1, uint8."""
    found = np.unique(mask.voxels)
    if not any(set(found.tolist()) <= set(allowed) for allowed in FOREGROUND):
        told = ", ".join(f"{value:g}" for value in found[:MAX_TOLD].tolist()) + (
            ", ..." if len(found) > MAX_TOLD else ""
        )
        raise _RowRefused("unknown_values", f"expected 0 and 1, or 0 and 255, found {told}")
    return Volume((mask.voxels != 0).astype(np.uint8), mask.geometry)


def _refuse_contradiction(row: Row, value: str, classes: Sequence[str]) -> None:
    stated = row.get("value", "").strip()
    if stated and as_class(stated, classes) != value:
        raise _RowRefused("contradicts_value", f"the mask shows {value!r}, the column `value` says something else")


def _write(workspace: Workspace, site: str, target: str, door: Door, drawn: Sequence[_Drawn], run: str) -> int:
    asked = asked_chances(workspace, target, site)
    readings: dict[tuple[str, str], dict[str, Any]] = {}
    for one in drawn:
        facts = _facts(workspace, site, target, door, one, asked.get(one.series_key))
        readings[one.series_key, facts["reader"] or ""] = facts
    present = _present(workspace, site, target)
    rows = [
        {"site": site, "target": target, "series_key": key[0], "run": run} | facts
        for key, facts in sorted(readings.items())
        if present.get(key) != facts
    ]
    name = transaction("mask", site, target, run, [tuple(row.values()) for row in rows])
    return workspace.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=name)


def _facts(
    workspace: Workspace, site: str, target: str, door: Door, one: _Drawn, asked: float | None
) -> dict[str, Any]:
    """What the reading says, identity gone, its mask stored."""
    uri = layout.mask_path(site, target, one.series_key, volume_sha256(one.voxels))
    if not workspace.objects.exists(uri):
        workspace.write_volume(uri, one.voxels)
    return asdict(reading_in(door, site, one.row, one.value, asked)) | {"mask_uri": uri}


def _present(workspace: Workspace, site: str, target: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What each reader was last imported to have drawn on each series."""
    where = (pc.field("site") == site) & (pc.field("target") == target) & pc.field("mask_uri").is_valid()
    rows = workspace.lake.read(layout.LABEL, where, ["series_key", "run", *COLUMNS]).to_pylist()
    latest: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: str(row["run"])):
        latest[row["series_key"], row["reader"] or ""] = {name: row[name] for name in COLUMNS}
    return dict(latest)
