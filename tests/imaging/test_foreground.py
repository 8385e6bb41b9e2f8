"""What is foreground, and what is not even two values."""

import numpy as np
import pytest

from platform_core.imaging.foreground import foreground, otsu_threshold


def test_the_last_bit_of_a_constant_image_is_no_contrast() -> None:
    flat = np.full((4, 16, 16), 1000.0, dtype=np.float32)
    flat[0, 0, 0] = np.nextafter(np.float32(1000), np.float32(2000))
    assert otsu_threshold(flat) is None
    assert not foreground(flat, "MR").any()


def test_two_values_are_parted() -> None:
    two = np.repeat([1.0, 5.0], 50).reshape(1, 10, 10)
    threshold = otsu_threshold(two)
    assert threshold is not None
    assert 1 <= threshold < 5


@pytest.mark.parametrize(("low", "share"), [(-1000.0, 0.25), (-150.0, 0.25)])
def test_air_is_background_whether_a_window_has_cut_it_off_or_not(low: float, share: float) -> None:
    hu = np.full((4, 20, 20), -1000.0)
    hu[:, 5:15, 5:15] = 40.0
    assert foreground(np.clip(hu, low, 400), "CT").mean() == share


def test_tissue_alone_is_all_foreground() -> None:
    tissue = np.random.default_rng(0).normal(40, 20, (4, 20, 20))
    assert foreground(tissue, "CT").all()
