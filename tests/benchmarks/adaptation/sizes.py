"""How much of everything, as frozen."""

import tomllib
from pathlib import Path
from typing import Any

FROZEN: dict[str, Any] = tomllib.loads((Path(__file__).parent / "frozen.toml").read_text(encoding="utf-8"))


def sizes(*, is_quick: bool) -> dict[str, Any]:
    """Patients, budgets and repetitions."""
    found: dict[str, Any] = FROZEN["quick" if is_quick else "full"]
    return found
