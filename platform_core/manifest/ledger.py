"""The ledger: nothing is lost without a word. In = accepted + duplicate + quarantined + waiting + ignored."""

import pyarrow as pa

from platform_core import layout
from platform_core.errors import LedgerOpen
from platform_core.manifest.arrivals import past_outcomes
from platform_core.manifest.book import open_book
from platform_core.manifest.door import open_door
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load

HERE = "platform_core.manifest"


def arrival_counts(workspace: Workspace, run: str | None = None) -> pa.Table:
    """How arrivals ended: (site, outcome, reason, n).

    With a run: what that run decided, decisions made anew among it. Without: the outcome in
    force of every arrival, so that the sum is the number of arrivals ever seen.
    """
    with workspace.lake.connect([layout.ARRIVAL]) as db:
        return load(HERE, "arrival_counts").run(db, run=run)


def stage_counts(workspace: Workspace, site: str | None = None) -> pa.Table:
    """Series at every stage: (site, stage, recipe, model, outcome, reason, n)."""
    with workspace.lake.connect([layout.STAGE]) as db:
        return load(HERE, "stage_counts").run(db, site=site)


def account(workspace: Workspace) -> dict[str, dict[str, int]]:
    """The ledger of each site: arrivals by the outcome in force, and series by stage and answer.

    Keys are outcomes (`accepted`, ...) and `stage/answer` (`unique/refused`, ...).
    """
    told: dict[str, dict[str, int]] = {}
    for row in arrival_counts(workspace).to_pylist():
        counts = told.setdefault(row["site"], {})
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + int(row["n"])
    for row in stage_counts(workspace).to_pylist():
        key = f"{row['stage']}/{row['outcome']}"
        counts = told.setdefault(row["site"], {})
        counts[key] = counts.get(key, 0) + int(row["n"])
    return told


def held_back(workspace: Workspace) -> pa.Table:
    """What waits for a person: (site, stage, reason, n, example), the example a series_key or arrival_key."""
    with workspace.lake.connect([layout.ARRIVAL, layout.STAGE]) as db:
        return load(HERE, "held_back").run(db)


def check_ledger(workspace: Workspace, site: str, run: str, n_new: int) -> None:
    """Make sure that every file which the run found new has an outcome in the ledger, and leave the site.

    Raises:
        LedgerOpen: If one has none.
    """
    book = open_book(open_door(workspace), site)
    try:
        settled = set(book.settled(run))
        n_told = len(settled & set(past_outcomes(workspace, site, settled)))
    finally:
        book.end()
    if n_told != n_new:
        raise LedgerOpen(site, "ingest", n_new, n_told)
