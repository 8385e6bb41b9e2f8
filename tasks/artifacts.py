"""What Prefect's UI shows of a run: the ledger as a table, findings and decisions as Markdown."""

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from platform_core.manifest.ledger import arrival_counts
from platform_core.manifest.workspace import open_workspace
from platform_core.policy.record import decisions


def publish_ledger(uri: str, run: str) -> None:
    """One row per site, outcome and reason."""
    rows = arrival_counts(open_workspace(uri), run).to_pylist()
    if rows:
        create_table_artifact(table=rows, key="ledger", description=f"What arrived in run {run}")


def publish_decisions(uri: str, run: str) -> None:
    """One row per decision of the run."""
    rows = [row for row in decisions(open_workspace(uri)).to_pylist() if row["run"] == run]
    if rows:
        create_markdown_artifact(_markdown(rows), key="decisions", description=f"What run {run} decided, and why")


def _markdown(rows: list[dict[str, Any]]) -> str:
    head = "| site | action | status | because |\n|---|---|---|---|\n"
    return head + "\n".join(f"| {r['site']} | {r['action']} | {r['status']} | {r['because']} |" for r in rows)
