"""Volumes on which nothing can be computed, each with its reason."""

import numpy as np
import pytest

from platform_core.errors import UnreadableScan
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Geometry, Volume

RAMP = np.arange(3 * 10 * 10, dtype=np.float32).reshape(3, 10, 10)
INFINITE = np.where(RAMP == 5, np.inf, RAMP)
NAN = np.where(RAMP == 5, np.nan, RAMP)

BAD = {
    "too_small": Volume(RAMP[:, :7]),
    "constant": Volume(np.zeros((3, 10, 10), dtype=np.int16)),
    "not_finite": Volume(NAN),
    "bad_spacing": Volume(RAMP, Geometry((1.0, -1.0, 1.0))),
}


@pytest.mark.parametrize(("reason", "volume"), BAD.items(), ids=list(BAD))
def test_an_unusable_volume_is_refused_with_its_reason(reason: str, volume: Volume) -> None:
    with pytest.raises(UnreadableScan) as caught:
        check_usable(volume)
    assert caught.value.reason == reason


@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_a_spacing_must_be_a_positive_number(spacing: float) -> None:
    with pytest.raises(UnreadableScan, match="bad_spacing"):
        check_usable(Volume(RAMP, Geometry((1.0, 1.0, spacing))))


def test_infinity_is_not_a_voxel() -> None:
    with pytest.raises(UnreadableScan, match="not_finite"):
        check_usable(Volume(INFINITE))


def test_a_plain_image_of_eight_by_eight_passes() -> None:
    check_usable(Volume(RAMP[:1, :8, :8]))
