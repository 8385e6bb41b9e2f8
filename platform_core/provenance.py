"""What an artefact was made from, as one short hash.

Equal inputs give equal names, so a changed parameter can never serve a stale result.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(facts: Mapping[str, Any] | list[Any], n_chars: int = 12) -> str:
    """Hash JSON-able facts, whatever the order of their keys.

    Raises:
        ValueError: If a fact is not JSON (NaN and infinity included).
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:n_chars]
