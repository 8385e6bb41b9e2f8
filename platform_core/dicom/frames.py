"""The planes of a file: one for a classic file, many for an enhanced multi-frame file or a Siemens mosaic.

Geometry is what the file states. Nothing is guessed: what is missing stays None and the
geometry verdict says so.
"""

# ruff: noqa: SIM905 - lists of terms read better as words
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.dicom.csa import mosaic_facts, tiles_per_side
from platform_core.dicom.elements import EMPTY, number, numbers, shared_groups, text, tokens, whole
from platform_core.dicom.stream import PLAIN_SYNTAXES, Elements
from platform_core.errors import UnreadableScan

FRAME_KINDS = frozenset(
    "P PHASE R REAL I IMAGINARY ADC FA TRACEW WATER FAT W F IN_PHASE OUT_PHASE IP OP T1_MAP T2_MAP R2_MAP B0 "
    "P_FFE P_SE R_FFE R_SE I_FFE I_SE MIP MPR".split()
)
"""Image types that are another quantity than the magnitude image beside them."""
MAX_TILES, MAX_FRAMES = 1024, 1 << 17
"""Of one mosaic, of one enhanced file; the largest seen have some hundred and some ten thousand. A short header that
claims more, or describes more in few bytes, must not cost minutes."""
FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One image plane of a file, where it lies, and what tells it from its neighbours."""

    index: int
    """Its place in the decoded file."""
    position_mm: tuple[float, ...] | None
    """Centre of the first voxel, LPS."""
    orientation: tuple[float, ...] | None
    """Direction of growing column index, then of growing row index, LPS."""
    spacing_mm: tuple[float, float] | None
    """Between columns (x), then between rows (y)."""
    slice_spacing_mm: float | None
    """As stated: between slices, else their thickness."""
    slope: float = 1.0
    intercept: float = 0.0
    echo: str = ""
    b_value: float | None = None
    stack: str = ""
    kind: str = ""
    temporal: int | None = None
    acquisition: int | None = None
    instance: int = 0


def frames_of(elements: Elements, *, is_projection: bool = False) -> tuple[int, tuple[Frame, ...]]:
    """Tiles of a mosaic (0 for any other file), and the planes in the order of the decoded file.

    Raises:
        UnreadableScan: `multi_frame` for frames without functional groups, `frame_count` where frames and groups
            differ, `mosaic` for a mosaic without its header, `too_large` for more tiles or frames than any scanner
            writes, `bad_rescale` for a slope or intercept that is no number.
    """
    n_stated = whole(elements, "NumberOfFrames") or 1
    if n_stated > MAX_FRAMES:
        raise UnreadableScan("too_large", f"more than {MAX_FRAMES} frames are stated")
    groups = elements.items("PerFrameFunctionalGroupsSequence", most=max(n_stated, 0) + 1)
    if groups and n_stated != len(groups):
        told = len(groups) if len(groups) < n_stated else "more"
        raise UnreadableScan("frame_count", f"{n_stated} frames are stated, {told} are described")
    if groups:
        return 0, _enhanced(elements, groups)
    if n_stated > 1:
        raise UnreadableScan("multi_frame", "several frames, and no functional groups that place them")
    frame = _classic(elements)
    if is_projection or "MOSAIC" not in tokens(elements):
        return 0, (frame,)
    return _mosaic(elements, frame)


def _classic(elements: Elements) -> Frame:
    rows_columns = numbers(elements, "PixelSpacing", 2)
    return Frame(
        index=0,
        position_mm=numbers(elements, "ImagePositionPatient", 3),
        orientation=numbers(elements, "ImageOrientationPatient", 6),
        spacing_mm=(rows_columns[1], rows_columns[0]) if rows_columns else None,
        slice_spacing_mm=number(elements, "SpacingBetweenSlices") or number(elements, "SliceThickness"),
        slope=_rescale(elements, "RescaleSlope", 1.0),
        intercept=_rescale(elements, "RescaleIntercept", 0.0),
        echo=text(elements, "EchoNumbers") or _milliseconds(number(elements, "EchoTime")),
        b_value=number(elements, "DiffusionBValue"),
        kind=kind_of(tokens(elements)),
        temporal=whole(elements, "TemporalPositionIdentifier"),
        acquisition=whole(elements, "AcquisitionNumber"),
        instance=whole(elements, "InstanceNumber") or 0,
    )


def _rescale(elements: Elements, name: str, unstated: float) -> float:
    """A number of the rescale; one that is stated and cannot be read is never taken for none."""
    found = number(elements, name)
    if found is None and elements.raw(name).strip(b"\x00 "):
        raise UnreadableScan("bad_rescale", f"{name} is no number")
    return unstated if found is None else found


def _milliseconds(echo_time_ms: float | None) -> str:
    return "" if echo_time_ms is None else f"{echo_time_ms:.1f} ms"


def _enhanced(elements: Elements, groups: list[Elements]) -> tuple[Frame, ...]:
    shared = shared_groups(elements)
    kind = kind_of(tokens(elements))
    spacing = number(elements, "SpacingBetweenSlices")
    acquisition = whole(elements, "AcquisitionNumber") or whole(elements, "InstanceNumber")
    frames = (_enhanced_frame(index, group, shared, kind, spacing) for index, group in enumerate(groups))
    # scanners that send one file per time point number the files, not their frames
    return tuple(f if f.acquisition is not None else replace(f, acquisition=acquisition) for f in frames)


def _enhanced_frame(index: int, own: Elements, shared: Elements, kind: str, slice_spacing: float | None) -> Frame:
    """One frame; its own functional groups come before the shared ones (PS3.3 C.7.6.16)."""

    def group(sequence: str) -> Elements:
        items = own.items(sequence, most=1) or shared.items(sequence, most=1)
        return items[0] if items else EMPTY

    measures, content = group("PixelMeasuresSequence"), group("FrameContentSequence")
    values = group("PixelValueTransformationSequence")
    kinds = (kind_of(tokens(group(name), "FrameType")) for name in FRAME_TYPES)
    rows_columns = numbers(measures, "PixelSpacing", 2)
    stated = number(measures, "SpacingBetweenSlices") or slice_spacing
    return Frame(
        index=index,
        position_mm=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing_mm=(rows_columns[1], rows_columns[0]) if rows_columns else None,
        slice_spacing_mm=stated or number(measures, "SliceThickness"),
        slope=_rescale(values, "RescaleSlope", 1.0),
        intercept=_rescale(values, "RescaleIntercept", 0.0),
        echo=_milliseconds(number(group("MREchoSequence"), "EffectiveEchoTime")),
        b_value=number(group("MRDiffusionSequence"), "DiffusionBValue"),
        stack=text(content, "StackID"),
        kind=next(filter(None, kinds), kind),
        temporal=whole(content, "TemporalPositionIndex"),
        acquisition=whole(content, "FrameAcquisitionNumber"),
        instance=index + 1,
    )


def _mosaic(elements: Elements, whole_image: Frame) -> tuple[int, tuple[Frame, ...]]:
    """The tiles, each at its own place.

    The stated position is that of the whole mosaic, as if one huge slice were centred where
    the true slice is: nipy.org/nibabel/dicom/dicom_mosaic.html. Where the pixels are not all there, which
    `pixels.decode` refuses, the first tile stands for all.
    """
    n_tiles, normal = mosaic_facts(elements)
    position, axes, spacing = whole_image.position_mm, whole_image.orientation, whole_image.spacing_mm
    step_mm = number(elements, "SpacingBetweenSlices") or number(elements, "SliceThickness")
    if n_tiles > MAX_TILES:
        raise UnreadableScan("too_large", f"a mosaic that claims to hold more than {MAX_TILES} slices")
    if n_tiles < 1 or normal is None or position is None or axes is None or spacing is None or step_mm is None:
        raise UnreadableScan("mosaic", "a Siemens mosaic without the header that says how its slices lie")
    side = tiles_per_side(n_tiles)
    rows, columns = whole(elements, "Rows") or 0, whole(elements, "Columns") or 0
    if rows % side or columns % side:
        raise UnreadableScan("mosaic", f"{rows} x {columns} is no square of {n_tiles} tiles")
    along_x, along_y = np.array(axes[:3]) * spacing[0], np.array(axes[3:]) * spacing[1]
    first = np.array(position) + along_x * (columns - columns // side) / 2 + along_y * (rows - rows // side) / 2
    n_placed = n_tiles if _has_pixels(elements, rows * columns) else 1
    places = [first + np.array(normal) * step_mm * k for k in range(n_placed)]
    return n_tiles, tuple(_tile(whole_image, k, place) for k, place in enumerate(places))


def _has_pixels(elements: Elements, n_pixels: int) -> bool:
    """Whether plain pixels are all there; of compressed ones only their decoder can tell."""
    place = elements.place("PixelData")
    if place is None or elements.transfer_syntax not in PLAIN_SYNTAXES:
        return place is not None
    n_bytes = n_pixels * (whole(elements, "BitsAllocated") or 16) // 8
    return min(place.length, len(elements.data) - place.start) >= n_bytes


def _tile(frame: Frame, index: int, place: npt.NDArray[np.float64]) -> Frame:
    return replace(frame, index=index, position_mm=tuple(float(v) for v in place))


def kind_of(image_type: Iterable[str]) -> str:
    """The quantity that an image shows, where it is not plain magnitude."""
    return "+".join(sorted(FRAME_KINDS.intersection(list(image_type)[2:])))
