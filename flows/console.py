"""The fleet as a table for a terminal; the fleet page shows the same rows."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from platform_core.report.fleet_rows import Measures, SiteSummary
from platform_core.shift.risk import Estimate

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
