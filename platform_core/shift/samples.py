"""The samples that are compared: one row per patient, one stratum, one period. Strata are never mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.serving import serving_history
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.shift.contract import LONG
from platform_core.shift.risk import Reals
from platform_core.storage.tables import rows_of

HERE = "platform_core.shift"
HEADER_FIELDS = (
    "scanner_model",
    "manufacturer",
    "kernel",
    "kvp",
    "echo_time_ms",
    "repetition_time_ms",
    "field_strength_t",
    "view",
    "software",
)
"""What may name a cause, the likeliest first."""
PROJECTIONS = ("CR", "DX", "DR", "RF", "XR")
"""Modalities that all mean a plain radiograph."""
Fields = Mapping[str, tuple[str | None, ...]]
Labels = Mapping[str, tuple[float, float]]
"""By series: 1 positive or 0 negative, and the chance that it was asked for a label, NaN if not stated."""
CUT = pa.schema([("stratum", pa.string()), ("period_start", pa.date32())])
RAISED = pa.schema(
    [("alarm_key", pa.string()), *CUT, ("is_score", pa.bool_()), ("raised_at", pa.timestamp("us", tz="UTC"))]
)
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
    def patients(self) -> list[str]:
        """Their keys, in the same order."""
        keys: list[str] = self.scans.column("patient_key").to_pylist()
        return keys

    @property
    def facts(self) -> list[list[object]]:
        """Series and revisions, sorted: what a result from this sample depends on."""
        revisions = self.scans.column("revision").to_pylist()
        return sorted([key, revision] for key, revision in zip(self.keys, revisions, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """What is known of the patients of one sample, one row each: of their first scan."""

    features: tuple[str, ...]
    values: Reals
    """(patients, features), NaN where unknown."""
    y: Reals
    """(patients,): 1 positive, 0 negative, NaN without a label."""
    fields: Fields = field(default_factory=dict)
    """Header fields that may name a cause, one value per patient; None where missing; the likeliest cause first."""
    asked: Reals | None = None
    """(patients,): chance that the patient was asked for a label, (0, 1], NaN where not stated; None: nowhere."""

    def __len__(self) -> int:
        return len(self.values)

    def narrowed(self, features: Sequence[str]) -> "Patients":
        """The same patients with some of the features, in that order."""
        place = {name: i for i, name in enumerate(self.features)}
        return replace(self, features=tuple(features), values=self.values[:, [place[name] for name in features]])


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChange:
    """A header field with a value that the accepted state had not."""

    field: str
    value: str
    """The most frequent of the unseen values."""
    share: float
    """Patients with any unseen value, (0, 1]."""


def period_samples(
    workspace: Workspace, site: str, modality: str | None, target: str | None = None
) -> dict[str, list[Sample]]:
    """Every period of every stratum of a site, oldest first, by stratum; `modality` None takes them all.

    A period ends with the calendar, or with the day before the change that a watch has alarmed about: one of images,
    or of the scores of what the site ran for the target.
    """
    cuts = alarms_about(workspace, site, target).select(CUT.names).group_by(CUT.names, use_threads=False).aggregate([])
    return _by_stratum(_first_scans(workspace, site, modality, workspace.settings.shift.period_days, cuts.cast(CUT)))


def modalities_of(modality: str | None) -> list[str] | None:
    """What a header may call a modality; None for all."""
    return list(PROJECTIONS) if modality in PROJECTIONS else [modality] if modality else None


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
    uncut = CUT.empty_table()
    found = _first_scans(
        workspace, site, modality, EVER_DAYS, uncut, observed_before=observed_before, ingested_by=ingested_by
    )
    return {stratum: sample for stratum, (sample,) in _by_stratum(found).items()}


def accepted_sample(workspace: Workspace, target: str | None, periods: list[Sample]) -> Sample:
    """The state that a stratum was last accepted in: the period of its last adaptation, else its first sound one.

    A period that an alarm began and that turned out not to matter is accepted as it is. Sound means
    enough patients for a verdict; without any such period it is the first.
    """
    accepted = accepted_days(workspace, periods[0].site, target)
    return sample_of(periods, accepted.images.get(periods[0].stratum), workspace.settings.shift.min_scans)


def sample_of(periods: list[Sample], accepted_on: date | None, least: int) -> Sample:
    """The period that was accepted on a day, else the first with `least` patients, else the first."""
    if accepted_on is not None:
        # late arrivals can move the borders of periods, so the day is looked up and not the border
        return next((p for p in periods if p.period_start <= accepted_on <= p.period_end), periods[0])
    return next((sample for sample in periods if sample.n >= least), periods[0])


@dataclass(frozen=True, slots=True)
class AcceptedDays:
    """By stratum, a day of the period that was last accepted by a decision; without strata that none was about."""

    images: dict[str, date]
    scores: dict[str, date]
    """A recalibration accepts scores as they are, and says nothing of images."""


def accepted_days(workspace: Workspace, site: str, target: str | None) -> AcceptedDays:
    """Which days decisions have accepted."""
    with workspace.lake.connect([layout.DECISION, layout.FINDING]) as db:
        db.register("alarm", alarms_about(workspace, site, target))
        rows = load(HERE, "accepted_periods").run(db, site=site, target=target).to_pylist()
    images = {row["stratum"]: row["period_start"] for row in rows if row["period_start"] is not None}
    return AcceptedDays(images, {row["stratum"]: row["scored_from"] for row in rows})


def alarms_about(workspace: Workspace, site: str, target: str | None) -> pa.Table:
    """What cuts the calendar of a site and waits for an answer, in the columns of `RAISED`.

    An alarm of images is about every target; one of scores is about the target that the site ran the model for.
    """
    rows = workspace.lake.read(layout.ALARM, pc.field("site") == site).to_pylist()
    models = {None, *(s.model for s in serving_history(workspace, site, target))} if rows and target else {None}
    told = [row | {"is_score": scored_by(row["reference"]) is not None} for row in rows]
    mine = [row for row in told if scored_by(row["reference"]) in models]
    return rows_of(RAISED, [{name: row[name] for name in RAISED.names} for row in mine])


def scored_by(reference: str) -> str | None:
    """The model whose scores are ranked against a reference, as in `core__rank`; None for features."""
    return (reference or "").rpartition("/")[0] or None


def feature_values(workspace: Workspace, sample: Sample, recipe: str) -> pa.Table:
    """The features of a sample by one recipe, in the columns of `LONG`; empty if none was measured."""
    with workspace.lake.connect([layout.FEATURE]) as db:
        names = set(db.table(layout.FEATURE).columns)
        if names <= set(workspace.lake.schemas[layout.FEATURE].names):
            return LONG.empty_table()
        db.register("chosen", sample.scans.select(["series_key", "revision"]))
        return load(HERE, "long_features").run(db, site=sample.site, recipe=recipe).cast(LONG)


def patients_of(workspace: Workspace, sample: Sample, recipe: str, labels: Labels) -> Patients:
    """A sample's patients with their features by one recipe, labels and header fields, in the order of the sample."""
    features, values = _feature_matrix(workspace, sample, recipe)
    told = [labels.get(key, (np.nan, np.nan)) for key in sample.keys]
    return Patients(
        features=features,
        values=values,
        y=np.array([y for y, _ in told], dtype=np.float64),
        fields={name: tuple(sample.scans.column(name).to_pylist()) for name in HEADER_FIELDS},
        asked=np.array([chance for _, chance in told], dtype=np.float64),
    )


def read_labels(workspace: Workspace, target: str, site: str) -> dict[str, tuple[float, float]]:
    """Labels in force of a site, of either class, by series."""
    classes = workspace.target(target).classes
    rows = labels_in_force(workspace, target).filter(pc.field("site") == site).to_pylist()
    return {
        row["series_key"]: (float(classes.index(row["value"])), _chance(row["sampling_probability"]))
        for row in rows
        if row["value"] in classes
    }


def _chance(stated: float | None) -> float:
    return float("nan") if stated is None else float(stated)


def _feature_matrix(workspace: Workspace, sample: Sample, recipe: str) -> tuple[tuple[str, ...], Reals]:
    """Features that any patient has, and their values, (patients, features)."""
    with workspace.lake.connect([layout.FEATURE]) as db:
        names = set(db.table(layout.FEATURE).columns)
        if names <= set(workspace.lake.schemas[layout.FEATURE].names):
            return (), np.empty((sample.n, 0))
        db.register("chosen", sample.scans.select(["series_key", "revision"]))
        rows = load(HERE, "patient_features").run(db, site=sample.site, recipe=recipe)
    features = tuple(sorted(set(rows.column("feature").to_pylist())))
    values = np.full((sample.n, len(features)), np.nan)
    patient = pc.index_in(rows.column("series_key"), pa.array(sample.keys, pa.string())).to_numpy()
    feature = pc.index_in(rows.column("feature"), pa.array(features, pa.string())).to_numpy()
    values[patient, feature] = rows.column("value").to_numpy()
    return features, values


def header_changes(accepted: Fields, current: Fields) -> list[HeaderChange]:
    """Header fields with values that the accepted state has never shown, most widespread first.

    A field that no accepted patient has tells of nothing: a header may have begun to fill it in.
    """
    found = []
    for name in [name for name in current if name in accepted]:
        known = set(accepted[name]) - {None}
        unseen = [value for value in current[name] if value is not None and value not in known]
        if known and unseen:
            value = max(sorted(set(unseen)), key=unseen.count)
            found.append(HeaderChange(field=name, value=value, share=len(unseen) / len(current[name])))
    return sorted(found, key=lambda change: -change.share)


def _first_scans(
    workspace: Workspace,
    site: str,
    modality: str | None,
    days: int,
    cuts: pa.Table,
    *,
    observed_before: date | None = None,
    ingested_by: datetime | None = None,
) -> list[Sample]:
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        db.register("cut", cuts)
        rows = load(HERE, "first_scans").run(
            db,
            site=site,
            modalities=modalities_of(modality),
            period_days=days,
            observed_before=observed_before,
            ingested_by=ingested_by,
        )
    groups = rows.group_by(["stratum", "period_start", "period_end"], use_threads=False).aggregate([([], "count_all")])
    samples, first = [], 0
    for group in groups.to_pylist():
        scans = rows.slice(first, group["count_all"])
        samples.append(Sample(site, group["stratum"], group["period_start"], group["period_end"], scans))
        first += scans.num_rows
    return samples


def _by_stratum(samples: list[Sample]) -> dict[str, list[Sample]]:
    strata: dict[str, list[Sample]] = {}
    for sample in samples:
        strata.setdefault(sample.stratum, []).append(sample)
    return strata
