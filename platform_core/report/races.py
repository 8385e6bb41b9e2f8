"""Races as pages tell them: what each candidate came to, what it cost, and how it learned. Counts of few are not told.

The table alone is read: `trial/race.py`, which writes it, loads torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import Any

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from platform_core.policy.situation import estimate_of
from platform_core.queries import load
from platform_core.report.curves import Drawing, drawing_of
from platform_core.report.spelling import interval, number, plural
from platform_core.settings import Task
from platform_core.shift.risk import Estimate
from platform_core.trial.model_record import told_count, told_sentence

HERE = "platform_core.report"
NONE = "none"
"""The candidate that moves no weight, as `learn/judging.py` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One strategy of one race."""

    strategy: str
    outcome: str
    because: str
    log_loss: Estimate | None
    """Of a segmentation 1 - Dice; None where it was not run, or could not be trained."""
    gain: Estimate | None
    """The same of `none` less this one, above 0 is better."""
    n_seeds: int
    """Of the winner; 0 of others."""
    seed_gain: float | None
    seed_sd: float | None
    seconds: float
    n_scan_passes: float

    @property
    def is_run(self) -> bool:
        """False if it was left out."""
        return self.outcome != "not_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One race of one site."""

    race_key: str
    target: str
    run: str
    parent: str
    recipe: str
    stratum: str | None
    period_start: date | None
    period_end: date | None
    device: str
    n_patients: int | str
    n_scans: int | str
    n_folds: int
    loss: str
    """What candidates are compared by."""
    unit: str
    """Of that and of gains; empty for a share."""
    curve_unit: str
    """Of the training loss."""
    candidates: Sequence[Candidate]
    """`none` first, then as they were to be run."""
    drawing: Drawing | None
    decision: Mapping[str, Any] | None
    """The row of `out__decision` that called for it, at its latest status."""

    @property
    def winner(self) -> Candidate | None:
        """None only if the table does not say."""
        return next((one for one in self.candidates if one.outcome == "won"), None)

    @property
    def is_lost(self) -> bool:
        """Whether no gradient was worth its cost."""
        return self.winner is not None and self.winner.strategy == NONE

    @property
    def seconds(self) -> float:
        """Of all candidates."""
        return sum(one.seconds for one in self.candidates)

    @property
    def n_scan_passes(self) -> float:
        """Of all candidates."""
        return sum(one.n_scan_passes for one in self.candidates)

    @property
    def verdict(self) -> str:
        """Why the winner won, in a sentence."""
        won, n_tried = self.winner, sum(one.is_run for one in self.candidates) - 1
        tried = plural(n_tried, "candidate was tried", "candidates were tried")
        if won is None:
            return "the table names no winner"
        if self.is_lost or won.gain is None:
            return f"{tried}, none better than no training by more than one standard error"
        gain = f"{number(won.gain.value, 3)} {interval(won.gain, 3)}{self.unit and ' '}{self.unit}"
        return f"{tried}; the {self.loss} of {won.strategy.replace('_', ' ')} is lower than that of none by {gain}"


def races_of(workspace: Workspace, site: str) -> list[Race]:
    """Every race of a site, the latest first."""
    with workspace.lake.connect([layout.RACE, layout.FINDING]) as db:
        rows = load(HERE, "races").run(db, site=site).to_pylist()
    if not rows:
        return []
    tuned = (row for row in decisions(workspace, site).to_pylist() if row["action"] == "fine_tune")
    called = {row["finding_key"]: row | {"because": told_sentence(row["because"] or "")} for row in tuned}
    races = [list(of_race) for _, of_race in groupby(rows, key=itemgetter("race_key"))]
    return [
        race_of(one, task=_task_of(workspace, one[0]["target"]), decision=called.get(one[0]["finding_key"]))
        for one in races
    ]


def _task_of(workspace: Workspace, target: str) -> Task:
    """Of a target that is no longer in the settings: classification."""
    known = workspace.settings.target.get(target)
    return "classification" if known is None else known.task


def race_of(rows: Sequence[Mapping[str, Any]], *, task: Task, decision: Mapping[str, Any] | None = None) -> Race:
    """One race from its rows of `out__race`, at least one, in the order of their steps."""
    first, is_marked = rows[0], task == "segmentation"
    return Race(
        **{name: first[name] for name in ("race_key", "target", "run", "parent", "recipe", "device", "n_folds")},
        stratum=first.get("stratum"),
        period_start=first.get("period_start"),
        period_end=first.get("period_end"),
        n_patients=told_count(first["n_patients"]),
        n_scans=told_count(first["n_scans"]),
        loss="1 - Dice" if is_marked else "log-loss",
        unit="" if is_marked else "nats per scan",
        curve_unit="nats + (1 - Dice)" if is_marked else "nats per scan",
        candidates=[_candidate(row) for row in rows],
        drawing=drawing_of({row["strategy"]: row["curve"] or () for row in rows}),
        decision=decision,
    )


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        **{name: row[name] for name in ("strategy", "outcome", "seed_gain", "seed_sd")},
        because=told_sentence(row["because"] or ""),
        log_loss=estimate_of(row, "log_loss"),
        gain=estimate_of(row, "gain"),
        n_seeds=row["n_seeds"] or 0,
        seconds=row["seconds"] or 0.0,
        n_scan_passes=row["n_scan_passes"] or 0.0,
    )
