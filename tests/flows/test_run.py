"""The nightly run through Prefect, on real scans, in this process and without a server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from platform_core.layout import ARRIVAL, FEATURE, QUALITY, SERIES, STAGE
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
TABLES = (ARRIVAL, SERIES, STAGE, FEATURE, QUALITY)


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def nih(workspace: Workspace, test_data: Path) -> Workspace:
    add_site(workspace, "nih", SiteSettings(quiet_s=0, path=str(test_data / "dicom" / "dcm_qa_ts")))
    return open_workspace(workspace.uri)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_second_run_over_the_same_folder_writes_nothing(nih: Workspace) -> None:
    from flows.run import run_sites

    assert run_sites(nih.uri, ["nih"], "20260302T060000-aaaa", AT) == {}
    before = {table: nih.lake.version(table) for table in TABLES}
    assert min(before.values()) >= 0
    assert run_sites(nih.uri, ["nih"], "20260303T060000-bbbb", AT) == {}
    assert {table: nih.lake.version(table) for table in TABLES} == before


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_site_that_fails_does_not_stop_the_next(nih: Workspace) -> None:
    from flows.run import run_sites

    add_site(nih, "gone", SiteSettings(quiet_s=0, path="/nowhere/at/all"))
    stopped = run_sites(nih.uri, ["gone", "nih"], "20260302T060000-cccc", AT, "quality")
    assert list(stopped) == ["gone"]
    assert "/nowhere/at/all" in str(stopped["gone"])
    assert nih.lake.read(SERIES).num_rows > 0
