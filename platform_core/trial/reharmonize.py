"""The target's recipe, fitted to a site's present period: tried, measured, served or refused."""

from dataclasses import replace

from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, serve, settle
from platform_core.trial.expiry import until
from platform_core.trial.receipt import harmonization_receipt
from platform_core.trial.recipe_trial import fit_tried_recipe
from platform_core.trial.trial_rows import keep_trial, kept_trials


def refit_recipe(case: Case) -> str:
    """Fit the recipe to the case's period, without learned steps that do harm there; returns its name."""
    trials = fit_tried_recipe(case.workspace, case.site, case.target, case.keys, run=case.run, at=case.at)
    for tried in trials:
        keep_trial(case.workspace, tried)
    return trials[-1].recipe


def settle_recipe(case: Case, decision: Decision, recipe: str) -> None:
    """Serve the recipe if its receipt says that it helps and no step of it does harm; record both ways."""
    before = case.serving
    wanted = replace(before, recipe=recipe)
    receipt = harmonization_receipt(case.workspace, case.site, case.target, before=before, after=wanted, keys=case.keys)
    trials = [one for one in kept_trials(case.workspace, case.site) if (one.run, one.recipe) == (case.run, recipe)]
    steps = [receipt for tried in trials for receipt in tried.refused]
    facts = {"receipt": receipt.to_json() | {"refused_steps": [one.because for one in steps]}}
    enforced = case.workspace.target(case.target).refuse_harmful_steps
    if receipt.helps and not (steps and enforced):
        is_confirmed = receipt.gain is not None and receipt.gain.low > 0
        ends = until(case.workspace, case.at, has_labels=is_confirmed)
        after = serve(case, replace(wanted, until=ends), decision)
        settle(case, decision, status="done", before=before, after=after, facts=facts)
    else:
        settle(case, decision, status="refused", before=before, after=wanted, facts=facts)
