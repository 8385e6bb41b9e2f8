"""The policy as one table: read from the top, the first row that fits decides.

`because` becomes the sentence of the decision; what stands in braces is filled in from
the situation (`words` below). To change what the platform does, change a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from platform_core.policy.situation import Situation
from platform_core.shift.risk import Estimate

Action = Literal["none", "reharmonize", "recalibrate", "adapt", "fine_tune", "request_labels", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One row: if `when` holds, do `action`."""

    name: str
    when: Callable[[Situation], bool]
    action: Action
    because: str


POLICY: tuple[PolicyRule, ...] = (
    PolicyRule(
        name="alarm_not_material",
        when=lambda s: s.kind == "none" and s.alarm is not None,
        action="none",
        because="a watch alarmed: {alarm}; the {n_patients} patients since then show nothing that matters, so their "
        "state is the accepted one and is watched from now on",
    ),
    PolicyRule(
        name="alarm_too_few_patients",
        when=lambda s: s.kind == "undetermined" and s.lacks_patients and s.alarm is not None,
        action="none",
        because="a watch alarmed: {alarm}; {n_patients} patients since then are too few to say what kind of change it "
        "is, which needs {n_patients_missing} more",
    ),
    PolicyRule(
        name="nothing_found",
        when=lambda s: s.kind == "none",
        action="none",
        because="nothing has changed beyond chance among {n_patients} patients",
    ),
    PolicyRule(
        name="too_few_patients",
        when=lambda s: s.kind == "undetermined" and s.lacks_patients,
        action="none",
        because="{n_patients} patients are too few for a verdict; it needs {n_patients_missing} more",
    ),
    PolicyRule(
        name="type_not_identifiable",
        when=lambda s: s.kind == "undetermined",
        action="request_labels",
        because="something has changed and scans alone cannot say what; {n_labels_wanted} patients of the period, "
        "chosen uniformly at random, should be labelled",
    ),
    # Reversible and free of labels, so it comes before any gradient; a network that is fine-tuned on
    # harmonized scans also forgets less of its source.
    PolicyRule(
        name="acquisition_changed",
        when=lambda s: s.kind == "covariate_acquisition" and "reharmonize" not in s.taken,
        action="reharmonize",
        because="scans are made differently (distance {size}); the recipe is fitted again before any weight moves",
    ),
    PolicyRule(
        name="challenger_made",
        when=lambda s: s.kind == "covariate_acquisition" and "fine_tune" in s.taken,
        action="none",
        because="a new recipe was tried and a challenger was made; the gate has decided, the next period will tell",
    ),
    PolicyRule(
        name="harm_unknown",
        when=lambda s: s.kind == "covariate_acquisition" and s.lacks_labels,
        action="request_labels",
        because="a new recipe was tried; {n_labels} of {min_labels} labelled patients cannot show whether the model "
        "does harm; {n_labels_wanted} of the period, chosen uniformly at random, should be labelled",
    ),
    PolicyRule(
        name="repaired",
        when=lambda s: s.kind == "covariate_acquisition" and not s.is_worse,
        action="none",
        because="a new recipe was tried; the excess risk {excess_risk} nats per scan is not above zero beyond chance",
    ),
    PolicyRule(
        name="cooling_down",
        when=lambda s: s.kind == "covariate_acquisition" and s.is_cooling_down,
        action="hold",
        because="risk is still higher by {excess_risk} nats per scan, but a challenger was made "
        "{days_since_fine_tune} days ago and the cool-down is {cool_down_days} days; a person should look",
    ),
    PolicyRule(
        name="still_worse",
        when=lambda s: s.kind == "covariate_acquisition",
        action="fine_tune",
        because="a new recipe was tried, and risk is still higher by {excess_risk} nats per scan; {n_train_labels} "
        "labelled patients may be trained on",
    ),
    PolicyRule(
        name="prevalence_followed",
        when=lambda s: s.kind == "label" and "recalibrate" in s.taken,
        action="none",
        because="recalibrated; the next period will tell",
    ),
    # A shift of the logits moves no weight. It is safe only where acquisition is quiet and a mixture of the
    # source's two score histograms fits, which is what the kind `label` means.
    PolicyRule(
        name="prevalence_moved",
        when=lambda s: s.kind == "label",
        action="recalibrate",
        because="the share of positives moved by {size} and scans are made as before; logits move, no weight does",
    ),
    PolicyRule(
        name="patients_changed",
        when=lambda s: s.kind == "covariate_case_mix",
        action="request_labels",
        because="other patients come (distance {size}); {n_labels_wanted} of the period, chosen uniformly at random, "
        "should be labelled to see whether the model does harm",
    ),
    PolicyRule(
        name="mixed_unlabelled",
        when=lambda s: s.kind == "mixed" and s.lacks_labels,
        action="request_labels",
        because="acquisition and prevalence moved together and cannot be told apart without labels; {n_labels_wanted} "
        "patients of the period, chosen uniformly at random, should be labelled",
    ),
    PolicyRule(
        name="mixed_labelled",
        when=lambda s: s.kind == "mixed",
        action="hold",
        because="acquisition and prevalence moved together; correcting one by the other's sign does harm, so a person "
        "must decide (excess risk {excess_risk} nats per scan)",
    ),
    # No correction of probabilities or weights mends a changed definition of the label.
    PolicyRule(
        name="meaning_changed",
        when=lambda s: s.kind == "concept",
        action="hold",
        because="the same scans are labelled differently; the definition of the label must be reviewed before anything "
        "is trained on it",
    ),
)


def words(s: Situation) -> dict[str, str]:
    """What the sentences of the table may name."""
    return {
        "n_patients": str(s.n_patients),
        "n_patients_missing": str(max(s.min_patients - s.n_patients, 0)),
        "n_labels": str(s.n_labels),
        "n_train_labels": str(s.n_train_labels),
        "min_labels": str(s.min_labels),
        "n_labels_wanted": str(s.n_labels_wanted),
        "size": _spelt(s.size),
        "excess_risk": _spelt(s.excess_risk),
        "days_since_fine_tune": str(s.days_since_fine_tune),
        "cool_down_days": str(s.cool_down_days),
        "alarm": s.alarm or "no alarm",
    }


def _spelt(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
