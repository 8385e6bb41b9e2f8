"""Patients whose identity was corrected: one person who came under two identifiers.

What was written stays as it is. A row of `core__patient_merge` puts one key under another,
and `core__series` as every reader sees it (`Workspace.lake.connect`) shows the kept key. To
undo a merge, append a row that puts the key under itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.manifest.door import open_door
from platform_core.manifest.schemas import PATIENT_MERGE
from platform_core.manifest.splits import Part, part_of
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

PARTS: tuple[Part, ...] = get_args(Part)
"""Train comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeCount:
    """What a merge came to; counts are of revisions of series, at every site that shares the issuer."""

    site: str
    is_new: bool
    """False if the two were one patient already: nothing was written."""
    n_wrong: int
    """Series that came under the wrong identifier."""
    n_right: int
    """Series that came under the right one."""
    n_moved: int
    """Series that readers now see under another patient."""
    was_split: bool
    """The two lay in different parts of the split: what was evaluated so far may have been trained on."""

    @property
    def summary(self) -> str:
        """One line for the person at the terminal."""
        if not self.is_new:
            return f"{self.site}: the two identifiers are one patient already; nothing was written"
        told = f"{self.site}: {self.n_wrong} series under the wrong identifier, {self.n_right} under the right one"
        unknown = "" if self.n_wrong and self.n_right else "; an identifier without series may be mistyped"
        tainted = "; they lay in different parts of the split: train and evaluate again" if self.was_split else ""
        return f"{told}; {self.n_moved} moved{unknown}{tainted}"


def merge_patients(
    workspace: Workspace, site: str, wrong_id: str, right_id: str, *, run: str, at: datetime
) -> MergeCount:
    """Make one patient of two identifiers of one site (or of all sites that share its issuer).

    The key of the right identifier is kept, unless the other's part of the split comes
    before: then scans that a model was trained on would become its evaluation. Chains are
    flattened as they are written, and a merge within one patient writes nothing, so there
    are no cycles.

    Args:
        workspace: Where it counts.
        site: Whose identifiers they are.
        wrong_id: The PatientID that was mistaken; it never leaves this process.
        right_id: The PatientID that it should have been.
        run: The run that merges.
        at: The moment of it, UTC.

    Raises:
        UnknownName: If the site is not configured.
        BadRequest: If an identifier is empty, or both are the same.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    wrong_id, right_id = wrong_id.strip(), right_id.strip()
    if not wrong_id or not right_id or wrong_id == right_id:
        raise BadRequest("a merge takes two different patient identifiers; the ones given are empty or the same")
    settings, door = workspace.site(site), open_door(workspace)
    wrong, right = (door.patient_key(settings.issuer or site, name) for name in (wrong_id, right_id))
    n_wrong, n_right = _n_series(workspace, [wrong]), _n_series(workspace, [right])
    while True:
        epoch, kept = _in_force(workspace)
        one, other = kept.get(right, right), kept.get(wrong, wrong)
        if one == other:
            return MergeCount(site=site, is_new=False, n_wrong=n_wrong, n_right=n_right, n_moved=0, was_split=False)
        stays, goes = sorted((one, other), key=lambda key: _rank(workspace, key))
        moved = [goes, *sorted(key for key, under in kept.items() if under == goes != key)]
        told = {"site": site, "kept_key": stays, "epoch": epoch + 1, "merged_at": at, "run": run}
        rows = rows_of(PATIENT_MERGE, [told | {"patient_key": key} for key in moved])
        if workspace.lake.append(layout.PATIENT_MERGE, rows, transaction=f"patient_merge/{epoch + 1}"):
            break  # else another merge came between, and the keys must be looked up again
    return MergeCount(
        site=site,
        is_new=True,
        n_wrong=n_wrong,
        n_right=n_right,
        n_moved=_n_series(workspace, moved),
        was_split=_rank(workspace, stays) != _rank(workspace, goes),
    )


def kept_key(workspace: Workspace, patient_key: str) -> str:
    """The key that readers see of one patient: for whoever makes a key from an identifier at the door."""
    return _in_force(workspace)[1].get(patient_key, patient_key)


def _in_force(workspace: Workspace) -> tuple[int, dict[str, str]]:
    """The last merge (-1 before the first), and the key that readers see of every patient key ever merged."""
    rows = sorted(workspace.lake.read(layout.PATIENT_MERGE).to_pylist(), key=lambda row: int(row["epoch"]))
    return (rows[-1]["epoch"] if rows else -1), {row["patient_key"]: row["kept_key"] for row in rows}


def _rank(workspace: Workspace, key: str) -> int:
    return PARTS.index(part_of(key, workspace.settings.split))


def _n_series(workspace: Workspace, keys: Sequence[str]) -> int:
    """Series that were written under these keys."""
    columns = ["site", "series_key", "patient_key"]
    rows = workspace.lake.read(layout.SERIES, pc.field("patient_key").isin(list(keys)), columns).to_pylist()
    return len({(row["site"], row["series_key"]) for row in rows if row["patient_key"] in keys})
