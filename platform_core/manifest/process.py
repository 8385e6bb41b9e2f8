"""Which process is at work, so that a run that was killed is told from one that still runs."""

import os
from pathlib import Path


def this_process() -> str:
    """This process, told from a later one that is given the same number."""
    return _told(os.getpid())


def is_alive(process: str) -> bool:
    """Whether the process that was told so still runs on this machine."""
    number = process.partition(":")[0]
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _told(int(number)) == process


def _told(number: int) -> str:
    """Number and, where the system tells it, start time: field 22 of proc(5)."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="latin-1")
    except OSError:
        return f"{number}:"
    return f"{number}:{text.rpartition(')')[2].split()[19]}"
