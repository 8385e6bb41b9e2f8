"""What a site was given without a label ends by itself, unless quiet periods speak for it."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.learn import registry
from platform_core.manifest.serving import Serving, change_serving, current_serving, serving_history, serving_since
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import record_row
from platform_core.provenance import digest
from platform_core.shift.stage import Finding, findings

Verb = Literal["renew", "restore"]
VERBS: tuple[Verb, ...] = get_args(Verb)


def until(workspace: Workspace, at: datetime, *, has_labels: bool) -> datetime | None:
    """When a change of serving that is made at `at` ends by itself; None if labels have confirmed it."""
    return None if has_labels else at + timedelta(days=workspace.settings.policy.days_without_labels)


def renew_or_end(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> str | None:
    """Renew a serving whose time is over if the site has been quiet since, else put back what holds without a limit.

    Quiet: periods that go on after the last day that was known at the change have findings, and the latest of every
    stratum is `none`.

    Returns:
        A sentence about what changed; None if nothing did.

    Raises:
        BadRequest: If the serving was changed at the same time.
    """
    present = current_serving(workspace, site, target)
    if present is None:
        return None
    told = _written_late(workspace, present)
    if present.until is None or present.until > at:
        return told
    if _is_quiet(workspace, present):
        wanted = replace(present, until=until(workspace, at, has_labels=False))
        return _change(workspace, "renew", present, wanted, run=run, at=at)
    before = _without_limit(workspace, present)
    if before is None:
        return told
    wanted = replace(_by_champion(workspace, present, before), epoch=present.epoch)
    return _change(workspace, "restore", present, wanted, run=run, at=at)


def _is_quiet(workspace: Workspace, serving: Serving) -> bool:
    known = _known_until(workspace, serving)
    mine = [found for found in findings(workspace, serving.site) if found.target == serving.target]
    later = [found for found in mine if known is None or found.period_end > known]
    latest: dict[str, Finding] = {}
    for found in sorted(later, key=lambda found: (found.period_start, found.run)):
        latest[found.stratum] = found
    return bool(latest) and all(found.kind == "none" for found in latest.values())


def _known_until(workspace: Workspace, serving: Serving) -> date | None:
    """The last day of the site that was known when the serving began; None before its first scan.

    Days in tables were moved at the door, so a moment of the clock cannot be compared with them.
    """
    was_there = pc.field("ingested_at") <= pa.scalar(serving_since(workspace, serving))
    rows = workspace.lake.read(layout.SERIES, (pc.field("site") == serving.site) & was_there, ["observed_on"])
    last: date | None = pc.max(rows.column("observed_on")).as_py()
    return last


def _without_limit(workspace: Workspace, serving: Serving) -> Serving | None:
    """The latest serving before this one that has no limit: what was given for a time is not gone back to."""
    history = serving_history(workspace, serving.site, serving.target)
    return next((each for each in reversed(history) if each.until is None), None)


def _by_champion(workspace: Workspace, present: Serving, before: Serving) -> Serving:
    """What is put back, with the champion if that is what the site runs: it was promoted, and what ends is the rest."""
    champion = registry.champion(workspace, present.target)
    if champion is None or present.model != champion.name:
        return before
    if before.model == champion.name:
        return before
    return replace(before, model=champion.name, calibration=registry.calibration_under(champion, before))


def _change(workspace: Workspace, verb: Verb, present: Serving, wanted: Serving, *, run: str, at: datetime) -> str:
    """Put the serving in force and write down why; no finding asked for it."""
    now = change_serving(workspace, wanted, decision_key=_key(verb, present), at=at, run=run)
    _record(workspace, verb, present, now, run=run, at=at)
    return _because(verb, present, now)


def _written_late(workspace: Workspace, present: Serving) -> str | None:
    """What `_change` did in a process that died before it wrote it down, which is done now; None if nothing is left."""
    history = serving_history(workspace, present.site, present.target)
    if len(history) < 2:
        return None
    before = history[-2]
    here = (pc.field("site") == present.site) & (pc.field("target") == present.target)
    row = workspace.lake.read(layout.SERVING, here & (pc.field("epoch") == present.epoch)).to_pylist()[0]
    verb = next((verb for verb in VERBS if _key(verb, before) == row["decision_key"]), None)
    if verb is None or not _record(workspace, verb, before, present, run=row["run"], at=row["since"]):
        return None
    return _because(verb, before, present)


def _record(workspace: Workspace, verb: Verb, before: Serving, after: Serving, *, run: str, at: datetime) -> bool:
    """Write the decision once; whether it was not there."""
    row: dict[str, Any] = {
        "site": before.site,
        "decision_key": _key(verb, before),
        "decided_at": at,
        "step": 0,
        "target": before.target,
        "action": verb,
        "because": _because(verb, before, after),
        "status": "done",
        "approved_by": "policy",
        "serving_before": before.to_json(),
        "serving_after": after.to_json(),
        "evidence": json.dumps({}),
        "run": run,
    }
    return record_row(workspace, row)


def _key(verb: Verb, before: Serving) -> str:
    return digest(["by itself", verb, before.target, before.site, before.epoch])


def _because(verb: Verb, before: Serving, after: Serving) -> str:
    if verb == "renew":
        return f"no label has confirmed {_spelt(before)}, and the site has been quiet with it: until {after.until:%F}"
    return (
        f"neither labels nor a quiet period have confirmed {_spelt(before)}: {before.site} runs {_spelt(after)} again"
    )


def _spelt(serving: Serving) -> str:
    return f"{serving.model} by {serving.recipe} at {serving.calibration.spelt}"
