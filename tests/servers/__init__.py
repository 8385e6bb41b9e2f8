"""Real servers for tests: each starts on a free loopback port in a temporary folder and ends with the tests.

A server whose program is missing skips its tests with the line that installs it; under
`CI=true` nothing is skipped, because there the programs are installed.
"""

import contextlib
import fcntl
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
LOCKS = Path(tempfile.gettempdir()) / "sitedrift-test-ports"
HELD: list[TextIO] = []
"""A lock file for each port of this process; closed, and so unlocked, when it ends."""
KEEPER = '"$@" < /dev/null & read -r _; kill -9 $!; wait'
"""Runs a command until this shell's standard input closes, which it does however the test process ends."""


def need(program: str, install_line: str) -> str:
    """The path of a program; without it the test is skipped with the line that installs it, and fails under CI."""
    found = shutil.which(program, path=PATH)
    if found is not None:
        return found
    told = f"{program} is not installed: {install_line}"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


def free_port() -> int:
    """A loopback port that nobody listens on, kept for this process against other test runs.

    Below the range that the system gives to outgoing connections.
    """
    LOCKS.mkdir(exist_ok=True)
    while True:
        port = random.randrange(20_000, 32_000)
        lock = (LOCKS / str(port)).open("w")
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("127.0.0.1", port))
            HELD.append(lock)
            return port
        lock.close()


class Kept:
    """A server process that cannot outlive the process that started it."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self._keeper = subprocess.Popen(
                ["sh", "-c", KEEPER, "keeper", *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=os.environ | (environment or {}),
            )

    def stop(self) -> None:
        """Kill it and wait until it is gone."""
        self._keeper.communicate()


def wait_until(is_ready: Callable[[], bool], what: str, log: Path, seconds: float = 60) -> None:
    """Ask until the answer is yes; a server that does not come up fails with the end of its log."""
    end = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > end:
            told = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            pytest.fail(f"{what} did not start within {seconds:.0f} s:\n{told}")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
