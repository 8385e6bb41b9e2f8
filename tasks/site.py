"""Tasks about a whole site: what it owes, what it runs, what was found, what is done about it."""

from collections.abc import Sequence
from datetime import datetime

from prefect import task

from platform_core.manifest import stages
from platform_core.manifest.serving import Serving
from platform_core.manifest.workspace import open_workspace
from platform_core.trial.case import Case, Next
from platform_core.trial.without_labels import Adapted
from tasks.progress import shown
from tasks.retries import TRANSIENT

Shards = list[tuple[str, ...]]


@task(task_run_name="plan {stage} of {site}", **TRANSIENT)
def plan(
    uri: str, site: str, stage: str, recipe: str, after: tuple[str, str], model: str = "", only: Sequence[str] = ()
) -> Shards:
    """Cut what a stage still owes the site into shards; `only` narrows it to those series."""
    workspace = open_workspace(uri)
    keys = stages.pending(workspace, site, stage, recipe=recipe, model=model, after=after)
    if only:
        keys = sorted(set(keys) & set(only))
    return stages.shards(keys, workspace.settings.shard_size)


@task(task_run_name="what {site} runs for {target}", **TRANSIENT)
def ensure_serving(uri: str, site: str, target: str, run: str, at: datetime) -> Serving | None:
    """The site's serving; its first one is made here, once there is a champion and enough scans."""
    from platform_core.trial import onboard

    return onboard.ensure_serving(open_workspace(uri), site, target, run=run, at=at)


@task(task_run_name="time of what {site} runs for {target}", **TRANSIENT)
def renew_or_end(uri: str, site: str, target: str, run: str, at: datetime) -> str | None:
    """Renew or end a serving whose time is over; a sentence about what changed, None if nothing did."""
    from platform_core.trial import expiry

    return expiry.renew_or_end(open_workspace(uri), site, target, run=run, at=at)


@task(task_run_name="sound series of {site} for {target}", **TRANSIENT)
def sound(uri: str, site: str, target: str) -> list[str]:
    """Series of the target's modality that passed quality."""
    from platform_core.trial import onboard

    return onboard.sound_series(open_workspace(uri), site, target)


@task(task_run_name="reference of {target}", **TRANSIENT)
def freeze_reference(uri: str, target: str, run: str) -> str | None:
    """The champion's reference, its edges frozen for sketches; None without a champion."""
    from platform_core.trial.sketching import champion_basis

    basis = champion_basis(open_workspace(uri), target, run=run)
    return None if basis is None else basis.reference


@task(task_run_name="watch over {site} for {target}", **TRANSIENT)
def keep_watch(uri: str, site: str, target: str, run: str, at: datetime) -> list[str]:
    """Take in what came since the last time; one sentence per alarm of tonight."""
    from platform_core.shift.watch import vigil

    raised = vigil.alarms_tonight(open_workspace(uri), site, target, run=run, at=at)
    return [f"{alarm.stratum}: {alarm.sentence}" for alarm in raised]


@task(task_run_name="reference through the scanner of {site} for {target}", **TRANSIENT)
def show_reference(uri: str, site: str, target: str, run: str) -> list[str]:
    """Show the labelled reference through a shifted site's scanner; one sentence per stratum where that is new."""
    from platform_core.trial import transported

    return [shown.sentence for shown in transported.show_reference(open_workspace(uri), site, target, run=run)]


@task(task_run_name="merge small files", **TRANSIENT)
def tend_tables(uri: str) -> list[str]:
    """Merge the small files of tables that have many."""
    from platform_core.manifest import tending

    return tending.tend_tables(open_workspace(uri))


@task(task_run_name="drop abandoned trainings", **TRANSIENT)
def drop_abandoned(uri: str, at: datetime) -> list[str]:
    """Drop what trainings have kept that nobody goes on with; one sentence each."""
    from platform_core.trial import abandoned

    return abandoned.drop_abandoned(open_workspace(uri), at=at)


@task(task_run_name="shift of {site} for {target}", **TRANSIENT)
def measure_shift(uri: str, site: str, target: str, run: str, at: datetime) -> list[Case]:
    """Measure and diagnose the latest period; one case per stratum."""
    from platform_core.trial import case

    return case.open_cases(open_workspace(uri), site, target, run=run, at=at)


@task(task_run_name="decide on {case.site}")
def decide(case: Case) -> Next:
    """Ask the policy what comes next, given what was done about this period already."""
    from platform_core.trial import case as cases

    return cases.decide_next(case)


@task(task_run_name="calibrate {case.site}")
def calibrate(case: Case, decided: Next) -> None:
    """Scale and offset fitted to the site's labels, judged on labels that did not fit them."""
    from platform_core.trial import calibrate as trial

    trial.calibrate(case, decided.decision)


@task(task_run_name="recalibrate {case.site}")
def recalibrate(case: Case, decided: Next) -> None:
    """Move the prior of the site's serving; no weight moves."""
    from platform_core.trial import recalibrate as trial

    trial.recalibrate(case, decided.decision)


@task(task_run_name="fit a recipe for {case.site}", **TRANSIENT)
def refit_recipe(case: Case) -> str:
    """Fit the target's recipe to the site's present period."""
    from platform_core.trial import reharmonize as trial

    return trial.refit_recipe(case)


@task(task_run_name="settle recipe {recipe}")
def settle_recipe(case: Case, decided: Next, recipe: str) -> None:
    """Measure the new recipe against the old one and serve it if it helps."""
    from platform_core.trial import reharmonize as trial

    trial.settle_recipe(case, decided.decision, recipe)


@task(task_run_name="fine-tune for {case.site}", **TRANSIENT)
def train_challenger(case: Case, decided: Next) -> str | None:
    """Race the decided strategies and train the winner; `model@version`, or None if none is worth it."""
    from platform_core.trial import finetune as trial

    with shown(f"{case.target} for {case.site}") as tell:
        return trial.train_challenger(case, decided.decision, tell=tell)


@task(task_run_name="no challenger for {case.site}")
def give_up(case: Case, decided: Next, reason: str) -> None:
    """Settle a fine-tuning as refused that could not be carried out."""
    from platform_core.trial import attempt as trial

    trial.give_up(case, decided.decision, reason)


@task(task_run_name="gate {model}")
def settle_challenger(case: Case, decided: Next, model: str) -> None:
    """Judge the challenger on every site and promote or refuse it."""
    from platform_core.trial import promotion as trial

    trial.settle_challenger(case, decided.decision, model)


@task(task_run_name="train {target} from scratch")
def train_source(uri: str, target: str, recipe: str, run: str, at: datetime) -> str:
    """Train the source model and make it champion; returns `model@version`."""
    from platform_core.learn import train

    with shown(f"source model of {target}") as tell:
        return train.train_source(open_workspace(uri), target, recipe=recipe, run=run, at=at, tell=tell).name


@task(task_run_name="adapt to {case.site}")
def adapt_model(case: Case, decided: Next) -> Adapted | None:
    """Try adaptations without labels; the first that passes, registered, or None."""
    from platform_core.trial import adapt as trial

    return trial.adapt_model(case, decided.decision)


@task(task_run_name="settle {adapted.model}")
def settle_adapted(case: Case, decided: Next, adapted: Adapted) -> None:
    """Serve the adapted version at the case's site, for a time."""
    from platform_core.trial import adapt as trial

    trial.settle_adapted(case, decided.decision, adapted)


@task(task_run_name="fit the reference recipe of {target}", **TRANSIENT)
def fit_reference(uri: str, target: str, run: str, at: datetime) -> str:
    """Fit the target's recipe on the source site: the reference that other sites are brought to."""
    from platform_core.trial import onboard

    return onboard.fit_reference(open_workspace(uri), target, run=run, at=at)


@task(task_run_name="finish changes of the champion of {target}", **TRANSIENT)
def finish_rollouts(uri: str, target: str, run: str, at: datetime) -> list[str]:
    """Finish what was cut off while a champion was changed; one sentence each."""
    from platform_core.trial import rollout

    return rollout.finish_rollouts(open_workspace(uri), target, run=run, at=at)


@task(task_run_name="shadow of {target}", **TRANSIENT)
def shadow_of(uri: str, target: str) -> str | None:
    """`model@version` of the challenger beside the champion; None without one."""
    from platform_core.trial import shadow

    found = shadow.shadow_of(open_workspace(uri), target)
    return None if found is None else found.name


@task(task_run_name="settle the shadow of {target}")
def settle_shadow(uri: str, target: str, run: str, at: datetime) -> str | None:
    """Promote or refuse the challenger in the shadow if its period is over; one sentence."""
    from platform_core.trial import shadow

    return shadow.settle_shadow(open_workspace(uri), target, run=run, at=at)


@task(task_run_name="who runs {target}", **TRANSIENT)
def servings(uri: str, target: str) -> list[Serving]:
    """The serving in force of every site."""
    from platform_core.manifest.serving import current_servings

    return current_servings(open_workspace(uri), target)
