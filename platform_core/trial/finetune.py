"""A challenger for one site's shift: its strategy raced, then trained; what becomes of it is `promotion.py`'s."""

from platform_core.learn import registry
from platform_core.learn.contract import Tell, untold
from platform_core.learn.judging import NONE
from platform_core.learn.registry import ModelRef
from platform_core.learn.train import fine_tune, gather
from platform_core.policy.decide import Decision
from platform_core.trial.attempt import attempt, give_up
from platform_core.trial.case import Case
from platform_core.trial.race import race_facts, read_race, run_race


def train_challenger(case: Case, decision: Decision, *, tell: Tell = untold) -> str | None:
    """Race the decided strategies on the period's labelled scans and train the winner on all of them.

    Whatever fails, the champion stays; a training that is asked for again goes on where it was.

    Returns:
        `model@version`; None if labels do not suffice, no gradient is worth its cost, or the training failed, which
        settles the decision as refused.

    Raises:
        Unavailable: If a GPU or the store fails: another try may succeed, `give_up` settles it if none does.
    """
    return attempt(case, decision, lambda: _made(case, decision, tell), named="the training")


def _made(case: Case, decision: Decision, tell: Tell) -> str | None:
    workspace = case.workspace
    material = gather(workspace, case.target, case.site, keys=case.keys, recipe=case.serving.recipe)
    raced = run_race(case, decision.candidates, material, tell=tell)
    if raced.race.winner == NONE:
        facts = {"race": race_facts(read_race(workspace, case.site, raced.race_key))}
        give_up(case, decision, raced.race.because, facts)
        raced.bookmarks.forget()
        return None
    made = _made_before(case, raced.race_key) or fine_tune(
        workspace,
        material,
        raced.race.winner,
        run=case.run,
        at=case.at,
        cross_fitted=raced.cross_fitted,
        race_key=raced.race_key,
        tell=tell,
    )
    raced.bookmarks.forget()
    return made.name


def _made_before(case: Case, race_key: str) -> ModelRef | None:
    """The challenger that was made of this race by a process that died before it could say so."""
    waiting = (ref for ref in registry.models(case.workspace, case.target) if ref.alias == "challenger")
    return next((ref for ref in waiting if (ref.training or {}).get("race_key") == race_key), None)
