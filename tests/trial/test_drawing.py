"""Recorded chances are exact, never 0, and only grow; weighing by their inverse undoes what was informed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from platform_core.manifest.serving import Calibration
from platform_core.shift.bound import labelled_risk
from platform_core.shift.labels.labelled_prevalence import prevalence_from_labels
from platform_core.shift.risk import log_losses
from platform_core.shift.scores import ScoredScans
from platform_core.trial.drawing import distances, informed_shares, raised, random_numbers

UNIT = st.floats(0, 1, allow_subnormal=False)
SHARES = st.floats(1e-3, 1)


def keys(n: int) -> list[str]:
    return [f"s{i}" for i in range(n)]


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(arrays(float, n, elements=UNIT), arrays(float, n, elements=SHARES))),
    st.integers(1, 80),
)
def test_chances_rise_by_what_is_wanted_and_nobody_s_falls(given_: tuple[np.ndarray, np.ndarray], n_more: int) -> None:
    so_far, shares = given_
    found = raised(so_far, shares, n_more)
    assert (found >= so_far).all()
    assert (found > 0).all()
    assert (found <= 1).all()
    assert (found - so_far).sum() == pytest.approx(min(n_more, (1 - so_far).sum()), abs=1e-6)


def test_a_first_uniform_drawing_asks_for_exactly_as_many_with_one_chance_for_all() -> None:
    chance = raised(np.zeros(237), np.full(237, 1 / 237), 60)
    assert np.unique(chance).tolist() == pytest.approx([60 / 237])
    for seed in "abcdefgh":
        assert (random_numbers(keys(237), seed) < chance).sum() == 60


def test_a_number_is_uniform_and_its_own_whatever_the_order() -> None:
    some = random_numbers(keys(10), "x")
    assert random_numbers(keys(10)[::-1], "x").tolist() == some[::-1].tolist()
    drawn = np.array([random_numbers(keys(10), str(seed)) for seed in range(2000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs((drawn < 0.13).mean(axis=0) - 0.13).max() < 0.03


def test_patients_who_come_later_catch_up_before_others_are_asked_more() -> None:
    so_far = np.array([0.5] * 100 + [0.0] * 100)
    assert raised(so_far, np.full(200, 1 / 200), 40).tolist() == pytest.approx([0.5] * 100 + [0.4] * 100)


def test_an_informed_share_is_at_least_half_of_the_uniform_one() -> None:
    rng = np.random.default_rng(0)
    found = informed_shares(np.append(rng.random(99), np.nan), np.append(rng.exponential(size=99), np.nan))
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0.5 / 100
    assert informed_shares(np.full(4, np.nan), np.full(4, np.nan)).tolist() == [0.25] * 4
    assert informed_shares(np.zeros(4), np.ones(4)).tolist() == [0.25] * 4


def test_what_is_unsure_and_new_is_asked_for_more_often() -> None:
    found = informed_shares(np.array([0.5, 0.5, 0.99, 0.01]), np.array([2.0, 1.0, 2.0, 2.0]))
    assert found[0] > found[1] > found[2]
    assert found[2] == pytest.approx(found[3])


def test_distances_are_to_the_nearest_labelled_scan() -> None:
    rng = np.random.default_rng(0)
    here, there = rng.normal(size=(1500, 3)), rng.normal(size=(40, 3))
    slow = np.sqrt(((here[:, None] - there[None]) ** 2).sum(axis=2)).min(axis=1)
    assert distances(here, there) == pytest.approx(slow)
    assert distances(here, np.empty((0, 3))).tolist() == [1.0] * 1500
    assert distances(here, np.empty((5, 0))).tolist() == [1.0] * 1500


PLAIN = Calibration(logit_offset=0.0, prevalence=0.3, threshold=0.5)


def world(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Labels and overconfident scores of one site: the truth that a request of some of them estimates."""
    rng = np.random.default_rng(5)
    y = (rng.random(n) < 0.25).astype(float)
    return y, 1.5 * (rng.normal(size=n) + 1.6 * y - 1.6)


def estimates(n_draws: int) -> np.ndarray:
    """(draws, 4): prevalence and risk of an informed request after a uniform one, weighted and as if drawn evenly."""
    y, score = world()
    n, p = len(y), PLAIN.probability(score)
    uniform = raised(np.zeros(n), np.full(n, 1 / n), 50)
    chance = raised(uniform, informed_shares(p, np.abs(score) + 1), 60)
    patients = np.array(keys(n))
    told = []
    for seed in range(n_draws):
        rows = random_numbers(patients.tolist(), str(seed)) < chance
        none, known = np.empty((rows.sum(), 0)), np.ones(rows.sum(), bool)
        scans = [
            ScoredScans(patients[rows], patients[rows], known, y[rows], score[rows], none, how)
            for how in (chance[rows], None)
        ]
        risks = [float(np.average(log_losses(s.y, PLAIN.probability(s.score)), weights=s.weight)) for s in scans]
        prevalence = float(np.average(y[rows], weights=scans[0].weight))
        told.append([prevalence, y[rows].mean(), *risks])
    return np.array(told)


def test_an_informed_request_tells_prevalence_and_risk_without_bias_once_weighted() -> None:
    y, score = world()
    risk = log_losses(y, PLAIN.probability(score)).mean()
    found = estimates(800)
    error = found.mean(axis=0) - [y.mean(), y.mean(), risk, risk]
    z = error / (found.std(axis=0) / np.sqrt(len(found)))
    assert np.abs(error[[0, 2]]).max() < 0.005
    assert np.abs(z[[0, 2]]).max() < 4
    assert np.abs(z[[1, 3]]).min() > 10
    assert error[1] > 0.03
    assert error[3] > 0.05


def test_the_risk_and_prevalence_that_are_reported_are_the_weighted_ones() -> None:
    y, score = world(120)
    chance = np.where(np.abs(score) < 2, 0.8, 0.2)
    patients, known = np.array(keys(120)), np.ones(120, bool)
    scans = ScoredScans(patients, patients, known, y, score, np.empty((120, 0)), chance)
    found = labelled_risk(scans, PLAIN)
    assert found is not None
    losses = log_losses(y, PLAIN.probability(score))
    assert found.value == pytest.approx((losses / chance).sum() / (1 / chance).sum())
    assert prevalence_from_labels(y, chance).value == pytest.approx((y / chance).sum() / (1 / chance).sum())


def test_one_chance_for_all_changes_no_estimate() -> None:
    y, score = world(120)
    patients, known, none = np.array(keys(120)), np.ones(120, bool), np.empty((120, 0))
    stated, not_stated = (
        labelled_risk(ScoredScans(patients, patients, known, y, score, none, chance), PLAIN)
        for chance in (np.full(120, 0.1), None)
    )
    assert stated is not None
    assert not_stated is not None
    assert (stated.value, stated.low, stated.high) == pytest.approx((not_stated.value, not_stated.low, not_stated.high))


def test_a_label_whose_chance_is_not_stated_stands_for_its_own_scan() -> None:
    patients, none = np.array(keys(3)), np.empty((3, 0))
    scans = ScoredScans(patients, patients, np.ones(3, bool), np.ones(3), np.ones(3), none, np.array([0.25, np.nan, 1]))
    assert scans.weight.tolist() == [4, 1, 1]
    assert scans.where(np.array([False, True, True])).weight.tolist() == [1, 1]
