"""The world of the detection experiment: operators do what they say, and samples are what they are drawn as."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.features.measure import FEATURES
from platform_core.imaging.volume import Volume
from tests.benchmarks.detection.labels import median_interval
from tests.benchmarks.detection.operators import (
    NONE,
    SCANNER_OPERATORS,
    STRENGTHS,
    relabelled_at_random,
    relabelled_by_size,
    tilted_weights,
)
from tests.benchmarks.detection.pool import Pool, Size, World, features_of, worlds_of_pool
from tests.benchmarks.detection.reader import Reader
from tests.benchmarks.detection.world import draw_patient, render

SOME = [draw_patient(number) for number in range(9_000_000, 9_000_007)]
SMALL = Size(name="small", n_patients=300, n_shifted=100, n_mixed=100, n_trained=0)


def small_pool() -> Pool:
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.4).astype(float)
    worlds = dict.fromkeys(worlds_of_pool(), np.zeros((100, 1)))
    flat = {world: values[:, 0] for world, values in worlds.items()}
    return Pool(
        size=SMALL,
        features=("a",),
        values=worlds,
        harmonized=worlds,
        score=flat,
        embedding=worlds,
        y=y,
        severity=rng.random(300) * y,
    )


@pytest.mark.parametrize("world", [NONE, ("bias_field", 1)])
def test_the_same_patient_gives_the_same_scan(world: World) -> None:
    first, again = (render(draw_patient(9_000_000), *world) for _ in range(2))
    assert np.array_equal(first.voxels, again.voxels)
    assert first.geometry == again.geometry


MOVES = {
    "psf": ("edge_width_mm", 1),
    "dose": ("noise_haar_hu", 1),
    "spacing": ("spacing_x_mm", 1),
    "thickness": ("spacing_z_mm", 1),
    "gamma": ("q50_hu", 1),
    "bias_field": ("bias_field_range_hu", 1),
    "sharp_kernel": ("edge_width_mm", -1),
}


@pytest.mark.parametrize("name", SCANNER_OPERATORS)
def test_an_operator_moves_what_it_is_named_after(name: str) -> None:
    feature, way = MOVES[name]
    place = list(FEATURES).index(feature)
    scans = [[features_of(render(one, *world))[place] for one in SOME] for world in (NONE, (name, 2))]
    native, strong = np.median(scans, axis=1)
    assert way * (strong - native) > 0.05 * native


@pytest.mark.parametrize(("strength", "more"), list(zip(STRENGTHS, (0.83, 0.53, 0.22), strict=True)))
def test_less_dose_is_more_noise_in_air(strength: int, more: float) -> None:
    def noise(volume: Volume) -> float:
        return float(volume.voxels[:, :3, :].std())

    # air is cut off at -1024 HU, so noise grows a little less than 1 / sqrt(dose)
    many = [
        noise(render(patient, "dose", strength)) / noise(render(patient))
        for patient in map(draw_patient, range(9_000_000, 9_000_012))
    ]
    assert np.median(many) == pytest.approx(1 / np.sqrt(more), rel=0.15)


@given(st.integers(20, 200), st.sampled_from([0.5, 0.75, 0.9, 1.1, 1.25, 1.5]))
def test_a_tilt_moves_the_mean_as_asked(n: int, factor: float) -> None:
    severity = np.random.default_rng(n).random(n)
    weights = tilted_weights(severity, factor)
    assert weights.sum() == pytest.approx(1)
    assert np.average(severity, weights=weights) == pytest.approx(factor * severity.mean(), rel=1e-6)


def test_relabelling_takes_positives_only() -> None:
    rng, y = np.random.default_rng(1), np.repeat([0.0, 1.0], 1000)
    severity = rng.random(2000)
    assert relabelled_at_random(y, 1, rng)[1000:].mean() == pytest.approx(0.75, abs=0.05)
    assert relabelled_by_size(y, severity, 1)[1000:].mean() == pytest.approx(0.70, abs=0.05)
    assert not relabelled_at_random(y, 2, rng)[:1000].any()


def test_a_draw_holds_nobody_twice_and_nobody_who_is_left_out() -> None:
    pool, rng = small_pool(), np.random.default_rng(2)
    site = pool.pick(rng, 50, 0.3, np.arange(pool.n_of(("psf", 0))))
    others = pool.pick(rng, 100, 0.3, pool.without(site))
    assert site.max() < 100
    assert len(np.unique(np.append(site, others))) == 150


def test_a_draw_has_the_prevalence_that_was_asked_for() -> None:
    pool = small_pool()
    shares = [pool.y[pool.pick(np.random.default_rng(i), 100, 0.3)].mean() for i in range(100)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)


def test_a_reader_learns_which_answers_are_positive() -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(400) < 0.4).astype(float)
    answers = rng.normal(size=(400, 8)) + 2 * y[:, None]
    reader = Reader.train(answers, y)
    score = reader.score(answers)
    assert score[y == 1].min() > np.median(score[y == 0])
    assert (1 / (1 + np.exp(-score))).mean() == pytest.approx(y.mean(), abs=0.01)


def test_the_interval_of_a_median_holds_it() -> None:
    low, high = median_interval(np.arange(1.0, 102.0))
    assert low < 51 < high
    assert (low, high) == (41, 61)
