"""The page of a back-test: what each policy came to, and when it did what."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.report import charts
from platform_core.report.page import write_page
from platform_core.report.spelling import ACTION_WORDS, KIND_WORDS, plural
from platform_core.trial.backtest import Acted, Alarmed, Ending, acts_of, halts_of

ALARM, STOPPED = "alarm", "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened, as the page tells it."""

    night: int
    """Counted from 0."""
    nights: str
    site: str
    found: str
    act: Acted | None
    """What was done; None for an alarm, and where a site was stopped."""
    name: str
    because: str


def write_backtest(workspace: Workspace, target: str, endings: Sequence[Ending], *, at: datetime) -> str:
    """Write the page to the workspace that was replayed; returns its path."""
    marks = [marks_of(ending) for ending in endings]
    names = {mark.name for of_policy in marks for row in of_policy.values() for mark in row}
    order = [*(name for name in (ALARM, STOPPED) if name in names), *sorted(names - {ALARM, STOPPED})]
    last_day = endings[0].every_days * (endings[0].n_nights - 1)
    figures = {
        f"policy-{number}": charts.timeline(of_policy, names=order, last_day=last_day)
        for number, of_policy in enumerate(marks, start=1)
    }
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
        told=[lines_of(ending) for ending in endings],
        figures={name: charts.as_script(figure) for name, figure in figures.items()},
    )


def marks_of(ending: Ending) -> dict[str, list[charts.Mark]]:
    """Per site, in the order of the sites: what happened and what was done about it, by day since its first."""
    marks: dict[str, list[charts.Mark]] = {site: [] for site in ending.n_patients}
    for alarm in ending.alarms:
        marks[alarm.site].append(charts.Mark(alarm.night * ending.every_days, ALARM, _delay(alarm)))
    for halt in ending.stopped:
        marks[halt.site].append(charts.Mark(halt.night * ending.every_days, STOPPED, halt.because))
    for act in ending.acts:
        marks[act.site].append(charts.Mark(act.night * ending.every_days, _named(act), act.because))
    return marks


def lines_of(ending: Ending) -> list[Line]:
    """Alarms, actions and stretches of nights on which a site was stopped, by night and site."""
    alarms = [_line(alarm.night, alarm.night, alarm.site, ALARM, _delay(alarm)) for alarm in ending.alarms]
    halts = [_line(begun.night, last.night, last.site, STOPPED, last.because) for begun, last in halts_of(ending)]
    acts = [_line(act.night, act.night, act.site, _named(act), act.because, act) for act in ending.acts]
    return sorted([*alarms, *halts, *acts], key=lambda line: (line.night, line.site))


def _line(first: int, last: int, site: str, name: str, because: str, act: Acted | None = None) -> Line:
    found = "" if act is None else KIND_WORDS.get(act.kind, act.kind)
    spelt = nights(first, last).partition(" ")[2]
    return Line(night=first, nights=spelt, site=site, found=found, act=act, name=name, because=because)


def _delay(alarm: Alarmed) -> str:
    return f"{plural(alarm.days_of_delay, 'day', 'days')} after the change seems to begin"


def _named(act: Acted) -> str:
    return f"{ACTION_WORDS.get(act.action, act.action)}: {act.status}"


def nights(first: int, last: int) -> str:
    """`night 3`, `nights 3 to 5`; nights are counted from 0 and told from 1."""
    return f"night {first + 1}" if first == last else f"nights {first + 1} to {last + 1}"
