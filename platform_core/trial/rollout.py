"""A champion changed by a person's hand: every site's serving follows, in one go, and can go back."""

from dataclasses import replace
from datetime import datetime

from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import Serving, change_serving, current_servings, serving_history
from platform_core.manifest.workspace import Workspace


def promote_by_hand(workspace: Workspace, model: str, *, run: str, at: datetime) -> str:
    """Make `model@version` the champion; returns a sentence about what changed.

    Raises:
        UnknownName: If there is no such model.
    """
    wanted = registry.find(workspace, model)
    present = registry.champion(workspace, wanted.model)
    promoted = registry.promote(workspace, wanted, over=present, run=run, at=at)
    return _serve_everywhere(workspace, promoted, run=run, at=at)


def roll_back(workspace: Workspace, target: str, *, run: str, at: datetime) -> str:
    """Put the former champion back; returns a sentence about what changed.

    Raises:
        BadRequest: If there is no former champion.
    """
    return _serve_everywhere(workspace, registry.rollback(workspace, target, run=run, at=at), run=run, at=at)


def restore_serving(workspace: Workspace, site: str, target: str, *, run: str, at: datetime) -> str:
    """Put one site's serving before the present one back: model, recipe and calibration.

    Raises:
        BadRequest: If the site has had only one serving.
    """
    workspace.site(site)
    history = serving_history(workspace, site, target)
    if len(history) < 2:
        raise BadRequest(f"{site}: there is no earlier serving of {target} to go back to")
    before = replace(history[-2], epoch=history[-1].epoch)
    now = change_serving(workspace, before, decision_key=None, at=at, run=run)
    return f"{site} runs {now.model} by {now.recipe} again, at prevalence {now.calibration.prevalence:.2f}"


def _serve_everywhere(workspace: Workspace, champion: ModelRef, *, run: str, at: datetime) -> str:
    servings = [s for s in current_servings(workspace, champion.model) if s.model != champion.name]
    for serving in servings:
        change_serving(workspace, with_model(serving, champion), decision_key=None, at=at, run=run)
    sites = ", ".join(serving.site for serving in servings) or "no site"
    return f"{champion.name} is the champion of {champion.model}; changed at: {sites}"


def with_model(serving: Serving, model: ModelRef) -> Serving:
    """The same serving with another model: its calibration, at the prevalence that the site assumes."""
    calibration = model.calibration.moved_to(serving.calibration.prevalence)
    return replace(serving, model=model.name, calibration=calibration)
