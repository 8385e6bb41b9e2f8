"""The stage `quality`: what fails a rule of severity `error` does not flow on."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from platform_core import layout
from platform_core.manifest.schemas import QUALITY
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.quality import RULES
from platform_core.quality.run import RuleResult, check_frame
from platform_core.queries import load
from platform_core.storage.tables import rows_of

STAGE = "quality"
HERE = "platform_core.quality"


def check_quality(workspace: Workspace, site: str, *, run: str) -> StageCount:
    """Check every scan of a site that has native features and no verdict yet, as one batch.

    Writes to `out__quality` one row per rule for the batch and one per scan that fails it, then one row
    per scan to `core__stage`: done, or refused with the name of the first rule of severity `error` that it
    fails.
    """
    keys = pending(workspace, site, STAGE, after=("feature", layout.NATIVE))
    if not keys:
        return StageCount(site=site, stage=STAGE)
    frame = read_batch(workspace, site, keys)
    results = check_frame(frame, RULES.values())
    scans = list(zip(frame.column("series_key").to_pylist(), frame.column("revision").to_pylist(), strict=True))
    rows = rows_of(QUALITY, _rows(site, run, results))
    workspace.lake.append(layout.QUALITY, rows, transaction=transaction(STAGE, site, scans))
    refusals = _refusals(results)
    verdicts = [Verdict(series_key=key, revision=revision, reason=refusals.get(key)) for key, revision in scans]
    return record_stage(workspace, site, STAGE, verdicts, run=run)


def read_batch(workspace: Workspace, site: str, keys: Sequence[str]) -> pa.Table:
    """The batch frame: `core__series` with the native features, one row per scan in key order."""
    with workspace.lake.connect([layout.SERIES, layout.FEATURE]) as db:
        db.register("wanted", pa.table({"series_key": list(keys)}))
        return load(HERE, "batch").run(db, site=site)


def _rows(site: str, run: str, results: Sequence[RuleResult]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for result in results:
        rule = {"site": site, "run": run, "rule": result.rule.name, "severity": result.rule.severity}
        batch: dict[str, Any] = {"series_key": None, "passed": result.passed, "observed": result.observed}
        scans = [
            {"series_key": key, "passed": False, "observed": observed} for key, observed in result.failures.items()
        ]
        rows += [{**rule, **row, "because": result.rule.because} for row in (batch, *scans)]
    return rows


def _refusals(results: Sequence[RuleResult]) -> dict[str, str]:
    """The reason of each refused scan: the first rule of severity `error`, in name order, that it fails."""
    errors = [result for result in results if result.rule.severity == "error"]
    return {key: result.rule.name for result in reversed(errors) for key in result.failures}
