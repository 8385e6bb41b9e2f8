"""Freed memory that stays with the process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import resource
import numpy as np
from platform_core.imaging.freed_memory import keep_freed_memory
kept = {call}
for _ in range(4):
    last = np.ones(2**25, np.float32)
    del last
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    last = np.ones(2**25, np.float32)
    del last
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
@pytest.mark.parametrize(("call", "expected"), [("keep_freed_memory()", "True True"), ("False", "False False")])
def test_an_array_takes_the_place_of_the_one_before(call: str, expected: str) -> None:
    """Told by the page faults: none, against tens per array."""
    found = subprocess.run(
        [sys.executable, "-c", CODE.format(call=call)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == expected


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_core.imaging import freed_memory

    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert freed_memory.keep_freed_memory() is False
