"""Which kind of shift it is: evidence in, verdict out. Nothing is read or written here.

Two questions are kept apart. HAS THE SITE CHANGED since the state it was accepted in? Its
own native features answer that. DOES IT MATTER to the model? Scores do, against those of
the source domain's held-out patients. At onboarding only the second can be asked, and as
every hospital is recognisable, a difference counts there only if the task is disturbed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from platform_core.errors import EmptySample
from platform_core.settings import ShiftSettings
from platform_core.shift import sentences as say
from platform_core.shift.bound import Bound
from platform_core.shift.compare import FeatureShift
from platform_core.shift.evidence import WORTH_A_LOOK, Bank, Evidence
from platform_core.shift.labels.concept import ConceptTest, score_test
from platform_core.shift.labels.labelled_prevalence import labels_needed
from platform_core.shift.labels.prevalence import PrevalenceEstimate
from platform_core.shift.risk import Estimate

Kind = Literal["none", "covariate_acquisition", "covariate_case_mix", "label", "concept", "mixed", "undetermined"]
Question = Literal["acquisition", "content", "prevalence", "concept"]

BUDGET: Mapping[Question, float] = {"acquisition": 0.25, "content": 0.15, "prevalence": 0.25, "concept": 0.35}
"""How the questions share alpha; of what cannot be asked the others get the share. Most for the one that has the
fewest data: labels. A scanner that matters is seen at any level."""
SAME_PROTOCOL = 0.02
"""Share of its own size by which a number of the protocol may move and count as the same: an echo time of 30.0 or
30.1 ms is one protocol, though it tells every scan apart. Proposed; a spacing 4 % larger is to be seen."""
MIX_OF_SCANNERS = 0.5
"""Share of a divergence from which on it counts as made by the mix of header values, all of which were seen before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happened, how large it is, and why we say so."""

    kind: Kind
    size: Estimate | None = None
    """Kolmogorov-Smirnov distance for covariate, signed change of prevalence for label and mixed, share of positives
    less what scores foretell for concept."""
    n_needed: int | None = None
    """Patients or labels missing for a verdict; None if there is one."""
    explained_by: str


def diagnose(evidence: Evidence, settings: ShiftSettings) -> Verdict:
    """The first rule that applies, from what forbids a verdict to what is left when nothing moved.

    Acquisition comes before prevalence: under another scanner's noise, scores say nothing
    about how many patients are ill, and a correction by them does harm. Both together, `mixed`,
    is claimed only of scores that the reference explains as the site's scanner would have shown it.
    """
    case = Case(evidence, settings)
    verdicts = (rule(case) for rule in RULES)
    return next(verdict for verdict in verdicts if verdict is not None)


def bound_under(verdict: Verdict, evidence: Evidence) -> Bound:
    """The terms that hold under a verdict: where scores lost their meaning, nobody can expect a risk from them."""
    is_seen_through = verdict.kind in ("covariate_acquisition", "mixed") and evidence.is_certified
    is_lost = verdict.kind not in ("none", "label", "undetermined") and not is_seen_through
    return replace(evidence.bound, expected_risk=None) if is_lost else evidence.bound


@dataclass(frozen=True)
class Case:
    """The questions that the rules ask of the evidence."""

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

    def moved(self, bank: Bank) -> list[FeatureShift]:
        """Features of a bank beyond chance, furthest first; the score counts as content."""
        shifts = self._of_bank(bank, self.shifts)
        if bank == "content" and self.evidence.score:
            shifts.append(self.evidence.score)
        return self._significant(shifts, self.alpha(bank))

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

    def _is_prevalence_alone(self, bank: Bank) -> bool:
        """Nothing is left of the difference once those compared with have the site's share of positives."""
        left = self.evidence.reweighted.get(bank)
        return left is not None and (left.p >= WORTH_A_LOOK or left.value < self.settings.material_distance)

    @cached_property
    def is_comparable(self) -> bool:
        """A score means what it meant: the same patients, scanned as before or harmonized, and the scores fit."""
        if not self.evidence.fits or self.has_other_patients:
            return False
        if self.furthest("acquisition") is None:
            return True
        left = self._significant(self._of_bank("acquisition", self.evidence.from_reference), self.alpha("acquisition"))
        return bool(self.evidence.from_reference) and not any(self._is_material(shift) for shift in left)

    @cached_property
    def concept(self) -> ConceptTest | None:
        """What labels say about the meaning of scores; None without labels."""
        told = self.evidence.labels
        if told is None:
            return None
        return score_test(
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
        """The same, as seen through the site's scanner."""
        found = self.evidence.through_scanner
        return None if found is None else self._change(found)

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
    def is_contradicted(self) -> bool:
        """Other patients came, and scores say of them what labels or features deny."""
        is_denied = self.concept is not None and self.concept.p <= self.alpha("concept")
        return self.has_other_patients and (is_denied or self.prevalence_change is not None)

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


def _reference(case: Case) -> Verdict | None:
    if not case.evidence.is_reference:
        return None
    return Verdict(kind="none", explained_by="this period is the reference; there is nothing to compare it with")


def _too_few(case: Case) -> Verdict | None:
    least, n, n_accepted = case.settings.min_scans, case.evidence.n, case.evidence.n_accepted
    if min(n, n_accepted) >= least:
        return None
    found = min(n, n_accepted)
    text = say.too_few("the period" if n < least else "the accepted state", found, least)
    return Verdict(kind="undetermined", n_needed=least - found, explained_by=text)


def _mixed(case: Case) -> Verdict | None:
    worst, change = _acquisition_that_counts(case), case.change_through_scanner
    if worst is None or change is None or not case.evidence.is_certified:
        return None
    text = say.joined(
        say.acquisition(case.evidence, worst),
        say.through_scanner(case.evidence),
        say.explanation(case.evidence),
        say.concept(case.concept),
    )
    return Verdict(kind="mixed", size=change, explained_by=text)


def _concept(case: Case) -> Verdict | None:
    found = case.concept
    if found is None or found.verdict != "changed":
        return None
    text = say.joined(
        found.because,
        say.prevalence(case.evidence) if case.prevalence_change else "images and scores are as expected",
        say.labelled_prevalence(case.evidence),
    )
    return Verdict(kind="concept", size=found.excess, explained_by=text)


def _acquisition(case: Case) -> Verdict | None:
    worst = _acquisition_that_counts(case)
    if worst is None:
        return None
    text = say.joined(
        say.acquisition(case.evidence, worst),
        f"and the task is disturbed: {_disturbance(case)}" if case.evidence.is_accepted else "",
        say.label_status(case.evidence),
        say.explanation(case.evidence),
        say.labelled_prevalence(case.evidence),
        say.concept(case.concept),
    )
    return Verdict(kind="covariate_acquisition", size=worst.distance, explained_by=text)


def _label(case: Case) -> Verdict | None:
    change = case.prevalence_change
    if change is None or not case.evidence.fits or (case.has_other_patients and "content" in case.evidence.reweighted):
        return None
    text = say.joined(
        say.prevalence(case.evidence),
        say.quiet_acquisition(case.evidence),
        say.labelled_prevalence(case.evidence),
        say.concept(case.concept),
    )
    return Verdict(kind="label", size=change, explained_by=text)


def _case_mix(case: Case) -> Verdict | None:
    worst, fits = case.furthest("content"), case.evidence.fits
    is_harmless = fits or (case.evidence.is_accepted and fits is None)
    if worst is None or (is_harmless and not case.is_contradicted):
        return None
    is_mix = case.has_other_mix_of_scanners
    text = say.joined(
        say.moved(worst, of_reference=case.evidence.is_accepted),
        "" if is_mix else "acquisition is as before",
        say.misfit(case.evidence),
        say.explanation(case.evidence),
        say.labelled_prevalence(case.evidence),
        say.concept(case.concept),
    )
    return Verdict(
        kind="covariate_acquisition" if is_mix else "covariate_case_mix", size=worst.distance, explained_by=text
    )


def _disputed(case: Case) -> Verdict | None:
    change = case.prevalence_change
    if change is None or case.evidence.prevalence is None:
        return None
    found = case.evidence.prevalence.by_scores
    n_labels = _labels_needed(found.assumed, found.value)
    text = say.joined(
        say.prevalence(case.evidence),
        say.misfit(case.evidence),
        "but no feature moved",
        f"{n_labels} labels of random patients would tell",
    )
    return Verdict(kind="undetermined", size=change, n_needed=n_labels, explained_by=text)


def _none(case: Case) -> Verdict:
    if case.evidence.is_accepted:
        return _accepted(case)
    told = (say.prevalence(case.evidence), say.labelled_prevalence(case.evidence), say.concept(case.concept))
    moved = sorted([*case.moved("acquisition"), *case.moved("content")], key=lambda s: -s.distance.value)
    if moved:
        text = say.joined(f"detected, not material: {say.moved(moved[0])}", *told)
        return Verdict(kind="none", size=moved[0].distance, explained_by=text)
    return Verdict(kind="none", explained_by=say.joined(say.nothing_moved(case.evidence), *told))


def _accepted(case: Case) -> Verdict:
    text = "this period is the site's accepted state"
    if case.evidence.prevalence is None:
        why = case.evidence.no_prevalence or "there are no scores yet to compare with the reference"
        return Verdict(kind="none", explained_by=say.joined(text, why, say.labelled_prevalence(case.evidence)))
    if case.is_disturbed:
        text = f"detected, not material: {_disturbance(case)}, but no feature moved"
        return Verdict(kind="none", explained_by=say.joined(text, say.concept(case.concept)))
    moved = case.moved("acquisition")
    worst = f"{say.moved(moved[0], of_reference=True)}, which does not disturb the task" if moved else ""
    told = (say.prevalence(case.evidence), say.labelled_prevalence(case.evidence), say.concept(case.concept))
    return Verdict(kind="none", size=moved[0].distance if moved else None, explained_by=say.joined(text, worst, *told))


RULES: tuple[Callable[[Case], Verdict | None], ...] = (
    _reference,
    _too_few,
    _mixed,
    _concept,
    _acquisition,
    _label,
    _case_mix,
    _disputed,
    _none,
)
"""Read from the top, the first that answers decides; the last always does."""


def _acquisition_that_counts(case: Case) -> FeatureShift | None:
    """None where nothing moved; at onboarding, also where the task is sound."""
    if case.evidence.is_accepted and not case.is_disturbed:
        return None
    return case.furthest("acquisition")


def _disturbance(case: Case) -> str:
    if case.evidence.fits is False:
        return say.misfit(case.evidence)
    return say.risk(case.evidence) if case.excess_risk is not None else say.prevalence(case.evidence)


def _labels_needed(assumed: float, actual: float) -> int | None:
    try:
        return labels_needed(assumed, actual)
    except EmptySample:
        return None
