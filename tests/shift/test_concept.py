from collections.abc import Callable

import numpy as np
import pytest

from platform_core.errors import EmptySample
from platform_core.shift.labels.concept import ConceptTest, betting_test, log_e_path, one_look_test
from platform_core.shift.labels.relabelling import ALTERNATIVES
from platform_core.shift.labels.reliability import Reliability, reliability_of
from platform_core.shift.risk import Estimate, Reals

APART = 1.812
"""Distance of two unit normals whose AUROC is .90."""
ENOUGH = np.log(20)
Test = Callable[..., ConceptTest]


def patients(rng: np.random.Generator, n: int, prevalence: float = 0.3) -> tuple[Reals, Reals]:
    y = (rng.random(n) < prevalence).astype(float)
    return rng.normal(y * APART, 1), y


def dropped(rng: np.random.Generator, y: Reals, share: float) -> Reals:
    """So many positives are called negative."""
    return np.asarray(y * (rng.random(len(y)) >= share), dtype=np.float64)


def world(
    seed: int, n: int, share: float, *, m: int = 2000, prevalence: float = 0.3, source: float = 0.3
) -> tuple[Reliability, Reals, Reals]:
    rng = np.random.default_rng(seed)
    reliability = reliability_of(*patients(rng, m, source))
    scores, y = patients(rng, n, prevalence)
    return reliability, scores, dropped(rng, y, share)


def first_seen(seed: int, share: float) -> int:
    path = log_e_path(*world(seed, 1500, share))
    return int((path >= ENOUGH).argmax()) + 1 if (path >= ENOUGH).any() else 1501


@pytest.mark.parametrize(("m", "source"), [(2000, 0.3), (300, 0.2)])
def test_unchanged_labels_ever_alarm_no_more_often_than_promised(m: int, source: float) -> None:
    """1,500 looks at each of 300 sites; the standard error of 5 % is 1.3 %."""
    worlds = (world(seed, 1500, 0, m=m, source=source, prevalence=source) for seed in range(300))
    ever = np.mean([(log_e_path(*each) >= ENOUGH).any() for each in worlds])
    assert 0.005 <= ever <= 0.05 + 2 * 0.013


@pytest.mark.parametrize(("share", "at_most"), [(0.25, 150), (0.50, 50)])
def test_relabelled_positives_are_seen_with_fewer_labels_than_fixed_bets_need(share: float, at_most: int) -> None:
    """Published for fixed bets: 200 and 74."""
    assert np.median([first_seen(seed, share) for seed in range(100)]) <= at_most


def test_the_evidence_is_the_mean_over_alternatives_of_likelihood_ratios() -> None:
    """Oracle: one label after the other, in plain Python, two of the alternatives' ratios summed by hand."""
    reliability, scores, y = world(1, 40, 0.3)
    k, n = reliability.n_positive + 0.5, reliability.n + 1
    wealth = [1.0] * len(ALTERNATIVES)
    path = []
    for score, label in zip(scores, y, strict=True):
        b = int((score > reliability.edges).sum())
        p = k[b] / n[b]
        for i, change in enumerate(ALTERNATIVES):
            q = float(change(np.array(p)))
            wealth[i] *= q / p if label else (1 - q) / (1 - p)
        k[b], n[b] = k[b] + label, n[b] + 1
        path.append(np.log(np.mean(wealth)))
    assert log_e_path(reliability, scores, y) == pytest.approx(path, abs=1e-9)


def test_every_alternative_leaves_the_expected_wealth_at_one() -> None:
    p = np.linspace(0.01, 0.99, 50)
    for change in ALTERNATIVES:
        q = change(p)
        assert np.all((q > 0) & (q < 1))
        assert p * (q / p) + (1 - p) * ((1 - q) / (1 - p)) == pytest.approx(1)


def test_one_look_calls_unchanged_sites_changed_as_often_as_promised() -> None:
    p = np.array([one_look_test(*world(seed, 300, 0), is_comparable=True).p for seed in range(400)])
    assert 0.02 <= np.mean(p < 0.05) <= 0.08


def test_one_look_pays_for_a_small_reference() -> None:
    """300 reference patients and 1,000 labels: the reference's bins are the larger error."""
    p = np.array([one_look_test(*world(seed, 1000, 0, m=300), is_comparable=True).p for seed in range(300)])
    assert 0.015 <= np.mean(p < 0.05) <= 0.09


def estimated(rng: np.random.Generator) -> Estimate:
    """A prevalence as about 1,000 unlabelled patients tell it."""
    truth, se = 0.5, 0.03
    value = rng.normal(truth, se)
    return Estimate(value, value - 1.96 * se, value + 1.96 * se)


def test_another_prevalence_is_no_change_of_meaning_once_it_is_known_or_estimated() -> None:
    rng = np.random.default_rng(7)
    ever, once, uncorrected = [], [], []
    for seed in range(150):
        case = world(seed, 400, 0, prevalence=0.5)
        told = estimated(rng)
        ever.append((log_e_path(*case, told) >= ENOUGH).any())
        once.append(one_look_test(*case, is_comparable=True, prevalence=told).p < 0.05)
        uncorrected.append((log_e_path(*case) >= ENOUGH).any())
    assert np.mean(ever) <= 0.05
    assert 0.01 <= np.mean(once) <= 0.10
    assert np.mean(uncorrected) >= 0.5


@pytest.mark.parametrize("test", [one_look_test, betting_test])
@pytest.mark.parametrize(("n", "told"), [(100, None), (300, None), (300, Estimate(0.3, 0.25, 0.35))])
def test_a_change_as_large_as_the_least_detectable_is_found_in_four_of_five_sites(
    test: Test, n: int, told: Estimate | None
) -> None:
    least = [test(*world(seed, n, 0), is_comparable=True, prevalence=told).least_detectable for seed in range(10)]
    typical = float(np.median([share for share in least if share is not None]))
    found = [test(*world(1000 + seed, n, typical), is_comparable=True, prevalence=told).verdict for seed in range(150)]
    assert 0.68 <= np.mean([verdict == "changed" for verdict in found]) <= 0.95


@pytest.mark.parametrize("test", [one_look_test, betting_test])
def test_nothing_is_claimed_while_acquisition_differs(test: Test) -> None:
    case = world(3, 400, 0.6)
    found: ConceptTest = test(*case, is_comparable=False)
    assert found.p < 1e-3
    assert found.verdict == "not_excluded"
    assert "scans or patients differ" in found.because
    assert test(*case, is_comparable=True).verdict == "changed"


@pytest.mark.parametrize("test", [one_look_test, betting_test])
def test_what_is_not_found_is_not_excluded_and_the_least_detectable_change_is_named(test: Test) -> None:
    found: ConceptTest = test(*world(4, 200, 0), is_comparable=True)
    assert found.verdict == "not_excluded"
    assert found.least_detectable is not None
    assert f"{found.least_detectable:.0%} of positives" in found.because


def test_five_labels_cannot_show_even_all_positives_relabelled() -> None:
    assert betting_test(*world(5, 5, 0), is_comparable=True).least_detectable is None


def test_more_labels_show_smaller_changes() -> None:
    for test in (one_look_test, betting_test):
        few, many = (test(*world(6, n, 0), is_comparable=True).least_detectable for n in (100, 800))
        assert few is not None
        assert many is not None
        assert many < few / 2


def test_the_excess_of_positives_covers_what_was_planted() -> None:
    found = [one_look_test(*world(seed, 300, 0.4), is_comparable=True).excess for seed in range(100)]
    assert np.mean([e.value for e in found]) == pytest.approx(-0.12, abs=0.01)
    assert np.mean([e.low <= -0.12 <= e.high for e in found]) >= 0.9


@pytest.mark.parametrize("test", [one_look_test, betting_test])
def test_no_labels_are_refused(test: Test) -> None:
    reliability, _, _ = world(1, 1, 0)
    with pytest.raises(EmptySample):
        test(reliability, np.empty(0), np.empty(0), is_comparable=True)


def test_scores_beyond_the_reference_fall_into_its_outer_bins() -> None:
    reliability, _, _ = world(1, 1, 0)
    found = betting_test(reliability, np.array([-1e9, 1e9]), np.array([0.0, 1.0]), is_comparable=True)
    assert np.isfinite([found.p, found.excess.value, found.excess.low, found.excess.high]).all()
