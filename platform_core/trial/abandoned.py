"""Trainings and races that were killed and that nobody goes on with: what they have kept is dropped.

One that ends forgets its bookmarks itself. One that died is gone on with if it is asked for again with the same scans;
when others have come in meanwhile it never is. A bookmark that is dropped too early costs hours and changes no result.
"""

from collections import defaultdict
from datetime import datetime, timedelta

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.policy.by_hand import training_by_hand
from platform_core.policy.episodes import episodes
from platform_core.policy.running import fine_tunings, is_under_way
from platform_core.storage.objects import Stored

ABANDONED_AFTER = timedelta(days=30)
"""Since anything of a training was last written; proposed: a period (28 days) and a weekend. A race is of one period,
so after that nobody asks for it again; one that runs writes every `checkpoint_minutes`."""


def drop_abandoned(workspace: Workspace, *, at: datetime) -> list[str]:
    """Drop what trainings have kept that were last written to `ABANDONED_AFTER` before a moment (UTC).

    A target that may be trained now, or whose fine-tuning an open episode still waits for, is left alone altogether.

    Returns:
        One sentence per training.
    """
    idle = [target for target in workspace.settings.target if not _is_awaited(workspace, target, at)]
    return [sentence for target in idle for sentence in _drop(workspace, target, before=at - ABANDONED_AFTER)]


def _is_awaited(workspace: Workspace, target: str, at: datetime) -> bool:
    if training_by_hand(workspace, target, at=at) is not None:
        return True
    open_at = {one.site for one in episodes(workspace) if one.target == target and one.state != "closed"}
    begun = [row for row in fine_tunings(workspace, target) if row["status"] == "proposed"]
    return any(is_under_way(row, at) or row["site"] in open_at for row in begun)


def _drop(workspace: Workspace, target: str, *, before: datetime) -> list[str]:
    told = []
    for training, files in sorted(_kept(workspace, target).items()):
        last = max(file.modified_at for file in files)
        if last >= before:
            continue
        for file in files:
            workspace.objects.delete(file.path)
        n_mb = sum(file.n_bytes for file in files) / 1e6
        told.append(
            f"{target}: dropped what the unfinished training {training} had kept ({n_mb:.1f} MB); nobody has gone on "
            f"with it since {last:%Y-%m-%d}"
        )
    return told


def _kept(workspace: Workspace, target: str) -> dict[str, list[Stored]]:
    """Files by the training that they are of."""
    folder = layout.unfinished_path(target)
    kept: dict[str, list[Stored]] = defaultdict(list)
    for found in workspace.objects.find(folder):
        kept[found.path.removeprefix(f"{folder}/").partition("/")[0]].append(found)
    return kept
