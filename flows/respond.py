"""From a finding to the cheapest action that is enough."""

from collections.abc import Callable
from dataclasses import replace

from flows import stages
from flows.log import log
from platform_core.errors import Unavailable
from platform_core.trial.case import Case, Next
from tasks import site


def respond(case: Case) -> None:
    """Decide, act, measure again, until the policy asks for nothing more."""
    decided = site.decide(case)
    while decided.act in ACTIONS:
        log.info("%s: %s, because %s", case.site, decided.act, decided.decision.because)
        ACTIONS[decided.act](case, decided)
        decided = site.decide(case)
    log.info("%s: %s, because %s", case.site, decided.decision.action, decided.decision.because)


def recalibrate(case: Case, decided: Next) -> None:
    """New prior, same weights."""
    site.recalibrate(case, decided)


def calibrate(case: Case, decided: Next) -> None:
    """Scale and offset by the site's labels, same weights."""
    site.calibrate(case, decided)


def reharmonize(case: Case, decided: Next) -> None:
    """A recipe fitted to the present period, tried on that period, served if it helps."""
    recipe = site.refit_recipe(case)
    stages.harmonize(case.uri, case.site, recipe, list(case.keys), case.run)
    stages.predict(case.uri, replace(case.serving, recipe=recipe), case.run)
    site.settle_recipe(case, decided, recipe)


def fine_tune(case: Case, decided: Next) -> None:
    """A challenger, predicted on every site that the champion serves, then gated."""
    try:
        model = site.train_challenger(case, decided)
    except Unavailable as error:  # a GPU that is gone for good: the champion stays, and the decision says why
        site.give_up(case, decided, str(error))
        return
    if model is None:
        return
    for serving in site.servings(case.uri, case.target):
        stages.predict(case.uri, replace(serving, model=model), case.run)
    site.settle_challenger(case, decided, model)


def adapt(case: Case, decided: Next) -> None:
    """A network adapted to the site's scans without labels, predicted there alone, served for a time."""
    adapted = site.adapt_model(case, decided)
    if adapted is None:
        return
    stages.predict(case.uri, replace(case.serving, model=adapted.model), case.run)
    site.settle_adapted(case, decided, adapted)


ACTIONS: dict[str | None, Callable[[Case, Next], None]] = {
    "recalibrate": recalibrate,
    "calibrate": calibrate,
    "reharmonize": reharmonize,
    "adapt": adapt,
    "fine_tune": fine_tune,
}
