"""The page of a back-test: what each policy came to, and when it did what."""

from collections.abc import Sequence
from datetime import datetime

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.report import charts
from platform_core.report.page import write_page
from platform_core.report.spelling import ACTION_WORDS
from platform_core.trial.backtest import Acted, Ending, acts_of


def write_backtest(workspace: Workspace, target: str, endings: Sequence[Ending], *, at: datetime) -> str:
    """Write the page to the workspace that was replayed; returns its path."""
    figures = {f"policy-{number}": charts.timeline(marks_of(ending)) for number, ending in enumerate(endings, start=1)}
    return write_page(
        workspace,
        layout.report_path(f"backtest-{target}"),
        "backtest.html.j2",
        name=workspace.settings.name,
        target=target,
        at=at,
        first=endings[0],
        endings=endings,
        acts=acts_of(endings),
        told=[ending.acts for ending in endings],
        figures={name: charts.as_script(figure) for name, figure in figures.items()},
    )


def marks_of(ending: Ending) -> dict[str, list[charts.Mark]]:
    """Per site, in the order of the sites: its alarms and what was done about them, by day since its first."""
    marks: dict[str, list[charts.Mark]] = {site: [] for site in ending.n_patients}
    for alarm in ending.alarms:
        day = alarm.night * ending.every_days
        marks[alarm.site].append(
            charts.Mark(day, "alarm", f"{alarm.days_of_delay} days after the change seems to begin")
        )
    for act in ending.acts:
        marks[act.site].append(charts.Mark(act.night * ending.every_days, _named(act), act.because))
    return marks


def _named(act: Acted) -> str:
    return f"{ACTION_WORDS.get(act.action, act.action)}: {act.status}"
