import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from platform_core.errors import EmptySample
from platform_core.shift.reweighted import (
    MOST_PATIENTS,
    ReweightedDistance,
    class_draw,
    class_weights,
    reweighted_distance,
    weighted_ks,
)
from platform_core.shift.risk import Reals

NAMES = ("noise_hu", "q50_hu", "texture")


def side(rng: np.random.Generator, n: int, prevalence: float, noise: float = 10.0) -> tuple[Reals, Reals]:
    """Texture is of the disease, noise of the scanner."""
    y = (np.arange(n) < round(n * prevalence)).astype(float)
    return np.stack([rng.normal(noise, 1, n), rng.normal(40, 5, n), rng.normal(1.5 * y, 1)], axis=1), y


def distance(
    seed: int, *, truth: float = 0.3, known: float | None = 0.3, noise: float = 10.0, n: int = 150
) -> ReweightedDistance:
    rng = np.random.default_rng(seed)
    reference, y = side(rng, 300, 0.3)
    current, _ = side(rng, n, truth, noise)
    return reweighted_distance(NAMES, reference, y, current, prevalence=known, seed=seed)


def test_p_is_as_small_as_promised_with_the_same_and_with_another_prevalence() -> None:
    for truth in (0.3, 0.65):
        p = np.array([distance(seed, truth=truth, known=truth).p for seed in range(120)])
        assert np.mean(p <= 0.05) <= 0.05 + 2 * 0.02
        assert np.mean(p <= 0.5) >= 0.35


def test_another_prevalence_passes_for_acquisition_until_the_reference_is_weighted_to_it() -> None:
    raw = [distance(seed, truth=0.75, known=None) for seed in range(20)]
    weighted = [distance(seed, truth=0.75, known=0.75) for seed in range(20)]
    assert np.mean([found.p < 0.01 for found in raw]) >= 0.9
    assert all(found.feature == "texture" for found in raw)
    assert np.mean([found.p < 0.01 for found in weighted]) <= 0.1


def test_a_noisier_scanner_is_found_named_and_no_more_likely_than_one_in_all_permutations() -> None:
    found = distance(1, truth=0.65, known=0.65, noise=11.0)
    assert found.feature == "noise_hu"
    assert found.p == pytest.approx(1 / 500)
    assert found.value > found.by_chance
    assert list(found.each.values()) == sorted(found.each.values(), reverse=True)


def test_the_distance_by_chance_is_what_unchanged_sites_show() -> None:
    """In the mean over sites; the reference's distance is told with all its rows, so it is a little smaller."""
    found = [distance(seed) for seed in range(40)]
    assert np.mean([f.value for f in found]) == pytest.approx(np.mean([f.by_chance for f in found]), abs=0.02)


@given(
    a=st.lists(st.integers(0, 9), min_size=2, max_size=40),
    b=st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
@settings(deadline=None)
def test_equal_weights_give_the_usual_distance(a: list[int], b: list[int]) -> None:
    """Oracle: SciPy; whole numbers make ties."""
    there, here = np.array(a, dtype=float), np.array(b, dtype=float)
    assert weighted_ks(there, np.full(len(a), 1 / len(a)), here) == pytest.approx(ks_2samp(there, here).statistic)


def test_the_permuted_statistic_is_the_usual_distance_on_the_first_split() -> None:
    from platform_core.shift.reweighted import _largest

    rng = np.random.default_rng(3)
    x, y = np.round(rng.normal(size=(60, 2)), 1), np.round(rng.normal(size=(40, 2)), 1)
    x[:10, 0] = np.nan
    _, plain = _largest(np.vstack([x, y]), (np.arange(100) >= 60)[None])
    expected = max(ks_2samp(x[10:, 0], y[:, 0]).statistic, ks_2samp(x[:, 1], y[:, 1]).statistic)
    assert plain[0] == pytest.approx(expected)


def test_weights_make_up_the_prevalence_and_leave_the_unlabelled_out() -> None:
    y = np.array([1.0] * 20 + [0.0] * 60 + [np.nan] * 5)
    weights = class_weights(y, 0.5)
    assert weights[y == 1].sum() == pytest.approx(0.5)
    assert weights.sum() == pytest.approx(1)
    assert (weights[np.isnan(y)] == 0).all()
    assert len(set(class_weights(y, None))) == 1


@pytest.mark.parametrize("prevalence", [0.0, 0.1, 0.5, 1.0])
def test_the_largest_part_with_a_prevalence_has_it_and_uses_up_one_class(prevalence: float) -> None:
    y = np.array([1.0] * 30 + [0.0] * 70)
    rows = class_draw(y, prevalence, np.random.default_rng(0))
    assert y[rows].mean() == pytest.approx(prevalence, abs=0.01)
    assert len(set(rows)) == len(rows)
    assert (y[rows] == 1).sum() == 30 or (y[rows] == 0).sum() == 70


def test_a_feature_that_one_side_lacks_is_left_out_and_without_any_it_is_refused() -> None:
    rng = np.random.default_rng(0)
    (reference, y), (current, _) = side(rng, 100, 0.3), side(rng, 100, 0.3)
    current[:, 0] = np.nan
    assert set(reweighted_distance(NAMES, reference, y, current, prevalence=0.3).each) == {"q50_hu", "texture"}
    with pytest.raises(EmptySample):
        reweighted_distance(NAMES, reference, y, np.full((100, 3), np.nan), prevalence=0.3)


def test_a_constant_feature_is_no_distance() -> None:
    y = np.repeat([0.0, 1.0], 50)
    found = reweighted_distance(["kvp"], np.full((100, 1), 120.0), y, np.full((40, 1), 120.0), prevalence=0.5)
    assert (found.value, found.p) == (0, 1)


def test_the_same_seed_gives_the_same_answer() -> None:
    assert distance(7) == distance(7)


def test_a_large_reference_is_weighted_whole_and_permuted_in_part() -> None:
    rng = np.random.default_rng(0)
    reference, y = side(rng, 5000, 0.3)
    current, _ = side(rng, 200, 0.3, noise=10.5)
    found = reweighted_distance(NAMES, reference, y, current, prevalence=0.3)
    assert found.n_reference == MOST_PATIENTS
    assert found.value == pytest.approx(weighted_ks(reference[:, 0], class_weights(y, 0.3), current[:, 0]))
    assert found.p < 0.01
