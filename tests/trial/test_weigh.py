"""The gate on arrays: what passes, what stops a challenger, and what twenty tries in a row may come to."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from platform_core.settings import PolicySettings
from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.paired import Pairs
from platform_core.trial.weigh import (
    GateVerdict,
    GroupVerdict,
    Seeds,
    SiteVerdict,
    _weigh,
    judge_pairs,
    share_of_alpha,
    worst_group,
)

RULES = PolicySettings()


def sigmoid(x: Reals) -> Reals:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


def world(n: int, seed: int) -> tuple[Reals, Reals, np.random.Generator]:
    """True log-odds, labels, and more chance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, n)
    return x, (rng.random(n) < sigmoid(x)).astype(np.float64), rng


def pairs_of(
    before: float = 1.0, after: float = 1.0, n: int = 300, seed: int = 0, groups: tuple[str, ...] = ()
) -> Pairs:
    """Noise of that standard deviation on the true log-odds: 0 is the best there can be."""
    x, y, rng = world(n, seed)
    shared = rng.normal(0, 1, n)
    return Pairs(
        patients=tuple(map(str, range(n))),
        y=y,
        before=sigmoid(x + before * shared),
        after=sigmoid(x + after * shared),
        groups=groups,
    )


def judged(south: Pairs, north: Pairs | None = None, n_challenges: int = 0, seeds: Seeds | None = None) -> GateVerdict:
    sites = {"north": north or pairs_of(seed=1), "south": south}
    return judge_pairs(sites, "south", RULES, n_challenges, source_site="north", seeds=seeds)


BETTER = pairs_of(before=2.0, after=0.2)


def test_a_gain_at_the_asking_site_and_no_loss_elsewhere_passes() -> None:
    verdict = judged(BETTER)
    assert verdict.passed
    assert {v.site: v.outcome for v in verdict.sites} == {"north": "holds", "south": "gains"}
    assert verdict.alpha == pytest.approx(0.05 * 6 / np.pi**2)


def test_the_shares_of_alpha_sum_to_alpha() -> None:
    assert sum(share_of_alpha(0.05, j) for j in range(1, 200_000)) == pytest.approx(0.05, rel=1e-4)


def test_a_gain_that_was_enough_for_the_first_challenger_is_not_for_the_hundredth() -> None:
    gain = pairs_of(before=1.3, after=1.0, n=60)
    first, late = judged(gain), judged(gain, n_challenges=99)
    assert first.passed
    assert not late.passed
    assert "no gain beyond chance" in late.because
    assert (first.number, late.number) == (1, 100)


def test_twenty_challengers_that_are_no_better_pass_together_at_most_one_time_in_twenty() -> None:
    """On the same patients, each as good as the champion; whatever else the gate asks only lowers this."""
    n, n_challengers, n_worlds = 100, 20, 800
    patients = tuple(map(str, range(n)))
    n_passed = 0
    for seed in range(n_worlds):
        x, y, rng = world(n, seed)
        before = sigmoid(x + rng.normal(0, 0.7, n))
        chances = [
            Pairs(patients=patients, y=y, before=before, after=sigmoid(x + rng.normal(0, 0.7, n))).chance_of_no_gain()
            for _ in range(n_challengers)
        ]
        n_passed += any(p <= share_of_alpha(0.05, j) for j, p in enumerate(chances, start=1))
    assert n_passed / n_worlds <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_worlds)


def test_whoever_passes_gained_at_the_asking_site_beyond_its_share_of_alpha() -> None:
    verdicts = [judged(pairs_of(before=1.0, after=after, seed=seed), n_challenges=3) for seed, after in
                enumerate((0.0, 0.5, 0.9, 1.0, 1.1))]  # fmt: skip
    assert any(verdict.passed for verdict in verdicts)
    for verdict in verdicts:
        south = next(v for v in verdict.sites if v.site == "south")
        assert south.chance is not None
        assert not verdict.passed or south.chance <= share_of_alpha(0.05, 4)


def test_a_source_that_forgets_stops_the_challenger() -> None:
    verdict = judged(BETTER, pairs_of(before=0.2, after=1.2, seed=1))
    assert not verdict.passed
    assert "north" in verdict.because


def test_the_source_must_keep_its_auroc_and_other_sites_need_not() -> None:
    """All other margins are wide here."""
    wide = RULES.model_copy(update={"non_inferiority_margin": 1.0, "calibration_margin": 0.9})
    sites = {"north": pairs_of(before=0.0, after=1.3, n=1000, seed=1), "south": BETTER}
    forgets = judge_pairs(sites, "south", wide, source_site="north")
    assert not forgets.passed
    assert "AUROC falls" in forgets.because
    assert judge_pairs(sites, "south", wide).passed


def test_a_calibration_that_gets_worse_beyond_chance_stops_the_challenger() -> None:
    x, y, _ = world(3000, 2)
    skewed = Pairs(patients=tuple(map(str, range(3000))), y=y, before=sigmoid(x), after=sigmoid(x + 0.35))
    verdict = judged(BETTER, skewed)
    assert not verdict.passed
    assert "calibration error" in verdict.because


def test_a_subgroup_that_loses_beyond_doubt_stops_the_challenger_and_one_that_may_lose_is_told() -> None:
    x, y, rng = world(400, 3)
    groups = tuple("AB"[i % 4 == 0] for i in range(400))
    is_b = np.array(groups) == "B"
    noise = rng.normal(0, 1, 400)
    before = sigmoid(x + np.where(is_b, 0.0, 2.5) * noise)
    for worse, passes in ((3.0, False), (0.3, True)):
        pairs = Pairs(
            patients=tuple(map(str, range(400))),
            y=y,
            before=before,
            after=sigmoid(x + np.where(is_b, worse, 0.0) * noise),
            groups=groups,
        )
        verdict = judged(pairs)
        south = next(v for v in verdict.sites if v.site == "south")
        assert south.worst_group is not None
        assert (south.worst_group.group, south.worst_group.n_patients) == ("B", 100)
        assert verdict.passed == passes
        assert ("patients of B" in verdict.because) != passes


def test_a_gain_that_another_seed_would_not_repeat_is_refused() -> None:
    assert judged(BETTER, seeds=Seeds(gain=0.10, sd=0.04)).passed
    for unsure in (Seeds(gain=0.10, sd=0.06), Seeds(gain=-0.01, sd=0.001), Seeds(gain=0.1, sd=float("nan"))):
        verdict = judged(BETTER, seeds=unsure)
        assert not verdict.passed
        assert "seed" in verdict.because


def test_a_site_with_too_few_patients_stops_the_challenger_and_spends_nothing_where_it_asked() -> None:
    few = judged(pairs_of(n=12))
    assert not few.passed
    assert few.alpha is None
    assert judged(BETTER, pairs_of(n=12)).alpha is not None


def test_a_site_that_is_not_served_cannot_ask() -> None:
    verdict = judge_pairs({"north": pairs_of()}, "south", RULES)
    assert not verdict.passed
    assert "south is not served" in verdict.because


def test_weights_of_the_labels_count() -> None:
    """A challenger that is worse on the scans that stand for many is no gain."""
    x, y, rng = world(400, 5)
    is_many = np.arange(400) % 4 == 0
    noise = rng.normal(0, 1, 400)
    even = Pairs(
        patients=tuple(map(str, range(400))),
        y=y,
        before=sigmoid(x + np.where(is_many, 0.0, 2.0) * noise),
        after=sigmoid(x + np.where(is_many, 1.0, 0.0) * noise),
    )
    weighed = replace(even, weight=np.where(is_many, 20.0, 1.0))
    assert even.gain().low > 0
    assert weighed.gain().value < 0
    assert judged(even).passed
    assert not judged(weighed).passed


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("where", ["south", "north"])
def test_what_is_not_a_number_refuses_at_every_site(where: str) -> None:
    """A weight of 1 / 0 or a probability that is none, wherever it comes from."""
    whole = {"south": BETTER, "north": BETTER}
    assert judge_pairs(whole, "south", RULES, source_site="north").passed
    n = len(BETTER.y)
    one_of = np.arange(n) == 0
    for broken in (
        replace(BETTER, weight=np.where(one_of, np.inf, 1.0)),
        replace(BETTER, after=np.where(one_of, np.nan, BETTER.after)),
    ):
        assert not judge_pairs(whole | {where: broken}, "south", RULES).passed


@pytest.mark.parametrize("name", ["log_loss_gain", "brier_gain", "calibration_gain", "auroc_gain", "chance", "group"])
def test_each_criterion_by_itself_refuses_what_is_not_a_number(name: str) -> None:
    fine, none = Estimate(0.1, 0.05, 0.15), Estimate(np.nan, np.nan, np.nan)
    group = GroupVerdict(group="B", n_patients=90, log_loss_gain=none, sensitivity_gain=none)
    told = SiteVerdict(
        site="south",
        outcome="holds",
        because="",
        n_patients=100,
        n_positive=50,
        log_loss_gain=fine,
        brier_gain=fine,
        auroc_gain=fine,
        calibration_gain=fine,
        chance=0.001,
    )
    news: dict[str, Any] = {"chance": np.nan} if name == "chance" else {name: none}
    broken = replace(told, **({"worst_group": group} if name == "group" else news))
    for alpha in (0.05, None):
        assert _weigh(told, RULES, alpha, is_source=True)[0] == "gains"
        is_asked = alpha is not None or name != "chance"
        assert (_weigh(broken, RULES, alpha, is_source=True)[0] == "fails") == is_asked


def test_the_subgroup_that_cannot_be_told_is_the_worst() -> None:
    half = np.arange(300) < 150
    broken = replace(BETTER, after=np.where(np.arange(300) == 299, np.nan, BETTER.after))
    found = worst_group(replace(broken, groups=tuple(np.where(half, "A", "B").tolist())), 1)
    assert found is not None
    assert found.group == "B"


def test_a_verdict_survives_json_whatever_it_could_not_tell() -> None:
    verdict = judged(pairs_of(n=12), seeds=Seeds(gain=float("nan"), sd=1.0))
    told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert told["seeds"] == {"gain": None, "sd": 1.0}
    assert {site["site"] for site in told["sites"]} == {"north", "south"}
