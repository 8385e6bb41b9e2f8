"""May the challenger take the champion's place? Judged on patients that neither has seen, at every site."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from platform_core.learn.registry import ModelRef, trained_on
from platform_core.manifest.serving import Serving, current_servings
from platform_core.manifest.workspace import Workspace
from platform_core.settings import PolicySettings
from platform_core.shift.risk import Estimate
from platform_core.trial.paired import Pairs, pair, patients_of

Outcome = Literal["gains", "holds", "fails", "not_evaluable"]

BRIER_SHARE = 0.5
"""Margin of the Brier score as a share of that of log-loss: a small error d of a probability p costs d^2 / 2p(1-p)
nats, at least 2 d^2, and d^2 of Brier score (second-order expansion of both)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVerdict:
    """Champion against challenger at one site; each gain is the champion's loss less the challenger's."""

    site: str
    outcome: Outcome
    because: str
    n_patients: int
    n_positive: int
    log_loss_gain: Estimate | None
    """Nats per scan; None if not evaluable."""
    brier_gain: Estimate | None


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

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it."""
        return asdict(self)


def judge(
    workspace: Workspace,
    target: str,
    *,
    champion: ModelRef,
    challenger: ModelRef,
    site: str,
    keys: Sequence[str],
) -> GateVerdict:
    """Compare two models on the labelled evaluation patients of every site that is served.

    The challenger passes if the asking site gains beyond chance and no other site loses more
    log-loss, or Brier score, than the margin allows; a site that cannot tell stops it.
    Image-level scans, whose patient is not known, are no evidence.

    Args:
        workspace: Where predictions of both models, by every site's recipe, and labels lie.
        target: The task.
        champion: The model in use.
        challenger: The one that wants its place.
        site: The site that asked for it.
        keys: Its series that count: those of the period, so that the past does not outvote the present.

    Returns:
        The verdict; nothing is promoted or refused here.
    """
    seen = patients_of(workspace, trained_on(workspace, champion) | trained_on(workspace, challenger))
    rules = workspace.settings.policy
    verdicts = []
    for serving in current_servings(workspace, target):
        is_asking = serving.site == site
        before, after = (replace(serving, model=model.name) for model in (champion, challenger))
        pairs = pair(workspace, before, after, keys=keys if is_asking else None, known_only=True, without=seen)
        verdicts.append(_judge_site(serving, pairs, rules, is_asking=is_asking))
    failed = [v for v in verdicts if v.outcome in ("fails", "not_evaluable")]
    asked = any(v.site == site for v in verdicts)
    return GateVerdict(
        target=target,
        champion=champion.name,
        challenger=challenger.name,
        site=site,
        passed=asked and not failed,
        because=_in_one_sentence(site, challenger.name, verdicts, asked=asked),
        sites=tuple(verdicts),
    )


def _judge_site(serving: Serving, pairs: Pairs, rules: PolicySettings, *, is_asking: bool) -> SiteVerdict:
    n_positive = int(pairs.y.sum())
    tell = partial(SiteVerdict, site=serving.site, n_patients=pairs.n_patients, n_positive=n_positive)
    if not len(pairs.y) or pairs.fewest_of_a_class < rules.min_class_patients:
        because = (
            f"{pairs.n_patients} labelled patients that no model has seen, {n_positive} positive scans; "
            f"it takes {rules.min_class_patients} patients of each class"
        )
        return tell(outcome="not_evaluable", because=because, log_loss_gain=None, brier_gain=None)
    gain, brier = pairs.gain(), pairs.brier_gain()
    outcome, because = _weigh(gain, brier, rules.non_inferiority_margin, is_asking=is_asking)
    return tell(outcome=outcome, because=because, log_loss_gain=gain, brier_gain=brier)


def _weigh(gain: Estimate, brier: Estimate, margin: float, *, is_asking: bool) -> tuple[Outcome, str]:
    told = f"log-loss changes by {_spelt(gain)} nats per scan"
    if is_asking and gain.low <= 0:
        return "fails", f"{told}, which is no gain beyond chance"
    if not is_asking and -gain.low > margin:
        return "fails", f"{told}, which may be a loss of more than {margin:g}"
    least = margin * BRIER_SHARE
    if -brier.low > least:
        return "fails", f"the Brier score changes by {_spelt(brier)}, which may be a loss of more than {least:g}"
    if gain.low > 0:
        return "gains", f"{told}, a gain beyond chance"
    return "holds", f"{told}, no loss of more than {margin:g}"


def _spelt(gain: Estimate) -> str:
    """The change of the loss, so the gain with its sign turned."""
    return f"{-gain.value:+.3f} [{-gain.high:+.3f}, {-gain.low:+.3f}]"


def _in_one_sentence(site: str, challenger: str, verdicts: Sequence[SiteVerdict], *, asked: bool) -> str:
    if not asked:
        return f"{challenger} is refused: {site} is not served, so nothing can be compared there"
    failed = [v for v in verdicts if v.outcome in ("fails", "not_evaluable")]
    if failed:
        reasons = "; ".join(f"{v.site}: {v.because}" for v in failed)
        return f"{challenger} is refused: {reasons}"
    gained = next(v for v in verdicts if v.site == site)
    return f"{challenger} passes: {site}: {gained.because}; no other site loses more than the margin"
