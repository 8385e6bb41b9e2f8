"""Small files are merged when there are many, and nothing else changes."""

import pytest

from platform_core import layout
from platform_core.manifest.schemas import EPISODE
from platform_core.manifest.tending import MOST_SMALL_FILES, tend_tables
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of


@pytest.fixture
def scattered(workspace: Workspace) -> Workspace:
    """One site with a file too many, and one with a single file."""
    for i in range(MOST_SMALL_FILES + 1):
        write(workspace, "north", i)
    write(workspace, "south", 0)
    return workspace


def write(workspace: Workspace, site: str, i: int) -> None:
    rows = rows_of(EPISODE, [{"site": site, "episode_key": f"{site}{i}", "state": "opened", "run": "r"}])
    workspace.lake.append(layout.EPISODE, rows, transaction=f"{site}{i}")


def keys(workspace: Workspace, version: int | None = None) -> list[str]:
    data = workspace.lake.dataset(layout.EPISODE, version)
    return sorted(data.to_table(columns=["episode_key"]).column("episode_key").to_pylist())


def test_many_small_files_of_a_site_are_merged_and_no_row_is_lost(scattered: Workspace) -> None:
    before, version = keys(scattered), scattered.lake.version(layout.EPISODE)
    assert tend_tables(scattered) == [layout.EPISODE]
    assert keys(scattered) == before == keys(scattered, version)
    assert len(scattered.lake.dataset(layout.EPISODE).files) == 2


def test_a_table_that_was_merged_is_left_alone(scattered: Workspace) -> None:
    tend_tables(scattered)
    version = scattered.lake.version(layout.EPISODE)
    write(scattered, "north", 99)
    assert tend_tables(scattered) == []
    assert scattered.lake.version(layout.EPISODE) == version + 1


def test_tables_without_rows_or_with_few_files_are_left_alone(workspace: Workspace) -> None:
    assert tend_tables(workspace) == []
    write(workspace, "north", 0)
    assert tend_tables(workspace) == []
