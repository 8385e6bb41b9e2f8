import numpy as np
import pytest
from scipy import stats

from platform_core.shift.compare import by_feature, compare, ks_distance, long_table
from platform_core.shift.contract import LONG


def test_compares_what_both_samples_have() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=40) + 1
    before = long_table({"a": x, "b": x, "few": x}, ["a", "b", "few"])
    after = long_table({"b": y, "c": y, "few": y[:5]}, ["b", "c", "few"])
    (found,) = compare(before, after)
    assert (found.feature, found.n_before, found.n_after) == ("b", 50, 40)
    assert found.distance.value == pytest.approx(float(stats.ks_2samp(x, y).statistic))
    assert found.before == pytest.approx(float(np.median(x)))
    assert found.after == pytest.approx(float(np.median(y)))
    assert set(found.values) == {"ks", "psi", "wasserstein", "jensen_shannon"}


def test_p_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=120), rng.normal(size=100) + 0.2
    (found,) = compare(long_table({"a": x}, ["a"]), long_table({"a": y}, ["a"]))
    assert found.p == pytest.approx(float(stats.ks_2samp(x, y, method="asymp").pvalue), abs=1e-9)


def test_nothing_in_common_is_nothing_to_compare() -> None:
    assert compare(LONG.empty_table(), long_table({"a": np.ones(30)}, ["a"])) == ()


def test_a_constant_feature_has_not_moved() -> None:
    (found,) = compare(long_table({"a": np.ones(30)}, ["a"]), long_table({"a": np.ones(40)}, ["a"]))
    assert (found.distance.value, found.p) == (0, 1)


def test_a_feature_that_was_constant_and_is_another_constant_has_moved_all_the_way() -> None:
    (found,) = compare(long_table({"a": np.ones(30)}, ["a"]), long_table({"a": 2 * np.ones(40)}, ["a"]))
    assert found.distance.value == 1
    assert found.p < 1e-9
    assert found.values["wasserstein"] is None


def test_long_tables_are_taken_apart_as_they_were_put_together() -> None:
    features = {"b": np.array([3.0, 1.0]), "a": np.array([2.0])}
    found = by_feature(long_table(features, ["b", "a"]))
    assert {name: values.tolist() for name, values in found.items()} == {"a": [2.0], "b": [3.0, 1.0]}


def test_the_interval_covers_the_true_distance_nearly_as_often_as_it_says() -> None:
    truth = 2 * stats.norm.cdf(0.5) - 1  # the largest gap of N(0, 1) and N(1, 1), half way between them
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = ks_distance(rng.normal(size=150), rng.normal(size=150) + 1)
        hits += found.low <= truth <= found.high
    assert hits >= 170
