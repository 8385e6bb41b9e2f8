"""From a finding to the cheapest action that is enough."""

from collections.abc import Callable
from dataclasses import replace

from platform_core.trial.case import Case, Next

from flows import stages
from tasks import site


def respond(case: Case) -> list[str]:
    """Decide, act, measure again, until the policy asks for nothing more; returns the actions taken."""
    taken: tuple[str, ...] = ()
    while (decided := site.decide(case, taken)).action in ACTIONS:
        ACTIONS[decided.action](case, decided)
        taken += (decided.action,)
    return [*taken, decided.action] if decided.action != "none" else list(taken)


def recalibrate(case: Case, decided: Next) -> None:
    """New prior, same weights."""
    site.recalibrate(case, decided)


def reharmonize(case: Case, decided: Next) -> None:
    """A recipe fitted to the present period, tried on that period, served if it helps."""
    recipe = site.refit_recipe(case)
    stages.harmonize(case.uri, case.site, recipe, list(case.keys), case.run)
    stages.predict(case.uri, replace(case.serving, recipe=recipe), case.run)
    site.settle_recipe(case, decided, recipe)


def fine_tune(case: Case, decided: Next) -> None:
    """A challenger, predicted on every site that the champion serves, then gated."""
    model = site.train_challenger(case, decided)
    for serving in site.servings(case.uri, case.target):
        stages.predict(case.uri, replace(serving, model=model), case.run)
    site.settle_challenger(case, decided, model)


ACTIONS: dict[str, Callable[[Case, Next], None]] = {
    "recalibrate": recalibrate,
    "reharmonize": reharmonize,
    "fine_tune": fine_tune,
}
