"""Withdrawals under way, kept at the door until they have ended.

The journal lies beside the door books, for their owner's eyes only. It holds the keys that the workspace must
forget, so that a withdrawal that was killed goes on where it was: by then the tables may not know them any more.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from platform_core.lineage.plan import Plan
from platform_core.lineage.seen import Seen
from platform_core.manifest.door import Door, open_door, private_folder
from platform_core.manifest.workspace import Workspace


def held_plans(workspace: Workspace) -> list[Plan]:
    """Withdrawals that were begun at this door and have not ended, oldest first."""
    folder = _folder(open_door(workspace))
    found = [_read(file) for file in sorted(folder.glob("*.json"))] if folder.exists() else []
    return sorted(found, key=lambda plan: plan.began_at)


def keep_plan(workspace: Workspace, plan: Plan) -> None:
    """Write the journal, so that the withdrawal ends whatever happens."""
    file = _file(open_door(workspace), plan)
    private_folder(file.parent)
    temporary = file.with_suffix(".part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(asdict(plan), out)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def drop_plan(workspace: Workspace, plan: Plan) -> None:
    """Remove the journal: the withdrawal has ended."""
    _file(open_door(workspace), plan).unlink(missing_ok=True)


def _folder(door: Door) -> Path:
    return door.home / "withdrawals"


def _file(door: Door, plan: Plan) -> Path:
    return _folder(door) / f"{plan.run}.json"


def _read(file: Path) -> Plan:
    facts = json.loads(file.read_text(encoding="utf-8"))
    lists = ("patient_keys", "tombstones", "arrivals", "elsewhere", "scopes")
    by_site = {name: {site: tuple(keys) for site, keys in facts[name].items()} for name in ("series", "bases", "days")}
    told = {name: tuple(facts[name]) for name in lists}
    return Plan(**facts | told | by_site | {"models": tuple(Seen(**each) for each in facts["models"])})
