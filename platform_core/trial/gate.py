"""May the challenger take the champion's place? Judged on patients that no training has seen, at every site."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from platform_core.learn.persons import find_persons
from platform_core.learn.registry import ModelRef, find, trained_on
from platform_core.manifest.serving import current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from platform_core.trial.paired import Unseen, pair, patients_of
from platform_core.trial.rollout import with_model
from platform_core.trial.weigh import GateVerdict, Seeds, judge_pairs


def judge(
    workspace: Workspace,
    target: str,
    *,
    champion: ModelRef,
    challenger: ModelRef,
    site: str,
    keys: Sequence[str] | None,
    seeds: Seeds | None = None,
) -> GateVerdict:
    """Compare what every site runs now with the challenger, on its labelled evaluation patients.

    Image-level scans, whose patient is not known, are no evidence; nor is a person of whom any scan, under any
    identifier, was trained on.

    Args:
        workspace: Where predictions of both, by every site's recipe, and labels lie.
        target: The task.
        champion: The model in use.
        challenger: The one that wants its place.
        site: The site that asked for it.
        keys: Its series that count: those of the period, so that the past does not outvote the present; None for all.
        seeds: What the race saw of other seeds.

    Returns:
        The verdict; nothing is promoted or refused here.
    """
    servings = current_servings(workspace, target)
    present = {champion.name: champion, challenger.name: challenger}
    present |= {s.model: find(workspace, s.model) for s in servings if s.model not in present}
    unseen = unseen_by(workspace, list(present.values()))
    names = {"target": target, "champion": champion.name, "challenger": challenger.name}
    rules, n_before = workspace.settings.policy, n_challenges(workspace, target, but=challenger.name)
    sides = [(s, with_model(s, challenger), keys if s.site == site else None) for s in servings]
    if workspace.target(target).task == "segmentation":
        from platform_core.trial.overlap import judge_overlaps, pair_masks

        overlaps = {s.site: pair_masks(workspace, s, after, keys=some, unseen=unseen) for s, after, some in sides}
        return judge_overlaps(overlaps, site, rules, n_before, seeds=seeds, **names)
    pairs = {s.site: pair(workspace, s, after, keys=some, unseen=unseen) for s, after, some in sides}
    source = workspace.target(target).source_site
    return judge_pairs(pairs, site, rules, n_before, source_site=source, seeds=seeds, **names)


def unseen_by(workspace: Workspace, models: Sequence[ModelRef]) -> Unseen:
    """Who may be evidence about these models."""
    seen: frozenset[str] = frozenset().union(*(patients_of(workspace, trained_on(workspace, ref)) for ref in models))
    return Unseen(seen=seen, persons=find_persons(workspace), split=workspace.settings.split)


def n_challenges(workspace: Workspace, target: str, *, but: str) -> int:
    """Challengers of a target that decisions say were judged, at every site; `but` is not counted.

    One that could not be evaluated at the site that asked for it has spent nothing.
    """
    judged = {
        str(gate["challenger"])
        for row in decisions(workspace).to_pylist()
        if row["target"] == target and (gate := _gate_of(row)) is not None and gate.get("alpha") is not None
    }
    return len(judged - {but})


def _gate_of(decision: Mapping[str, Any]) -> dict[str, Any] | None:
    gate: dict[str, Any] | None = json.loads(decision["evidence"] or "{}").get("gate")
    return gate
