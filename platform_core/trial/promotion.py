"""What becomes of a challenger that was judged: refused, put beside the champion for a while, or promoted."""

from dataclasses import dataclass, replace
from typing import Any

from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.policy.decide import Decision
from platform_core.policy.record import decision_key, record_decision
from platform_core.trial.case import Case, finding_of, settle
from platform_core.trial.change_control import keep_change_control
from platform_core.trial.gate import judge
from platform_core.trial.race import race_facts, read_race, seeds_of
from platform_core.trial.rollout import follow_champion, rollout_facts, with_model
from platform_core.trial.shadow import shadow_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A challenger with all that its decision will say."""

    case: Case
    decision: Decision
    challenger: ModelRef
    champion: ModelRef
    facts: dict[str, Any]


def settle_challenger(case: Case, decision: Decision, model: str) -> None:
    """Judge the challenger on every site; promote it everywhere, at once or after its shadow period, or nowhere.

    Args:
        case: Whose site asked for it.
        decision: What was decided.
        model: The challenger; every site that is served has its predictions.
    """
    workspace = case.workspace
    challenger, champion = registry.find(workspace, model), registry.champion(workspace, case.target)
    assert champion is not None, "a case is opened for a target that is served"
    race = read_race(workspace, case.site, str((challenger.training or {}).get("race_key")))
    verdict = judge(
        workspace,
        case.target,
        champion=champion,
        challenger=challenger,
        site=case.site,
        keys=case.keys,
        seeds=seeds_of(race),
    )
    judged = _Judged(
        case=case,
        decision=replace(decision, because=f"{decision.because}; {verdict.because}"),
        challenger=challenger,
        champion=champion,
        facts={"gate": verdict.to_json(), "race": race_facts(race)},
    )
    if not verdict.passed:
        _refuse(judged)
    elif workspace.settings.policy.shadow_days:
        _put_in_shadow(judged)
    else:
        _promote(judged)


def _refuse(judged: _Judged) -> None:
    """Written down first: what was judged has spent its share of alpha, and is not looked at again."""
    case, challenger = judged.case, judged.challenger
    settle(
        case,
        judged.decision,
        status="refused",
        before=case.serving,
        after=with_model(case.serving, challenger),
        facts=judged.facts,
        strategy=challenger.strategy,
    )
    registry.alias(case.workspace, challenger, "refused", run=case.run, at=case.at)


def _put_in_shadow(judged: _Judged) -> None:
    case, challenger = judged.case, judged.challenger
    settle(
        case,
        judged.decision,
        status="shadow",
        before=case.serving,
        facts=judged.facts | shadow_facts(case.workspace, challenger, judged.champion, at=case.at),
        strategy=challenger.strategy,
    )
    registry.alias(case.workspace, challenger, "shadow", run=case.run, at=case.at)


def _promote(judged: _Judged) -> None:
    """Written down first, so that whatever is cut off here is finished by the next run."""
    case, decision, before = judged.case, judged.decision, judged.case.serving
    facts = judged.facts | rollout_facts(judged.challenger, judged.champion)
    record_decision(
        case.workspace,
        decision,
        finding=finding_of(case),
        status="passed",
        serving_before=before,
        serving_after=None,
        evidence=facts,
        run=case.run,
        at=case.at,
        strategy=judged.challenger.strategy,
    )
    registry.promote(case.workspace, judged.challenger, over=judged.champion, run=case.run, at=case.at)
    key = decision_key(case.site, case.finding_key, decision)
    follow_champion(case.workspace, case.target, run=case.run, at=case.at, decision_key=key)
    settle(
        case,
        decision,
        status="done",
        before=before,
        after=case.serving,
        facts=facts,
        strategy=judged.challenger.strategy,
    )
    keep_change_control(case.workspace, judged.challenger.name, at=case.at)
