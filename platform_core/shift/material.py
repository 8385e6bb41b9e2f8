"""All that one finding is made from, in memory: one stratum and period of a site, and what it is held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from platform_core.manifest.serving import Calibration
from platform_core.shift.samples import Patients
from platform_core.shift.scores import ScoredScans
from platform_core.shift.transported import Transported

Bank = Literal["acquisition", "content"]
BANKS: tuple[Bank, ...] = get_args(Bank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is known; None where it is not."""

    current: Patients
    """The period, native features."""
    accepted: Patients
    """The state that the site was accepted in, native features; the period itself where `is_accepted`."""
    reference: Patients | None = None
    """The source domain's patients of the same stratum, native features; None before there is a model."""
    harmonized: Patients | None = None
    """The period, features by the recipe that the site runs."""
    reference_harmonized: Patients | None = None
    """The source domain's, by the recipe that it runs."""
    is_accepted: bool = False
    """The period is the accepted state itself: the site is new, or was just adapted to it."""
    is_reference: bool = False
    """The period is what the model was trained on."""
    n_strata: int = 1
    """Strata of the period that are tested and share alpha."""
    scores: ScoredScans | None = None
    """The period's patients under what the site runs."""
    held_out: ScoredScans | None = None
    """Those of them whom the model has not learned from."""
    accepted_scores: ScoredScans | None = None
    """The accepted state's patients under what the site runs now."""
    reference_scores: ScoredScans | None = None
    """The source domain's held-out patients under the same model."""
    calibration: Calibration | None = None
    """What the site runs; its prevalence is what is tested against."""
    reference_calibration: Calibration | None = None
    transported: Transported | None = None
    """The labelled reference as the site's scanner would have shown it."""
    banks: Mapping[str, Bank]
    """The bank of each feature; one that is not in it counts as acquisition."""
    protocol: frozenset[str] = frozenset()
    """Features that a person sets at the scanner: they stand still until somebody changes them."""

    @property
    def sides(self) -> tuple[Patients, Patients] | None:
        """Before and after, of the comparison that says whether a site has changed; None if there is no before."""
        if not self.is_accepted:
            return _shared(self.accepted, self.current)
        if self.reference_harmonized is None or self.harmonized is None:
            return None
        return _shared(self.reference_harmonized, self.harmonized)

    @property
    def threshold_score(self) -> float:
        """The score from which the site calls a scan positive; NaN before there is a model."""
        if self.calibration is None:
            return float("nan")
        return self.calibration.score_at(self.calibration.threshold)


def _shared(before: Patients, after: Patients) -> tuple[Patients, Patients]:
    names = tuple(name for name in before.features if name in after.features)
    return before.narrowed(names), after.narrowed(names)
