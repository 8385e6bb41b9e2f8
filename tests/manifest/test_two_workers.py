"""Two workers at one door: one takes the site, the other leaves it alone or finds nothing new."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from tests.manifest.test_crash import Night, assert_once, assert_same, assert_whole, make_night

N_SERIES = 6
HALF_WAY = "60"
"""A step at which the site is taken and some of its shards are done."""


@pytest.fixture
def folder(tmp_path: Path, write_ct: Callable[..., list[Path]]) -> Path:
    for n in range(N_SERIES):
        write_ct(tmp_path / "scans" / str(n), (0, 2, 4), SeriesInstanceUID=f"1.2.826.0.1.99.{n + 1}")
    return tmp_path / "scans"


@pytest.fixture
def nights(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Night, Night]:
    return make_night(tmp_path, "shared", folder, monkeypatch), make_night(tmp_path, "alone", folder, monkeypatch)


def told(run: subprocess.Popen[str]) -> dict[str, Any]:
    """What a run said when it ended well."""
    output, errors = run.communicate()
    assert not errors, errors
    assert run.returncode == 0
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def wait_until_halted(run: subprocess.Popen[str]) -> None:
    assert run.stdout is not None
    assert run.stdout.readline() == "halt\n"


@pytest.mark.slow
def test_two_that_start_together_take_everything_in_once(nights: tuple[Night, Night]) -> None:
    """In a workspace without a table and at a door without a book, so that both would make them."""
    shared, alone = nights
    with shared.begun() as one, shared.begun() as other:
        ends = [told(one), told(other)]
    assert sorted(end["n_in"] for end in ends) == [0, 3 * N_SERIES]
    alone.run_to_the_end()
    assert_whole(shared)
    assert_once(shared.rows(layout.ARRIVAL), "arrival_key")
    assert_same(shared, alone)


@pytest.mark.slow
def test_a_site_at_work_is_left_alone_even_while_its_worker_stands_still(nights: tuple[Night, Night]) -> None:
    shared, alone = nights
    with shared.begun("STOP", HALF_WAY) as slow:
        wait_until_halted(slow)
        before = shared.rows(layout.ARRIVAL)
        try:
            with shared.begun() as other:
                end = told(other)
            assert (end["is_busy"], end["n_new"], end["n_in"]) == (True, 0, 0)
            assert shared.rows(layout.ARRIVAL) == before
        finally:
            slow.send_signal(signal.SIGCONT)
        assert told(slow)["n_in"] == 3 * N_SERIES
    assert before
    alone.run_to_the_end()
    assert_same(shared, alone)


@pytest.mark.slow
def test_after_a_killed_holder_the_next_takes_the_site(nights: tuple[Night, Night]) -> None:
    shared, alone = nights
    assert shared.is_killed(int(HALF_WAY))
    with shared.begun() as after:
        end = told(after)
    assert not end["is_busy"]
    assert 0 < end["n_in"] < 3 * N_SERIES
    alone.run_to_the_end()
    assert_same(shared, alone)
