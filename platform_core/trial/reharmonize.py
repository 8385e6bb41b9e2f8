"""The target's recipe, fitted to a site's present period: tried, measured, served or refused."""

from dataclasses import replace

from platform_core.harmonize.stage import fit_site_recipe
from platform_core.policy.decide import Decision
from platform_core.trial.case import Case, serve, settle
from platform_core.trial.receipt import harmonization_receipt


def refit_recipe(case: Case) -> str:
    """Fit the recipe to the case's period; returns its name."""
    workspace = case.workspace
    source = workspace.target(case.target).source_site
    return fit_site_recipe(
        workspace, case.site, case.target, case.keys, run=case.run, at=case.at, reference_site=source
    )


def settle_recipe(case: Case, decision: Decision, recipe: str) -> None:
    """Serve the recipe if its receipt says that it helps; record both ways."""
    before = case.serving
    wanted = replace(before, recipe=recipe)
    receipt = harmonization_receipt(case.workspace, case.site, case.target, before=before, after=wanted, keys=case.keys)
    facts = {"receipt": receipt.to_json()}
    if receipt.helps:
        after = serve(case, wanted, decision)
        settle(case, decision, status="done", before=before, after=after, facts=facts)
    else:
        settle(case, decision, status="refused", before=before, after=wanted, facts=facts)
