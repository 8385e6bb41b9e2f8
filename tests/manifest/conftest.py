from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from platform_core.manifest.ingest import IngestCount, discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings

Ingest = Callable[..., IngestCount]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the site `north` sends its scans."""
    found = tmp_path / "scans"
    found.mkdir()
    return found


@pytest.fixture
def north(workspace: Workspace, folder: Path) -> Workspace:
    """A workspace with one site of DICOM files."""
    add_site(workspace, "north", SiteSettings(path=str(folder)))
    return open_workspace(workspace.uri)


@pytest.fixture
def ingest() -> Ingest:
    """Takes in what is new at a site and closes the ledger; day after day."""
    days = iter(range(1, 29))

    def take_in(workspace: Workspace, site: str = "north") -> IngestCount:
        at = datetime(2026, 2, next(days), tzinfo=UTC)
        run = f"{at:%Y%m%dT%H%M%S}-test"
        found = discover(workspace, site, run=run, at=at)
        count = IngestCount(site=site)
        for shard in found.shards:
            count += ingest_shard(workspace, site, shard, run=run, at=at)
        check_ledger(workspace, site, run, found.n_new)
        return count

    return take_in
