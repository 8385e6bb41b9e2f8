"""Which scans of a period are to be labelled: drawn, recorded with their chances, and asked for once.

The first `FIRST_AT_RANDOM` labels of a period are drawn uniformly at random among its patients without a label, one
scan each; what is asked for later is drawn half uniformly, half where the model is unsure of what is new to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.labels import labels_in_force, requested
from platform_core.manifest.schemas import REQUEST
from platform_core.manifest.serving import Serving, current_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.adapted import trained_version
from platform_core.shift.risk import Reals
from platform_core.shift.samples import Sample, period_samples
from platform_core.shift.scores import score_rows
from platform_core.storage.tables import rows_of
from platform_core.trial.drawing import distances, informed_shares, raised, random_numbers

FIRST_AT_RANDOM = 50
"""Labels of a period that are drawn uniformly before any is drawn by what the model says.

74 to 200 random labels show that a quarter to a half of the positives are read otherwise; the risk that a gate is
decided on must not hang on the model's own opinion of its scans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for at one site and period."""

    site: str
    target: str
    stratum: str
    period_start: date
    n_patients: int
    """Patients of the period who may be asked: those without a label, and those who were asked."""
    n_open: int
    """Asked, and without a label."""
    n_answered: int
    """Asked, and labelled."""
    n_new: int
    """Asked for the first time now."""
    drawn: str
    """How the new ones were drawn: uniform or informed."""
    n_for_evaluation: int
    """Of the open ones; the others may be trained on. Which is which follows from the patient's key alone."""

    @property
    def told(self) -> str:
        """How many are asked for."""
        if not self.n_open:
            return f"none of {self.n_patients} patients is left to ask for"
        how = "uniformly at random" if self.drawn == "uniform" else "half at random, half where the model is unsure"
        new = f", {self.n_new} of them anew, drawn {how}" if self.n_new else ""
        return f"{self.n_open} scans are asked for{new}; {self.n_for_evaluation} of them are for evaluation"

    @property
    def sentence(self) -> str:
        """How many are asked for, and how one gets at the list."""
        verb = f"`sitedrift label request {self.site} --target {self.target}`"
        return f"{self.told}; {verb} writes the list at the door" if self.n_open else self.told

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-able, as decisions record it."""
        names = ("n_patients", "n_open", "n_answered", "n_new", "drawn", "n_for_evaluation")
        return {name: getattr(self, name) for name in names}


def request_labels(workspace: Workspace, finding: Mapping[str, Any], *, wanted: int, run: str, at: datetime) -> Request:
    """Have `wanted` scans of a finding's period asked for; what is open already counts.

    The same finding with the same labels asks for the same scans, however often. How many are drawn depends on how
    many are there, labelled and open, never on which.

    Args:
        workspace: Where it is recorded, in `out__request`: everybody who could be drawn, with the chance.
        finding: Site, target, stratum, period_start and finding_key are read.
        wanted: Scans that should be open.
        run: The run.
        at: The moment, UTC.

    Raises:
        EmptySample: If the period has no usable scan.
    """
    site, target = str(finding["site"]), str(finding["target"])
    periods = _periods(workspace, site, target).get(str(finding["stratum"]), [])
    sample = next((p for p in periods if p.period_start <= finding["period_start"] <= p.period_end), None)
    if sample is None:
        raise EmptySample(f"scans of {site} in the period that begins on {finding['period_start']}")
    return _ask(workspace, sample, target, finding["finding_key"], wanted=wanted, run=run, at=at)


def request_by_hand(workspace: Workspace, site: str, target: str, *, wanted: int, run: str, at: datetime) -> Request:
    """As `request_labels`, of the latest period with so many patients, else of the one with the most.

    Raises:
        UnknownName: If the site or target is not configured.
        EmptySample: If the site has no usable scan of the target's modality.
    """
    workspace.site(site)
    periods = [p for stratum in _periods(workspace, site, target).values() for p in stratum]
    if not periods:
        raise EmptySample(f"scans of {site} that {target} could be labelled on")
    enough = [p for p in periods if p.n >= wanted]
    key = (lambda p: (p.period_start, p.n, p.stratum)) if enough else (lambda p: (p.n, p.period_start, p.stratum))
    sample = max(enough or periods, key=key)
    where = (pc.field("site") == site) & (pc.field("target") == target) & (pc.field("stratum") == sample.stratum)
    found = workspace.lake.read(layout.FINDING, where, ["finding_key", "period_start", "run"]).to_pylist()
    mine = [row for row in found if sample.period_start <= row["period_start"] <= sample.period_end]
    finding_key = max(mine, key=lambda row: str(row["run"]))["finding_key"] if mine else None
    return _ask(workspace, sample, target, finding_key, wanted=wanted, run=run, at=at)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Everybody in a period who may be asked, in the order of the sample."""

    keys: tuple[str, ...]
    patients: tuple[str, ...]
    numbers: Reals
    """NaN for those who were in no drawing yet."""
    chance: Reals
    drawn: tuple[str | None, ...]
    is_labelled: tuple[bool, ...]

    @property
    def is_open(self) -> list[bool]:
        """Asked, and without a label."""
        return [how is not None and not done for how, done in zip(self.drawn, self.is_labelled, strict=True)]

    @property
    def is_answered(self) -> list[bool]:
        """Asked, and labelled."""
        return [how is not None and done for how, done in zip(self.drawn, self.is_labelled, strict=True)]

    @property
    def next_drawing(self) -> str:
        """Uniform until enough labels of the period were drawn so."""
        random = [how == "uniform" and done for how, done in zip(self.drawn, self.is_labelled, strict=True)]
        return "uniform" if sum(random) < FIRST_AT_RANDOM else "informed"


def _ask(
    workspace: Workspace, sample: Sample, target: str, finding_key: str | None, *, wanted: int, run: str, at: datetime
) -> Request:
    before = _frame(workspace, sample, target)
    if wanted > sum(before.is_open):
        _draw(workspace, sample, target, finding_key, before, wanted, run, at)
    after = _frame(workspace, sample, target)
    split = workspace.settings.split
    still_open = [patient for patient, is_open in zip(after.patients, after.is_open, strict=True) if is_open]
    return Request(
        site=sample.site,
        target=target,
        stratum=sample.stratum,
        period_start=sample.period_start,
        n_patients=len(after.keys),
        n_open=len(still_open),
        n_answered=sum(after.is_answered),
        n_new=sum(how is not None for how in after.drawn) - sum(how is not None for how in before.drawn),
        drawn=before.next_drawing,
        n_for_evaluation=sum(part_of(patient, split) == "evaluation" for patient in still_open),
    )


def _draw(
    workspace: Workspace,
    sample: Sample,
    target: str,
    finding_key: str | None,
    frame: _Frame,
    wanted: int,
    run: str,
    at: datetime,
) -> None:
    """Raise everybody's chance and write it down, once; who was drawn before stays drawn."""
    how = frame.next_drawing
    facts = [sample.site, target, sample.stratum, sample.period_start.isoformat(), finding_key]
    request_key = digest(["request", *facts, wanted, sorted(zip(frame.keys, frame.is_labelled, strict=True))])
    numbers = frame.numbers.copy()
    new = np.flatnonzero(np.isnan(numbers))
    numbers[new] = random_numbers([frame.keys[i] for i in new], request_key)
    even = np.full(len(frame.keys), 1 / max(len(frame.keys), 1))
    shares = even if how == "uniform" else _shares(workspace, sample, target, frame)
    chance = raised(frame.chance, shares, wanted - sum(frame.is_open))
    rows = [
        {
            "site": sample.site,
            "request_key": request_key,
            "target": target,
            "finding_key": finding_key,
            "stratum": sample.stratum,
            "period_start": sample.period_start,
            "series_key": key,
            "patient_key": patient,
            "random_number": number,
            "drawn": before or (how if number < p else None),
            "sampling_probability": p,
            "requested_at": at,
            "run": run,
        }
        for key, patient, number, before, p in zip(
            frame.keys, frame.patients, numbers.tolist(), frame.drawn, chance.tolist(), strict=True
        )
    ]
    workspace.lake.append(layout.REQUEST, rows_of(REQUEST, rows), transaction=f"request/{request_key}")


def _frame(workspace: Workspace, sample: Sample, target: str) -> _Frame:
    """The first scan of each patient of a period who has no label, or was asked for one."""
    of_site = pc.field("site") == sample.site
    known = {row["series_key"]: row for row in requested(workspace, target).filter(of_site).to_pylist()}
    in_force = labels_in_force(workspace, target).filter(of_site).column("series_key").to_pylist()
    labelled = set(in_force)
    asked = {key for key, row in known.items() if row["drawn"] is not None}
    pairs = [
        (key, patient)
        for key, patient in zip(sample.keys, sample.patients, strict=True)
        if key not in labelled or key in asked
    ]
    told = [known.get(key, {}) for key, _ in pairs]
    return _Frame(
        keys=tuple(key for key, _ in pairs),
        patients=tuple(patient for _, patient in pairs),
        numbers=np.array([row.get("random_number", np.nan) for row in told], dtype=np.float64),
        chance=np.array([row.get("sampling_probability", 0.0) for row in told], dtype=np.float64),
        drawn=tuple(row.get("drawn") for row in told),
        is_labelled=tuple(key in labelled for key, _ in pairs),
    )


def _shares(workspace: Workspace, sample: Sample, target: str, frame: _Frame) -> Reals:
    """Shares of an informed drawing; even ones before there is a model.

    New is what lies far from the reference and from the site's own labelled scans. Those who were asked in this period
    do not count: the chances would hang on who was drawn, and would no longer be what is written down.
    """
    serving = current_serving(workspace, sample.site, target)
    probability, novelty = np.full(len(frame.keys), np.nan), np.full(len(frame.keys), np.nan)
    if serving is not None:
        scans = score_rows(workspace, sample.site, target, serving.model, serving.recipe)
        place = {key: i for i, key in enumerate(scans.series_key.tolist())}
        rows = np.array([place.get(key, -1) for key in frame.keys], dtype=np.intp)
        is_scored = rows >= 0
        probability[is_scored] = serving.calibration.probability(scans.score[rows[is_scored]])
        is_before = scans.is_labelled & ~np.isin(scans.series_key, np.array(frame.keys, dtype=np.str_))
        labelled = [scans.embedding[is_before], _labelled_reference(workspace, serving)]
        embeddings = [each for each in labelled if each.shape[1] == scans.embedding.shape[1]]
        novelty[is_scored] = distances(scans.embedding[rows[is_scored]], np.concatenate(embeddings))
    return informed_shares(probability, novelty)


def _labelled_reference(workspace: Workspace, serving: Serving) -> Reals:
    """Embeddings of the source's labelled scans under the same model, (scans, dimensions)."""
    source = workspace.target(serving.target).source_site
    there = current_serving(workspace, source, serving.target) or serving
    trained = trained_version(workspace, serving.model)
    scans = score_rows(workspace, source, serving.target, trained, there.recipe)
    return scans.embedding[scans.is_labelled]


def _periods(workspace: Workspace, site: str, target: str) -> dict[str, list[Sample]]:
    return period_samples(workspace, site, workspace.target(target).modality, target)
