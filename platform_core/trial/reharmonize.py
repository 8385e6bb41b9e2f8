"""The target's recipe, fitted to a site's present period: tried, measured, served or refused."""

from dataclasses import replace

from platform_core.policy.decide import Decision
from platform_core.policy.situation import difference
from platform_core.trial.case import Case, serve, settle
from platform_core.trial.outlook import Outlook, outlook
from platform_core.trial.receipt import harmonization_receipt
from platform_core.trial.recipe_trial import fit_tried_recipe
from platform_core.trial.rollout import limit_of
from platform_core.trial.steps import spelt
from platform_core.trial.trial_rows import keep_trial, kept_trials
from platform_core.trial.weigh import as_json


def refit_recipe(case: Case) -> str:
    """Fit the recipe to the case's period, without learned steps that do harm there; returns its name."""
    trials = fit_tried_recipe(case.workspace, case.site, case.target, case.keys, run=case.run, at=case.at)
    for tried in trials:
        keep_trial(case.workspace, tried)
    return trials[-1].recipe


def settle_recipe(case: Case, decision: Decision, recipe: str) -> None:
    """Serve the recipe at this site if it helps and nothing speaks against it; record both ways.

    It helps by its receipt. Against it speaks a step that does harm and, where labels are too few to say more than the
    scores do, a fit that is lost or an expected risk that rises.
    """
    before = case.serving
    wanted = replace(before, recipe=recipe)
    receipt = harmonization_receipt(case.workspace, case.site, case.target, before=before, after=wanted, keys=case.keys)
    trials = [one for one in kept_trials(case.workspace, case.site) if (one.run, one.recipe) == (case.run, recipe)]
    steps = [receipt for tried in trials for receipt in tried.refused]
    looks = (None, None) if receipt.gain is not None else (outlook(case, before), outlook(case, wanted))
    against = against_recipe(*looks)
    facts = {
        "receipt": receipt.to_json() | {"refused_steps": [one.because for one in steps]},
        "outlook": [None if one is None else as_json(one) for one in looks],
    }
    enforced = case.workspace.target(case.target).refuse_harmful_steps
    if receipt.helps and not (steps and enforced) and against is None:
        is_confirmed = receipt.gain is not None and receipt.gain.low > 0
        ends = limit_of(case.workspace, before, case.at, has_labels=is_confirmed)
        after = serve(case, replace(wanted, until=ends), decision)
        settle(case, decision, status="done", before=before, after=after, facts=facts)
    else:
        told = decision if against is None else replace(decision, because=f"{decision.because}; refused: {against}")
        settle(case, told, status="refused", before=before, after=wanted, facts=facts)


def against_recipe(before: Outlook | None, after: Outlook | None) -> str | None:
    """What the scores by a new recipe say against it; None if nothing, or if they cannot tell."""
    if before is None or after is None:
        return None
    if before.fits and not after.fits:
        return f"a mixture of the reference's classes fits the scores no more (p {after.p_fit:.3f})"
    if not before.fits or before.risk is None or after.risk is None:
        return None  # what scores that fit nothing say of prevalence, and so of risk, is no yardstick
    rise = difference(after.risk, before.risk)
    return f"the expected log-loss rises by {spelt(rise)} nats per scan" if rise.low > 0 else None
