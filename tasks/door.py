"""Tasks that may run only at a site's door: they see raw scans and write pseudonyms."""

from datetime import datetime

from prefect import task

from platform_core.manifest import ingest, ledger
from platform_core.manifest.ingest import Discovery, IngestCount
from platform_core.manifest.workspace import open_workspace
from tasks.retries import TRANSIENT


@task(task_run_name="discover {site}", **TRANSIENT)
def discover(uri: str, site: str, run: str, at: datetime) -> Discovery:
    """List what is new at the site and cut it into shards of whole series."""
    return ingest.discover(open_workspace(uri), site, run=run, at=at)


@task(task_run_name="ingest {site} {shard}", **TRANSIENT)
def ingest_shard(uri: str, site: str, shard: str, run: str, at: datetime) -> IngestCount:
    """Turn one shard of files into series, volumes and ledger rows."""
    return ingest.ingest_shard(open_workspace(uri), site, shard, run=run, at=at)


@task(task_run_name="close the ledger of {site}")
def check_ledger(uri: str, site: str, run: str, n_new: int) -> None:
    """Fail the run if an arrival is unaccounted for."""
    ledger.check_ledger(open_workspace(uri), site, run, n_new)
