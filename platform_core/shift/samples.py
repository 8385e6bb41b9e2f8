"""The samples that are compared: one row per patient, one stratum, one period. Strata are never mixed."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import pyarrow as pa

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.contract import LONG

HERE = "platform_core.shift"
HEADER_FIELDS = ("scanner_model", "kernel", "software", "kvp")
PROJECTIONS = ("CR", "DX", "DR", "RF", "XR")
"""Modalities that all mean a plain radiograph."""
EVER_DAYS = 365_000
"""A period so long that it holds every scan."""


@dataclass(frozen=True)
class Sample:
    """The first scan of every patient of one site, stratum and period."""

    site: str
    stratum: str
    period_start: date
    period_end: date
    """Last day, inclusive."""
    scans: pa.Table
    """series_key, revision, patient_key and the header fields that may name a cause."""

    @property
    def n(self) -> int:
        """Patients."""
        return int(self.scans.num_rows)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Their series, in patient order."""
        return tuple(self.scans.column("series_key").to_pylist())

    @property
    def facts(self) -> list[list[object]]:
        """Series and revisions, sorted: what a result from this sample depends on."""
        revisions = self.scans.column("revision").to_pylist()
        return sorted([key, revision] for key, revision in zip(self.keys, revisions, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChange:
    """A header field with a value that the accepted state had not."""

    field: str
    value: str
    """The most frequent of the unseen values."""
    share: float
    """Patients with any unseen value, (0, 1]."""


def period_samples(workspace: Workspace, site: str, modality: str | None) -> dict[str, list[Sample]]:
    """Every period of every stratum of a site, oldest first, by stratum; `modality` None takes them all."""
    return _by_stratum(_first_scans(workspace, site, modality, workspace.settings.shift.period_days))


def reference_samples(
    workspace: Workspace, site: str, modality: str, *, observed_before: date | None, ingested_by: datetime | None
) -> dict[str, Sample]:
    """All that the model can have known of its source site: one row per patient, by stratum.

    Args:
        workspace: Where it is read.
        site: The source site.
        modality: Of the target.
        observed_before: The first day that does not count; None for none.
        ingested_by: The moment the model was made; later scans are not its reference. None for all.
    """
    found = _first_scans(workspace, site, modality, EVER_DAYS, observed_before=observed_before, ingested_by=ingested_by)
    return {stratum: sample for stratum, (sample,) in _by_stratum(found).items()}


def accepted_sample(workspace: Workspace, target: str | None, periods: list[Sample]) -> Sample:
    """The state that a stratum was last accepted in: the period of its last adaptation, else its first sound one.

    Sound means enough patients for a verdict; without any such period it is the first.
    """
    with workspace.lake.connect([layout.DECISION, layout.FINDING]) as db:
        rows = load(HERE, "accepted_periods").run(db, site=periods[0].site, target=target).to_pylist()
    adapted_on = {row["stratum"]: row["period_start"] for row in rows}.get(periods[0].stratum)
    if adapted_on is not None:
        # late arrivals can move the borders of periods, so the day is looked up and not the border
        return next((p for p in periods if p.period_start <= adapted_on <= p.period_end), periods[0])
    least = workspace.settings.shift.min_scans
    return next((sample for sample in periods if sample.n >= least), periods[0])


def feature_values(workspace: Workspace, sample: Sample, recipe: str) -> pa.Table:
    """The features of a sample by one recipe, in the columns of `LONG`; empty if none was measured."""
    with workspace.lake.connect([layout.FEATURE]) as db:
        names = set(db.table(layout.FEATURE).columns)
        if names <= set(workspace.lake.schemas[layout.FEATURE].names):
            return LONG.empty_table()
        db.register("chosen", sample.scans.select(["series_key", "revision"]))
        return load(HERE, "long_features").run(db, site=sample.site, recipe=recipe).cast(LONG)


def header_changes(accepted: Sample, current: Sample) -> list[HeaderChange]:
    """Header fields with values that the accepted state has never shown, most widespread first."""
    found = []
    for field in HEADER_FIELDS:
        known = set(accepted.scans.column(field).to_pylist())
        unseen = [v for v in current.scans.column(field).to_pylist() if v is not None and v not in known]
        if unseen:
            value = max(sorted(set(unseen)), key=unseen.count)
            found.append(HeaderChange(field=field, value=value, share=len(unseen) / current.n))
    return sorted(found, key=lambda change: -change.share)


def _first_scans(
    workspace: Workspace,
    site: str,
    modality: str | None,
    days: int,
    *,
    observed_before: date | None = None,
    ingested_by: datetime | None = None,
) -> list[Sample]:
    modalities = list(PROJECTIONS) if modality in PROJECTIONS else [modality] if modality else None
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        rows = load(HERE, "first_scans").run(
            db,
            site=site,
            modalities=modalities,
            period_days=days,
            observed_before=observed_before,
            ingested_by=ingested_by,
        )
    groups = rows.group_by(["stratum", "period_start"], use_threads=False).aggregate([([], "count_all")])
    samples, first = [], 0
    for group in groups.to_pylist():
        scans = rows.slice(first, group["count_all"])
        start = group["period_start"]
        samples.append(Sample(site, group["stratum"], start, start + timedelta(days=days - 1), scans))
        first += scans.num_rows
    return samples


def _by_stratum(samples: list[Sample]) -> dict[str, list[Sample]]:
    strata: dict[str, list[Sample]] = {}
    for sample in samples:
        strata.setdefault(sample.stratum, []).append(sample)
    return strata
