"""A challenger beside the champion: predicted every night, judged again on what came since, then promoted or refused.

What it says is used by nobody until then.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.learn import registry
from platform_core.learn.data import source_recipe
from platform_core.learn.registry import ModelRef
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.serving import Serving, current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions, record_row
from platform_core.shift.adapted import trained_version
from platform_core.shift.labels.prevalence import P_FIT, estimate_prevalence
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.trial.gate import unseen_by
from platform_core.trial.paired import Unseen, pair
from platform_core.trial.rollout import finish_rollouts, rollout_facts, with_model
from platform_core.trial.weigh import SiteVerdict, as_json, judge_site

Row = dict[str, Any]
LONGEST = 4
"""Times its days after which a shadow ends as refused if too few scans came: meanwhile nothing else is trained for the
target. Proposed."""
MIN_PATIENTS = 50
"""Patients whose scores say whether they still fit. Proposed: with fewer, most bins hold fewer than five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSite:
    """What came at one site since the challenger went into the shadow."""

    site: str
    n_scans: int
    """Predicted by both."""
    n_disagree: int | None
    """That the two call differently at the served threshold; None of masks."""
    p_fit_champion: float | None
    """Chance of scores this unlike any mixture of the reference's classes; None of masks, and with too few
    patients."""
    p_fit_shadow: float | None
    gate: SiteVerdict
    """From labels, for harm only; `not_evaluable` where they are too few."""

    @property
    def because(self) -> str | None:
        """Why the challenger may not go on; None if nothing speaks against it."""
        if self.gate.outcome == "fails":
            return f"{self.site}: {self.gate.because}"
        if self.p_fit_shadow is not None and self.p_fit_shadow <= P_FIT < (self.p_fit_champion or 0.0):
            told = f"no mixture of the reference's classes fits its scores any more (p {self.p_fit_shadow:.3f})"
            return f"{self.site}: {told}"
        return None


def shadow_of(workspace: Workspace, target: str) -> ModelRef | None:
    """The challenger in the shadow; None without one."""
    begun = next(iter(_begun(workspace, target)), None)
    return None if begun is None else registry.find(workspace, json.loads(begun["evidence"])["rollout"]["champion"])


def shadow_facts(workspace: Workspace, challenger: ModelRef, champion: ModelRef, *, at: datetime) -> Row:
    """What a decision says of the shadow period that it begins."""
    rules = workspace.settings.policy
    until = at + timedelta(days=rules.shadow_days)
    shadow = {"since": at.isoformat(), "until": until.isoformat(), "n_scans": rules.shadow_scans}
    return {"shadow": shadow, **rollout_facts(challenger, champion)}


def settle_shadow(workspace: Workspace, target: str, *, run: str, at: datetime) -> str | None:
    """End a shadow period that is over: promote the challenger everywhere or refuse it; one sentence either way.

    Over: its days have passed, and it has predicted the scans that it takes, at all sites together; or `LONGEST` times
    its days have passed, which refuses it, or a person has rejected it. Labels that came
    since are judged for harm by the margins of the gate; without enough of them, scores must still fit the classes of
    the reference where the champion's do. The gain was shown before.

    Returns:
        None if there is no shadow; how far it is while its period goes on.
    """
    begun = next(iter(_begun(workspace, target)), None)
    if begun is None:
        return _refuse_rejected(workspace, target, run=run, at=at)
    evidence = json.loads(begun["evidence"])
    asked, since = evidence["rollout"], datetime.fromisoformat(evidence["shadow"]["since"])
    challenger, champion = registry.find(workspace, asked["champion"]), registry.champion(workspace, target)
    if champion is None or champion.name not in (asked["former"], challenger.name):
        return _refuse(workspace, begun, challenger, "another version became champion meanwhile", {}, run=run, at=at)
    if champion.name == challenger.name:
        return _promote(workspace, begun, {}, run=run, at=at)
    until, n_needed = datetime.fromisoformat(evidence["shadow"]["until"]), evidence["shadow"]["n_scans"]
    n_seen = _n_seen(workspace, challenger, since)
    told = f"{n_seen} of {n_needed} scans"
    if n_seen < n_needed and at >= since + LONGEST * (until - since):
        because = f"it has seen {told} in {(at - since).days} days"
        return _refuse(workspace, begun, challenger, because, {}, run=run, at=at)
    if at < until or n_seen < n_needed:
        out = f"`sitedrift decision reject {begun['decision_key']}` ends it"
        return f"{challenger.name} is in the shadow, with {told}, until {until.date()} at least; {out}"
    sites = watch_shadow(workspace, challenger, champion, since=since)
    facts = {"seen": [as_json(one) for one in sites]}
    reasons = [one.because for one in sites if one.because]
    if reasons:
        return _refuse(workspace, begun, challenger, "; ".join(reasons), facts, run=run, at=at)
    return _promote(workspace, begun, facts, run=run, at=at)


def watch_shadow(
    workspace: Workspace, challenger: ModelRef, champion: ModelRef, *, since: datetime
) -> list[ShadowSite]:
    """What every site saw of the challenger in scans that came after a moment."""
    unseen = unseen_by(workspace, [challenger, champion])
    is_masked = workspace.target(challenger.model).task == "segmentation"
    watch = _watch_masks if is_masked else _watch_scores
    servings = current_servings(workspace, challenger.model)
    sides = [(one, with_model(one, challenger), _came_since(workspace, one.site, since)) for one in servings]
    return [watch(workspace, before, after, keys, unseen) for before, after, keys in sides]


def _watch_scores(workspace: Workspace, before: Serving, after: Serving, keys: list[str], unseen: Unseen) -> ShadowSite:
    was, now = (
        score_rows(workspace, one.site, one.target, one.model, one.recipe, keys=keys) for one in (before, after)
    )
    shared = np.intersect1d(was.series_key, now.series_key)
    calls = [
        one.calibration.probability(scans.score[np.isin(scans.series_key, shared)]) >= one.calibration.threshold
        for scans, one in ((was, before), (now, after))
    ]
    pairs = pair(workspace, before, after, keys=keys, unseen=unseen)
    return ShadowSite(
        site=before.site,
        n_scans=len(shared),
        n_disagree=int((calls[0] != calls[1]).sum()),
        p_fit_champion=_fit(workspace, before, was),
        p_fit_shadow=_fit(workspace, after, now),
        gate=judge_site(before.site, pairs, workspace.settings.policy),
    )


def _watch_masks(workspace: Workspace, before: Serving, after: Serving, keys: list[str], unseen: Unseen) -> ShadowSite:
    from platform_core.trial.overlap import judge_overlap_site, pair_masks

    predicted = [_predicted(workspace, one) for one in (before, after)]
    pairs = pair_masks(workspace, before, after, keys=keys, unseen=unseen)
    return ShadowSite(
        site=before.site,
        n_scans=len(set(keys) & predicted[0] & predicted[1]),
        n_disagree=None,
        p_fit_champion=None,
        p_fit_shadow=None,
        gate=judge_overlap_site(before.site, pairs, workspace.settings.policy),
    )


def _begun(workspace: Workspace, target: str) -> list[Row]:
    return [row for row in decisions(workspace).to_pylist() if (row["target"], row["status"]) == (target, "shadow")]


def _came_since(workspace: Workspace, site: str, since: datetime) -> list[str]:
    where = (pc.field("site") == site) & (pc.field("ingested_at") > since)
    return sorted(set(workspace.lake.read(layout.SERIES, where, ["series_key"]).column("series_key").to_pylist()))


def _n_seen(workspace: Workspace, challenger: ModelRef, since: datetime) -> int:
    """Scans after a moment that both have predicted, at all sites together."""
    seen = 0
    for serving in current_servings(workspace, challenger.model):
        came = set(_came_since(workspace, serving.site, since)) & _predicted(workspace, serving)
        seen += len(came & _predicted(workspace, with_model(serving, challenger)))
    return seen


def _predicted(workspace: Workspace, serving: Serving) -> set[str]:
    where = (pc.field("site") == serving.site) & (pc.field("model") == serving.model)
    where &= pc.field("recipe") == serving.recipe
    return set(workspace.lake.read(layout.PREDICTION, where, ["series_key"]).column("series_key").to_pylist())


def _fit(workspace: Workspace, serving: Serving, scans: ScoredScans) -> float | None:
    """Whether a site's scores are a mixture of those of the source's classes by the same model."""
    source = workspace.target(serving.target).source_site
    _, first = np.unique(scans.patient_key, return_index=True)
    if len(first) < MIN_PATIENTS or serving.site == source:
        return None
    recipe = source_recipe(workspace, serving.target)
    trained = trained_version(workspace, serving.model)  # an adapted version has seen no scan of the source
    known = score_rows(workspace, source, serving.target, trained, recipe, part="evaluation")
    known = known.where(known.is_labelled)
    try:
        found = estimate_prevalence(
            scans.score[first], known.score, known.y, assumed=serving.calibration.prevalence, n_simulated=1
        )
    except EmptySample:
        return None
    return found.p_fit


def _refuse(
    workspace: Workspace, begun: Row, challenger: ModelRef, because: str, facts: Row, *, run: str, at: datetime
) -> str:
    registry.alias(workspace, challenger, "refused", run=run, at=at)
    sentence = f"{challenger.name} is refused after its shadow period: {because}"
    _end(workspace, begun, "refused", facts, sentence, run=run, at=at)
    return sentence


def _refuse_rejected(workspace: Workspace, target: str, *, run: str, at: datetime) -> str | None:
    """Let go of a challenger whose shadow period a person has ended."""
    rejected = [
        row for row in decisions(workspace).to_pylist() if (row["target"], row["status"]) == (target, "rejected")
    ]
    asked = [json.loads(row["evidence"] or "{}").get("rollout") for row in rejected]
    challengers = [registry.find(workspace, one["champion"]) for one in asked if one]
    challenger = next((one for one in challengers if one.alias == "shadow"), None)
    if challenger is None:
        return None
    registry.alias(workspace, challenger, "refused", run=run, at=at)
    return f"{challenger.name} is refused: a person has ended its shadow period"


def _promote(workspace: Workspace, begun: Row, facts: Row, *, run: str, at: datetime) -> str:
    """Written down as passed; the rest is that of any rollout."""
    _end(workspace, begun, "passed", facts, "nothing in its shadow period speaks against it", run=run, at=at)
    return "; ".join(finish_rollouts(workspace, str(begun["target"]), run=run, at=at))


def _end(workspace: Workspace, begun: Row, status: str, facts: Row, because: str, *, run: str, at: datetime) -> None:
    evidence = json.loads(begun["evidence"])
    evidence["shadow"] |= facts
    row = {name: begun[name] for name in DECISION.names} | {
        "status": status,
        "decided_at": at,
        "because": f"{begun['because']}; {because}",
        "evidence": json.dumps(evidence, sort_keys=True, allow_nan=False),
        "run": run,
    }
    record_row(workspace, row)
