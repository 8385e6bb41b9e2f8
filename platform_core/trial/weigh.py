"""Champion against challenger on arrays: what each site says, and whether the challenger passes. No workspace."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from platform_core.settings import PolicySettings
from platform_core.shift.risk import Estimate
from platform_core.trial.paired import Pairs

Outcome = Literal["gains", "holds", "fails", "not_evaluable"]

BRIER_SHARE = 0.5
"""Margin of the Brier score as a share of that of log-loss: a small error d of a probability p costs d^2 / 2p(1-p)
nats, at least 2 d^2, and d^2 of Brier score (second-order expansion of both)."""
SEED_SHARE = 0.5
"""Standard deviation over seeds, as a share of the gain, from which the seed may have made the gain. Proposed; on
Camelyon17 seeds move accuracy by more than methods do (Koh et al. 2021, arXiv:2012.07421)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """What the race saw when it trained the winner again from other seeds."""

    gain: float
    """Cross-validated log-loss of the champion less that of the winner, nats per scan."""
    sd: float
    """Standard deviation of the winner's loss over seeds, nats per scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVerdict:
    """The subgroup that gains least; it stops a challenger only if it loses more than the margin beyond doubt."""

    group: str
    n_patients: int
    log_loss_gain: Estimate
    sensitivity_gain: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVerdict:
    """What the site runs now against the challenger; every gain is above 0 where the challenger is better."""

    site: str
    outcome: Outcome
    because: str
    n_patients: int
    n_positive: int
    log_loss_gain: Estimate | None = None
    """Nats per scan; None, as all that follow, if not evaluable."""
    brier_gain: Estimate | None = None
    auroc_gain: Estimate | None = None
    calibration_gain: Estimate | None = None
    dice_gain: Estimate | None = None
    """Of a segmentation, [-1, 1]; it is judged by this alone."""
    chance: float | None = None
    """One-sided p value of "log-loss does not fall", or of "Dice does not rise"."""
    worst_group: GroupVerdict | None = None
    """Among the manufacturers with enough patients of each class; None with fewer than two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Whether the challenger passes, and what it did at every site."""

    target: str
    champion: str
    challenger: str
    site: str
    """The site that asked for it, which must gain."""
    passed: bool
    because: str
    sites: tuple[SiteVerdict, ...]
    number: int = 1
    """Of the target's challengers, this is the one."""
    alpha: float | None = None
    """What it was judged at; None if the asking site could not be evaluated, which costs nothing."""
    seeds: Seeds | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it; null for what is not finite."""
        return as_json(self)


def share_of_alpha(alpha: float, number: int) -> float:
    """What the number-th challenger (1, 2, ...) of a target is judged at: alpha x 6 / (pi^2 number^2); sums to alpha.

    However many challengers a target sees, the chance that one which is no better is ever promoted stays below alpha
    (union bound), if what calls for a challenger does not look at the patients who judge it, and nothing but "refused"
    goes from one challenger to the next; whoever tunes by hand on the numbers of a verdict spends more than this counts
    (Blum & Hardt 2015, arXiv:1502.04585).

    A training that risk has called for breaks the first condition: the risk is that of evaluation patients who are
    among those at the gate, and a champion that did badly on them by chance is easily beaten on them. Given such a
    call, a challenger that is no better passes more often than its share says. A rough simulation of calls by chance
    put it at 5 to 23 % of them; such calls are rare, but alpha is no bound for them.
    """
    return alpha * 6 / (math.pi**2 * number**2)


def judge_pairs(
    pairs_by_site: Mapping[str, Pairs],
    asking_site: str,
    rules: PolicySettings,
    n_challenges: int = 0,
    *,
    source_site: str | None = None,
    seeds: Seeds | None = None,
    target: str = "",
    champion: str = "the champion",
    challenger: str = "the challenger",
) -> GateVerdict:
    """Judge a challenger on held-out scans of every site that is served.

    It passes if the asking site gains beyond chance at its share of alpha, no site may lose more log-loss or Brier
    score than the margin allows, no site's calibration gets worse beyond chance, no subgroup loses more than the
    margin beyond doubt, the source keeps its AUROC, and the seed did not make the gain. A site that cannot tell
    stops it.

    Args:
        pairs_by_site: `before` by what each site runs now, `after` by what it would run.
        asking_site: The site that wants the challenger.
        rules: Margins.
        n_challenges: Challengers of the target that were judged before this one.
        source_site: Where nothing may be forgotten; None: nobody asks.
        seeds: From the race; None: not measured, and not asked for.
        target: For the verdict only, as the two below.
        champion: Name.
        challenger: Name.
    """
    number = n_challenges + 1
    alpha = share_of_alpha(rules.promotion_alpha, number)
    verdicts = tuple(
        judge_site(site, pairs, rules, alpha=alpha if site == asking_site else None, is_source=site == source_site)
        for site, pairs in pairs_by_site.items()
    )
    return gate_verdict(
        verdicts,
        asking_site,
        number=number,
        alpha=alpha,
        seeds=seeds,
        target=target,
        champion=champion,
        challenger=challenger,
    )


def gate_verdict(
    verdicts: tuple[SiteVerdict, ...],
    asking_site: str,
    *,
    number: int,
    alpha: float,
    seeds: Seeds | None,
    target: str,
    champion: str,
    challenger: str,
) -> GateVerdict:
    """What the sites say together; a challenger passes if all can tell, none fails, and the seed did not make the gain.

    The asking site was judged at `alpha`, the share of the `number`-th challenger; the rest as `judge_pairs`.
    """
    asking = next((v for v in verdicts if v.site == asking_site), None)
    is_seeds_luck = seeds is not None and not seeds.sd < SEED_SHARE * seeds.gain
    failed = [v for v in verdicts if v.outcome in ("fails", "not_evaluable")]
    return GateVerdict(
        target=target,
        champion=champion,
        challenger=challenger,
        site=asking_site,
        passed=asking is not None and not failed and not is_seeds_luck,
        because=_in_one_sentence(challenger, asking_site, asking, failed, seeds if is_seeds_luck else None),
        sites=verdicts,
        number=number,
        alpha=None if asking is None or asking.outcome == "not_evaluable" else alpha,
        seeds=seeds,
    )


def judge_site(
    site: str, pairs: Pairs, rules: PolicySettings, *, alpha: float | None = None, is_source: bool = False
) -> SiteVerdict:
    """What one site says.

    Args:
        site: Its name.
        pairs: Its scans.
        rules: Margins.
        alpha: Level at which it must gain; None if it need not.
        is_source: Whether its AUROC must be kept.
    """
    n_positive = int(pairs.y.sum())
    if not len(pairs.y) or pairs.fewest_of_a_class < rules.min_class_patients:
        because = (
            f"{pairs.n_patients} labelled patients that no model has seen, {n_positive} positive scans; "
            f"it takes {rules.min_class_patients} patients of each class"
        )
        return SiteVerdict(
            site=site, outcome="not_evaluable", because=because, n_patients=pairs.n_patients, n_positive=n_positive
        )
    weighed = SiteVerdict(
        site=site,
        outcome="holds",
        because="",
        n_patients=pairs.n_patients,
        n_positive=n_positive,
        log_loss_gain=pairs.gain(),
        brier_gain=pairs.brier_gain(),
        auroc_gain=pairs.auroc_gain(),
        calibration_gain=pairs.calibration_gain(),
        chance=pairs.chance_of_no_gain(),
        worst_group=worst_group(pairs, rules.min_class_patients),
    )
    outcome, because = _weigh(weighed, rules, alpha, is_source=is_source)
    return replace(weighed, outcome=outcome, because=because)


def worst_group(pairs: Pairs, min_class_patients: int) -> GroupVerdict | None:
    """The subgroup whose log-loss falls least, or cannot be told, of those with enough patients; None below two."""
    groups = {name: of for name, of in pairs.by_group().items() if of.fewest_of_a_class >= min_class_patients}
    if len(groups) < 2:
        return None
    told = [
        GroupVerdict(group=name, n_patients=of.n_patients, log_loss_gain=of.gain(), sensitivity_gain=of.rate_gain(1))
        for name, of in groups.items()
    ]
    return min(told, key=lambda each: (not math.isnan(each.log_loss_gain.value), each.log_loss_gain.value))


def _weigh(found: SiteVerdict, rules: PolicySettings, alpha: float | None, *, is_source: bool) -> tuple[Outcome, str]:
    gain, brier, auroc, calibration = found.log_loss_gain, found.brier_gain, found.auroc_gain, found.calibration_gain
    assert gain is not None
    assert brier is not None
    assert auroc is not None
    assert calibration is not None
    assert found.chance is not None
    told = f"log-loss changes by {_spelt(gain)} nats per scan"
    margin = rules.non_inferiority_margin
    if alpha is not None and not (found.chance <= alpha and gain.value > 0):
        return "fails", f"{told}, which is no gain beyond chance (p {found.chance:.2g}, and it takes {alpha:.2g})"
    losses = (  # each asked so that what is not a number is a loss
        (
            alpha is None and not may_lose_no_more_than(margin, gain),
            f"{told}, which may be a loss of more than {margin:g}",
        ),
        (
            not may_lose_no_more_than(margin * BRIER_SHARE, brier),
            f"the Brier score changes by {_spelt(brier)}, which may be a loss of more than {margin * BRIER_SHARE:g}",
        ),
        (
            not (math.isfinite(calibration.value) and calibration.high >= 0)
            and not -calibration.value <= rules.calibration_margin,
            f"the calibration error changes by {_spelt(calibration)}, which is worse beyond chance",
        ),
        (
            is_source and not may_lose_no_more_than(rules.forgetting_margin, auroc),
            f"the source's AUROC falls by {_spelt(auroc)}, which may be more than {rules.forgetting_margin:g}",
        ),
        (_is_harmed(found.worst_group, margin), _told_of_group(found.worst_group)),
    )
    reason = next((because for is_lost, because in losses if is_lost), None)
    if reason is not None:
        return "fails", reason
    if alpha is not None:
        return "gains", f"{told}, a gain beyond chance (p {found.chance:.2g}, and it takes {alpha:.2g})"
    return ("gains", f"{told}, a gain beyond chance") if gain.low > 0 else ("holds", f"{told}, no loss over {margin:g}")


def may_lose_no_more_than(margin: float, gain: Estimate) -> bool:
    """Whether a gain is known and its interval lies above a loss of `margin`; intervals leave out what is no number."""
    return math.isfinite(gain.value) and -gain.low <= margin


def _is_harmed(group: GroupVerdict | None, margin: float) -> bool:
    if group is None:
        return False
    gain = group.log_loss_gain
    return not (math.isfinite(gain.value) and -gain.high <= margin)


def _told_of_group(group: GroupVerdict | None) -> str:
    if group is None:
        return ""
    return f"log-loss of the {group.n_patients} patients of {group.group} changes by {_spelt(group.log_loss_gain)}"


def _spelt(gain: Estimate) -> str:
    """The change of the loss, so the gain with its sign turned."""
    return f"{-gain.value:+.3f} [{-gain.high:+.3f}, {-gain.low:+.3f}]"


def _in_one_sentence(
    challenger: str, site: str, asking: SiteVerdict | None, failed: Sequence[SiteVerdict], luck: Seeds | None
) -> str:
    """Why a challenger passes or is refused."""
    if asking is None:
        return f"{challenger} is refused: {site} is not served, so nothing can be compared there"
    reasons = [f"{v.site}: {v.because}" for v in failed]
    if luck is not None:
        reasons.append(f"the seed alone moves its loss by {luck.sd:.3f}, and the race's gain is {luck.gain:.3f}")
    if reasons:
        return f"{challenger} is refused: {'; '.join(reasons)}"
    return f"{challenger} passes: {site}: {asking.because}; no other site loses more than the margin"


def as_json(verdict: Any) -> dict[str, Any]:
    """A verdict of dataclasses as JSON-able values."""
    made: dict[str, Any] = _finite(asdict(verdict))
    return made


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
