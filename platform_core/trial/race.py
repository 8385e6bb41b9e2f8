"""Which strategy a fine-tuning for one site is made by: raced on its labelled patients, kept and recorded.

How a race is run is in `learn/cross_validate.py`; here are the scans that it may score, the table and the bookmarks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.learn.contract import Tell, untold
from platform_core.learn.cross_validate import race
from platform_core.learn.data import Scan
from platform_core.learn.device import device_name
from platform_core.learn.judging import Entry, Race
from platform_core.learn.networks import weights_sha256
from platform_core.learn.resume import Bookmarks, phase_facts
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.train import Material, new_network, refuse_few
from platform_core.learn.trained import joined, some
from platform_core.learn.training import CrossFitted
from platform_core.manifest.schemas import RACE
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.risk import columns_of
from platform_core.storage.tables import rows_of
from platform_core.trial.case import Case, finding_of
from platform_core.trial.gate import unseen_by
from platform_core.trial.weigh import Seeds

TOLD = ("strategy", "outcome", "because", "seconds", "n_scan_passes", "n_seeds", "seed_gain", "seed_sd")
"""Columns that a decision's evidence repeats of every candidate, beside the two with intervals."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raced:
    """A race that has ended, and what the winner's training can use of it."""

    race_key: str
    race: Race
    cross_fitted: CrossFitted
    """The scans that were held out, by the winner's networks."""
    bookmarks: Bookmarks
    """To be forgotten when what came of the race is written down."""


def run_race(case: Case, candidates: Sequence[str], material: Material, *, tell: Tell = untold) -> Raced:
    """Race the candidates on the site's patients that the champion has not learned from, and record it.

    A race that was killed goes on where it was; one that has ended is not run again.

    Args:
        case: What the fine-tuning is about.
        candidates: Strategies, cheapest first.
        material: What they start from and see.
        tell: Told how far it is.

    Raises:
        UnknownName: If there is no such strategy.
        EmptySample: If too few patients are new to the champion.
        DeviceLost: If a GPU fails.
        StorageUnavailable: If the workspace cannot be written.
    """
    workspace = case.workspace
    train, rules = workspace.target(case.target).train, workspace.settings.policy
    is_known = _known_to(workspace, material)
    site, replay = some(material.own, ~is_known), joined(some(material.own, is_known), material.replay)
    refuse_few(site, f"{case.site} that the champion has not learned from")
    facts = {
        "period": _period_of(case),
        "start": weights_sha256(material.start),
        "recipe": material.recipe,
        "site": _facts_of(site.scans),
        "replay": _facts_of(replay.scans),
        "candidates": [[name, phase_facts(STRATEGIES[name])] for name in candidates],
        "settings": [train.model_dump(exclude={"checkpoint_minutes"}), rules.n_folds, rules.n_seeds],
        "threshold": case.serving.calibration.threshold,
    }
    race_key = digest(facts)
    bookmarks = Bookmarks(
        objects=workspace.objects,
        folder=layout.training_path(case.target, f"race-{race_key}"),
        every_s=60 * train.checkpoint_minutes,
    )
    is_fresh = any(STRATEGIES[name].starts_from == "nothing" for name in candidates)
    found = race(
        material.start,
        site,
        replay,
        candidates,
        train,
        n_folds=rules.n_folds,
        n_seeds=rules.n_seeds,
        blank=new_network(workspace, case.target) if is_fresh else None,
        threshold=case.serving.calibration.threshold,
        bookmarks=bookmarks,
        tell=tell,
    )
    _record(case, material, race_key, found)
    cross_fitted = CrossFitted(scans=site.scans, logits=np.asarray(found.logits))
    return Raced(race_key=race_key, race=found, cross_fitted=cross_fitted, bookmarks=bookmarks)


def read_race(workspace: Workspace, site: str, race_key: str) -> list[dict[str, Any]]:
    """Rows of one race, in the order in which its candidates were to be run."""
    where = (pc.field("site") == site) & (pc.field("race_key") == race_key)
    return sorted(workspace.lake.read(layout.RACE, where).to_pylist(), key=lambda row: int(row["step"]))


def race_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A race as decisions record it, JSON-able; curves stay in the table. None of no rows."""
    if not rows:
        return None
    first = {name: rows[0][name] for name in ("race_key", "parent", "n_patients", "n_scans", "n_folds", "device")}
    winner = next(row["strategy"] for row in rows if row["outcome"] == "won")
    told = [{name: row[name] for name in TOLD} | _triples(row) for row in rows]
    return {**first, "winner": winner, "candidates": told}


def seeds_of(rows: Sequence[Mapping[str, Any]]) -> Seeds | None:
    """What other seeds said of the winner; None if there was only one."""
    won = next((row for row in rows if row["outcome"] == "won"), None)
    if won is None or won["seed_sd"] is None:
        return None
    return Seeds(gain=float(won["seed_gain"]), sd=float(won["seed_sd"]))


def _known_to(workspace: Workspace, material: Material) -> Any:
    """(n,), whether the champion, or one that it comes from, has learned from a person of the site's."""
    unseen = unseen_by(workspace, [material.parent])
    return np.array([unseen.has_seen(scan.patient_key) for scan in material.own.scans], dtype=bool)


def _period_of(case: Case) -> list[str]:
    """Not the finding, whose name changes with every scan that comes: a race that was killed would begin anew."""
    finding = finding_of(case)
    return [case.site, str(finding["stratum"]), str(finding["period_start"])]


def _facts_of(scans: Sequence[Scan]) -> list[list[Any]]:
    told = ([scan.site, scan.series_key, scan.revision, scan.y, scan.mask_uri] for scan in scans)
    return [facts if facts[-1] else facts[:-1] for facts in told]


def _record(case: Case, material: Material, race_key: str, found: Race) -> None:
    shared = {
        "site": case.site,
        "race_key": race_key,
        "finding_key": case.finding_key,
        "target": case.target,
        "recipe": material.recipe,
        "parent": material.parent.name,
        "n_patients": found.n_patients,
        "n_scans": found.n_scans,
        "n_folds": found.n_folds,
        "device": device_name(),
        "run": case.run,
    }
    rows = [shared | _row(entry) for entry in found.entries]
    case.workspace.lake.append(layout.RACE, rows_of(RACE, rows), transaction=f"race/{case.site}/{race_key}")


def _row(entry: Entry) -> dict[str, Any]:
    plain = {name: getattr(entry, name) for name in (*TOLD, "step")}
    intervals = columns_of("log_loss", entry.log_loss) | columns_of("gain", entry.gain)
    return plain | {"curve": list(entry.curve)} | intervals


def _triples(row: Mapping[str, Any]) -> dict[str, list[float] | None]:
    found = {name: [row[name], row[f"{name}_low"], row[f"{name}_high"]] for name in ("log_loss", "gain")}
    return {name: None if triple[0] is None else triple for name, triple in found.items()}
