"""What is tried for a case and may fail: the site goes on running what it ran, and the decision says why."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from platform_core.errors import PlatformError, Unavailable
from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, settle

T = TypeVar("T")
log = logging.getLogger("sitedrift")


def attempt(case: Case, decision: Decision, act: Callable[[], T | None], *, named: str) -> T | None:
    """What the action comes to; None if it fails, which settles the decision as refused.

    Args:
        case: What it is tried for.
        decision: By which it is tried.
        act: Settles the decision itself where it comes to nothing.
        named: As sentences name the action: `the training`.

    Raises:
        Unavailable: If a GPU or the store fails: another try may succeed.
    """
    try:
        return act()
    except Unavailable:
        raise
    except PlatformError as error:
        give_up(case, decision, str(error))
    except Exception as error:  # whatever a network raises, nobody's site may stop for it
        log.exception("%s: %s for %s failed", case.target, named, case.site)
        give_up(case, decision, f"{named} failed: {type(error).__name__}; the log of run {case.run} says where")
    return None


def give_up(case: Case, decision: Decision, reason: str, facts: Mapping[str, Any] | None = None) -> None:
    """Settle a decision as refused before there was anything to serve; nothing that is served changes."""
    settle(case, decision, status="refused", before=case.serving, facts={"refused": reason, **(facts or {})})
