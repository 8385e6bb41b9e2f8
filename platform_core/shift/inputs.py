"""All that one finding is made from, read before anything is computed, and one name for it."""

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.serving import Calibration, Serving, current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.adapted import trained_version
from platform_core.shift.material import Bank, Material
from platform_core.shift.risk import Reals
from platform_core.shift.samples import (
    Labels,
    Patients,
    Sample,
    accepted_sample,
    patients_of,
    period_samples,
    read_labels,
    reference_samples,
)
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.shift.transported import Transported, read_transported


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The source domain as the model that a site runs knows it."""

    site: str
    recipe: str
    model: str
    """model@version that was trained on it, which sees it: what the site runs, or what that was adapted from."""
    calibration: Calibration
    samples: dict[str, Sample]
    """By stratum, all the source's patients whose scans were there when the model was made."""


@dataclass(frozen=True)
class Inputs:
    """One site, stratum and period, what it is compared with, and the scores of both."""

    workspace: Workspace
    target: str | None
    n_strata: int
    """Strata of the period with enough patients for a verdict, at least 1."""
    current: Sample
    accepted: Sample
    serving: Serving | None
    """What the site runs; None before there is a model."""
    reference: Reference | None
    """None exactly where `serving` is."""

    @property
    def is_accepted(self) -> bool:
        """The period is the accepted state itself."""
        return self.accepted.period_start == self.current.period_start

    @property
    def is_reference(self) -> bool:
        """The period is the first of the target's own source site."""
        settings = self.workspace.settings.target.get(self.target or "")
        return settings is not None and settings.source_site == self.current.site and self.is_accepted

    @property
    def like_reference(self) -> Sample | None:
        """The reference's patients of the same stratum; None if it has none."""
        return None if self.reference is None else self.reference.samples.get(self.current.stratum)

    @cached_property
    def scores(self) -> ScoredScans | None:
        """The period's patients under what the site runs."""
        if self.serving is None:
            return None
        return self._scores(self.current.site, self.serving.recipe, self.current.keys)

    @cached_property
    def accepted_scores(self) -> ScoredScans | None:
        """The accepted state's patients under what the site runs now."""
        if self.serving is None:
            return None
        return self._scores(self.accepted.site, self.serving.recipe, self.accepted.keys)

    @cached_property
    def reference_scores(self) -> ScoredScans | None:
        """The reference's held-out patients under the same model, or the one that it was adapted from.

        A stratum that the reference lacks is held against all of it: the model is what it is.
        """
        if self.reference is None:
            return None
        like = self.like_reference
        samples = self.reference.samples.values() if like is None else [like]
        keys = tuple(key for sample in samples for key in sample.keys)
        scans = self._scores(self.reference.site, self.reference.recipe, keys, self.reference.model)
        return scans.of_part("evaluation", self.workspace.settings.split)

    @property
    def held_out(self) -> ScoredScans | None:
        """The period's patients whom the model has not learned from: all, if it knows other hospitals only."""
        if self.scores is None or self.serving is None or self.reference is None:
            return None
        never_learned = self.scores.of_part("evaluation", self.workspace.settings.split)
        if self.reference.site == self.current.site or _is_trained_again(self.workspace, self.serving.model):
            return never_learned
        known = {key for sample in self.reference.samples.values() for key in sample.patients}
        return self.scores.where(
            np.isin(self.scores.series_key, never_learned.series_key)
            | ~np.isin(self.scores.patient_key, np.array(sorted(known), dtype=np.str_))
        )

    @cached_property
    def transported(self) -> Transported | None:
        """The labelled reference as the site's scanner shows it; None if nobody has shown it."""
        if self.serving is None:
            return None
        return read_transported(
            self.workspace,
            site=self.current.site,
            stratum=self.current.stratum,
            target=self.serving.target,
            model=self.serving.model,
            recipe=self.serving.recipe,
            period_start=self.current.period_start,
        )

    def patients(self, sample: Sample, recipe: str) -> Patients:
        """A sample's patients, with the labels of the target."""
        return patients_of(self.workspace, sample, recipe, self.labels.get(sample.site, {}))

    @cached_property
    def material(self) -> Material:
        """All that the finding is made from, read."""
        serving, reference, like = self.serving, self.reference, self.like_reference
        by_recipe = None if like is None or reference is None else self.patients(like, reference.recipe)
        return Material(
            current=self.patients(self.current, layout.NATIVE),
            accepted=self.patients(self.accepted, layout.NATIVE),
            reference=None if like is None else self.patients(like, layout.NATIVE),
            harmonized=None if serving is None else self.patients(self.current, serving.recipe),
            reference_harmonized=by_recipe,
            is_accepted=self.is_accepted,
            is_reference=self.is_reference,
            n_strata=self.n_strata,
            scores=self.scores,
            held_out=self.held_out,
            accepted_scores=self.accepted_scores,
            reference_scores=self.reference_scores,
            calibration=None if serving is None else serving.calibration,
            reference_calibration=None if reference is None else reference.calibration,
            transported=self.transported,
            banks=_banks(),
            protocol=_protocol(),
        )

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """Of the target, by site: its own and the source's."""
        if self.target is None:
            return {}
        sites = {self.current.site} | (set() if self.reference is None else {self.reference.site})
        return {site: read_labels(self.workspace, self.target, site) for site in sorted(sites)}

    @property
    def _label_facts(self) -> list[list[object]]:
        """Every label of a patient who is compared, and its chance, null if not stated."""
        samples = {id(each): each for each in (self.current, self.accepted, self.like_reference) if each is not None}
        return sorted(
            [sample.site, key, y, None if np.isnan(chance) else chance]
            for sample in samples.values()
            for key in sample.keys
            for y, chance in [self.labels.get(sample.site, {}).get(key, (np.nan, np.nan))]
            if not np.isnan(y)
        )

    @cached_property
    def key(self) -> str:
        """Names the finding: equal inputs, equal name."""
        read = self.material
        sides = read.current, read.accepted, read.reference, read.harmonized, read.reference_harmonized
        scored = read.scores, read.accepted_scores, read.reference_scores
        return digest(
            {
                "site": self.current.site,
                "stratum": self.current.stratum,
                "period": [self.current.period_start.isoformat(), self.current.period_end.isoformat()],
                "target": self.target,
                "settings": self.workspace.settings.shift.model_dump(),
                "n_strata": self.n_strata,
                "current": self.current.facts,
                "accepted": self.accepted.facts,
                "serving": None if self.serving is None else _facts(self.serving),
                "reference": None if self.reference is None else _reference_facts(self.reference),
                "labels": self._label_facts,
                "transported": None if self.transported is None else self.transported.transport,
                # what could not be measured at first is measured later, of the same revision
                "features": [_read(side) for side in sides],
                "banks": dict(read.banks),
                "protocol": sorted(read.protocol),
                "scores": [None if scans is None else scans.facts for scans in scored],
                "embeddings": [None if scans is None else _hashed(scans.embedding) for scans in scored],
            }
        )

    def _scores(self, site: str, recipe: str, keys: tuple[str, ...], model: str | None = None) -> ScoredScans:
        assert self.serving is not None
        return score_rows(self.workspace, site, self.serving.target, model or self.serving.model, recipe, keys=keys)


def material_of(inputs: Inputs) -> Material:
    """Read what the finding is made from."""
    return inputs.material


def _read(side: Patients | None) -> list[str] | None:
    """What was known of the features of a sample: their names and a hash of their values."""
    return None if side is None else [*side.features, _hashed(side.values)]


def _hashed(values: Reals) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _banks() -> dict[str, Bank]:
    from platform_core.features.measure import FEATURES

    return {name: feature.bank for name, feature in FEATURES.items()}


def _protocol() -> frozenset[str]:
    from platform_core.features import FAMILIES

    return frozenset(feature.name for name in ("acquisition", "geometry") for feature in FAMILIES[name].features)


def read_inputs(workspace: Workspace, site: str, target: str | None) -> list[Inputs]:
    """The inputs of every stratum in the site's latest period, most patients first."""
    modality = None if target is None else workspace.settings.target[target].modality
    strata = period_samples(workspace, site, modality, target)
    latest = max((periods[-1].period_start for periods in strata.values()), default=None)
    # an alarm begins a period in one stratum only
    present = [periods for periods in strata.values() if latest is not None and periods[-1].period_end >= latest]
    least = workspace.settings.shift.min_scans
    serving = None if target is None else current_serving(workspace, site, target)
    return [
        Inputs(
            workspace=workspace,
            target=target,
            n_strata=max(sum(each[-1].n >= least for each in present), 1),
            current=periods[-1],
            accepted=accepted_sample(workspace, target, periods),
            serving=serving,
            reference=None if serving is None else _reference(workspace, serving, periods[-1]),
        )
        for periods in sorted(present, key=lambda periods: -periods[-1].n)
    ]


def inputs_of(workspace: Workspace, site: str, target: str, stratum: str) -> Inputs | None:
    """The inputs of one stratum in the site's latest period; None if no scan of it came."""
    return next((one for one in read_inputs(workspace, site, target) if one.current.stratum == stratum), None)


def _reference(workspace: Workspace, serving: Serving, current: Sample) -> Reference:
    """The source's scans that the model can have known; never the period that is being measured."""
    settings = workspace.settings.target[serving.target]
    source = current_serving(workspace, settings.source_site, serving.target) or serving
    model = trained_version(workspace, serving.model)
    samples = reference_samples(
        workspace,
        settings.source_site,
        settings.modality,
        observed_before=current.period_start if current.site == settings.source_site else None,
        ingested_by=_made_at(workspace, model),
    )
    calibration = source.calibration if source.model == model else serving.calibration
    return Reference(
        site=settings.source_site, recipe=source.recipe, model=model, calibration=calibration, samples=samples
    )


def _is_trained_again(workspace: Workspace, model: str) -> bool:
    """Whether `model@version` was made from another version, with labels of whatever site asked for it."""
    name, _, version = model.rpartition("@")
    rows = workspace.lake.read(layout.MODEL, pc.field("model") == name, ["version", "parent"]).to_pylist()
    return any(row["parent"] is not None for row in rows if str(row["version"]) == version)


def _made_at(workspace: Workspace, model: str) -> datetime | None:
    """When `model@version` was made; None for a model that nobody registered."""
    name, _, version = model.rpartition("@")
    rows = workspace.lake.read(layout.MODEL, pc.field("model") == name, ["version", "created_at"]).to_pylist()
    return min((row["created_at"] for row in rows if str(row["version"]) == version), default=None)


def _facts(serving: Serving) -> dict[str, Any]:
    return {"model": serving.model, "recipe": serving.recipe, "calibration": asdict(serving.calibration)}


def _reference_facts(reference: Reference) -> dict[str, Any]:
    return {
        "site": reference.site,
        "recipe": reference.recipe,
        "calibration": asdict(reference.calibration),
        "samples": {stratum: sample.facts for stratum, sample in reference.samples.items()},
    }
