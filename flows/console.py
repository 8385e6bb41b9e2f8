"""The fleet as a table for a terminal; the fleet page shows the same rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from platform_core.report.backtest import nights
from platform_core.report.fleet_rows import Measures, SiteSummary
from platform_core.report.spelling import plural
from platform_core.shift.risk import Estimate
from platform_core.trial.backtest import Ending, ServedRisk, acts_of, halts_of

HEADINGS = ("site", "scans", "found", "size", "done about it", "log-loss, nats", "balanced error", "AUROC")
STYLES = {"needs a person": "bold red", "acted": "yellow", "in progress": "yellow", "quiet": "green"}


def print_fleet(rows: Sequence[SiteSummary], console: Console | None = None) -> None:
    """One row per site: what came, what was found, what was done, what it changed (before, then after)."""
    table = Table(*HEADINGS, show_lines=True, title="The fleet: latest period of each site, 95 % intervals in brackets")
    for row in rows:
        table.add_row(*_cells(row))
    (console or Console()).print(table)


def print_ledger(ledger: Mapping[str, Mapping[str, int]], console: Console | None = None) -> None:
    """One line per site for its arrivals, and one for its series at every stage."""
    out = console or Console()
    for site, counts in ledger.items():
        arrivals = {key: n for key, n in counts.items() if "/" not in key}
        stages = ", ".join(f"{key.replace('/', ' ')} {n}" for key, n in counts.items() if "/" in key)
        told = ", ".join(f"{n} {outcome}" for outcome, n in arrivals.items())
        out.print(f"{site}: {sum(arrivals.values())} arrivals = {told}", highlight=False)
        out.print(f"{site}: series: {stages or 'none'}", highlight=False)


def print_newcomers(told: Mapping[str, Sequence[str]], console: Console | None = None) -> None:
    """What the onboarding test said of each site."""
    out = console or Console()
    for site, sentences in told.items():
        for sentence in sentences:
            out.print(f"{site}: onboarding of {sentence}", highlight=False)


def print_watches(watches: Mapping[str, Sequence[str]], promise: str, console: Console | None = None) -> None:
    """What each site's watches say, and what their alarms promise."""
    out = console or Console()
    for site, told in watches.items():
        for sentence in told:
            out.print(f"{site}: watch over {sentence}", highlight=False)
    if any(watches.values()):
        out.print(f"The watches' promise: {promise}.", highlight=False)


def print_requests(open_requests: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """One line per period whose scans wait for labels, and how to get the list."""
    out = console or Console()
    for row in open_requests:
        told = f"{row['open']} of {row['asked']} scans of the period from {row['period_start']} wait for a label"
        verb = f"sitedrift label request {row['site']} --target {row['target']}"
        out.print(f"{row['site']}: {row['target']}: {told}: {verb}", highlight=False)


def _cells(row: SiteSummary) -> list[str]:
    finding = row.finding
    state = f"[{STYLES.get(row.state, 'dim')}]{row.state}[/]"
    found = finding.kind.replace("_", " ") if finding else "-"
    acts = [taken for taken in row.actions if taken.action != "none"]
    done = "\n".join(f"{taken.action.replace('_', ' ')}: {taken.status}" for taken in acts) or "nothing"
    measures = [_pair(row.before, row.after, name) for name in ("log_loss", "balanced_error", "auroc")]
    size = _spelt(finding.size) if finding else "-"
    return [f"{row.site}\n{state}", f"{row.n_series}", found, size, done, *measures]


def _pair(before: Measures | None, after: Measures | None, name: str) -> str:
    first = _spelt(getattr(before, name)) if before else "-"
    return first if after is None else f"{first}\n{_spelt(getattr(after, name))}"


def _spelt(estimate: Estimate | None) -> str:
    if estimate is None:
        return "not evaluable"
    return f"{estimate.value:.2f} \\[{estimate.low:.2f}, {estimate.high:.2f}]"


def print_endings(endings: Sequence[Ending], console: Console | None = None) -> None:
    """What each policy of a back-test came to, side by side, and what stopped a site."""
    first, out = endings[0], console or Console()
    title = f"{first.n_nights} nights, {first.every_days} days apart"
    unit = "nats per scan" if first.loss == "log-loss" else "mean over scans"
    caption = f"{first.loss}: {unit}, an estimate from labelled evaluation patients with its 95 % interval"
    table = Table("", *(ending.policy for ending in endings), title=title, caption=caption)
    table.add_row("alarms", *(str(len(ending.alarms)) for ending in endings))
    table.add_row("days to alarm, median", *(_days(ending.days_to_alarm) for ending in endings))
    table.add_row("days to action, median", *(_answered(ending) for ending in endings))
    for action, status in acts_of(endings):
        counts = (str(ending.count(action, status)) for ending in endings)
        table.add_row(f"{action.replace('_', ' ')}, {status}", *counts)
    table.add_row("nights a site was stopped", *(str(len(ending.stopped)) for ending in endings))
    table.add_row("hours of training", *(f"{ending.training_hours:.3f}" for ending in endings))
    for site in first.n_patients:
        table.add_row(f"{first.loss} at {site}", *(_served(ending.risk.get(site)) for ending in endings))
    table.add_row(f"{first.loss} at all sites", *(_served(ending.risk_of_all) for ending in endings))
    out.print(table)
    for ending in endings:
        for begun, last in halts_of(ending):
            told = f"{ending.policy}: {last.site} was stopped, {nights(begun.night, last.night)}: {last.because}"
            out.print(told, highlight=False, markup=False)


def _answered(ending: Ending) -> str:
    days, n_alarms = _days(ending.days_to_action), len(ending.alarms)
    return f"{days} ({len(ending.waits)} of {plural(n_alarms, 'alarm', 'alarms')})" if n_alarms else days


def _served(risk: ServedRisk | None) -> str:
    if risk is None:
        return "no labelled patient served"
    told = f"{_spelt(risk.loss)}\n{plural(risk.n_patients, 'patient', 'patients')}"
    return told if risk.excess is None else f"{told}\nabove the first by\n{_spelt(risk.excess)}"


def _days(days: float | None) -> str:
    return "none" if days is None else f"{days:.0f}"
