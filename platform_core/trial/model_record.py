"""What the tables say of one model version: its race, its gate, the decisions and servings that it came into."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import Serving, current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

Facts = dict[str, Any]

FEWEST_TOLD = 10
"""Patients or scans; smaller counts are told as `fewer than 10`: the least cell that health statistics commonly
publish (proposed)."""
SMALL_COUNT = re.compile(r"(?<![\d.,])[1-9](?= (?:[a-z]+ ){0,2}(?:patients?|scans?|labels)\b)")
"""Of people, in a sentence; a number that is no count is followed by another word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was written down when a version was made, judged and put into use; empty where nothing was."""

    race: tuple[Facts, ...]
    """Rows of `out__race`, in the order in which candidates ran."""
    gate: Facts | None
    """The verdict about it as the challenger, the latest one."""
    decisions: tuple[Facts, ...]
    """Rows of `out__decision`, oldest first: those that made it, judged it, or brought a site to it."""
    events: tuple[Facts, ...]
    """Rows of `out__model`, oldest first."""
    run_by: tuple[Serving, ...]
    """The servings in force that use it."""


def record_of(workspace: Workspace, ref: ModelRef) -> Record:
    """Everything that is on record of a version; sentences tell no count below `FEWEST_TOLD`."""
    mine = (pc.field("model") == ref.model) & (pc.field("version") == ref.version)
    events = sorted(workspace.lake.read(layout.MODEL, mine).to_pylist(), key=lambda row: int(row["epoch"] or 0))
    about = [row for row in decisions(workspace).to_pylist() if _tells_of(row, ref, {e["run"] for e in events[:1]})]
    gates = [gate for row in about if (gate := evidence_of(row).get("gate")) and gate.get("challenger") == ref.name]
    return Record(
        race=race_of(workspace, ref),
        gate=_gate_told(gates[-1]) if gates else None,
        decisions=tuple(row | {"because": told_sentence(row["because"] or "")} for row in about),
        events=tuple(events),
        run_by=tuple(s for s in current_servings(workspace, ref.model) if s.model == ref.name),
    )


def race_of(workspace: Workspace, ref: ModelRef) -> tuple[Facts, ...]:
    """The candidates among which its strategy won."""
    key = (ref.training or {}).get("race_key")
    if key is None:
        return ()
    rows = workspace.lake.read(layout.RACE, pc.field("race_key") == key).to_pylist()
    return tuple(sorted(rows, key=lambda row: int(row["step"])))


def evidence_of(decision: Mapping[str, Any]) -> Facts:
    """What a decision was made upon."""
    facts: Facts = json.loads(decision["evidence"] or "{}")
    return facts


def told_sentence(text: str) -> str:
    """A sentence without counts of fewer than ten people."""
    return SMALL_COUNT.sub(f"fewer than {FEWEST_TOLD}", text)


def told_count(n: int) -> int | str:
    """A count of patients or scans that may leave the workspace."""
    return int(n) if n >= FEWEST_TOLD or n == 0 else f"fewer than {FEWEST_TOLD}"


def _gate_told(gate: Facts) -> Facts:
    sites = [one | {"because": told_sentence(one.get("because", ""))} for one in gate["sites"]]
    return gate | {"because": told_sentence(gate["because"]), "sites": sites}


def _tells_of(decision: Mapping[str, Any], ref: ModelRef, runs: set[str]) -> bool:
    gate = evidence_of(decision).get("gate") or {}
    after = json.loads(decision["serving_after"] or "{}").get("model")
    before = json.loads(decision["serving_before"] or "{}").get("model")
    is_made = decision["action"] == "fine_tune" and decision["target"] == ref.model and decision["run"] in runs
    is_judged = gate.get("challenger") == ref.name
    is_by_hand = (evidence_of(decision).get("rollout") or {}).get("champion") == ref.name
    return (is_made and not gate) or is_judged or is_by_hand or (after == ref.name and before != ref.name)
