"""What a run that was killed has left behind: volumes that no row names, and files that were never finished.

Volumes are written before the rows that name them, so that a row never names what is not
there; the price is a volume without a row where a run broke off between the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.storage.objects import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was removed."""

    n_volumes: int
    n_bytes: int
    n_unfinished: int


def orphans(workspace: Workspace, *, before: datetime) -> list[Stored]:
    """Volumes older than `before` (UTC) that no row of any table names, in path order.

    A run in progress has volumes whose rows are still to come: leave more time than any run
    takes. Without a table of series nothing is an orphan: it is the table that is missing.
    """
    old = [found for found in workspace.objects.find(layout.VOLUMES) if found.modified_at < before]
    if not old or workspace.lake.version(layout.SERIES) < 0:
        return []
    named = set(_named(workspace))  # read after the listing: a row that lands meanwhile still counts
    return sorted((found for found in old if found.path not in named), key=lambda found: found.path)


def sweep(workspace: Workspace, *, before: datetime) -> Swept:
    """Remove orphans and unfinished files older than `before` (UTC)."""
    left = orphans(workspace, before=before)
    for found in left:
        workspace.objects.delete(found.path)
    n_unfinished = workspace.objects.sweep(before)
    return Swept(n_volumes=len(left), n_bytes=sum(found.n_bytes for found in left), n_unfinished=n_unfinished)


def _named(workspace: Workspace) -> Iterator[str]:
    """Every address that a row of any table holds, of revisions that have been replaced too."""
    for table, schema in workspace.lake.schemas.items():
        for column in schema.names:
            if column.endswith("_uri"):
                rows = workspace.lake.read(table, columns=[column])
                yield from (str(uri) for uri in rows.column(column).unique().to_pylist() if uri is not None)
