import numpy as np
import pytest
import torch

from platform_core.learn.pretrain import pretrain
from platform_core.learn.procedural import Truth, _power_law, draw

SHAPES = [(32, 32), (12, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_numbers_draw_equal_images_in_the_range_of_a_window(shape: tuple[int, ...]) -> None:
    first, again = (draw(shape, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert first[0].shape == shape
    assert first[0].dtype == np.float32
    assert 0 <= first[0].min() < first[0].max() <= 1


def test_half_of_the_images_have_a_spot_and_only_those_say_what_it_is_like() -> None:
    told = [draw((32, 32), np.random.default_rng([5, i]))[1] for i in range(400)]
    assert 0.42 < np.mean([truth.has_spot for truth in told]) < 0.58
    without = [truth for truth in told if not truth.has_spot]
    assert {(truth.is_bright, truth.size, truth.contrast) for truth in without} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_noise_has_the_spectrum_that_is_asked_for(alpha: float) -> None:
    slopes = [_slope(_power_law((64, 64), alpha, np.random.default_rng([6, i]))) for i in range(20)]
    assert np.mean(slopes) == pytest.approx(alpha, abs=0.45)  # a window leaks where the spectrum is steep


def _slope(image: np.ndarray) -> float:
    window = np.hanning(len(image))[:, None] * np.hanning(len(image))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(len(image)), np.fft.fftfreq(len(image))))
    band = (f > 0.03) & (f < 0.15)
    return -float(np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0])


def test_the_same_seed_pretrains_the_same_weights_and_they_move() -> None:
    torch.set_num_threads(1)
    once, twice = (pretrain(2, 64, 1, seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(once[name], twice[name]) for name in once)
    other = pretrain(2, 64, 1, seed=2).state_dict()
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_every_truth_is_a_number() -> None:
    _, truth = draw((32, 32), np.random.default_rng(0))
    assert all(isinstance(getattr(truth, name), float) for name in Truth.__dataclass_fields__)
