"""What keeps tables quick to read: many small writes are merged, about once a week.

A night writes a file per site and table, or a few. A reader opens each of them, so that without merging the tenth year
costs ten times as much as the first; that no version is lost is `Lake.compact`'s promise.
"""

from platform_core.errors import StorageUnavailable
from platform_core.manifest.workspace import Workspace

MOST_SMALL_FILES = 14
"""Of one site in one table: two weeks of one write a night, or one week of two."""


def tend_tables(workspace: Workspace) -> list[str]:
    """Merge the small files of every table that has many; names those tables.

    One that another worker is merging at the same time is left to it.
    """
    return [table for table in workspace.lake.schemas if _tend(workspace, table)]


def _tend(workspace: Workspace, table: str) -> bool:
    lake = workspace.lake
    if lake.n_small_files(table) <= MOST_SMALL_FILES:
        return False
    try:
        return lake.compact(table) > 0
    except StorageUnavailable:
        return False
