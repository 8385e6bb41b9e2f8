"""A workspace is one URI: what a person does with it is the same in a folder and on S3."""

import json
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from platform_core import layout
from platform_core.errors import BadRequest, BadSetting, NotAWorkspace
from platform_core.imaging.volume import Volume
from platform_core.manifest.door import create_key
from platform_core.manifest.orphans import orphans, sweep
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.tables import rows_of

AHEAD = timedelta(days=1)
VOLUME = Volume(voxels=np.arange(24, dtype=np.int16).reshape(2, 3, 4), geometry=None)


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> str:
    """Where a workspace may be made."""
    return str(tmp_path / "w") if request.param == "folder" else request.getfixturevalue("bucket_uri")


@pytest.fixture
def made(uri: str) -> Workspace:
    return create_workspace(uri, key_fingerprint=create_key("w"))


def say(*words: str) -> Result:
    told = CliRunner().invoke(app, list(words))
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        raise told.exception
    return told


def test_every_verb_that_needs_no_scan_works(uri: str, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    assert f"Made {uri}" in say("init", uri).output
    assert "Added north" in say("site", "add", "north", "--source", str(scans), "-w", uri).output
    assert json.loads(say("site", "list", "--json", "-w", uri).output) == [
        {"site": "north", "source": "folder", "path": str(scans)}
    ]
    assert json.loads(say("site", "show", "north", "-w", uri).output)["settings"]["path"] == str(scans)
    assert json.loads(say("query", "SELECT count(*) AS n FROM core__series", "--json", "-w", uri).output) == [{"n": 0}]
    assert json.loads(say("quarantine", "list", "--json", "-w", uri).output) == []
    assert json.loads(say("status", "--json", "-w", uri).output)[0]["site"] == "north"
    assert say("report", "-w", uri).output == f"Wrote {uri}/reports/fleet.html\n"
    assert say("doctor", "-w", uri).output == "Nothing is wrong.\n"
    assert b"north" in open_workspace(uri).objects.get("reports/fleet.html")


def test_a_slash_at_the_end_names_the_same_workspace(made: Workspace) -> None:
    assert open_workspace(f"{made.uri}/") == made


def test_there_is_one_workspace_at_a_place(made: Workspace) -> None:
    settings = made.objects.get(layout.SETTINGS)
    with pytest.raises(BadRequest, match="is a workspace already"):
        create_workspace(made.uri, key_fingerprint="another")
    assert made.objects.get(layout.SETTINGS) == settings


def test_where_there_is_none_the_remedy_is_told(uri: str) -> None:
    with pytest.raises(NotAWorkspace, match=f"sitedrift init {uri}"):
        open_workspace(uri)


@pytest.mark.parametrize("place", ["s3://", "s3:///", "gs://bucket/w", "https://host/w"])
def test_an_address_that_cannot_hold_one_is_refused(place: str) -> None:
    with pytest.raises(BadRequest, match="s3://bucket/prefix"):
        open_workspace(place)


def test_a_site_is_added_once(made: Workspace) -> None:
    add_site(made, "north", SiteSettings(quiet_s=0, path="/one"))
    with pytest.raises(BadRequest, match="exists already"):
        add_site(made, "north", SiteSettings(quiet_s=0, path="/two"))
    add_site(made, "a", SiteSettings(quiet_s=0, path="/three"))
    assert {name: site.path for name, site in open_workspace(made.uri).sites.items()} == {
        "a": "/three",
        "north": "/one",
    }
    assert list(open_workspace(made.uri).sites) == ["a", "north"]


def test_a_broken_setting_is_named_with_its_address(made: Workspace) -> None:
    made.objects.put(layout.SETTINGS, made.objects.get(layout.SETTINGS) + b"\nnonsense = 1\n")
    with pytest.raises(BadSetting, match=f"{made.uri}/sitedrift.toml"):
        open_workspace(made.uri)


def test_only_the_address_crosses_into_another_process(made: Workspace) -> None:
    made.objects.exists("x")
    made.lake.version(layout.SERIES)
    sent = pickle.dumps(made)
    assert len(sent) < 300
    assert pickle.loads(sent).settings == made.settings


def test_a_volume_without_a_row_is_an_orphan_once_it_is_old(made: Workspace) -> None:
    kept = [layout.volume_path("north", layout.NATIVE, "aa", revision) for revision in (1, 2)]
    lost = layout.volume_path("north", layout.NATIVE, "bb", 1)
    for path in (*kept, lost):
        made.write_volume(path, VOLUME)
    soon = datetime.now(UTC) + AHEAD
    assert orphans(made, before=soon) == []  # without a table of series nothing can be told
    rows = [
        dict.fromkeys(SERIES.names) | {"site": "north", "series_key": "aa", "revision": revision, "volume_uri": path}
        for revision, path in enumerate(kept, start=1)
    ]
    made.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction="a")
    assert orphans(made, before=datetime.now(UTC) - AHEAD) == []
    assert [found.path for found in orphans(made, before=soon)] == [lost]
    swept = sweep(made, before=soon)
    assert (swept.n_volumes, swept.n_unfinished) == (1, 0)
    assert swept.n_bytes > 0
    assert made.objects.list(layout.VOLUMES) == kept
    assert orphans(made, before=soon) == []


def test_the_doctor_finds_what_a_killed_run_left_and_removes_it(tmp_path: Path, home: Path) -> None:
    made = create_workspace(tmp_path / "w", key_fingerprint=create_key("w"))
    made.lake._create(layout.SERIES, SERIES)
    lost = layout.volume_path("north", layout.NATIVE, "bb", 1)
    made.write_volume(lost, VOLUME)
    half = tmp_path / "w" / layout.VOLUMES / "north" / layout.NATIVE / ".put-00ff"
    half.write_bytes(b"half")
    assert say("doctor", "-w", made.uri).output == "Nothing is wrong.\n"
    for file in (half, tmp_path / "w" / lost):
        os.utime(file, (0, 0))
    told = say("doctor", "-w", made.uri)
    assert told.exit_code == 2
    assert "1 volume of a broken run" in told.output
    assert "sitedrift doctor --fix" in told.output
    told = say("doctor", "--fix", "-w", made.uri)
    assert told.exit_code == 0
    assert "Removed 1 volume " in told.output
    assert "1 unfinished" in told.output
    assert made.objects.list(layout.VOLUMES) == []
    assert not half.exists()
