"""The policy and its open questions as tables for a terminal."""

from collections.abc import Sequence
from textwrap import fill

from rich.console import Console
from rich.table import Table

from platform_core.policy.approvals import Waiting
from platform_core.policy.rules import Policy


def print_policy(policy: Policy, console: Console | None = None) -> None:
    """Row by row from the top: what is done, when it fits, the sentence that says why, and the reason for the row."""
    out = console or Console()
    out.print(f"{policy.where}: the first row that fits decides.", highlight=False, markup=False)
    for number, rule in enumerate(policy.rules, start=1):
        out.print(f"\n{number:3}  {rule.name}: {rule.action}", style="bold", highlight=False, markup=False)
        when = ", ".join(str(condition) for condition in rule.when) or "always"
        for what, text in (("when", when), ("because", rule.because), ("rationale", rule.rationale)):
            lines = fill(
                text, out.width, initial_indent=f"     {what:<11}", subsequent_indent=" " * 16, break_on_hyphens=False
            )
            out.print(lines, style=None if what != "rationale" else "dim", highlight=False, markup=False)


def print_waiting(waiting: Sequence[Waiting], console: Console | None = None) -> None:
    """One row per question, and how it is answered."""
    out = console or Console()
    if not waiting:
        out.print("Nothing waits for a person.")
        return
    table = Table("key", "site", "target", "action", "because", "since", "no on", show_lines=True)
    for one in waiting:
        no_on = "stays" if one.no_on is None else str(one.no_on)
        row = (one.decision_key, one.site, one.target, one.action, one.because, str(one.since.date()), no_on)
        table.add_row(*row)
    out.print(table)
    out.print('Answer: sitedrift decision approve KEY --note "...", or reject. The next run acts on it.')
