"""The questions that rules of a diagnosis ask of the evidence, and the one alpha that they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from platform_core.settings import ShiftSettings
from platform_core.shift.compare import FeatureShift
from platform_core.shift.evidence import Evidence
from platform_core.shift.labels.concept import ConceptTest, one_look_test
from platform_core.shift.labels.prevalence import P_FIT, PrevalenceEstimate
from platform_core.shift.material import Bank
from platform_core.shift.reweighted import ReweightedDistance
from platform_core.shift.risk import Estimate

Question = Literal["acquisition", "content", "prevalence", "concept"]

BUDGET: Mapping[Question, float] = {"acquisition": 0.2, "content": 0.1, "prevalence": 0.25, "concept": 0.45}
"""How the questions share alpha; of what cannot be asked the others get the share. Most for the one that has the
fewest data: labels. A scanner that matters is seen at any level."""
SAME_PROTOCOL = 0.02
"""Share of its own size by which a number of the protocol may move and count as the same: an echo time of 30.0 or
30.1 ms is one protocol, though it tells every scan apart. Proposed; a spacing 4 % larger is to be seen."""
STILL_THERE = 0.01
"""Chance below which a difference counts as left over at the estimated prevalence, whose error is not in it."""
MIX_OF_SCANNERS = 0.5
"""Share of a divergence from which on it counts as made by the mix of header values, all of which were seen before."""


@dataclass(frozen=True)
class Questions:
    """What the rules ask of the evidence, each answered at its share of alpha."""

    evidence: Evidence
    settings: ShiftSettings

    def alpha(self, question: Question) -> float:
        """What one question may spend, all its tests together."""
        asked: set[Question] = {"acquisition", "content", question}
        asked |= {"prevalence"} if self.evidence.prevalence else set()
        asked |= {"concept"} if self.evidence.labels else set()
        share = BUDGET[question] / sum(BUDGET[each] for each in asked)
        return self.settings.alpha * share / self.evidence.n_strata

    @property
    def shifts(self) -> tuple[FeatureShift, ...]:
        """Features since acceptance; at onboarding, from the reference."""
        return self.evidence.from_reference if self.evidence.is_accepted else self.evidence.since_accepted

    @property
    def has_compared_scanners(self) -> bool:
        """Whether any feature of acquisition was compared; without one, nobody knows that scanners are as before."""
        return bool(self._of_bank("acquisition", self.shifts))

    def moved(self, bank: Bank) -> list[FeatureShift]:
        """Features of a bank beyond chance, furthest first; the score counts as content."""
        shifts = self._of_bank(bank, self.shifts)
        if bank == "content" and self.evidence.score:
            shifts.append(self.evidence.score)
        return self._significant(shifts, self.alpha(bank))

    @property
    def differing(self) -> list[FeatureShift]:
        """Features of either bank and the score beyond chance, furthest first."""
        return sorted([*self.moved("acquisition"), *self.moved("content")], key=lambda s: -s.distance.value)

    def furthest(self, bank: Bank) -> FeatureShift | None:
        """The feature of a bank that moved furthest, if any moved beyond chance and materially."""
        moved = [shift for shift in self.moved(bank) if self._is_material(shift)]
        if self._is_prevalence_alone(bank):
            moved = [shift for shift in moved if shift == self.evidence.score]
        return moved[0] if moved else None

    @property
    def has_other_patients(self) -> bool:
        """What is in the scans moved, and not by prevalence."""
        worst = self._significant(self._of_bank("content", self.shifts), self.alpha("content"))
        return any(self._is_material(shift) for shift in worst) and not self._is_prevalence_alone("content")

    def left_over(self, bank: Bank) -> ReweightedDistance | None:
        """What is left at the estimated prevalence; None where too few make it up to show a material difference.

        That a difference may be chance among forty patients is no reason to believe that it is.
        """
        left = self.evidence.reweighted.get(bank)
        if left is None or left.value < self.settings.material_distance or left.p < STILL_THERE:
            return left
        is_told = left.n_reference >= self.settings.min_scans
        return left if is_told and left.value - left.by_chance < self.settings.material_distance else None

    def _is_prevalence_alone(self, bank: Bank) -> bool:
        """Nothing is left of the difference once those compared with have the site's share of positives."""
        left = self.left_over(bank)
        if left is not None:
            return left.p >= STILL_THERE or left.value < self.settings.material_distance
        if self.prevalence_change is None or not self.evidence.fits:
            return False
        made = self.evidence.by_prevalence
        moved = [shift for shift in self._of_bank(bank, self.shifts) if shift in self.moved(bank)]
        return all(s.distance.value - made.get(s.feature, 0.0) < self.settings.material_distance for s in moved)

    @cached_property
    def is_comparable(self) -> bool:
        """A score means what it meant: the same patients, scanned as before or harmonized, and the scores fit."""
        if not self.evidence.fits or self.has_other_patients or not self.has_compared_scanners:
            return False
        if self.furthest("acquisition") is None:
            return self.is_readable
        return bool(self.evidence.from_reference) and self.away_from_reference is None

    @property
    def away_from_reference(self) -> FeatureShift | None:
        """The harmonized feature of acquisition that is still furthest from the source's, if materially."""
        shifts = self._of_bank("acquisition", self.evidence.from_reference)
        away = [shift for shift in self._significant(shifts, self.alpha("acquisition")) if self._is_material(shift)]
        return away[0] if away else None

    @cached_property
    def is_readable(self) -> bool:
        """Scores of a site whose acquisition is as it was accepted mean what they mean at the source.

        A site that is recognisable has another scanner, which may always have moved its scores. It has not, if those
        of the accepted state were the reference's at the prevalence that the site assumes.
        """
        if self.evidence.is_accepted or self.away_from_reference is None:
            return True
        then = self.evidence.at_acceptance
        return then is not None and then.p_fit > P_FIT and self._change(then) is None

    @cached_property
    def concept(self) -> ConceptTest | None:
        """What labels say about the meaning of scores; None without labels."""
        told = self.evidence.labels
        if told is None:
            return None
        return one_look_test(
            told.reliability,
            told.scores,
            told.y,
            is_comparable=self.is_comparable,
            prevalence=told.prevalence,
            alpha=self.alpha("concept"),
        )

    @property
    def prevalence_change(self) -> Estimate | None:
        """Estimated less assumed prevalence, if it is beyond chance and material."""
        return None if self.evidence.prevalence is None else self._change(self.evidence.prevalence.by_scores)

    @property
    def change_through_scanner(self) -> Estimate | None:
        """The same, as seen through the site's scanner; None if that was not imitated well enough."""
        found = self.evidence.through_scanner
        return None if found is None or not self.evidence.is_certified else self._change(found)

    @property
    def label_change(self) -> Estimate | None:
        """Change of prevalence that can be believed by scores alone.

        Through a scanner it is only told: its interval holds no error of the imitation (`tests/benchmarks/detection`,
        M6).
        """
        is_believed = self.is_readable and self.evidence.fits and not self.is_prevalence_denied
        return self.prevalence_change if is_believed else None

    @property
    def excess_risk(self) -> Estimate | None:
        """Labelled risk at the site less that at the source, if their intervals lie apart."""
        source, target = self.evidence.bound.source_risk, self.evidence.bound.target_risk
        if source is None or target is None or target.low <= source.high:
            return None
        return Estimate(target.value - source.value, target.low - source.high, target.high - source.low)

    @property
    def is_disturbed(self) -> bool:
        """The model's task suffers, whatever the images look like."""
        return self.evidence.fits is False or self.prevalence_change is not None or self.excess_risk is not None

    @property
    def is_no_mixture(self) -> bool:
        """Scores moved, but not as any prevalence would move them; that two estimates disagree is not enough."""
        found = self.evidence.prevalence
        return found is not None and found.by_scores.p_fit <= P_FIT and self.prevalence_change is not None

    @property
    def denial(self) -> ConceptTest | None:
        """Labels that are not what the scores foretell at the estimated prevalence; None if they may be."""
        return self.concept if self.concept is not None and self.concept.p <= self.alpha("concept") else None

    @property
    def is_prevalence_denied(self) -> bool:
        """Scores tell of another prevalence, or other patients came, and labels or features deny that this is all."""
        if self.denial is not None:
            return self.prevalence_change is not None or self.has_other_patients
        is_left_over = self.has_other_patients and self.left_over("content") is not None
        return self.prevalence_change is not None and is_left_over

    @property
    def has_other_mix_of_scanners(self) -> bool:
        """Like scanners show like scans: the difference goes once the reference has the site's mix of header values."""
        found = self.evidence.explanation
        if found is None or not found.fields or found.explained < MIX_OF_SCANNERS:
            return False
        return all(cause.share_before > 0 for cause in found.fields)

    def _change(self, found: PrevalenceEstimate) -> Estimate | None:
        if found.p_changed >= self.alpha("prevalence"):
            return None
        change = Estimate(found.value - found.assumed, found.low - found.assumed, found.high - found.assumed)
        return change if abs(change.value) >= self.settings.material_prevalence else None

    def _of_bank(self, bank: Bank, shifts: tuple[FeatureShift, ...]) -> list[FeatureShift]:
        return [shift for shift in shifts if self.evidence.banks.get(shift.feature, "acquisition") == bank]

    def _is_material(self, shift: FeatureShift) -> bool:
        if shift.feature in self.evidence.protocol and shift.moved_by < SAME_PROTOCOL * abs(shift.before):
            return False
        return shift.distance.value >= self.settings.material_distance

    @staticmethod
    def _significant(shifts: list[FeatureShift], alpha: float) -> list[FeatureShift]:
        level = alpha / max(len(shifts), 1)
        return sorted((s for s in shifts if s.p < level), key=lambda s: -s.distance.value)
