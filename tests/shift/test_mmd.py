import numpy as np
import pytest

from platform_core.errors import EmptySample
from platform_core.shift.mmd import _kernel, _mmd_squared, mmd_test


def test_value_follows_the_formula_of_gretton() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(7, 3)) + 1
    pooled = np.vstack([x, y])
    pairs = [np.sum((a - b) ** 2) for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j]
    width = float(np.median(pairs))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * width)))

    expected = (
        sum(k(x[i], x[j]) for i in range(9) for j in range(9) if i != j) / 72
        + sum(k(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / 42
        - 2 * sum(k(a, b) for a in x for b in y) / 63
    )
    assert mmd_test(x, y).value == pytest.approx(expected, abs=1e-12)


def test_one_population_is_found_different_as_often_as_promised() -> None:
    found = [mmd_test(r.normal(size=(60, 4)), r.normal(size=(40, 4))).p for r in map(np.random.default_rng, range(200))]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.10


def test_two_populations_are_found_different() -> None:
    rng = np.random.default_rng(1)
    assert mmd_test(rng.normal(size=(100, 4)), rng.normal(size=(100, 4)) + 0.7).p <= 0.01


def test_the_same_seed_gives_the_same_answer_also_where_rows_are_drawn() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(700, 2)), rng.normal(size=(600, 2))
    assert mmd_test(x, y, seed=1) == mmd_test(x, y, seed=1)
    assert mmd_test(x, y, seed=1) != mmd_test(x, y, seed=2)


def test_constant_embeddings_are_no_difference() -> None:
    assert mmd_test(np.ones((20, 3)), np.ones((20, 3))).p == 1


def test_one_row_is_too_few() -> None:
    with pytest.raises(EmptySample):
        mmd_test(np.ones((20, 3)), np.ones((1, 3)))


def test_the_interval_is_that_of_leaving_one_patient_out() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) + 0.5
    kernel, is_current = _kernel(np.vstack([x, y])), np.arange(21) >= 12
    variance = 0.0
    for group in (~is_current, is_current):
        kept = [np.delete(np.arange(21), row) for row in np.flatnonzero(group)]
        values = np.array(
            [_mmd_squared(kernel[np.ix_(rows, rows)], is_current[rows][None].astype(float))[0] for rows in kept]
        )
        variance += (len(values) - 1) / len(values) * float(((values - values.mean()) ** 2).sum())
    found = mmd_test(x, y)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(variance))


def test_the_interval_holds_the_spread_of_the_statistic() -> None:
    drawn = [
        mmd_test(r.normal(size=(60, 8)), r.normal(0.4, 1, size=(60, 8))) for r in map(np.random.default_rng, range(100))
    ]
    widths = [(test.high - test.low) / (2 * 1.96) for test in drawn]
    assert np.mean(widths) == pytest.approx(np.std([test.value for test in drawn]), rel=0.25)
