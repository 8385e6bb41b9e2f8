"""A whole ingest into S3 over a network that fails at random: the tables are those of an undisturbed one."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from deltalake import DeltaTable

from platform_core import layout
from platform_core.errors import Unavailable
from platform_core.imaging.nifti import volume_sha256
from platform_core.manifest.door import create_key
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.orphans import orphans
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.s3 import table_options
from tests.servers.faultproxy import FAULTS, FaultProxy

AT = datetime(2026, 2, 1, tzinfo=UTC)
RUN = "20260201T000000-test"
KEY = "ab" * 32
SHARD = "shard_size = 2"
N_ATTEMPTS = 4
TABLES = (layout.ARRIVAL, layout.SERIES, layout.STAGE)

Result = TypeVar("Result")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> dict[str, Any]:
    """What an undisturbed ingest into a folder writes."""
    with pytest.MonkeyPatch.context() as patch:
        return told(taken_in(tmp_path_factory.mktemp("calm"), "w", test_data / "dicom", patch))


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_nothing_doubled(
    faulty_s3: FaultProxy,
    bucket_uri: str,
    calm: dict[str, Any],
    tmp_path: Path,
    test_data: Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faulty_s3.fail_by_chance(seed, 0.05)
    workspace = taken_in(tmp_path, bucket_uri, test_data / "dicom", monkeypatch)
    met = {fault for _, _, fault in faulty_s3.log if fault is not None}
    faulty_s3.fail()
    assert len(met) >= len(FAULTS) - 1, "too quiet to prove anything"
    assert told(workspace) == calm
    assert orphans(workspace, before=datetime.now(UTC)) == []


def taken_in(folder: Path, place: str, scans: Path, patch: pytest.MonkeyPatch) -> Workspace:
    """A new workspace with the scans of one site, taken in as tasks do: what is unavailable is tried again."""
    patch.setenv("SITEDRIFT_HOME", str(folder / "home"))
    patch.setenv("SITEDRIFT_KEY", KEY)
    uri = place if layout.is_remote(place) else str(folder / place)
    workspace = create_workspace(uri, key_fingerprint=create_key("w"))
    settings = workspace.objects.get(layout.SETTINGS)
    workspace.objects.put(layout.SETTINGS, settings.replace(b"# shard_size = 64", SHARD.encode()))
    add_site(workspace, "nih", SiteSettings(quiet_s=0, path=str(scans)))
    found = patiently(lambda: discover(open_workspace(uri), "nih", run=RUN, at=AT))
    assert len(found.shards) > 3
    for shard in found.shards:
        patiently(lambda shard=shard: ingest_shard(open_workspace(uri), "nih", shard, run=RUN, at=AT))  # type: ignore[misc]
    patiently(lambda: check_ledger(open_workspace(uri), "nih", RUN, found.n_new))
    return workspace


def patiently(work: Callable[[], Result]) -> Result:
    for _ in range(N_ATTEMPTS - 1):
        try:
            return work()
        except Unavailable:
            continue
    return work()


def told(workspace: Workspace) -> dict[str, Any]:
    """Everything that a workspace says: rows in order, commits by table, hashes of volumes as they are read."""
    rows = {table: sorted(map(repr, workspace.lake.read(table).to_pylist())) for table in TABLES}
    commits = {table: operations(workspace, table) for table in TABLES}
    uris = workspace.lake.read(layout.SERIES, columns=["volume_uri"]).column("volume_uri").drop_null().to_pylist()
    volumes = {uri: volume_sha256(workspace.read_volume(uri)) for uri in uris}
    return {"rows": rows, "commits": commits, "volumes": volumes, "stored": workspace.objects.list(layout.VOLUMES)}


def operations(workspace: Workspace, table: str) -> list[str]:
    options = table_options(workspace.uri) if layout.is_remote(workspace.uri) else None
    address = f"{workspace.uri}/{layout.LAKE}/{table}"
    return [str(commit["operation"]) for commit in DeltaTable(address, storage_options=options).history()]
