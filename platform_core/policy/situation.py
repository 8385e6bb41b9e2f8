"""What a decision is made from: plain facts about one site and period, and the questions rules ask of them.

What is a yes or no, a number or the kind of the finding may be asked for by a row of the policy, under its name here
(`facts.py`). None means that nobody knows, and then neither a yes nor a no is met.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, isfinite, sqrt
from typing import Any, Literal, get_args

from platform_core.shift.risk import Estimate

Kind = Literal["none", "covariate_acquisition", "covariate_case_mix", "label", "concept", "mixed", "undetermined"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FEWEST_LABELS, MOST_LABELS = 50, 100
"""Patients in one request for labels: 74 to 200 random labels show that a quarter to a half of the positives
are read differently (measured on simulated scores), and a reader can do 100 in a day."""


Z_95 = 1.96
"""Standard errors from a mean to either end of its 95 % interval."""
Z_GATE = 1.88
"""Standard errors that a target's first challenger must gain: one-sided 3.04 %, 0.05 x 6 / pi^2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One site, target and period at the moment of a decision."""

    kind: Kind
    size: Estimate | None = None
    """Kolmogorov-Smirnov distance for covariate shift, change of prevalence for label shift."""
    n_patients: int
    """Patients seen in the period."""
    min_patients: int
    """Patients below which a period gives no verdict."""
    n_labels: int = 0
    """Labelled patients of the period."""
    n_train_labels: int = 0
    """Those of them that training may use."""
    n_evaluation_labels: int = 0
    """Those of them that no training may use: the gate judges by them."""
    min_labels: int
    """Labelled patients before weights may move."""
    accepted_risk: Estimate | None = None
    """Log-loss on the source domain's held-out patients, nats per scan."""
    target_risk: Estimate | None = None
    """Log-loss on the period's labelled patients, nats per scan."""
    taken: tuple[str, ...] = ()
    """Actions that were carried out, refused by a gate or rejected by a person for this period."""
    tried: tuple[str, ...] = ()
    """The same since the episode opened."""
    n_gates_failed: int = 0
    """Refused since the episode opened, the receipts of recipes not among them: they are measured anew each period."""
    is_watching: bool = False
    """The episode was acted upon in an earlier period, what was done holds, and it has not closed."""
    growth: float | None = None
    """Size of the finding over that of the finding last acted upon in the episode; None unless both are of one kind."""
    divergence_stays: bool | None = None
    """A new recipe was refused for the period, or took away less than half of the distance; None before one."""
    has_prevalence_moved: bool | None = None
    """Told from labels or through the site's scanner; None where neither can tell."""
    label_noise: float | None = None
    """Share of the site's double readings that disagree, [0, 1]; None where too few were read twice."""
    has_guideline_changed: bool = False
    """Labels of the period were read by a guideline that no label of the reference or of an earlier day names."""
    n_sites_alarmed: int = 0
    """Sites whose watch alarmed of the same feature on the same day as this one's, this one included."""
    is_training_running: bool = False
    """A fine-tuning of the target has begun for another site, or a challenger is in the shadow or on its way."""
    gpu_hours_used: float = 0.0
    """Of training, in the last 30 days, all targets."""
    gpu_hours_per_month: float | None = None
    """What may be used; None: no limit."""
    days_since_fine_tune: int | None = None
    """Since the site's last fine-tuning that raced, whatever became of it; None if there was none."""
    cool_down_days: int
    strategies: tuple[str, ...] = ()
    """What the target allows, cheapest first."""
    alarm: str | None = None
    """What the watch said whose alarm began the period, or that none has answered; None without one."""
    approve: tuple[str, ...] = ()
    """Actions that wait for a person."""
    released: tuple[str, ...] = ()
    """Rows of the policy whose `hold` a person has lifted since the episode opened."""

    @property
    def has_alarm(self) -> bool:
        """A watch alarmed, and nothing has answered it."""
        return self.alarm is not None

    @property
    def has_reharmonized(self) -> bool:
        """A new recipe was tried, or turned down, for this period."""
        return "reharmonize" in self.taken

    @property
    def has_recalibrated(self) -> bool:
        """A new prior was tried, or turned down, for this period."""
        return "recalibrate" in self.taken

    @property
    def has_calibrated(self) -> bool:
        """Scores were fitted to the site's labels, or that was turned down, for this period."""
        return "calibrate" in self.taken

    @property
    def has_adapted(self) -> bool:
        """An adaptation without labels was tried, or turned down, in this episode."""
        return "adapt" in self.tried or "adapt" in self.taken

    @property
    def has_fine_tuned(self) -> bool:
        """A challenger was made, or turned down, for this period."""
        return "fine_tune" in self.taken

    @property
    def n_unlabelled(self) -> int:
        """Patients of the period without a label."""
        return max(self.n_patients - self.n_labels, 0)

    @property
    def n_patients_missing(self) -> int:
        """Patients still needed for a verdict."""
        return max(self.min_patients - self.n_patients, 0)

    @property
    def is_over_budget(self) -> bool:
        """This month's hours of training are used up."""
        return self.gpu_hours_per_month is not None and self.gpu_hours_used >= self.gpu_hours_per_month

    @property
    def lacks_patients(self) -> bool:
        """Too few patients for any verdict."""
        return self.n_patients < self.min_patients

    @property
    def lacks_labels(self) -> bool:
        """Too few labels to say whether the model does harm."""
        return self.n_labels < self.min_labels or self.excess_risk is None

    @property
    def excess_risk(self) -> Estimate | None:
        """Target risk less accepted risk, nats per scan; None if either is unknown."""
        if self.target_risk is None or self.accepted_risk is None:
            return None
        return difference(self.target_risk, self.accepted_risk)

    @property
    def is_worse(self) -> bool:
        """The whole interval of the excess risk lies above zero."""
        return self.excess_risk is not None and self.excess_risk.low > 0

    @property
    def can_be_judged(self) -> bool | None:
        """The gate would see a cure of the whole excess risk with an even chance at least; None if harm is unknown.

        The losses saved are taken to scatter over patients as the losses do.
        """
        excess, risk = self.excess_risk, self.target_risk
        if excess is None or risk is None:
            return None
        sd = (risk.high - risk.low) / (2 * Z_95) * sqrt(self.n_labels)
        return excess.value * sqrt(self.n_evaluation_labels) >= Z_GATE * sd

    @property
    def is_cooling_down(self) -> bool:
        """A fine-tuning was tried here too recently for another one."""
        return self.days_since_fine_tune is not None and self.days_since_fine_tune < self.cool_down_days

    @property
    def n_labels_wanted(self) -> int:
        """Patients to be labelled next."""
        missing = max(self.min_labels, FEWEST_LABELS) - self.n_labels
        return min(missing if missing > 0 else FEWEST_LABELS, MOST_LABELS)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Estimate a - b with its 95 % interval, from the intervals of two independent estimates.

    Kinder than asking that the two intervals do not overlap, which is a test at about 0.6 %.

    Source: Zou & Donner 2008, doi:10.1002/sim.3095 (square-and-add of the distances to the limits).
    """
    value = a.value - b.value
    low = value - hypot(a.value - a.low, b.high - b.value)
    high = value + hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high)


def estimate_of(row: Mapping[str, Any], value: str, low: str | None = None, high: str | None = None) -> Estimate | None:
    """A number and its interval in the columns of a row; None where any of the three is null or not finite."""
    names = (value, low or f"{value}_low", high or f"{value}_high")
    numbers = [float(row[name]) for name in names if row.get(name) is not None and isfinite(row[name])]
    return Estimate(*numbers) if len(numbers) == len(names) else None
