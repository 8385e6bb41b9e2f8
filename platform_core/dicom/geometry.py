"""Whether planes make a regular volume, and where it lies; if not, why not.

| reason | meaning |
|---|---|
| `no_orientation`, `no_position`, `no_pixel_spacing` | the header does not say |
| `bad_orientation` | the axes are no unit vectors at right angles |
| `mixed_orientation` | the planes are not parallel |
| `uneven_pixel_spacing` | pixel spacing changes within the volume |
| `gantry_tilt` | slices slide sideways evenly: a sheared stack |
| `shifted_slices` | slices slide sideways unevenly, or from one time to the next: two stacks side by side |
| `missing_slices` | gaps of two or more steps, or a time point that lacks slices |
| `uneven_spacing` | steps differ, and not by whole steps |
| `duplicate_positions` | some places are taken twice, others once |
| `slice_spacing_unknown` | one slice, and neither spacing nor thickness stated |

A volume of one slice is regular if its spacing or thickness is stated; two slices state
their spacing by themselves. Tolerances for steps, sideways jitter and axes are those of the
Imaging Data Commons' query on series geometry (sliceIntervalTolerance, inPlaneTolerance,
orientationTolerance in idc-index-data), which takes its 0.2 mm from dcm2niix's kSliceTolerance
(github.com/rordenlab/dcm2niix/blob/f6d7a001/console/nii_dicom_batch.cpp#L64). The bound of a
tenth of the step, for thin slices, is ours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from platform_core.dicom.grouping import Part
from platform_core.errors import UnreadableScan
from platform_core.imaging.volume import Geometry

Reals = npt.NDArray[np.float64]

STEP_MM = 0.2
STEP_FRACTION = 0.1
SIDEWAYS_MM = 0.1
SAME_PLACE_MM = 0.05
"""Positions nearer than this are one place; scanners write them with three decimals or more."""
UNIT = 0.01
"""How far the axes may be from unit length and right angles."""
SAME_SPACING_MM = 1e-3
SAME_DIRECTION = 1e-3


@dataclass(frozen=True, slots=True)
class Stack:
    """A regular volume: its geometry, and which plane of the part is slice z at time t."""

    geometry: Geometry
    order: npt.NDArray[np.intp]
    """(t, z) indices into the part."""


def arrange(part: Part) -> Stack:
    """Order the planes of a part into a regular volume.

    Raises:
        UnreadableScan: With one of the reasons above; the detail gives the numbers.
    """
    axes, spacing = _axes(part), _pixel_spacing(part)
    positions = np.array([_stated(plane.frame.position_mm, "no_position") for plane in part])
    normal = np.cross(axes[0], axes[1])
    order, places = _order(part, positions @ normal)
    firsts = positions[order[0]]
    _check_sideways(firsts, axes, places)
    _check_times(positions[order], axes)
    step = _step(part, places)
    origin = firsts[0]
    direction = np.column_stack((axes[0], axes[1], normal))
    return Stack(
        Geometry(
            spacing_mm=(spacing[0], spacing[1], step),
            origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
            direction=tuple(float(v) for v in direction.ravel()),
        ),
        order,
    )


def orientation_letters(geometry: Geometry) -> str:
    """Nearest anatomical direction in which x, y and z grow, e.g. `LPS`."""
    matrix = np.reshape(geometry.direction, (3, 3))
    letters = ""
    for column in matrix.T:
        axis = int(np.argmax(np.abs(column)))
        letters += ("LR", "PA", "SI")[axis][int(column[axis] < 0)]
    return letters


def _stated(value: tuple[float, ...] | None, reason: str) -> tuple[float, ...]:
    if value is None:
        raise UnreadableScan(reason, "not stated for every plane")
    return value


def _axes(part: Part) -> Reals:
    """Unit vectors of x and y, (2, 3), made exactly perpendicular."""
    stated = np.array([_stated(plane.frame.orientation, "no_orientation") for plane in part]).reshape(-1, 2, 3)
    if np.ptp(stated, axis=0).max() > SAME_DIRECTION * 2:
        raise UnreadableScan("mixed_orientation", f"{len(part)} planes are not parallel")
    x, y = stated[0]
    lengths = np.linalg.norm(stated[0], axis=1)
    if np.max(np.abs(lengths - 1)) > UNIT or abs(float(x @ y)) > UNIT:
        raise UnreadableScan("bad_orientation", f"axes of length {lengths.round(3).tolist()}")
    x = x / lengths[0]
    y = y - (y @ x) * x
    return np.array([x, y / np.linalg.norm(y)])


def _pixel_spacing(part: Part) -> tuple[float, float]:
    stated = np.array([_stated(plane.frame.spacing_mm, "no_pixel_spacing") for plane in part])
    if np.min(stated) <= 0:
        raise UnreadableScan("no_pixel_spacing", "pixel spacing is not above zero")
    if np.ptp(stated, axis=0).max() > SAME_SPACING_MM:
        raise UnreadableScan("uneven_pixel_spacing", f"from {stated.min():.4f} to {stated.max():.4f} mm")
    return float(stated[0, 0]), float(stated[0, 1])


def _order(part: Part, along: Reals) -> tuple[npt.NDArray[np.intp], Reals]:
    """(t, z) indices into the part, and the place of each slice along the normal, mm."""
    by_place = np.argsort(along, kind="stable")
    slots = np.concatenate(([0], np.cumsum(np.diff(along[by_place]) > SAME_PLACE_MM)))
    n_slices = int(slots[-1]) + 1
    counts = np.bincount(slots)
    if len(set(counts.tolist())) > 1:
        raise _uneven_counts(counts.tolist())
    clock = _time_key(part)
    if counts[0] > 1 and _lacks_time(clock, by_place, slots):
        raise UnreadableScan("duplicate_positions", "places are taken twice, and nothing tells one time from another")
    columns = [sorted(by_place[slots == z].tolist(), key=clock.__getitem__) for z in range(n_slices)]
    order = np.array(columns, dtype=np.intp).T
    return order, np.array([float(along[column[0]]) for column in columns])


def _uneven_counts(counts: list[int]) -> UnreadableScan:
    usual, most = Counter(counts).most_common(1)[0][0], max(counts)
    told = f"{len(counts)} places hold {min(counts)} to {most} planes"
    return UnreadableScan("missing_slices" if usual == most and most > 1 else "duplicate_positions", told)


def _time_key(part: Part) -> list[tuple[int, int, int, int]]:
    """What orders planes of one place in time; a number that not every plane states is not used."""
    frames = [plane.frame for plane in part]
    has_temporal = all(frame.temporal is not None for frame in frames)
    has_acquisition = all(frame.acquisition is not None for frame in frames)
    return [
        (
            (frame.temporal or 0) if has_temporal else 0,
            (frame.acquisition or 0) if has_acquisition else 0,
            frame.instance,
            plane.file,
        )
        for plane, frame in zip(part, frames, strict=True)
    ]


def _check_sideways(firsts: Reals, axes: Reals, places: Reals) -> None:
    """Refuse a stack whose slices do not lie straight above one another."""
    drift = (firsts - firsts[0]) @ axes.T
    if np.max(np.abs(drift)) <= SIDEWAYS_MM:
        return
    height = float(places[-1] - places[0])
    expected = np.outer((places - places[0]) / height, drift[-1])
    if np.max(np.abs(drift - expected)) > SIDEWAYS_MM:
        raise UnreadableScan("shifted_slices", f"slices lie up to {np.max(np.abs(drift)):.2f} mm aside")
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(drift[-1]), height)))
    raise UnreadableScan("gantry_tilt", f"the stack leans by {degrees:.1f} degrees")


def _check_times(positions: Reals, axes: Reals) -> None:
    """Refuse planes (t, z, mm) at one height that do not lie in one place: those are two stacks, not two times."""
    if len(positions) == 1:
        return
    drift = np.max(np.abs((positions - positions[0]) @ axes.T))
    if drift > SIDEWAYS_MM:
        raise UnreadableScan("shifted_slices", f"planes at one height lie up to {drift:.2f} mm apart sideways")


def _step(part: Part, places: Reals) -> float:
    """Distance between slices, mm: over the whole height, so that rounding does not add up."""
    if len(places) == 1:
        stated = part[0].frame.slice_spacing_mm
        if stated is None or stated <= 0:
            raise UnreadableScan("slice_spacing_unknown", "one slice, and neither spacing nor thickness is stated")
        return float(stated)
    steps = np.diff(places)
    mean = float((places[-1] - places[0]) / (len(places) - 1))
    if np.max(np.abs(steps - mean)) <= min(STEP_MM, STEP_FRACTION * mean):
        return mean
    raise _uneven_steps(steps)


def _uneven_steps(steps: Sequence[float] | Reals) -> UnreadableScan:
    least = float(np.min(steps))
    ratio = np.asarray(steps) / least
    tolerance = min(STEP_MM, STEP_FRACTION * least) * np.maximum(np.round(ratio), 1)
    told = f"steps from {least:.2f} to {float(np.max(steps)):.2f} mm"
    if np.all(np.abs(np.asarray(steps) - np.round(ratio) * least) <= tolerance) and np.round(ratio).max() > 1:
        return UnreadableScan("missing_slices", f"{told}: {int(np.sum(np.round(ratio) - 1))} slices are not there")
    return UnreadableScan("uneven_spacing", told)


def _lacks_time(clock: list[tuple[int, int, int, int]], by_place: npt.NDArray[np.intp], slots: Reals) -> bool:
    """Whether two planes of one place differ in nothing but the name of their file."""
    told = {(int(slot), clock[int(i)][:3]) for slot, i in zip(slots, by_place, strict=True)}
    return len(told) < len(by_place)
