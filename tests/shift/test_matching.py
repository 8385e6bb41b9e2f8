import numpy as np
import pytest

from platform_core.shift.matching import Sides, codes_of, excess, is_different
from platform_core.shift.reweighted import class_weights


def test_unchanged_features_differ_no_more_often_than_promised_also_with_weights() -> None:
    """Six features, alpha 5 % for all together; every second patient of the reference counts four times."""
    rng = np.random.default_rng(0)
    y = np.tile([0.0, 1.0], 200)
    weights = class_weights(y, 0.8)
    alarms = [
        any(is_different(rng.normal(size=400), weights, rng.normal(size=150), 6) for _ in range(6)) for _ in range(200)
    ]
    assert np.mean(alarms) <= 0.05 + 2 * 0.0155


def test_values_of_both_sides_share_their_numbers_and_missing_is_one_of_them() -> None:
    there, here = codes_of(["a", None, "b"], ["b", "c", None])
    assert there.tolist() == [0, 1, 2]
    assert here.tolist() == [2, 3, 1]


def test_a_difference_that_a_field_makes_is_gone_among_its_like_and_one_it_does_not_make_stays() -> None:
    rng = np.random.default_rng(1)
    there, here = (rng.random(600) < 0.2).astype(int), (rng.random(600) < 0.8).astype(int)
    reference, current = (np.stack([rng.normal(3 * k, 1), rng.normal(size=600)], axis=1) for k in (there, here))
    current[:, 1] += 1
    pair = codes_of(there.tolist(), here.tolist())
    weights = np.full(600, 1 / 600)
    made, other = (Sides(reference[:, [k]], weights, current[:, [k]], {"kernel": pair}) for k in (0, 1))
    assert excess(made, []) > 0.4
    assert excess(made, ["kernel"]) < 0.05
    assert excess(other, ["kernel"]) == pytest.approx(excess(other, []), abs=0.08)


def test_patients_unlike_all_of_the_reference_count_as_explained() -> None:
    rng = np.random.default_rng(2)
    reference, current = rng.normal(size=(300, 1)), rng.normal(2, 1, size=(300, 1))
    values = ["old"] * 150 + ["new"] * 150
    sides = Sides(reference, np.full(300, 1 / 300), current, {"model": codes_of(["old"] * 300, values)})
    assert excess(sides, ["model"]) == pytest.approx(excess(sides, []) / 2, rel=0.15)
