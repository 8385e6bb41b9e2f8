"""The command line as a person meets it: one clear line for whatever is wrong, and the right exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., subprocess.CompletedProcess[str]]
NEEDS_A_PERSON, WRONG_CALL = 1, 2


@pytest.fixture
def sitedrift(tmp_path: Path) -> Call:
    env = {**os.environ, "SITEDRIFT_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "prefect")}

    def call(*words: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.cli", *words]
        root = str(Path(__file__).parents[2])
        return subprocess.run(
            command, cwd=cwd, env={**env, "PYTHONPATH": root}, capture_output=True, text=True, check=False
        )

    return call


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_a_folder_without_a_workspace_is_named_with_the_remedy(sitedrift: Call) -> None:
    done = sitedrift("status")
    assert done.returncode == WRONG_CALL
    assert "holds no sitedrift.toml" in told(done)
    assert "sitedrift init" in told(done)


def test_a_second_init_in_one_folder_is_refused(sitedrift: Call) -> None:
    assert sitedrift("init", "w").returncode == 0
    done = sitedrift("init", "w")
    assert done.returncode == WRONG_CALL
    assert "is a workspace already" in told(done)


@pytest.fixture
def made(sitedrift: Call, tmp_path: Path) -> Path:
    assert sitedrift("init", "w").returncode == 0
    return tmp_path / "w"


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("site", "add", "north", "--source", "nowhere"), ["nowhere", "expected"]),
        (("site", "add", "North Site", "--source", "."), ["North Site", "lower-case"]),
        (
            ("site", "add", "north", "--source", ".", "--kind", "fodler"),
            ["fodler", "known: dicomweb, folder, image_folder, s3_bucket"],
        ),
        (("run",), ["no site is configured", "sitedrift site add"]),
        (("run", "south"), ["no site named 'south'"]),
        (("train", "lesion"), ["no target named 'lesion'"]),
        (("query", "select * from nothing"), ["nothing"]),
        (("model", "show", "lesion@7"), ["no model named 'lesion@7'"]),
        (("label", "import", "none.csv", "--site", "south", "--target", "x"), ["no site named 'south'"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_wrong_call_says_what_was_expected(
    sitedrift: Call, made: Path, words: tuple[str, ...], facts: list[str]
) -> None:
    done = sitedrift(*words, cwd=made)
    assert done.returncode == WRONG_CALL
    for fact in facts:
        assert fact in told(done)


def test_a_broken_settings_file_is_named_with_its_line(sitedrift: Call, made: Path) -> None:
    (made / "sitedrift.toml").write_text("name = \n")
    done = sitedrift("status", cwd=made)
    assert done.returncode == WRONG_CALL
    assert "line 1" in told(done)


def test_a_key_of_another_workspace_is_refused(sitedrift: Call, made: Path, tmp_path: Path) -> None:
    for key in (tmp_path / "home").rglob("*.key"):
        key.unlink()
    done = sitedrift("doctor", cwd=made)
    assert done.returncode == WRONG_CALL
    assert "pseudonym key" in told(done)


def test_status_of_an_empty_workspace_is_an_empty_list(sitedrift: Call, made: Path) -> None:
    assert sitedrift("status", "--json", cwd=made).stdout.strip() == "[]"


def test_a_site_that_is_down_keeps_no_other_from_its_run(
    sitedrift: Call, made: Path, tmp_path: Path, write_ct: Callable[..., list[Path]]
) -> None:
    for name in ("down", "north"):
        (tmp_path / name).mkdir()
        assert (
            sitedrift("site", "add", name, "--source", str(tmp_path / name), "--quiet-s", "0", cwd=made).returncode == 0
        )
    write_ct(tmp_path / "north")
    (tmp_path / "down").rmdir()
    done = sitedrift("run", "--until", "quality", cwd=made)
    assert done.returncode == NEEDS_A_PERSON
    assert "down: stopped:" in told(done)
    assert "north: 4 arrivals = 4 accepted" in told(done)


def test_a_site_that_is_down_is_told_of_when_it_is_the_only_one(sitedrift: Call, made: Path, tmp_path: Path) -> None:
    (tmp_path / "down").mkdir()
    assert sitedrift("site", "add", "down", "--source", str(tmp_path / "down"), cwd=made).returncode == 0
    (tmp_path / "down").rmdir()
    done = sitedrift("run", cwd=made)
    assert done.returncode == WRONG_CALL
    assert "expected a folder with scans" in told(done)
