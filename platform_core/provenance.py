"""What an artefact was made from, as one short hash.

Equal inputs give equal names, so a changed parameter can never serve a stale result.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def digest(facts: Mapping[str, Any] | list[Any], n_chars: int = 12) -> str:
    """Hash JSON-able facts, whatever the order of their keys.

    Raises:
        ValueError: If a fact is not JSON (NaN and infinity included).
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:n_chars]


def number_of(text: str) -> int:
    """A number in [0, 2^64) that depends on the text alone: a seed, or a draw that every rerun makes again."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


@cache
def code_version() -> str:
    """The installed version and a hash of the source that runs, `0.1.0+3f9c...`: equal source, equal name."""
    here = Path(__file__).parent
    source = hashlib.sha256()
    for file in sorted(path for path in here.rglob("*") if path.suffix in (".py", ".sql")):
        data = file.read_bytes()
        source.update(f"{file.relative_to(here).as_posix()}:{len(data)};".encode() + data)
    try:
        installed = version("sitedrift")
    except PackageNotFoundError:  # run from its source without being installed
        installed = "0"
    return f"{installed}+{source.hexdigest()[:12]}"
