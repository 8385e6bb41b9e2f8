"""The only place that reads the clock. Flows call it; nothing below flows does."""

import secrets
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, UTC, with microseconds."""
    return datetime.now(UTC)


def new_run(at: datetime) -> str:
    """A name for one run that sorts by time: `20260201T060000-1f9c`."""
    return f"{at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
