"""Is a new site like the reference? A test at a few numbers of patients that are fixed beforehand.

A watch ranks a site's patients among the reference and the site's own past, so a site that differs from its
first scan on becomes its own past and is never found. A new site is therefore held against the reference itself,
`LOOKS` times, and alpha is shared between the looks.

Several tests look at the same patients, each for another kind of change: `place` (a feature moved), `relation` (a
feature moved against what the others let expect), `axes` (many moved a little together), `spread`, `shape` (share of
patients below a quantile: Kolmogorov-Smirnov on a grid), `kernel` (maximum mean discrepancy) and `score` (share of
positives). All of them are worked out under the same permutations of patients, and so is the most surprising of them:
one p-value, exact for any number of patients, features and whatever their dependence. ScoredPatients are taken to be
exchangeable: one row each, and no effect of the day.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from platform_core.errors import EmptySample
from platform_core.shift.onboarding_arms import SCORE, Arm, Told, arms_of, shared_features
from platform_core.shift.risk import Reals
from platform_core.shift.scored_patients import ScoredPatients

LOOKS = (50, 100, 250)
"""ScoredPatients of a new site at which it is tested; one look at each, whatever came of the one before."""
MIN_PATIENTS = 10
"""Of either side."""
N_PERMUTATIONS = 999
SCORE_SHARE = 0.8
"""Of alpha, for the arm on the score; what is left is for all others together.

A scanner that differs shows in some physical feature: on a development pool the mean power over operators and strengths
at 25 patients was .98 with the fifth that is left. A change of prevalence shows in the score alone and needs all of
alpha: from .30 to .45 the best possible test of 250 patients against 2,000 with an AUROC of .9 has a power of .90 at
5 %, .89 at 4 % and .85 at 2.5 %.
"""
N_CARRIERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """What one of the tests says, on its own."""

    name: str
    statistic: float
    """In standard deviations for the largest of many, dimensionless for `axes` and `kernel`."""
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """Whether a sample comes from the reference's population."""

    p: float
    """Chance of a most surprising arm like this if it does; over all arms and features together."""
    alpha: float
    arms: tuple[ArmResult, ...]
    carriers: tuple[tuple[str, float], ...]
    """Features that moved most, and by how many standard errors (signed), furthest first."""
    n_current: int
    n_reference: int

    @property
    def is_different(self) -> bool:
        """Whether chance is excluded at alpha."""
        return self.p <= self.alpha

    @property
    def arm(self) -> ArmResult:
        """The most surprising one."""
        return min(self.arms, key=lambda arm: arm.p)

    @property
    def sentence(self) -> str:
        """For the person on call."""
        about = f"{self.n_current} patients against {self.n_reference} of the reference, p {self.p:.2g}"
        if not self.is_different:
            return f"not told apart from the reference ({about}, alpha {self.alpha:.2g})"
        carried = ", ".join(f"{name} {'higher' if z > 0 else 'lower'}" for name, z in self.carriers[:N_CARRIERS])
        return f"differs from the reference by {self.arm.name} ({about}): {carried}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingVerdict:
    """The looks that are due at a new site, and have been had now."""

    looks: tuple[OneShot, ...]
    """In order of patients; each has its share of alpha."""
    n_next: int | None
    """ScoredPatients at which the next look is due; None after the last."""

    @property
    def is_different(self) -> bool:
        """Whether any look has told the site from the reference."""
        return any(look.is_different for look in self.looks)

    @property
    def sentence(self) -> str:
        """For the person on call."""
        if not self.looks:
            return f"a new site is compared with the reference from {self.n_next} patients on"
        told = next((look for look in self.looks if look.is_different), self.looks[-1])
        return told.sentence


def one_shot(
    reference: ScoredPatients,
    current: ScoredPatients,
    *,
    alpha: float = 0.05,
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
) -> OneShot:
    """Test once, at a number of patients that was fixed beforehand, whether a sample is like the reference.

    Features that fewer than `MIN_PATIENTS` or half of either side have are left out: that a tag is missing is no shift.

    Args:
        reference: ScoredPatients of the reference, with scores and labels if a model has been made.
        current: ScoredPatients of the site.
        alpha: Chance of a false alarm.
        seed: Of the permutations and of the kernel's frequencies.
        n_permutations: The p-value is a multiple of 1 / (n_permutations + 1).

    Raises:
        EmptySample: If either side has fewer than `MIN_PATIENTS`, or they share no feature and no score.
    """
    n_found = min(len(reference), len(current))
    if n_found < MIN_PATIENTS:
        raise EmptySample("patients of either side", MIN_PATIENTS, n_found)
    rng = np.random.default_rng(seed)
    features = shared_features(reference, current, MIN_PATIENTS)
    arms = arms_of(reference, current, features, rng)
    if not arms:
        raise EmptySample("features or scores in common")
    splits = _splits(len(reference), len(current), n_permutations, rng)
    told = {arm.name: arm.tell(splits) for arm in arms}
    return OneShot(
        p=_p(-_surprise(told)),
        alpha=alpha,
        arms=tuple(ArmResult(name=n, statistic=float(t.statistic[0]), p=_p(t.statistic)) for n, t in told.items()),
        carriers=_carriers(told, arms),
        n_current=len(current),
        n_reference=len(reference),
    )


def onboarding_test(
    reference: ScoredPatients,
    current: ScoredPatients,
    *,
    alpha: float = 0.05,
    looks: Sequence[int] = LOOKS,
    had: Collection[int] = (),
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
) -> OnboardingVerdict:
    """Every look at a new site that its patients allow, each at its share of alpha.

    Args:
        reference: As `one_shot`.
        current: All patients of the site so far, in order of arrival: the first ones are looked at.
        alpha: Chance of any false alarm over all looks.
        looks: Numbers of patients, ascending, fixed before the site's first one.
        had: Looks that were had before; a second one at other patients would spend their share of alpha again.
        seed: As `one_shot`.
        n_permutations: As `one_shot`.

    Raises:
        EmptySample: As `one_shot`.
    """
    due = [n for n in looks if n <= len(current) and n not in had]
    share = alpha / len(looks)
    tested = [one_shot(reference, current.first(n), alpha=share, seed=seed, n_permutations=n_permutations) for n in due]
    return OnboardingVerdict(looks=tuple(tested), n_next=next((n for n in looks if n > len(current)), None))


def _splits(n_reference: int, n_current: int, n_permutations: int, rng: np.random.Generator) -> Reals:
    """1 where a patient counts as the site's, (splits, patients); the first split is the true one."""
    observed = np.repeat(np.array([0, 1], np.float32), [n_reference, n_current])
    return np.vstack([observed, rng.permuted(np.tile(observed, (n_permutations, 1)), axis=1)])


def _surprise(told: dict[str, Told]) -> Reals:
    """The most surprising arm of every split, about as the logarithm of a chance.

    Arms on features look at the same numbers, so the least of their chances is set right as one, by its own median,
    before it shares alpha with the score.
    """
    on_features = [each.log_p for name, each in told.items() if name != SCORE]
    if not on_features:
        return told[SCORE].log_p
    least = np.stack(on_features).min(axis=0)
    least = least - np.median(least)
    if SCORE not in told:
        return np.asarray(least, np.float64)
    both = np.minimum(told[SCORE].log_p - math.log(SCORE_SHARE), least - math.log(1 - SCORE_SHARE))
    return np.asarray(both, np.float64)


def _p(statistic: Reals) -> float:
    """Share of splits that are at least as surprising as the first, itself included."""
    return float((statistic >= statistic[0] - 1e-5 * abs(statistic[0])).mean())


def _carriers(told: dict[str, Told], arms: Sequence[Arm]) -> tuple[tuple[str, float], ...]:
    """Features by the difference of their normal scores, in standard errors."""
    place = next((arm for arm in arms if arm.name == "place"), None)
    if place is None:
        return ()
    moved = told["place"].means
    order = np.argsort(-np.abs(moved), kind="stable")
    return tuple((place.names[int(i)], float(moved[i])) for i in order)
