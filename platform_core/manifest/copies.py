"""The same pixels under two names: an image that was sent again as another series counts once."""

from platform_core import layout
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, series_rows
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load

STAGE, SAME_VOXELS = "unique", "same_voxels"


def originals(workspace: Workspace, site: str) -> dict[str, str]:
    """Series whose voxels another series of the site showed first, and which one."""
    with workspace.lake.connect([layout.SERIES]) as db:
        rows = load("platform_core.manifest", "copies").run(db, site=site).to_pylist()
    return {row["series_key"]: row["original"] for row in rows}


def mark_copies(workspace: Workspace, site: str, *, run: str) -> StageCount:
    """Let every new series through to the next stage, unless it shows what another one showed before."""
    keys = pending(workspace, site, STAGE)
    if not keys:
        return StageCount(site=site, stage=STAGE)
    copies = originals(workspace, site)
    verdicts = [
        Verdict(
            series_key=row["series_key"],
            revision=row["revision"],
            reason=SAME_VOXELS if row["series_key"] in copies else None,
        )
        for row in series_rows(workspace, site, keys)
    ]
    return record_stage(workspace, site, STAGE, verdicts, run=run)
