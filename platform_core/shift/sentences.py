"""The words of a verdict: each clause says one thing that was measured, with its numbers, or nothing."""

from platform_core.shift.compare import FeatureShift
from platform_core.shift.evidence import Evidence
from platform_core.shift.labels.concept import ConceptTest
from platform_core.shift.labels.labelled_prevalence import labels_needed
from platform_core.shift.labels.prevalence import P_FIT, PrevalenceEstimate
from platform_core.shift.reweighted import ReweightedDistance

WORTH_NAMING = 0.1
"""Share of patients from whom on a header value that was never seen is named as a cause."""
LEAST_CHANGE = 0.15
"""Change of prevalence for which the labels are counted that would show it, where scores cannot."""
MOST_LETTERS = 700
"""A finding is read in a table: what would make it longer is left out, the last first."""


def joined(*clauses: str) -> str:
    """The clauses that say something, as many as there is room for."""
    text = ""
    for clause in filter(None, clauses):
        longer = f"{text}; {clause}" if text else clause
        if text and len(longer) > MOST_LETTERS:
            break
        text = longer
    return text


def moved(shift: FeatureShift, *, of_reference: bool = False) -> str:
    """`noise_hu rose from 10.1 to 17 (KS 0.92, p < 0.001)`; medians, in the unit of the name."""
    went = "rose" if shift.after > shift.before else "fell"
    change = f"{went} from {shift.before:.3g} to {shift.after:.3g}"
    if shift.after == shift.before:
        change = f"spread otherwise about {shift.before:.3g}"
    if of_reference:
        change = f"differs from the reference's ({shift.before:.3g} there, {shift.after:.3g} here)"
    return f"{shift.feature} {change} (KS {shift.distance.value:.2f}, {_p(shift.p)})"


def acquisition(evidence: Evidence, worst: FeatureShift) -> str:
    """What moved, and the header value that came with it."""
    text = moved(worst, of_reference=evidence.is_accepted)
    if evidence.headers and evidence.headers[0].share >= WORTH_NAMING:
        cause = evidence.headers[0]
        return f"{text} with {cause.field} {cause.value!r} unseen before ({cause.share:.0%} of patients)"
    return f"{text} on scanners seen before" if _is_on_same_scanners(evidence) else text


def explanation(evidence: Evidence) -> str:
    """The fewest header fields and features that account for the difference."""
    found = evidence.explanation
    return "" if found is None or not found.features else found.sentence


def prevalence(evidence: Evidence) -> str:
    """From scores, and from calls beside it."""
    if evidence.prevalence is None:
        return f"prevalence cannot be told: {evidence.no_prevalence}" if evidence.no_prevalence else ""
    found, calls = evidence.prevalence.by_scores, evidence.prevalence.by_calls
    beside = f"; {calls.value:.2f} by calls" if calls.is_usable else ""
    return (
        f"prevalence {_interval(found)} where {found.assumed:.2f} is assumed "
        f"({_p(found.p_changed)}; fit {_p(found.p_fit)}{beside})"
    )


def labelled_prevalence(evidence: Evidence) -> str:
    """From labels, at any look."""
    found = evidence.labelled_prevalence
    if found is None:
        return ""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}) of {_labels(found.n)} are positive"


def one_class(evidence: Evidence) -> str:
    """That illness and hospital are one and the same here, where all labels are of one class and should not be."""
    found, opinions = evidence.labelled_prevalence, evidence.prevalence
    if found is None or opinions is None or found.low <= opinions.by_scores.assumed <= found.high:
        return ""
    classes = {0.0: "negative", 1.0: "positive"}
    if found.value not in classes:
        return ""
    return f"all {_labels(found.n)} are {classes[found.value]}: prevalence cannot be told apart from site"


def misfit(evidence: Evidence) -> str:
    """Why the change of scores is no change of prevalence; nothing if it may be one."""
    opinions = evidence.prevalence
    if opinions is None or evidence.fits:
        return ""
    if opinions.by_scores.p_fit <= P_FIT:
        return f"no mixture of the reference's classes explains the scores ({_p(opinions.by_scores.p_fit)})"
    difference = f"{opinions.by_calls.value:.2f} by calls, {opinions.by_scores.value:.2f} by scores"
    return f"two estimates of the prevalence disagree ({difference}; {_p(opinions.p_agree)})"


def denied(evidence: Evidence, denial: ConceptTest | None) -> str:
    """Why a change of scores that may be one of prevalence is none, or not that alone."""
    told = prevalence(evidence)
    if denial is not None:
        excess = f"{denial.excess.value:+.0%} of patients are positive beyond what scores foretell"
        return f"{told}, which labels deny: {excess} ({_p(denial.p)})"
    left = evidence.reweighted.get("content")
    return (
        told if left is None else f"{told}, which leaves {left.feature} unexplained (KS {left.value:.2f}, {_p(left.p)})"
    )


def label_status(evidence: Evidence) -> str:
    """What can be said of prevalence while acquisition differs."""
    if evidence.through_scanner is not None and evidence.is_certified:
        return through_scanner(evidence)
    if evidence.no_prevalence:
        return prevalence(evidence)
    if evidence.prevalence is None:
        return ""
    why = "label status not determined while acquisition differs"
    if evidence.through_scanner is not None:
        fit = _p(evidence.through_scanner.p_fit)
        why = f"label status not determined: the site's scanner is not imitated well enough (fit {fit}"
        why += f", residual {evidence.worst:.2f})" if evidence.worst is not None else ")"
    assumed = evidence.prevalence.by_scores.assumed
    other = assumed + LEAST_CHANGE if assumed < 0.5 else assumed - LEAST_CHANGE
    return f"{why} ({labels_needed(assumed, other)} labels would show a prevalence of {other:.2f})"


def through_scanner(evidence: Evidence) -> str:
    """Prevalence against the reference as the site's scanner shows it."""
    found = evidence.through_scanner
    if found is None:
        return ""
    text = f"{_interval(found)} where {found.assumed:.2f} is assumed, as seen through the site's scanner"
    numbers = f"({_p(found.p_changed)}; fit {_p(found.p_fit)})"
    return f"prevalence {'unchanged ' if found.low <= found.assumed <= found.high else ''}{text} {numbers}"


def quiet_acquisition(left: ReweightedDistance | None) -> str:
    """That scanners are not the cause."""
    if left is None:
        return "acquisition is as before"
    return f"acquisition is as before at that prevalence (KS {left.value:.2f}, {_p(left.p)})"


def concept(test: ConceptTest | None) -> str:
    """What is not excluded, and what would have been seen; nothing without labels."""
    return "" if test is None or test.verdict == "changed" else test.because


def risk(evidence: Evidence) -> str:
    """Labelled risk here and at the source."""
    source, target = evidence.bound.source_risk, evidence.bound.target_risk
    if source is None or target is None:
        return ""
    return (
        f"labelled log-loss is {target.value:.2f} ({target.low:.2f} to {target.high:.2f}) nats per scan against "
        f"{source.value:.2f} ({source.low:.2f} to {source.high:.2f}) at the source"
    )


def nothing_moved(evidence: Evidence) -> str:
    """Of how many features."""
    n = len(evidence.since_accepted)
    return f"nothing moved beyond chance since the accepted state: {n} features of {evidence.n} patients"


def too_few(where: str, found: int, least: int) -> str:
    """How many there are and how many a verdict needs."""
    patients = "1 patient" if found == 1 else f"{found} patients"
    return f"{where} has {patients}; a verdict needs {least}"


def _is_on_same_scanners(evidence: Evidence) -> bool:
    found = evidence.explanation
    is_unexplained = found is not None and found.explained < WORTH_NAMING
    return is_unexplained and evidence.on_known_scanners > 1 - WORTH_NAMING


def _interval(found: PrevalenceEstimate) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _labels(n: int) -> str:
    return "1 label" if n == 1 else f"{n} labels"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"
