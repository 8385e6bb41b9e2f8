"""Which kind of shift it is: evidence in, verdict out. Nothing is read or written here.

Two questions are kept apart. HAS THE SITE CHANGED since the state it was accepted in? Its
own native features answer that. DOES IT MATTER to the model? Scores do, against those of
the source domain's held-out patients. At onboarding only the second can be asked, and as
every hospital is recognisable, a difference counts there only if the task is disturbed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from platform_core.errors import EmptySample
from platform_core.settings import ShiftSettings
from platform_core.shift import sentences as say
from platform_core.shift.bound import Bound
from platform_core.shift.compare import FeatureShift
from platform_core.shift.evidence import Evidence
from platform_core.shift.labels.labelled_prevalence import labels_needed
from platform_core.shift.questions import Questions
from platform_core.shift.risk import Estimate

Kind = Literal["none", "covariate_acquisition", "covariate_case_mix", "label", "concept", "mixed", "undetermined"]


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
    ask = Questions(evidence, settings)
    verdicts = (rule(ask) for rule in RULES)
    return next(verdict for verdict in verdicts if verdict is not None)


def bound_under(verdict: Verdict, evidence: Evidence) -> Bound:
    """The terms that hold under a verdict: where scores lost their meaning, nobody can expect a risk from them."""
    is_seen_through = verdict.kind in ("covariate_acquisition", "mixed") and evidence.is_certified
    is_lost = verdict.kind not in ("none", "label", "undetermined") and not is_seen_through
    return replace(evidence.bound, expected_risk=None) if is_lost else evidence.bound


def _reference(ask: Questions) -> Verdict | None:
    if not ask.evidence.is_reference:
        return None
    return Verdict(kind="none", explained_by="this period is the reference; there is nothing to compare it with")


def _too_few(ask: Questions) -> Verdict | None:
    least, n, n_accepted = ask.settings.min_scans, ask.evidence.n, ask.evidence.n_accepted
    if min(n, n_accepted) >= least:
        return None
    found = min(n, n_accepted)
    text = say.too_few("the period" if n < least else "the accepted state", found, least)
    return Verdict(kind="undetermined", n_needed=least - found, explained_by=text)


def _nothing_compared(ask: Questions) -> Verdict | None:
    """A site whose task is sound is accepted without: nothing calls for a cause."""
    if ask.has_compared_scanners or (ask.evidence.is_accepted and not ask.is_disturbed):
        return None
    text = say.joined(
        "no acquisition feature could be compared, so nobody can tell what scanners have done",
        say.prevalence(ask.evidence),
        say.misfit(ask.evidence),
        say.risk(ask.evidence),
        say.labelled_prevalence(ask.evidence),
    )
    return Verdict(kind="undetermined", explained_by=text)


def _mixed(ask: Questions) -> Verdict | None:
    worst, change = _acquisition_that_counts(ask), ask.change_through_scanner
    if worst is None or change is None:
        return None
    text = say.joined(
        say.acquisition(ask.evidence, worst),
        say.through_scanner(ask.evidence),
        say.explanation(ask.evidence),
        say.concept(ask.concept),
    )
    return Verdict(kind="mixed", size=change, explained_by=text)


def _concept(ask: Questions) -> Verdict | None:
    """A new meaning leaves the scores where they were; if they moved as well, the patients are others."""
    found = ask.concept
    if found is None or found.verdict != "changed" or ask.prevalence_change is not None:
        return None
    text = say.joined(
        found.because,
        f"scores are as expected, and {_quiet_acquisition(ask)}"
        if ask.differing
        else "images and scores are as expected",
        say.labelled_prevalence(ask.evidence),
    )
    return Verdict(kind="concept", size=found.excess, explained_by=text)


def _acquisition(ask: Questions) -> Verdict | None:
    worst = _acquisition_that_counts(ask)
    if worst is None:
        return None
    text = say.joined(
        say.acquisition(ask.evidence, worst),
        f"and the task is disturbed: {_disturbance(ask)}" if ask.evidence.is_accepted else "",
        say.label_status(ask.evidence),
        say.explanation(ask.evidence),
        say.one_class(ask.evidence) or say.labelled_prevalence(ask.evidence),
        say.concept(ask.concept),
    )
    return Verdict(kind="covariate_acquisition", size=worst.distance, explained_by=text)


def _case_mix(ask: Questions) -> Verdict | None:
    worst, fits = ask.furthest("content") or ask.evidence.score, ask.evidence.fits
    is_harmless = fits or (ask.evidence.is_accepted and fits is None) or ask.furthest("content") is None
    if not ask.is_readable:
        return None
    is_denied = ask.is_prevalence_denied and ask.has_other_patients
    if worst is None or (is_harmless and not is_denied and not ask.is_no_mixture):
        return None
    is_mix = ask.has_other_mix_of_scanners
    text = say.joined(
        say.moved(worst, of_reference=ask.evidence.is_accepted),
        "" if is_mix else _quiet_acquisition(ask),
        say.misfit(ask.evidence) or say.denied(ask.evidence, ask.denial),
        say.explanation(ask.evidence),
        say.labelled_prevalence(ask.evidence),
        "" if ask.denial else say.concept(ask.concept),
    )
    kind: Kind = "covariate_acquisition" if is_mix else "covariate_case_mix"
    return Verdict(kind=kind, size=worst.distance, explained_by=text)


def _unreadable(ask: Questions) -> Verdict | None:
    """Scores that another scanner than the source's has always moved tell of no prevalence and of no patients."""
    away = ask.away_from_reference
    is_quiet = ask.prevalence_change is None and (ask.evidence.fits or ask.furthest("content") is None)
    if ask.is_readable or is_quiet or away is None:
        return None
    text = say.joined(
        f"scores or patients differ, and acquisition is as accepted, but {say.moved(away, of_reference=True)}",
        say.label_status(ask.evidence),
        say.labelled_prevalence(ask.evidence),
    )
    return Verdict(kind="undetermined", explained_by=text)


def _label(ask: Questions) -> Verdict | None:
    change = ask.label_change
    if change is None:
        return None
    text = say.joined(
        _told_prevalence(ask),
        _quiet_acquisition(ask),
        say.labelled_prevalence(ask.evidence),
        say.concept(ask.concept),
    )
    return Verdict(kind="label", size=change, explained_by=text)


def _disputed(ask: Questions) -> Verdict | None:
    """Scores tell of another prevalence, calls or labels deny it, and no feature says who came instead."""
    change = ask.prevalence_change
    if change is None or ask.evidence.prevalence is None or not ask.is_readable:
        return None
    found = ask.evidence.prevalence.by_scores
    n_labels = _labels_needed(found.assumed, found.value)
    text = say.joined(
        say.denied(ask.evidence, ask.denial) if ask.denial else say.prevalence(ask.evidence),
        say.misfit(ask.evidence),
        _differing(ask),
        f"{n_labels} labels of random patients would tell",
    )
    return Verdict(kind="undetermined", size=change, n_needed=n_labels, explained_by=text)


def _at_risk(ask: Questions) -> Verdict | None:
    """Labels of a new site say that the model errs there, and nothing says why: that is no sound site."""
    if not ask.evidence.is_accepted or ask.excess_risk is None:
        return None
    text = say.joined(
        say.risk(ask.evidence),
        _differing(ask),
        _told_prevalence(ask),
        say.labelled_prevalence(ask.evidence),
        say.concept(ask.concept),
    )
    return Verdict(kind="undetermined", explained_by=text)


def _none(ask: Questions) -> Verdict:
    if ask.evidence.is_accepted:
        return _accepted(ask)
    told = (_told_prevalence(ask), say.labelled_prevalence(ask.evidence), say.concept(ask.concept))
    if ask.differing:
        text = say.joined(f"detected, not material: {say.moved(ask.differing[0])}", *told)
        return Verdict(kind="none", size=ask.differing[0].distance, explained_by=text)
    return Verdict(kind="none", explained_by=say.joined(say.nothing_moved(ask.evidence), *told))


def _accepted(ask: Questions) -> Verdict:
    text = "this period is the site's accepted state"
    if ask.evidence.prevalence is None:
        why = ask.evidence.no_prevalence or "there are no scores yet to compare with the reference"
        return Verdict(kind="none", explained_by=say.joined(text, why, say.labelled_prevalence(ask.evidence)))
    if ask.is_disturbed:
        text = f"detected, not material: {_disturbance(ask)}"
        return Verdict(kind="none", explained_by=say.joined(text, _differing(ask), say.concept(ask.concept)))
    moved = ask.moved("acquisition")
    worst = f"{say.moved(moved[0], of_reference=True)}, which does not disturb the task" if moved else ""
    told = (say.prevalence(ask.evidence), say.labelled_prevalence(ask.evidence), say.concept(ask.concept))
    return Verdict(kind="none", size=moved[0].distance if moved else None, explained_by=say.joined(text, worst, *told))


RULES: tuple[Callable[[Questions], Verdict | None], ...] = (
    _reference,
    _too_few,
    _nothing_compared,
    _mixed,
    _concept,
    _acquisition,
    _case_mix,
    _unreadable,
    _label,
    _disputed,
    _at_risk,
    _none,
)
"""Read from the top, the first that answers decides; the last always does."""


def _acquisition_that_counts(ask: Questions) -> FeatureShift | None:
    """None where nothing moved; at onboarding, also where the task is sound."""
    if ask.evidence.is_accepted and not ask.is_disturbed:
        return None
    return ask.furthest("acquisition")


def _quiet_acquisition(ask: Questions) -> str:
    """That scanners are not the cause: they are as before, or why a feature that differs does not count."""
    left, is_new = ask.left_over("acquisition"), ask.evidence.is_accepted
    worst, counts = next(iter(ask.moved("acquisition")), None), ask.furthest("acquisition")
    if worst is None or (counts is None and left is not None):
        return say.quiet_acquisition(left)
    if counts is None:
        return f"acquisition differs, not materially: {say.moved(worst, of_reference=is_new)}"
    is_harmonized = ask.evidence.from_reference and ask.away_from_reference is None
    why = "is harmonized" if is_harmonized else "does not disturb the task"
    return f"acquisition differs and {why}: {say.moved(counts, of_reference=is_new)}"


def _told_prevalence(ask: Questions) -> str:
    return say.prevalence(ask.evidence) if ask.is_readable else say.label_status(ask.evidence)


def _differing(ask: Questions) -> str:
    """The feature that moved furthest, or that none did."""
    moved = ask.differing
    return say.moved(moved[0], of_reference=ask.evidence.is_accepted) if moved else "but no feature moved"


def _disturbance(ask: Questions) -> str:
    if ask.evidence.fits is False:
        return say.misfit(ask.evidence)
    return say.risk(ask.evidence) if ask.excess_risk is not None else say.prevalence(ask.evidence)


def _labels_needed(assumed: float, actual: float) -> int | None:
    try:
        return labels_needed(assumed, actual)
    except EmptySample:
        return None
