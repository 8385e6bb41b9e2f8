"""Volumes on which nothing can be computed, each with its reason."""

import numpy as np
import pytest

from platform_core.errors import UnreadableScan
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.reasons import REASONS

RAMP = np.arange(3 * 10 * 10, dtype=np.float32).reshape(3, 10, 10)
INFINITE = np.where(RAMP == 5, np.inf, RAMP)
NAN = np.where(RAMP == 5, np.nan, RAMP)

BAD = {
    "too_small": Volume(RAMP[:, :7]),
    "constant": Volume(np.zeros((3, 10, 10), dtype=np.int16)),
    "not_finite": Volume(NAN),
    "bad_spacing": Volume(RAMP, Geometry((1.0, -1.0, 1.0))),
    "bad_direction": Volume(RAMP, Geometry((1.0, 1.0, 1.0), direction=(1, 0.5, 0, 0, 1, 0, 0, 0, 1))),
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


@pytest.mark.parametrize(
    "direction", [(1.0,) * 9, (0.0,) * 9, (2.0, 0, 0, 0, 1, 0, 0, 0, 1), (1.0, 0.0), (np.nan,) * 9]
)
def test_axes_must_be_unit_vectors_at_right_angles(direction: tuple[float, ...]) -> None:
    with pytest.raises(UnreadableScan, match="bad_direction"):
        check_usable(Volume(RAMP, Geometry((1.0, 1.0, 1.0), direction=direction)))


def test_left_handed_oblique_and_rounded_axes_pass() -> None:
    check_usable(Volume(RAMP, Geometry((1.0, 1.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))))
    turn = np.cos(0.3), np.sin(0.3)
    oblique = (1.0, 0, 0, 0, turn[0], -turn[1], 0, turn[1], turn[0])
    check_usable(Volume(RAMP, Geometry((1.0, 1.0, 1.0), direction=tuple(round(v, 3) for v in oblique))))


def test_every_reason_is_explained() -> None:
    assert BAD.keys() <= REASONS.keys()
