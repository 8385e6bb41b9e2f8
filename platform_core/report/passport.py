"""The passport of a site: what it sends, from which machines, and how far that is from what the model knows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.report.fleet import shift_table
from platform_core.report.fleet_rows import SiteSummary, findings_of, fleet_rows
from platform_core.report.page import write_page
from platform_core.report.races import races_of
from platform_core.report.receipt import write_receipt

HERE = "platform_core.report"
MOST_ROWS = 20


def write_passport(workspace: Workspace, site: str, *, at: datetime) -> str:
    """Write a site's onboarding page, and its receipt beside it; returns its path in the workspace.

    Args:
        workspace: What it is about, and where it is written.
        site: The hospital.
        at: The moment that the page states, UTC.

    Raises:
        UnknownName: If there is no such site.
    """
    settings = workspace.site(site)
    summary = next(row for row in fleet_rows(workspace) if row.site == site)
    return write_page(
        workspace,
        layout.report_path(f"passport-{site}"),
        "passport.html.j2",
        name=workspace.settings.name,
        site=site,
        settings=settings,
        at=at,
        row=summary,
        n_more=MOST_ROWS,
        distance=_distance(workspace, summary),
        races=races_of(workspace, site),
        receipt=_file_name(write_receipt(workspace, site, at=at)),
        **_tables(workspace, site),
    )


def _file_name(path: str | None) -> str | None:
    """Of a page in the same folder."""
    return path and path.rpartition("/")[2]


def _tables(workspace: Workspace, site: str) -> Mapping[str, list[dict[str, Any]]]:
    tables = [layout.ARRIVAL, layout.SERIES, layout.STAGE, layout.QUALITY]
    names = ("protocols", "ledger_reasons", "grids", "quality")
    with workspace.lake.connect(tables) as db:
        found = {name: load(HERE, name).run(db, site=site).to_pylist() for name in names}
    found["protocols"] = [row | {"measures": _measures(row)} for row in found["protocols"]]
    return found


def _measures(row: Mapping[str, Any]) -> str:
    """`120 kV`, or `TR 2000 ms, TE 30 ms, 3 T`."""
    spelt = {"kvp": "{:g} kV", "repetition_time_ms": "TR {:g} ms", "echo_time_ms": "TE {:g} ms",
             "field_strength_t": "{:g} T"}  # fmt: skip
    return ", ".join(text.format(row[name]) for name, text in spelt.items() if row[name] is not None)


def _distance(workspace: Workspace, summary: SiteSummary) -> list[dict[str, Any]]:
    """How far the site's first compared period lies from the reference, furthest feature first."""
    scope = None if summary.finding is None else (summary.finding.target, summary.finding.stratum)
    for finding in findings_of(workspace, summary.site):
        rows = shift_table(workspace, summary.site, finding) if (finding.target, finding.stratum) == scope else []
        compared = [row for row in rows if finding.model and row["reference"] == finding.model]
        if compared:
            return compared[:MOST_ROWS]
    return []
