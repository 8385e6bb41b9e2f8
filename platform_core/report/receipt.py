"""The receipt of a site's recipe: what every step did to the distance and to the signal of the task."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from platform_core import layout
from platform_core.harmonize.stage import written_recipe
from platform_core.manifest.serving import current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.report import charts
from platform_core.report.page import write_page
from platform_core.trial import steps
from platform_core.trial.recipe_trial import RecipeTrial
from platform_core.trial.trial_rows import kept_trials

MOST_FEATURES = 24
MOST_TRIALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One trial as the page tells it."""

    tried: RecipeTrial
    settings: Sequence[str]
    """One line per step."""
    figure: str | None
    """Name of its plot; None where no feature could be compared."""
    is_served: bool


def write_receipt(workspace: Workspace, site: str, *, at: datetime) -> str | None:
    """Write the page of a site's recipe trials, what is served first; returns its path, None without any trial.

    Raises:
        UnknownName: If there is no such site.
    """
    workspace.site(site)
    trials = kept_trials(workspace, site)[:MOST_TRIALS]
    if not trials:
        return None
    served = {
        s.recipe for target in workspace.settings.target for s in current_servings(workspace, target) if s.site == site
    }
    trials.sort(key=lambda tried: tried.recipe not in served)
    figures: dict[str, str] = {}
    shown = [_shown(workspace, tried, number, served, figures) for number, tried in enumerate(trials)]
    return write_page(
        workspace,
        layout.report_path(f"receipt-{site}"),
        "receipt.html.j2",
        name=workspace.settings.name,
        site=site,
        at=at,
        trials=shown,
        named=steps,
        figures={name: charts.as_script(figure) for name, figure in figures.items()},
    )


def _shown(workspace: Workspace, tried: RecipeTrial, number: int, served: set[str], figures: dict[str, str]) -> Shown:
    name = f"trial-{number}"
    rows = _distances(tried)
    if rows:
        figures[name] = charts.ladder(
            rows, states=["as scanned", *(f"{r.number} {r.harmonizer}" for r in tried.receipts)]
        )
    return Shown(
        tried=tried,
        settings=_settings(workspace, tried.recipe),
        figure=name if rows else None,
        is_served=tried.recipe in served,
    )


def _distances(tried: RecipeTrial) -> list[tuple[str, list[float | None]]]:
    """Each feature's distance at every state, the furthest at first on top; the rest is in the table `out__shift`."""
    states = [tried.receipts[0].before, *(receipt.after for receipt in tried.receipts)] if tried.receipts else []
    names = sorted({feature for state in states for feature, statistic in state if statistic == "ks"})
    found = [(name, [state[name, "ks"].value if (name, "ks") in state else None for state in states]) for name in names]
    return sorted(found, key=lambda row: -(row[1][0] or 0))[:MOST_FEATURES]


def _settings(workspace: Workspace, recipe: str) -> list[str]:
    """What the recipe sets for each step: `spacing_mm 1.5, 1.5, 3.0`."""
    written = [one["settings"] for one in json.loads(written_recipe(workspace, recipe))]
    return ["; ".join(f"{name} {_plain(value)}" for name, value in one.items() if value is not None) for one in written]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
