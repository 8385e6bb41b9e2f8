"""Grouping and the geometry verdict, on planes made by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.dicom.frames import Frame
from platform_core.dicom.geometry import arrange, orientation_letters
from platform_core.dicom.grouping import Plane, split_parts
from platform_core.dicom.header import Header
from platform_core.errors import UnreadableScan

HEADER = Header(
    modality="MR",
    manufacturer=None,
    scanner_model=None,
    software=None,
    kernel=None,
    kvp=None,
    repetition_time_ms=None,
    echo_time_ms=None,
    field_strength_t=None,
    body_part=None,
    view=None,
    has_contrast=False,
    sequence="",
    series_number=1,
    transfer_syntax="",
    photometric="MONOCHROME2",
    n_samples=1,
    n_rows=8,
    n_columns=8,
    n_tiles=0,
    bits_allocated=16,
    bits_stored=16,
    is_signed=True,
    frames=(),
)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def plane(number: Any, position: Any, **facts: Any) -> Any:
    frame = Frame(
        index=0,
        position_mm=tuple(float(v) for v in position),
        orientation=facts.pop("orientation", AXIAL),
        spacing_mm=facts.pop("spacing_mm", (1.0, 1.5)),
        slice_spacing_mm=facts.pop("slice_spacing_mm", 5.0),
        instance=number,
        **facts,
    )
    return Plane(number, HEADER, frame)


def stack(places: Any, **facts: Any) -> Any:
    return tuple(plane(number, (0, 0, z), **facts) for number, z in enumerate(places))


def reason_of(part: Any) -> Any:
    with pytest.raises(UnreadableScan) as refusal:
        arrange(part)
    return refusal.value.reason


@given(st.permutations(range(6)), st.floats(0.5, 10), st.floats(-500, 500))
def test_the_order_of_files_does_not_matter(shuffled: Any, step: Any, start: Any) -> None:
    part = tuple(plane(i, (3, 4, start + k * step)) for i, k in enumerate(shuffled))
    found = arrange(part)
    assert [shuffled[i] for i in found.order[0]] == sorted(shuffled)
    assert found.geometry.spacing_mm == pytest.approx((1.0, 1.5, step))
    assert found.geometry.origin_mm == pytest.approx((3, 4, start))


@given(st.floats(0, 360), st.floats(0, 180), st.floats(0.4, 8), st.integers(2, 7))
def test_index_and_place_agree_for_any_direction(alpha: Any, beta: Any, step: Any, n_z: Any) -> None:
    """Independent oracle: DICOM PS3.3 equation C.7.6.2.1-1 places pixel (column, row) of slice k."""
    a, b = np.radians([alpha, beta])
    x = np.array([np.cos(a), np.sin(a), 0])
    y = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    normal = np.cross(x, y)
    firsts = [np.array([5.0, -7.0, 11.0]) + k * step * normal for k in range(n_z)]
    found = arrange(tuple(plane(k, p, orientation=(*x, *y)) for k, p in enumerate(firsts)))
    column, row, k = 3, 5, n_z - 1
    expected = firsts[found.order[0][k]] + x * 1.0 * column + y * 1.5 * row
    np.testing.assert_allclose(found.geometry.affine @ [column, row, k, 1], [*expected, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([0, 5, 15, 20], "missing_slices"),
        ([0, 1, 2, 9], "missing_slices"),
        ([0, 5, 8.6, 13.6], "uneven_spacing"),
        ([0, 5, 5, 10], "duplicate_positions"),
        ([0, 0, 5, 5, 10], "missing_slices"),
    ],
)
def test_an_irregular_stack_is_refused(places: Any, reason: str) -> None:
    assert reason_of(stack(places)) == reason


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.09])
def test_rounding_of_positions_is_no_irregularity(jitter: Any) -> None:
    found = arrange(stack([0, 5 + jitter, 10, 15 - jitter, 20]))
    assert found.geometry.spacing_mm[2] == 5.0


def test_thin_slices_allow_less_rounding() -> None:
    assert reason_of(stack([0, 0.6, 1.28, 1.8])) == "uneven_spacing"


def test_a_leaning_stack_is_gantry_tilt() -> None:
    part = tuple(plane(k, (0, k * 5 * np.tan(np.radians(14)), 5 * k)) for k in range(4))
    with pytest.raises(UnreadableScan, match=r"gantry_tilt: the stack leans by 14\.0 degrees"):
        arrange(part)


def test_slices_pushed_aside_are_refused() -> None:
    part = [plane(k, (2.0 if k == 2 else 0.0, 0, 5 * k)) for k in range(5)]
    assert reason_of(tuple(part)) == "shifted_slices"


@pytest.mark.parametrize("aside_mm", [(0.2, 0, 0), (0, -0.2, 0), (150.0, 0, 0)])
def test_two_stacks_side_by_side_are_no_time_points(aside_mm: Any) -> None:
    """Both legs, say: the same heights, another place."""
    there = [plane(k, (0, 0, 5 * k)) for k in range(4)]
    aside = [plane(4 + k, (*aside_mm[:2], 5 * k)) for k in range(4)]
    assert reason_of((*there, *aside)) == "shifted_slices"


@pytest.mark.parametrize("aside_mm", [0.0, 0.04, 0.09])
def test_rounding_of_positions_between_time_points_is_no_shift(aside_mm: float) -> None:
    part = tuple(plane(4 * t + k, (aside_mm * t, 0, 5 * k)) for t in range(2) for k in range(4))
    assert arrange(part).order.shape == (2, 4)


def test_a_time_point_with_one_plane_aside_is_refused() -> None:
    part = tuple(plane(4 * t + k, (7.0 * (t == 2 and k == 3), 0, 5 * k)) for t in range(3) for k in range(4))
    assert reason_of(part) == "shifted_slices"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"orientation": None}, "no_orientation"),
        ({"spacing_mm": None}, "no_pixel_spacing"),
        ({"spacing_mm": (0.0, 1.0)}, "no_pixel_spacing"),
        ({"orientation": (1.0, 0, 0, 0.5, 0.5, 0)}, "bad_orientation"),
        ({"orientation": (2.0, 0, 0, 0, 1, 0)}, "bad_orientation"),
    ],
)
def test_geometry_is_never_invented(facts: Any, reason: str) -> None:
    assert reason_of(stack([0, 5], **facts)) == reason


def test_one_slice_needs_a_stated_spacing() -> None:
    assert arrange(stack([7])).geometry.spacing_mm[2] == 5.0
    assert reason_of(stack([7], slice_spacing_mm=None)) == "slice_spacing_unknown"


def test_pixel_spacing_must_not_change_within_a_volume() -> None:
    part = (plane(0, (0, 0, 0)), plane(1, (0, 0, 5), spacing_mm=(1.1, 1.5)))
    assert reason_of(part) == "uneven_pixel_spacing"


@given(st.permutations(range(12)))
def test_positions_that_repeat_equally_are_time(shuffled: Any) -> None:
    """Four slices, three times; the instance number alone tells time."""
    part = tuple(replace(plane(k, (0, 0, 5 * (k % 4))), file=i) for i, k in enumerate(shuffled))
    found = arrange(part)
    assert [[part[i].frame.instance for i in row] for row in found.order] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


def test_a_stated_temporal_position_orders_time_before_the_instance_number() -> None:
    part = tuple(plane(k, (0, 0, 0 if k < 2 else 5), temporal=1 - k % 2) for k in range(4))
    assert arrange(part).order.tolist() == [[1, 3], [0, 2]]


def test_parts_are_told_apart_by_echo_b_value_stack_and_quantity() -> None:
    planes = [
        *stack([0, 5], echo="1"),
        *stack([0, 5], echo="2"),
        *stack([0, 5], b_value=1000.0),
        *stack([0, 5], stack="2"),
        *stack([0, 5], kind="P"),
    ]
    assert [len(part) for part in split_parts(planes)] == [2] * 5


def test_parts_are_told_apart_by_series_number_and_matrix() -> None:
    other = [replace(p, header=replace(HEADER, series_number=2)) for p in stack([0, 5])]
    small = [replace(p, header=replace(HEADER, n_rows=4)) for p in stack([0, 5])]
    assert len(split_parts([*stack([0, 5]), *other, *small])) == 3


def test_directions_with_several_slices_each_are_parts() -> None:
    across = tuple(plane(k, (5 * k, 0, 0), orientation=SAGITTAL) for k in range(3))
    assert sorted(len(part) for part in split_parts([*stack([0, 5, 10, 15]), *across])) == [3, 4]


def test_one_slice_in_each_direction_is_no_volume() -> None:
    planes = [plane(0, (0, 0, 0)), plane(1, (0, 0, 0), orientation=SAGITTAL)]
    (part,) = split_parts(planes)
    assert reason_of(part) == "mixed_orientation"


def turned(degrees: float) -> tuple[float, ...]:
    """Axial slices turned about x."""
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


@pytest.mark.parametrize(("n_directions", "n_parts"), [(32, 32), (33, 1)])
def test_more_directions_than_any_series_has_are_one_refused_part(n_directions: int, n_parts: int) -> None:
    """Every slice is compared with every direction found before: a file of as many as slices would take minutes."""
    planes = [p for k in range(n_directions) for p in stack([0, 5, 10], orientation=turned(2.0 * k))]
    parts = split_parts(planes)
    assert [len(part) for part in parts] == [3 * n_directions // n_parts] * n_parts
    assert n_parts > 1 or reason_of(parts[0]) == "mixed_orientation"


@given(st.permutations([*stack([0, 5], echo="1"), *stack([0, 5], echo="2"), *stack([0, 5], kind="P")]))
def test_parts_come_in_the_same_order_whatever_the_order_of_files(planes: Any) -> None:
    told = [(part[0].frame.echo, part[0].frame.kind) for part in split_parts(planes)]
    assert told == [("", "P"), ("1", ""), ("2", "")]


def test_orientation_is_spelt_in_letters() -> None:
    assert orientation_letters(arrange(stack([0, 5])).geometry) == "LPS"
    across = tuple(plane(k, (5 * k, 0, 0), orientation=SAGITTAL) for k in range(3))
    assert orientation_letters(arrange(across).geometry) == "PIR"
