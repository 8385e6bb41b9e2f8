"""A champion changed, by the gate or by a person's hand: the alias first, then every site's serving; and back.

A change is written down as `proposed` before anything moves and as `done` when all has moved. What was cut off in
between is finished when it is asked for again, and by the next run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.free_text import refuse_identifying
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.serving import (
    Serving,
    change_serving,
    current_serving,
    current_servings,
    serving_history,
    serving_since,
)
from platform_core.manifest.workspace import Workspace
from platform_core.policy import episodes
from platform_core.policy.record import decisions, record_row
from platform_core.provenance import digest
from platform_core.trial.change_control import keep_change_control
from platform_core.trial.expiry import until

Row = dict[str, Any]
Verb = Literal["promote", "rollback", "restore"]
BEGUN = ("proposed", "passed")
"""What a person asks for, and what the gate lets through, before all has moved."""
NO_REASON = "no reason was given"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """What a person wants changed."""

    verb: Verb
    target: str
    site: str
    """The source site for a champion; for `restore` the site."""
    champion: str
    """Who is to be champion, or what the site is to run."""
    former: str | None
    event: int
    """Number of the model's, or the serving's, event that the change would be: a later change is another one."""
    because: str
    by: str
    """Who wants it."""

    @property
    def key(self) -> str:
        """decision_key: the same if the same change is asked for again."""
        return digest(["by hand", self.verb, self.target, self.site, self.champion, self.event])


def promote_by_hand(
    workspace: Workspace, model: str, *, run: str, at: datetime, because: str = "", by: str = "a person"
) -> str:
    """Make `model@version` the champion; returns a sentence about what changed.

    Raises:
        UnknownName: If there is no such model.
        BadRequest: If it was adapted to one site, somebody else changed the champion at the same time, or the text
            could identify a patient; nothing is written down then.
    """
    refuse_identifying(because, by)
    wanted = registry.find(workspace, model)
    finish_rollouts(workspace, wanted.model, run=run, at=at)
    present = registry.champion(workspace, wanted.model)
    if present is not None and present.name == wanted.name:
        return _sentence(wanted, follow_champion(workspace, wanted.model, run=run, at=at))
    registry.refuse_adapted(workspace, wanted)
    change = _change(workspace, "promote", wanted, present, because=because, by=by)
    _record(workspace, change, "proposed", run=run, at=at)
    promoted = registry.promote(workspace, wanted, over=present, run=run, at=at)
    return _complete(workspace, change, promoted, run=run, at=at)


def roll_back(
    workspace: Workspace, target: str, *, run: str, at: datetime, because: str = "", by: str = "a person"
) -> str:
    """Put the former champion back; returns a sentence about what changed.

    A rollback that was cut off is finished; it does not go back one version more.

    Raises:
        BadRequest: If there is no former champion, somebody else changed the champion at the same time, or the text
            could identify a patient.
    """
    refuse_identifying(because, by)
    begun = [row for row in _unfinished(workspace, target) if row["action"] == "rollback"]
    finished = finish_rollouts(workspace, target, run=run, at=at)
    present = registry.champion(workspace, target)
    if present is not None and any(_rollout_of(row)["champion"] == present.name for row in begun):
        return f"the rollback that was cut off is finished: {'; '.join(finished)}"
    wanted = registry.former(workspace, target)
    change = _change(workspace, "rollback", wanted, present, because=because, by=by)
    _record(workspace, change, "proposed", run=run, at=at)
    restored = registry.rollback(workspace, target, run=run, at=at)
    return _complete(workspace, change, restored, run=run, at=at)


def restore_serving(
    workspace: Workspace,
    site: str,
    target: str,
    *,
    run: str,
    at: datetime,
    because: str = "",
    by: str = "a person",
) -> str:
    """Put one site's serving before the present one back: model, recipe and calibration.

    One that was given for a time gets its time anew. A restoration that was cut off is finished; it does not go back
    to what the site ran before it.

    Raises:
        BadRequest: If the site has had only one serving, it was changed at the same time, or the text could identify
            a patient.
    """
    refuse_identifying(because, by)
    workspace.site(site)
    for row in _unfinished(workspace, target):
        if (row["action"], row["site"]) == ("restore", site) and _served_by(workspace, row) is not None:
            return _finish_restoration(workspace, row, run=run, at=at)
    history = serving_history(workspace, site, target)
    earlier = [each for each in history if not each.runs_as(history[-1])]
    if not earlier:
        raise BadRequest(f"{site}: there is no earlier serving of {target} to go back to")
    present = history[-1]
    ends = None if earlier[-1].until is None else until(workspace, at, has_labels=False)
    before = replace(earlier[-1], epoch=present.epoch, until=ends)
    change = ByHand(
        verb="restore",
        target=target,
        site=site,
        champion=before.model,
        former=present.model,
        event=present.epoch + 1,
        because=because or NO_REASON,
        by=by,
    )
    _record(workspace, change, "proposed", run=run, at=at, before=present)
    now = change_serving(workspace, before, decision_key=change.key, at=at, run=run)
    _record(workspace, change, "done", run=run, at=at, before=present)
    return _restored(now)


def follow_champion(
    workspace: Workspace, target: str, *, run: str, at: datetime, decision_key: str | None = None
) -> list[str]:
    """Bring every serving that has not followed the champion yet to it; returns the sites that changed.

    A site has not followed if what it runs is from before the champion's promotion. What it was given since, by a
    person or as an adaptation of the champion, it keeps; so it does the limit of a recipe or a prevalence that no
    label has confirmed.
    """
    champion = registry.champion(workspace, target)
    if champion is None:
        return []
    own = _own_models(workspace, champion)
    behind = [
        serving
        for serving in current_servings(workspace, target)
        if serving.model not in own and serving_since(workspace, serving) <= champion.since
    ]
    for serving in behind:
        follows = replace(with_model(serving, champion), until=_limit_left(workspace, serving))
        change_serving(workspace, follows, decision_key=decision_key, at=at, run=run)
    return [serving.site for serving in behind]


def finish_rollouts(workspace: Workspace, target: str, *, run: str, at: datetime) -> list[str]:
    """Finish every change that was written down and cut off; one sentence each.

    Of a champion: the gate's is carried out if its champion still is; a person's of which nothing had moved is given
    up. Of one site: what is served already is told as done.
    """
    told = [_finish(workspace, row, run=run, at=at) for row in _unfinished(workspace, target)]
    return [*told, *_finish_served(workspace, target, run=run, at=at)]


def _finish_served(workspace: Workspace, target: str, *, run: str, at: datetime) -> list[str]:
    begun = [row for row in decisions(workspace).to_pylist() if (row["target"], row["status"]) == (target, "proposed")]
    found = [(row, now) for row in begun if (now := _served_by(workspace, row)) is not None]
    for row, now in found:
        because = f"{row['because']}; it was cut off when it was served, and is told by run {run}"
        ended = {name: row[name] for name in DECISION.names} | {"decided_at": at, "run": run, "because": because}
        record_row(workspace, ended | {"status": "done", "serving_after": now.to_json()})
        _move_episode(workspace, row, run=run, at=at)
    return [f"{row['site']}: {row['action']} was cut off when it was served, and is told now" for row, _ in found]


def rollout_facts(champion: ModelRef, former: ModelRef | None) -> Row:
    """What a decision says of the change of champion that it proposes: `finish_rollouts` needs no more."""
    return {"rollout": {"champion": champion.name, "former": None if former is None else former.name}}


def with_model(serving: Serving, model: ModelRef) -> Serving:
    """The same serving with another model and no limit; its calibration goes on as far as the model allows."""
    calibration = registry.calibration_under(model, serving)
    return replace(serving, model=model.name, calibration=calibration, until=None)


def limit_of(
    workspace: Workspace,
    before: Serving,
    at: datetime,
    *,
    has_labels: bool,
    kept: Sequence[str] = ("model",),
) -> datetime | None:
    """When a change that is made at `at` ends by itself.

    What stays as it was keeps its own limit: labels confirm what they compared, and nothing beside it.

    Args:
        workspace: Where servings are read.
        before: What the site runs.
        at: The moment of the change, UTC.
        has_labels: Labels of the site confirm the change beyond chance.
        kept: What the change leaves alone, of `model` and `recipe`.
    """
    history = serving_history(workspace, before.site, before.target)
    sure = next((each for each in reversed(history) if each.until is None), None)
    on_trial = sure is not None and any(getattr(before, name) != getattr(sure, name) for name in kept)
    limits = [before.until if on_trial else None, None if has_labels else until(workspace, at, has_labels=False)]
    return min((limit for limit in limits if limit is not None), default=None)


def _change(
    workspace: Workspace, verb: Verb, wanted: ModelRef, present: ModelRef | None, *, because: str, by: str
) -> ByHand:
    return ByHand(
        verb=verb,
        target=wanted.model,
        site=workspace.target(wanted.model).source_site,
        champion=wanted.name,
        former=None if present is None else present.name,
        event=registry.next_epoch(workspace, wanted.model),
        because=because or NO_REASON,
        by=by,
    )


def _complete(workspace: Workspace, change: ByHand, champion: ModelRef, *, run: str, at: datetime) -> str:
    sites = follow_champion(workspace, change.target, run=run, at=at, decision_key=change.key)
    _record(workspace, change, "done", run=run, at=at)
    keep_change_control(workspace, champion.name, at=at)
    return _sentence(champion, sites)


def _sentence(champion: ModelRef, sites: list[str]) -> str:
    return f"{champion.name} is the champion of {champion.model}; changed at: {', '.join(sites) or 'no site'}"


def _record(
    workspace: Workspace,
    change: ByHand,
    status: Literal["proposed", "done"],
    *,
    run: str,
    at: datetime,
    before: Serving | None = None,
) -> None:
    """One row per status of one change; its `finding_key` is null: no finding asked for it."""
    present = current_serving(workspace, change.site, change.target)
    is_done = status == "done" and present is not None
    row = {
        "site": change.site,
        "decision_key": change.key,
        "decided_at": at,
        "step": 0,
        "target": change.target,
        "action": change.verb,
        "because": change.because,
        "status": status,
        "approved_by": change.by,
        "serving_before": None if before is None else before.to_json(),
        "serving_after": present.to_json() if is_done and present is not None else None,
        "evidence": json.dumps({"rollout": {"champion": change.champion, "former": change.former}}, sort_keys=True),
        "run": run,
    }
    record_row(workspace, row)


def _unfinished(workspace: Workspace, target: str) -> list[Row]:
    rows = [row for row in decisions(workspace).to_pylist() if row["target"] == target and row["status"] in BEGUN]
    return [row for row in rows if _rollout_of(row)]


def _rollout_of(decision: Mapping[str, Any]) -> Row:
    found: Row = json.loads(decision["evidence"] or "{}").get("rollout", {})
    return found


def _finish(workspace: Workspace, row: Row, *, run: str, at: datetime) -> str:
    if row["action"] == "restore":
        return _finish_restoration(workspace, row, run=run, at=at)
    target, asked = str(row["target"]), _rollout_of(row)
    present = registry.champion(workspace, target)
    has_moved = present is not None and present.name == asked["champion"]
    if not has_moved and row["finding_key"] is not None and present is not None and present.name == asked["former"]:
        present = registry.promote(workspace, registry.find(workspace, asked["champion"]), over=present, run=run, at=at)
        has_moved = True
    if not has_moved or present is None:
        return _give_up(workspace, row, run=run, at=at)
    ended = {name: row[name] for name in DECISION.names} | {"decided_at": at, "run": run}
    sites = follow_champion(workspace, target, run=run, at=at, decision_key=str(row["decision_key"]))
    now = current_serving(workspace, str(row["site"]), target)
    record_row(workspace, ended | {"status": "done", "serving_after": None if now is None else now.to_json()})
    _move_episode(workspace, row, run=run, at=at)
    keep_change_control(workspace, present.name, at=at)
    return _sentence(present, sites)


def _give_up(workspace: Workspace, row: Row, *, run: str, at: datetime) -> str:
    told = {"status": "refused", "because": f"{row['because']}; cut off before anything moved"}
    record_row(workspace, {name: row[name] for name in DECISION.names} | {"decided_at": at, "run": run} | told)
    return f"{row['action']} of {_rollout_of(row)['champion']} was cut off before anything moved, and is given up"


def _finish_restoration(workspace: Workspace, row: Row, *, run: str, at: datetime) -> str:
    now = _served_by(workspace, row)
    if now is None:
        return _give_up(workspace, row, run=run, at=at)
    ended = {name: row[name] for name in DECISION.names} | {"decided_at": at, "run": run}
    record_row(workspace, ended | {"status": "done", "serving_after": now.to_json()})
    return _restored(now)


def _served_by(workspace: Workspace, row: Row) -> Serving | None:
    """The serving that a decision about one site has put in force; None if it has not."""
    where = (pc.field("site") == row["site"]) & (pc.field("decision_key") == row["decision_key"])
    epochs = workspace.lake.read(layout.SERVING, where, ["epoch"]).column("epoch").to_pylist()
    history = serving_history(workspace, str(row["site"]), str(row["target"]))
    return next((serving for serving in history if serving.epoch in epochs), None)


def _restored(now: Serving) -> str:
    return f"{now.site} runs {now.model} by {now.recipe} again, at {now.calibration.spelt}"


def _move_episode(workspace: Workspace, row: Row, *, run: str, at: datetime) -> None:
    where = (pc.field("site") == row["site"]) & (pc.field("finding_key") == row["finding_key"])
    for finding in workspace.lake.read(layout.FINDING, where).to_pylist()[:1] if row["finding_key"] else []:
        episodes.follow(workspace, finding, has_acted=True, run=run, at=at)


def _limit_left(workspace: Workspace, serving: Serving) -> datetime | None:
    """When a serving still ends by itself once its model is replaced: not at all if the model was all that had to."""
    if serving.until is None:
        return None
    lasting = [each for each in serving_history(workspace, serving.site, serving.target) if each.until is None]
    if not lasting:
        return serving.until
    parts, confirmed = ((each.recipe, each.calibration.prevalence) for each in (serving, lasting[-1]))
    return None if parts == confirmed else serving.until


def _own_models(workspace: Workspace, champion: ModelRef) -> set[str]:
    """The champion and the adaptations that were made from it."""
    known = registry.models(workspace, champion.model)
    return {champion.name} | {ref.name for ref in known if (ref.alias, ref.parent) == ("adapted", champion.name)}
