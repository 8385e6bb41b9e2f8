"""An ingest that is killed and started again ends as if nothing had happened, wherever it was killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.door import create_key
from platform_core.manifest.orphans import sweep
from platform_core.manifest.workspace import add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings

WriteCT = Callable[..., list[Path]]
Row = dict[str, Any]

SCRIPT = Path(__file__).with_name("take_in.py")
SECRET = bytes(range(32))
N_SERIES = 12
SHARD_SIZE = 2
N_KILLS = (7, 4)
"""Runs of the first and the second night that are to be killed; with three seeds thirty or more."""
MAX_STEPS = 40
"""A killed run gets no further than this; the first night takes more than a hundred steps."""
UNFINISHED = ".put-"
TABLES = (layout.ARRIVAL, layout.SERIES, layout.STAGE)
OF_THE_RUN = ("run", "arrived_at", "ingested_at")


@dataclass(frozen=True)
class Night:
    """A workspace with its own home, and the runs over it."""

    uri: str
    home: Path

    @contextmanager
    def begun(self, *halt: str) -> Iterator[subprocess.Popen[str]]:
        """A run that has been told to begin."""
        env = {**os.environ, "SITEDRIFT_HOME": str(self.home), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, str(SCRIPT), self.uri, *halt]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env) as run:
            assert run.stdout is not None
            assert run.stdin is not None
            assert run.stdout.readline() == "ready\n", run.communicate()[1]
            run.stdin.write("go\n")
            run.stdin.flush()
            yield run

    def is_killed(self, step: int) -> bool:
        """Whether a run was killed at this step; else it has ended."""
        with self.begun("KILL", str(step)) as run:
            return self._is_killed(run)

    def is_killed_after(self, wait_s: float) -> bool:
        """The same, by the clock."""
        with self.begun() as run:
            time.sleep(wait_s)
            run.kill()
            return self._is_killed(run)

    def run_to_the_end(self) -> None:
        assert not self.is_killed(0)

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, in an order of their own, without what tells one run from another."""
        found = open_workspace(self.uri).lake.read(table).to_pylist()
        return sorted(({k: v for k, v in row.items() if k not in OF_THE_RUN} for row in found), key=repr)

    def files(self, folder: str) -> dict[str, bytes]:
        place = Path(self.uri) / folder
        return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}

    def unfinished(self) -> set[str]:
        """What a killed write has left."""
        return {path for path in self.files(".") if UNFINISHED in path}

    def _is_killed(self, run: subprocess.Popen[str]) -> bool:
        errors = run.communicate()[1]
        assert not errors, errors
        assert run.returncode in (0, -signal.SIGKILL)
        return run.returncode != 0


@pytest.fixture
def folder(tmp_path: Path, write_ct: WriteCT) -> Path:
    """A dozen series, a copy, a torn file, and a file that is no scan."""
    scans = tmp_path / "scans"
    for n in range(N_SERIES):
        write_ct(scans / f"{n:02d}", (0, 2, 4), SeriesInstanceUID=f"1.2.826.0.1.99.{n + 1}")
    (scans / "00" / "copy").write_bytes((scans / "00" / "IM0001").read_bytes())
    (scans / "01" / "torn").write_bytes((scans / "01" / "IM0001").read_bytes()[:-9])
    (scans / "readme.txt").write_text("not a scan")
    return scans


def send_more(folder: Path, write_ct: WriteCT) -> None:
    """A late slice, a corrected one, and two new series."""
    write_ct(folder / "02", (0, 2, 4, 6), SeriesInstanceUID="1.2.826.0.1.99.3")
    write_ct(folder / "03", (0, 2, 4), SeriesInstanceUID="1.2.826.0.1.99.4", RescaleIntercept="-1000")
    for n in (N_SERIES, N_SERIES + 1):
        write_ct(folder / f"{n:02d}", (0, 2, 4), SeriesInstanceUID=f"1.2.826.0.1.99.{n + 1}")


@pytest.fixture
def nights(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Night, Night]:
    """Two workspaces with one key over the same scans, each with a door book of its own."""
    return make_night(tmp_path, "killed", folder, monkeypatch), make_night(tmp_path, "undisturbed", folder, monkeypatch)


def make_night(place: Path, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    home = place / f"home-{name}"
    monkeypatch.delenv("SITEDRIFT_KEY", raising=False)
    monkeypatch.setenv("SITEDRIFT_HOME", str(home))
    workspace = create_workspace(place / name, key_fingerprint=create_key("w", secret=SECRET))
    add_site(workspace, "north", SiteSettings(quiet_s=0, path=str(folder)))
    settings = Path(workspace.uri, layout.SETTINGS)
    text = settings.read_text()
    assert "# shard_size = 64" in text
    settings.write_text(text.replace("# shard_size = 64", f"shard_size = {SHARD_SIZE}"))
    return Night(workspace.uri, home)


def assert_whole(night: Night) -> None:
    """What holds at any moment: rows name volumes that are there, and nothing is told twice."""
    series, volumes = night.rows(layout.SERIES), night.files(layout.VOLUMES)
    named = {row["volume_uri"].removeprefix(f"{layout.VOLUMES}/") for row in series if row["volume_uri"]}
    assert named <= set(volumes)
    assert_once(series, "series_key", "revision")
    assert_once(night.rows(layout.STAGE), "series_key", "revision", "stage")


def assert_once(rows: list[Row], *columns: str) -> None:
    assert not [key for key, n in Counter(tuple(row[c] for c in columns) for row in rows).items() if n > 1]


def assert_same(killed: Night, undisturbed: Night) -> None:
    for table in TABLES:
        assert killed.rows(table) == undisturbed.rows(table)
    assert_once(killed.rows(layout.ARRIVAL), "arrival_key", "outcome")
    volumes = {path: data for path, data in killed.files(layout.VOLUMES).items() if UNFINISHED not in path}
    assert volumes == undisturbed.files(layout.VOLUMES)


def assert_swept_clean(night: Night) -> None:
    """The doctor's sweep finds every unfinished file, and nothing that a row names."""
    volumes, left = set(night.files(layout.VOLUMES)), night.unfinished()
    swept = sweep(open_workspace(night.uri), before=datetime.now(UTC) + timedelta(hours=1))
    assert swept.n_volumes == 0
    assert swept.n_unfinished >= len(left)
    assert not night.unfinished()
    assert set(night.files(layout.VOLUMES)) == {path for path in volumes if UNFINISHED not in path}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_step_it_ends_as_if_undisturbed(
    nights: tuple[Night, Night], folder: Path, write_ct: WriteCT, seed: int
) -> None:
    killed, undisturbed = nights
    rng = random.Random(seed)
    n_killed = 0
    for n_kills in N_KILLS:
        undisturbed.run_to_the_end()
        for _ in range(n_kills):
            n_killed += killed.is_killed(rng.randint(1, MAX_STEPS))
            assert_whole(killed)
        killed.run_to_the_end()
        assert_same(killed, undisturbed)
        send_more(folder, write_ct)
    assert n_killed >= 10
    assert_swept_clean(killed)


@pytest.mark.slow
def test_killed_by_the_clock_it_ends_as_if_undisturbed(nights: tuple[Night, Night]) -> None:
    """Inside what takes long too: reading, decoding, a commit."""
    killed, undisturbed = nights
    rng = random.Random(3)
    for _ in range(N_KILLS[0]):
        killed.is_killed_after(rng.uniform(0.05, 0.8))
        assert_whole(killed)
    killed.run_to_the_end()
    undisturbed.run_to_the_end()
    assert_same(killed, undisturbed)
    assert_swept_clean(killed)
