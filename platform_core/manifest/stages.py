"""Which series a stage still owes an answer, and the answers given.

After the door every series has one row per stage in `core__stage`: done, or refused with
a reason. What has a row is skipped, so any stage can be run again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import STAGE
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.storage.tables import rows_of

HERE = "platform_core.manifest"
PASSING = ("memory_budget", "volume_missing")
"""Reasons that lie in the machine and not in the scan: the series is tried again in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCount:
    """What one stage did with one shard: `n_in = n_done + n_refused`."""

    site: str
    stage: str
    n_in: int = 0
    n_done: int = 0
    n_refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One series at one stage; `reason` is None when done."""

    series_key: str
    revision: int
    reason: str | None = None


def current_series(workspace: Workspace, site: str) -> pa.Table:
    """The present revision of every accepted series of a site, all columns of `core__series`."""
    with workspace.lake.connect([layout.SERIES]) as db:
        return load(HERE, "current_series").run(db, site=site)


def pending(
    workspace: Workspace,
    site: str,
    stage: str,
    *,
    recipe: str = layout.NATIVE,
    model: str = "",
    after: tuple[str, str] = ("ingest", layout.NATIVE),
) -> list[str]:
    """Keys of series that passed `after` (stage, recipe) and have no lasting answer at `stage` by recipe and model."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        rows = load(HERE, "pending_series").run(
            db,
            site=site,
            stage=stage,
            recipe=recipe,
            model=model,
            after_stage=after[0],
            after_recipe=after[1],
            passing=list(PASSING),
        )
    return [str(key) for key in rows.column("series_key").to_pylist()]


def series_rows(workspace: Workspace, site: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The present revision of the named series, in key order."""
    wanted = set(keys)
    rows = [row for row in current_series(workspace, site).to_pylist() if row["series_key"] in wanted]
    return sorted(rows, key=lambda row: str(row["series_key"]))


def in_order_of_arrival(workspace: Workspace, site: str, keys: Sequence[str]) -> list[str]:
    """The named series by when any revision of them came first, then by day observed and by key, which is a hash.

    What comes later changes no place among the first ones, however old it is.
    """
    columns = ["series_key", "ingested_at", "observed_on"]
    came: dict[str, tuple[Any, ...]] = {}
    for row in workspace.lake.read(layout.SERIES, pc.field("site") == site, columns).to_pylist():
        at = (row["ingested_at"], row["observed_on"], row["series_key"])
        came[row["series_key"]] = min(at, came.get(row["series_key"], at))
    return sorted(keys, key=lambda key: came[key])


def record_stage(
    workspace: Workspace,
    site: str,
    stage: str,
    verdicts: Sequence[Verdict],
    *,
    run: str,
    recipe: str = layout.NATIVE,
    model: str = "",
) -> StageCount:
    """Write one row per verdict, once, and count them."""
    rows = [
        {
            "site": site,
            "series_key": v.series_key,
            "revision": v.revision,
            "stage": stage,
            "recipe": recipe,
            "model": model,
            "outcome": "done" if v.reason is None else "refused",
            "reason": v.reason,
            "run": run,
        }
        for v in verdicts
    ]
    name = transaction(stage, recipe, model, [(v.series_key, v.revision, v.reason) for v in verdicts])
    workspace.lake.append(layout.STAGE, rows_of(STAGE, rows), transaction=name)
    n_done = sum(v.reason is None for v in verdicts)
    return StageCount(site=site, stage=stage, n_in=len(rows), n_done=n_done, n_refused=len(rows) - n_done)


def transaction(*parts: object) -> str:
    """A short name for a write that is the same whenever the same work is repeated."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def shards(keys: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Keys in order, in groups of at most `size`."""
    return [tuple(keys[start : start + size]) for start in range(0, len(keys), size)]
