"""From the files of one series to its parts: each part is one volume, still or in time.

Files of one series that differ in series number, matrix, echo, b-value, stack, kernel or
quantity (phase beside magnitude) are different volumes. So are slices in different
directions, if every direction has at least two and there are not too many; else the geometry
verdict calls the whole part `mixed_orientation`. Of radiographs each file is a part.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from platform_core.dicom.frames import Frame
from platform_core.dicom.header import Header

SAME_DIRECTION = 1e-3
"""Largest difference between direction cosines of slices that lie parallel (0.06 degrees)."""
MAX_DIRECTIONS = 32
"""Stacks of one series that are told apart; each slice is compared with each of them."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame of one file of a series."""

    file: int
    header: Header
    frame: Frame
    origin: tuple[str, ...] = field(default=(), repr=False)
    """Study and frame of reference."""


Part = tuple[Plane, ...]


def split_parts(planes: Sequence[Plane]) -> list[Part]:
    """Cut the planes of a series into volumes, in an order that does not depend on the order of the files."""
    groups: dict[tuple[object, ...], list[Plane]] = defaultdict(list)
    for plane in planes:
        groups[_kind(plane)].append(plane)
    ordered = [groups[key] for key in sorted(groups, key=repr)]
    return sorted((part for group in ordered for part in _by_direction(group)), key=_rank)


def _kind(plane: Plane) -> tuple[object, ...]:
    header, frame = plane.header, plane.frame
    shape = (plane.origin, header.modality, header.n_rows, header.n_columns, header.photometric, header.n_samples)
    if header.is_projection:
        return (*shape, plane.file)
    b_value = None if frame.b_value is None else round(frame.b_value)
    return (*shape, header.series_number, header.kernel, frame.echo, b_value, frame.stack, frame.kind)


def _by_direction(planes: list[Plane]) -> list[Part]:
    if planes[0].header.is_projection:
        return [tuple(planes)]
    directions: list[list[Plane]] = []
    for plane in planes:
        home = next((group for group in directions if _are_parallel(group[0], plane)), None)
        if home is None and len(directions) == MAX_DIRECTIONS:
            return [tuple(planes)]
        if home is None:
            directions.append(home := [])
        home.append(plane)
    if len(directions) > 1 and min(len(group) for group in directions) < 2:
        return [tuple(planes)]
    return [tuple(group) for group in directions]


def _are_parallel(one: Plane, other: Plane) -> bool:
    a, b = one.frame.orientation, other.frame.orientation
    if a is None or b is None or a == b:
        return a == b
    return bool(np.max(np.abs(np.subtract(a, b))) <= SAME_DIRECTION)


def _rank(part: Part) -> tuple[object, ...]:
    first = min(part, key=lambda plane: (plane.frame.instance, plane.file))
    return first.header.series_number, first.frame.echo, first.frame.b_value or 0.0, first.frame.instance, first.file
