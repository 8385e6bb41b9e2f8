"""Episodes: from an alarm until it is closed. Append-only: one row per change of state.

An episode belongs to a site, stratum and target; the findings that opened and moved it
say which. Its states only go forward: opened, acted, watching, closed.

It is opened by a finding that is not quiet, or by the alarm of a watch, however quiet the finding of that night:
too few patients for a verdict are no reason to be silent about a change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.manifest.schemas import EPISODE
from platform_core.manifest.workspace import Workspace
from platform_core.policy.rules import Action
from platform_core.provenance import digest
from platform_core.queries import load
from platform_core.storage.tables import rows_of

State = Literal["opened", "acted", "watching", "closed"]
STATES: tuple[State, ...] = ("opened", "acted", "watching", "closed")
ACTS: tuple[Action, ...] = ("reharmonize", "recalibrate", "calibrate", "adapt", "fine_tune")
"""Actions that change what a site runs; asking and holding leave an episode open."""
QUIET = ("none", "undetermined")
"""Kinds of finding that open no episode; only `none` closes one."""
HERE = "platform_core.policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One alarm at its present state."""

    site: str
    episode_key: str
    state: State
    finding_key: str
    """The finding that opened it."""
    alarm_key: str | None
    """Of the watch's alarm that opened or joined it; None where a finding alone did."""
    followed_until: date
    """Last day of the latest period that moved it."""
    stratum: str
    target: str
    opened_at: datetime
    closed_at: datetime | None


def episodes(workspace: Workspace, site: str | None = None) -> list[Episode]:
    """Every episode at its present state, oldest first."""
    with workspace.lake.connect([layout.EPISODE, layout.FINDING]) as db:
        rows = load(HERE, "episodes").run(db, site=site).to_pylist()
    return [Episode(**row) for row in rows]


def open_episode(
    workspace: Workspace, finding: Mapping[str, Any], *, run: str, at: datetime, alarm_key: str | None = None
) -> str:
    """Open an episode on a finding (a row of `out__finding`), or name the one that is open already.

    Returns:
        episode_key.
    """
    present = _running(workspace, finding)
    if present is not None:
        return present.episode_key
    key = digest(["episode", finding["site"], finding["finding_key"]])
    _append(workspace, finding, key, "opened", opened_at=at, at=at, run=run, alarm_key=alarm_key)
    return key


def advance(
    workspace: Workspace,
    episode_key: str,
    state: State,
    *,
    finding: Mapping[str, Any],
    run: str,
    at: datetime,
    alarm_key: str | None = None,
) -> None:
    """Move an episode forward to `state` because of `finding`; a state it has passed already is left alone.

    Raises:
        UnknownName: If there is no such episode.
    """
    known = {episode.episode_key: episode for episode in episodes(workspace, str(finding["site"]))}
    if episode_key not in known:
        raise UnknownName("episode", episode_key, known)
    present = known[episode_key]
    if STATES.index(state) > STATES.index(present.state):
        opened_at = present.opened_at
        _append(workspace, finding, episode_key, state, opened_at=opened_at, at=at, run=run, alarm_key=alarm_key)


def follow(
    workspace: Workspace,
    finding: Mapping[str, Any],
    *,
    has_acted: bool,
    run: str,
    at: datetime,
    alarm_key: str | None = None,
) -> Episode | None:
    """Open, move or close the episode that a finding belongs to; call it once per decision, after its action.

    An episode closes only when a LATER period is quiet: the period that raised the alarm is
    no witness of the repair that was fitted to it. One on which nobody acted closes also when the patients since
    the watch's alarm show nothing that matters: their state is the accepted one from then on.

    Args:
        workspace: Where episodes are kept.
        finding: A row of `out__finding`, already written.
        has_acted: One of `ACTS` was carried out for it.
        run: The run.
        at: The moment, UTC.
        alarm_key: Of the watch's alarm that began the finding's period, or that none has answered; None without one.

    Returns:
        The episode as it now is; None if there is none.
    """
    present = _running(workspace, finding)
    is_alarm = alarm_key is not None and not _is_answered(workspace, finding, alarm_key)
    if present is None and finding["kind"] in QUIET and not is_alarm:
        return None
    key = open_episode(workspace, finding, run=run, at=at, alarm_key=alarm_key)
    is_later = present is not None and finding["period_start"] > present.followed_until
    state = _next_state(present, str(finding["kind"]), is_later=is_later, has_acted=has_acted)
    if is_alarm and finding["kind"] == "none" and (present is None or present.state == "opened"):
        state = "closed"
    if state is not None:
        advance(workspace, key, state, finding=finding, run=run, at=at, alarm_key=alarm_key)
    return next(episode for episode in episodes(workspace, str(finding["site"])) if episode.episode_key == key)


def _next_state(present: Episode | None, kind: str, *, is_later: bool, has_acted: bool) -> State | None:
    if is_later and kind == "none":
        return "closed"
    if is_later and present is not None and present.state == "acted":
        return "watching"
    return "acted" if has_acted else None


def _is_answered(workspace: Workspace, finding: Mapping[str, Any], alarm_key: str) -> bool:
    """Whether an episode of the alarm or of the finding's period was closed already: an alarm is followed up once."""
    closed = [episode for episode in _of_scope(workspace, finding) if episode.state == "closed"]
    return any(e.alarm_key == alarm_key or e.followed_until >= finding["period_end"] for e in closed)


def _running(workspace: Workspace, finding: Mapping[str, Any]) -> Episode | None:
    return next((episode for episode in _of_scope(workspace, finding) if episode.state != "closed"), None)


def _of_scope(workspace: Workspace, finding: Mapping[str, Any]) -> list[Episode]:
    """Every episode of a finding's site, stratum and target, oldest first."""
    scope = (finding["stratum"], finding["target"])
    return [e for e in episodes(workspace, str(finding["site"])) if (e.stratum, e.target) == scope]


def _append(
    workspace: Workspace,
    finding: Mapping[str, Any],
    episode_key: str,
    state: State,
    *,
    opened_at: datetime,
    at: datetime,
    run: str,
    alarm_key: str | None = None,
) -> None:
    row = {
        "site": finding["site"],
        "episode_key": episode_key,
        "finding_key": finding["finding_key"],
        "alarm_key": alarm_key,
        "state": state,
        "opened_at": opened_at,
        "closed_at": at if state == "closed" else None,
        "run": run,
    }
    workspace.lake.append(layout.EPISODE, rows_of(EPISODE, [row]), transaction=f"episode/{episode_key}/{state}")
