"""The map of one site onto the reference."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from platform_core.harmonize.contract import Learned
from platform_core.harmonize.histogram_match import HistogramMatch, learn_landmarks, map_to_target
from platform_core.imaging.volume import Volume, Voxels

PLAIN = HistogramMatch()
Distortion = Callable[[Voxels], Voxels]


def patient(seed: int, *, lesion: bool = False, distort: Distortion = lambda v: v) -> Volume:
    """Tissue of several kinds in a dark background, arbitrary units."""
    rng = np.random.default_rng(seed)
    voxels = np.abs(rng.normal(0, 4, (6, 40, 40)))
    voxels[:, 5:35, 5:35] = 100 + 60 * rng.beta(2, 3, (6, 30, 30)) + 15 * np.sin(np.arange(30) / 4)
    if lesion:
        voxels[2:5, 15:21, 15:21] += 50
    return Volume(distort(voxels).astype(np.float32))


def site(distort: Distortion = lambda v: v, *, first: int = 0, n_sick: int = 0, n: int = 20) -> list[Volume]:
    return [patient(first + k, lesion=k < n_sick, distort=distort) for k in range(n)]


def brighter(voxels: Voxels) -> Voxels:
    """Gain, offset and gamma: monotone, as another scanner's scaling would be."""
    return 40 + 900 * (np.maximum(voxels, 0) / 250) ** 0.7


@pytest.fixture(scope="module")
def reference() -> Learned:
    return learn_landmarks(PLAIN, site(), None)


@pytest.fixture(scope="module")
def learned(reference: Learned) -> Learned:
    return learn_landmarks(PLAIN, site(brighter, first=100), reference)


def body(volume: Volume) -> Voxels:
    return volume.voxels[:, 5:35, 5:35].ravel()


def test_the_reference_maps_onto_itself(reference: Learned) -> None:
    volume = patient(0)
    assert np.array_equal(map_to_target(volume, PLAIN, reference).voxels, volume.voxels)


def test_another_scaling_is_undone_on_scans_that_were_not_fitted_on(learned: Learned) -> None:
    truth, seen = patient(500), patient(500, distort=brighter)
    back = map_to_target(seen, PLAIN, learned)
    assert ks_2samp(body(seen), body(truth)).statistic > 0.9
    assert ks_2samp(body(back), body(truth)).statistic < 0.05
    assert np.abs(body(back) - body(truth)).mean() < 2


def test_background_stays_background(learned: Learned) -> None:
    back = map_to_target(patient(500, distort=brighter), PLAIN, learned)
    assert abs(float(np.median(back.voxels[:, :4]) - np.median(patient(500).voxels[:, :4]))) < 5


def test_a_lesion_keeps_its_contrast(learned: Learned) -> None:
    """What matching each scan to a common histogram would eat."""
    place = (slice(2, 5), slice(15, 21), slice(15, 21))
    sick, well = (
        map_to_target(patient(7, lesion=lesion, distort=brighter), PLAIN, learned) for lesion in (True, False)
    )
    assert float((sick.voxels[place] - well.voxels[place]).mean()) == pytest.approx(50, abs=4)


def test_healthy_voxels_do_not_know_of_the_lesion(learned: Learned) -> None:
    sick, well = (
        map_to_target(patient(7, lesion=lesion, distort=brighter), PLAIN, learned) for lesion in (True, False)
    )
    assert np.array_equal(sick.voxels[:, :14], well.voxels[:, :14])


def test_more_sick_patients_move_the_map_little(reference: Learned) -> None:
    few = learn_landmarks(PLAIN, site(brighter, first=100, n_sick=4), reference)
    many = learn_landmarks(PLAIN, site(brighter, first=100, n_sick=14), reference)
    sick = patient(7, lesion=True, distort=brighter)
    difference = map_to_target(sick, PLAIN, few).voxels - map_to_target(sick, PLAIN, many).voxels
    assert np.abs(difference).max() < 5


@given(st.lists(st.floats(-3000, 5000, width=32), min_size=2, max_size=50))
@settings(max_examples=60, deadline=None)
def test_reorders_nothing(values: list[float]) -> None:
    landmarks = {"site": [-5.0, 0.0, 10.0, 10.0, 60.0, 61.0], "target": [-900.0, -3.0, 20.0, 21.0, 22.0, 500.0]}
    ordered = np.sort(np.array(values, dtype=np.float32))
    mapped = map_to_target(Volume(ordered.reshape(1, 1, -1)), PLAIN, landmarks).voxels.ravel()
    assert (np.diff(mapped) >= 0).all()


def test_end_segments_go_on_beyond_the_landmarks() -> None:
    landmarks = {"site": [0.0, 10.0, 20.0], "target": [0.0, 20.0, 50.0]}
    volume = Volume(np.array([[[-10.0, 5.0, 15.0, 30.0]]], dtype=np.float32))
    assert map_to_target(volume, PLAIN, landmarks).voxels.ravel().tolist() == [-20.0, 10.0, 35.0, 80.0]


def test_a_site_of_one_value_is_shifted() -> None:
    landmarks = {"site": [5.0, 5.0], "target": [8.0, 8.0]}
    volume = Volume(np.array([[[4.0, 5.0, 7.0]]], dtype=np.float32))
    assert map_to_target(volume, PLAIN, landmarks).voxels.ravel().tolist() == [7.0, 8.0, 10.0]


def test_constant_scans_are_left_out_of_the_sample(reference: Learned) -> None:
    empty = Volume(np.full((6, 40, 40), 3.0, dtype=np.float32))
    assert learn_landmarks(PLAIN, [empty, *site(), empty], None) == reference


def test_where_nothing_can_be_learned_nothing_is_changed(reference: Learned) -> None:
    empty = Volume(np.full((6, 40, 40), 3.0, dtype=np.float32))
    learned = learn_landmarks(PLAIN, [empty], reference)
    assert np.array_equal(map_to_target(patient(0), PLAIN, learned).voxels, patient(0).voxels)


def test_a_site_fitted_again_still_aims_at_the_first_reference(learned: Learned, reference: Learned) -> None:
    again = learn_landmarks(PLAIN, site(first=300), learned)
    assert again["target"] == reference["target"]


def test_large_scans_weigh_no_more_than_small_ones() -> None:
    small = patient(0, distort=brighter)
    large = Volume(np.tile(patient(1).voxels, (4, 1, 1)))
    once, tiled = (learn_landmarks(PLAIN, [small, other], None) for other in (patient(1), large))
    assert once["site"] == pytest.approx(tiled["site"], rel=0.02, abs=1)


def test_a_stated_threshold_makes_the_foreground() -> None:
    volume = Volume(np.linspace(-1000, 1000, 8 * 20 * 20, dtype=np.float32).reshape(8, 20, 20))
    learned = learn_landmarks(HistogramMatch(foreground_above=-500.0), [volume], None)
    assert learned["site"][0] == pytest.approx(-750, abs=2)
    assert learned["site"][1] == pytest.approx(-500 + 0.05 * 1500, abs=2)
