"""A challenger for one site's shift: trained, predicted everywhere, gated, promoted or refused."""

from platform_core.errors import EmptySample
from platform_core.learn import registry
from platform_core.learn.train import fine_tune
from platform_core.manifest.serving import current_servings
from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, serve, settle
from platform_core.trial.gate import judge
from platform_core.trial.rollout import with_model


def train_challenger(case: Case, decision: Decision) -> str | None:
    """Train by the decided strategy on the period's labelled scans.

    Returns:
        `model@version`; None if labels do not suffice, which settles the decision as refused.
    """
    try:
        made = fine_tune(
            case.workspace,
            case.target,
            case.site,
            strategy=decision.candidates[-1],
            keys=case.keys,
            recipe=case.serving.recipe,
            run=case.run,
            at=case.at,
        )
    except EmptySample as error:
        settle(case, decision, status="refused", before=case.serving, facts={"refused": str(error)})
        return None
    return made.name


def settle_challenger(case: Case, decision: Decision, model: str) -> None:
    """Judge the challenger on every site; promote it everywhere or keep the champion everywhere."""
    workspace, before = case.workspace, case.serving
    challenger = registry.find(workspace, model)
    champion = registry.find(workspace, before.model)
    verdict = judge(workspace, case.target, champion=champion, challenger=challenger, site=case.site, keys=case.keys)
    facts = {"gate": verdict.to_json()}
    wanted = with_model(before, challenger)
    if not verdict.passed:
        registry.alias(workspace, challenger, "refused", run=case.run, at=case.at)
        settle(case, decision, status="refused", before=before, after=wanted, facts=facts, strategy=challenger.strategy)
        return
    registry.promote(workspace, challenger, over=champion, run=case.run, at=case.at)
    for serving in current_servings(workspace, case.target):
        serve(case, with_model(serving, challenger), decision)
    settle(case, decision, status="done", before=before, after=case.serving, facts=facts, strategy=challenger.strategy)
