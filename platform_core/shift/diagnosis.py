"""Which kind of shift it is: evidence in, verdict out. Nothing is read or written here.

Two questions are kept apart. HAS THE SITE CHANGED since the state it was accepted in? Its
own native features answer that. DOES IT MATTER to the model? Scores do, against those of
the source domain's held-out patients. At onboarding only the second can be asked, and as
every hospital is recognisable, a difference counts there only if the task is disturbed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from platform_core.settings import ShiftSettings
from platform_core.shift.compare import FeatureShift
from platform_core.shift.evidence import Bank, Evidence
from platform_core.shift.risk import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["none", "covariate_acquisition", "covariate_case_mix", "label", "concept", "mixed", "undetermined"]

N_FAMILIES = 3
"""Questions that share alpha: is acquisition, is content or the score, is the prevalence another one?"""
P_FIT = 0.01
"""Scores less likely than this under every mixture of the reference's classes are no label shift."""
SAME_PROTOCOL = 0.02
"""Share of its own size by which a number of the protocol may move and count as the same: an echo time of 30.0 or
30.1 ms is one protocol, though it tells every scan apart. Proposed; a spacing 4 % larger is to be seen."""
WORTH_NAMING = 0.1
"""Share of patients from whom on a header value that was never seen is named as a cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happened, how large it is, and why we say so."""

    kind: Kind
    size: Estimate | None = None
    """Kolmogorov-Smirnov distance for covariate, signed change of prevalence for label, nats per scan for concept."""
    n_needed: int | None = None
    """Patients missing for a verdict; None if there is one."""
    explained_by: str


def diagnose(evidence: Evidence, settings: ShiftSettings) -> Verdict:
    """The first rule that applies, from what forbids a verdict to what is left when nothing moved.

    Acquisition comes before prevalence: under another scanner's noise, scores say nothing
    about how many patients are ill, and a correction by them does harm. `mixed` is not
    claimed, as it needs the reference in the target's acquisition.
    """
    case = _Case(evidence, settings)
    rules: tuple[Callable[[_Case], Verdict | None], ...] = (_reference, _too_few, _acquisition, _label, _case_mix)
    verdicts = (rule(case) for rule in (*rules, _concept))
    return next((verdict for verdict in verdicts if verdict is not None), _none(case))


@dataclass(frozen=True, slots=True)
class _Case:
    """The questions that the rules ask of the evidence."""

    evidence: Evidence
    settings: ShiftSettings

    @property
    def alpha(self) -> float:
        """What one family of tests may spend."""
        return self.settings.alpha / N_FAMILIES / self.evidence.n_strata

    @property
    def moved(self) -> dict[Bank, list[FeatureShift]]:
        """Features beyond chance, per bank, furthest first: since acceptance, or from the reference at onboarding."""
        shifts = self.evidence.from_reference if self.evidence.is_accepted else self.evidence.since_accepted
        score = (self.evidence.score,) if self.evidence.score else ()
        acquisition = [s for s in shifts if self.evidence.banks.get(s.feature, "acquisition") == "acquisition"]
        content = [s for s in shifts if self.evidence.banks.get(s.feature) == "content"]
        return {"acquisition": self._significant(acquisition), "content": self._significant([*content, *score])}

    def furthest(self, bank: Bank) -> FeatureShift | None:
        """The feature of a bank that moved furthest, if any moved beyond chance and materially."""
        material = [s for s in self.moved[bank] if self._is_material(s)]
        return material[0] if material else None

    def _is_material(self, shift: FeatureShift) -> bool:
        if shift.feature in self.evidence.protocol and shift.moved_by < SAME_PROTOCOL * abs(shift.before):
            return False
        return shift.distance.value >= self.settings.material_distance

    @property
    def fits(self) -> bool | None:
        """Whether scores are a mixture of the reference's classes; None without scores."""
        return None if self.evidence.prevalence is None else self.evidence.prevalence.by_scores.p_fit > P_FIT

    @property
    def prevalence_change(self) -> Estimate | None:
        """Estimated less assumed prevalence, if it is beyond chance and material."""
        if self.evidence.prevalence is None:
            return None
        found = self.evidence.prevalence.by_scores
        if found.p_changed >= self.alpha:
            return None
        change = Estimate(found.value - found.assumed, found.low - found.assumed, found.high - found.assumed)
        return change if abs(change.value) >= self.settings.material_prevalence else None

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
        return self.fits is False or self.prevalence_change is not None or self.excess_risk is not None

    def _significant(self, shifts: list[FeatureShift]) -> list[FeatureShift]:
        level = self.alpha / max(len(shifts), 1)
        return sorted((s for s in shifts if s.p < level), key=lambda s: -s.distance.value)


def _reference(case: _Case) -> Verdict | None:
    if not case.evidence.is_reference:
        return None
    return Verdict(kind="none", explained_by="this period is the reference; there is nothing to compare it with")


def _too_few(case: _Case) -> Verdict | None:
    least, n, n_accepted = case.settings.min_scans, case.evidence.n, case.evidence.n_accepted
    if min(n, n_accepted) >= least:
        return None
    where = "the period" if n < least else "the accepted state"
    found = min(n, n_accepted)
    text = f"{where} has {_patients(found)}; a verdict needs {least}"
    return Verdict(kind="undetermined", n_needed=least - found, explained_by=text)


def _acquisition(case: _Case) -> Verdict | None:
    worst = case.furthest("acquisition")
    if worst is None or (case.evidence.is_accepted and not case.is_disturbed):
        return None
    text = _moved(worst, "differs from the reference's" if case.evidence.is_accepted else "")
    if case.evidence.headers and case.evidence.headers[0].share >= WORTH_NAMING:
        cause = case.evidence.headers[0]
        text += f" with {cause.field} {cause.value!r} unseen before ({cause.share:.0%} of patients)"
    if case.evidence.is_accepted:
        text += f", and the task is disturbed: {_disturbance(case)}"
    if case.evidence.prevalence is not None:
        text += "; label status not determined while acquisition differs"
    return Verdict(kind="covariate_acquisition", size=worst.distance, explained_by=text)


def _label(case: _Case) -> Verdict | None:
    change = case.prevalence_change
    if change is None or not case.fits:
        return None
    return Verdict(kind="label", size=change, explained_by=f"{_prevalence(case)}; acquisition is as before")


def _case_mix(case: _Case) -> Verdict | None:
    worst = case.furthest("content")
    is_harmless = case.fits or (case.evidence.is_accepted and case.fits is None)
    if worst is None or is_harmless:
        return None
    text = _moved(worst, "differs from the reference's" if case.evidence.is_accepted else "")
    text += "; acquisition is as before"
    if case.fits is False:
        text += f" and no mixture of the reference's classes explains the scores ({_p(_fit_p(case))})"
    return Verdict(kind="covariate_case_mix", size=worst.distance, explained_by=text)


def _concept(case: _Case) -> Verdict | None:
    excess = case.excess_risk
    if excess is None or not case.fits or case.furthest("acquisition") is not None:
        return None
    text = f"{_risk(case)} while images and scores are as expected: scans that look alike are labelled differently"
    return Verdict(kind="concept", size=excess, explained_by=text)


def _none(case: _Case) -> Verdict:
    if case.evidence.is_accepted:
        return _accepted(case)
    moved = sorted([*case.moved["acquisition"], *case.moved["content"]], key=lambda s: -s.distance.value)
    if moved:
        return Verdict(kind="none", size=moved[0].distance, explained_by=f"detected, not material: {_moved(moved[0])}")
    n_features = len(case.evidence.since_accepted)
    text = f"nothing moved beyond chance since the accepted state: {n_features} features of {case.evidence.n} patients"
    return Verdict(kind="none", explained_by=text + _and(_prevalence(case)))


def _accepted(case: _Case) -> Verdict:
    text = "this period is the site's accepted state"
    if case.evidence.prevalence is None:
        return Verdict(kind="none", explained_by=f"{text}; there are no scores yet to compare with the reference")
    if case.is_disturbed:
        return Verdict(kind="none", explained_by=f"detected, not material: {_disturbance(case)}, but no feature moved")
    moved = case.moved["acquisition"]
    if moved:
        worst = _moved(moved[0], "differs from the reference's")
        text += f"; {worst}, which does not disturb the task"
    size = moved[0].distance if moved else None
    return Verdict(kind="none", size=size, explained_by=text + _and(_prevalence(case)))


def _disturbance(case: _Case) -> str:
    if case.fits is False:
        return f"no mixture of the reference's classes explains the scores ({_p(_fit_p(case))})"
    return _risk(case) if case.excess_risk is not None else _prevalence(case)


def _moved(shift: FeatureShift, instead: str = "") -> str:
    """`noise_hu rose from 10.1 to 17 (KS 0.92, p < 0.001)`; medians, in the unit of the name."""
    went = "rose" if shift.after > shift.before else "fell"
    change = f"{went} from {shift.before:.3g} to {shift.after:.3g}"
    if shift.after == shift.before:
        change = f"spread otherwise about {shift.before:.3g}"
    if instead:
        change = f"{instead} ({shift.before:.3g} there, {shift.after:.3g} here)"
    return f"{shift.feature} {change} (KS {shift.distance.value:.2f}, {_p(shift.p)})"


def _prevalence(case: _Case) -> str:
    if case.evidence.prevalence is None:
        return ""
    found = case.evidence.prevalence.by_scores
    return (
        f"prevalence {found.value:.2f} ({found.low:.2f} to {found.high:.2f}) where {found.assumed:.2f} is assumed "
        f"({_p(found.p_changed)}; fit {_p(found.p_fit)})"
    )


def _risk(case: _Case) -> str:
    source, target = case.evidence.bound.source_risk, case.evidence.bound.target_risk
    assert source is not None
    assert target is not None
    return (
        f"labelled log-loss is {target.value:.2f} ({target.low:.2f} to {target.high:.2f}) nats per scan against "
        f"{source.value:.2f} ({source.low:.2f} to {source.high:.2f}) at the source"
    )


def _fit_p(case: _Case) -> float:
    assert case.evidence.prevalence is not None
    return case.evidence.prevalence.by_scores.p_fit


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _and(text: str) -> str:
    return f"; {text}" if text else ""


def _patients(n: int) -> str:
    return "1 patient" if n == 1 else f"{n} patients"
