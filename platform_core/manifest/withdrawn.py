"""Tombstones: patients whose scans are never taken in again. What a withdrawal removes is `lineage/`'s business."""

from collections.abc import Sequence
from datetime import datetime

from platform_core import layout
from platform_core.manifest.schemas import WITHDRAWN
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of


def read_tombstones(workspace: Workspace) -> frozenset[str]:
    """Every tombstone of the workspace."""
    return frozenset(workspace.lake.read(layout.WITHDRAWN, columns=["tombstone"]).column("tombstone").to_pylist())


def leave_tombstones(workspace: Workspace, tombstones: Sequence[str], *, run: str, at: datetime) -> int:
    """Write those that are not there yet; returns how many."""
    return sum(
        workspace.lake.append(
            layout.WITHDRAWN,
            rows_of(WITHDRAWN, [{"tombstone": tombstone, "withdrawn_at": at, "run": run}]),
            transaction=f"withdrawn/{tombstone}",
        )
        for tombstone in sorted(tombstones)
    )
