"""From the files of one series to its parts, each a volume or the reason why not. Knows no tables."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from platform_core.dicom.burned_in import BURNED_IN_TEXT, Marks, has_text_like_regions, is_at_risk, refusal_by_rule
from platform_core.dicom.elements import parse
from platform_core.dicom.geometry import arrange, orientation_letters
from platform_core.dicom.grouping import Part, Plane, split_parts
from platform_core.dicom.header import Header, Identity, open_scan
from platform_core.dicom.pixels import decode, in_units, stacked
from platform_core.dicom.rules import set_aside
from platform_core.dicom.stratum import stratum_of
from platform_core.errors import UnreadableScan
from platform_core.imaging.plain import decode_image, image_format
from platform_core.imaging.volume import Volume, Voxels
from platform_core.settings import SiteSettings

CONFLICT, TWO_PATIENTS = "conflicting_copies", "conflicting_patients"

Refusal = tuple[str, str]
"""A short stable reason, and a detail for the person on call."""


@dataclass(slots=True, repr=False)
class File:
    """One file of a series as it is taken in."""

    header: Header | None = None
    identity: Identity | None = None
    marks: Marks | None = None
    pixels: Voxels | None = None
    """In units, (plane, y, x)."""
    slot: int | None = None
    """The plane of the room that the pixels lie in."""
    rule: str | None = None
    """The rule that sets the file aside."""
    refusal: Refusal | None = None
    """Why its pixels cannot be used."""
    copy_of: int | None = None
    """The file that holds the same pixels already."""


@dataclass(slots=True, repr=False)
class Room:
    """Where the planes of a series are put as its files are read, so that they need not be copied together later."""

    n_files: int
    planes: Voxels | None = None
    """(file, y, x), int16, of the size of the first file."""
    n_taken: int = 0

    def next_plane(self, shape: tuple[int, ...]) -> Voxels | None:
        """Room for one plane of this (1, y, x), if the series is of this size."""
        if self.planes is None and shape[0] == 1:
            self.planes = np.empty((self.n_files, *shape[1:]), np.int16)
        if self.planes is None or shape != (1, *self.planes.shape[1:]) or self.n_taken == len(self.planes):
            return None
        return self.planes[self.n_taken : self.n_taken + 1]

    def take(self) -> int:
        """Keep what was written to the next plane."""
        self.n_taken += 1
        return self.n_taken - 1


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Taken:
    """One part of a series."""

    files: tuple[int, ...]
    """Which files went into it."""
    facts: dict[str, Any]
    """Columns of `core__series` that the header tells."""
    identity: Identity | None
    acquired_on: date | None
    volume: Volume | None = field(repr=False)
    refusal: Refusal | None = None

    @property
    def geometry(self) -> str:
        """`regular`, `plain`, or the reason of the refusal."""
        if self.refusal is not None:
            return self.refusal[0]
        return "plain" if self.volume is None or self.volume.geometry is None else "regular"


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """What became of the files of one series."""

    files: list[File]
    parts: list[Taken]


def open_file(data: bytes, room: Room) -> File:
    """Decode one DICOM file of a series; what is wrong with it is told, not raised."""
    file = File()
    try:
        scan = open_scan(data)
        file.header, file.identity, file.marks = scan.header, scan.identity, scan.marks
        file.rule = set_aside(scan.elements)
        if file.rule is None:
            _fill(file, decode(scan), room)
    except UnreadableScan as error:
        file.rule = _rule_of(data)
        file.refusal = (error.reason, error.detail) if file.rule is None else None
    except Exception as error:  # noqa: BLE001 - decoders raise many kinds on odd bytes; one file must not stop the others
        file.refusal = ("undecodable", f"the decoder gave up on this file ({type(error).__name__})")
    return file


def _rule_of(data: bytes) -> str | None:
    """The rule that sets a file aside, of one that is no scan: a report has no matrix, and need not have one."""
    try:
        return set_aside(parse(data))
    except UnreadableScan:
        return None


def _fill(file: File, stored: Voxels, room: Room) -> None:
    assert file.header is not None
    frames = file.header.frames
    plane = room.next_plane(stored.shape)
    if len({(frame.slope, frame.intercept) for frame in frames}) == 1:
        file.pixels = in_units(stored, frames[0].slope, frames[0].intercept, out=plane)
    else:
        planes = [in_units(values, f.slope, f.intercept) for values, f in zip(stored, frames, strict=True)]
        file.pixels = np.stack(planes)
    if plane is not None and np.shares_memory(file.pixels, plane):
        file.slot = room.take()


def _is_none(_: int) -> bool:
    return False


def read_series(
    files: Sequence[File],
    room: Room,
    is_preferred: Callable[[int], bool],
    is_released: Callable[[int], bool] = _is_none,
) -> Reading:
    """Decide on each part of a series.

    Args:
        files: What `open_file` gave for each file, in the order of their addresses.
        room: The room that they were opened with.
        is_preferred: Whether a file was accepted before, so that a copy of it is the copy.
        is_released: Whether a person has looked at a file: a part of such files may show what looks like text.
    """
    files = list(files)
    _settle_copies(files, is_preferred)
    spoiler = _spoiler(files)
    planes = [
        Plane(index, file.header, frame, (file.identity.study_uid, file.identity.place_uid) if file.identity else ())
        for index, file in enumerate(files)
        if file.header is not None and file.copy_of is None and file.rule is None
        for frame in file.header.frames
    ]
    return Reading(files, [_take(part, files, room, spoiler, is_released) for part in split_parts(planes)])


def read_image(
    content: bytes,
    n_copies: int,
    settings: SiteSettings,
    view: str | None,
    is_preferred: Callable[[int], bool],
    is_released: Callable[[int], bool] = _is_none,
) -> Reading:
    """Decode a plain image that came in one or more equal copies."""
    kept = next((index for index in range(n_copies) if is_preferred(index)), 0)
    files = [File(copy_of=None if index == kept else kept) for index in range(n_copies)]
    modality = settings.modality or "OT"
    volume: Volume | None = None
    try:
        volume = decode_image(content)
        files[kept].refusal = None if is_released(kept) else _seen_text(volume, modality)
    except UnreadableScan as error:
        files = [File(refusal=(error.reason, error.detail)) for _ in range(n_copies)]
    facts = {
        "modality": modality,
        "body_part": settings.body_part,
        "view": view,
        "stratum": stratum_of(modality, settings.body_part),
        "transfer_syntax": image_format(content),
        "n_files": 1,
        **size_facts(volume),
    }
    refusal = files[kept].refusal
    kept_volume = volume if refusal is None else None
    return Reading(
        files, [Taken(files=(kept,), facts=facts, identity=None, acquired_on=None, volume=kept_volume, refusal=refusal)]
    )


def size_facts(volume: Volume | None) -> dict[str, Any]:
    """The columns of `core__series` that a volume tells."""
    if volume is None:
        return {}
    n_x, n_y, n_z = volume.size
    facts: dict[str, Any] = {"n_x": n_x, "n_y": n_y, "n_z": n_z, "n_t": volume.n_t}
    if volume.geometry is not None:
        names = ("spacing_x_mm", "spacing_y_mm", "spacing_z_mm")
        facts |= dict(zip(names, volume.geometry.spacing_mm, strict=True))
        facts["orientation"] = orientation_letters(volume.geometry)
    return facts


def _settle_copies(files: list[File], is_preferred: Callable[[int], bool]) -> None:
    """Of files with one SOPInstanceUID keep one; if their pixels or patients differ nobody knows which is right."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        if file.identity is not None and file.rule is None:
            same[file.identity.sop_uid].append(index)
    for copies in same.values():
        whole = sorted((i for i in copies if files[i].pixels is not None), key=lambda i: (not is_preferred(i), i))
        if not whole:
            continue
        for broken in set(copies) - set(whole):
            files[broken].header = None
        refusal = _conflict([files[index] for index in whole])
        for index in whole:
            files[index].refusal = refusal
        for other in whole[1:] if refusal is None else ():
            files[other].copy_of = whole[0]


def _conflict(copies: Sequence[File]) -> Refusal | None:
    """Why files of one instance are no copies of one another."""
    if not all(_are_equal(copies[0], other) for other in copies[1:]):
        return (CONFLICT, f"{len(copies)} files of one instance hold different pixels")
    if len({one.identity.patient_id for one in copies if one.identity is not None}) > 1:
        return (TWO_PATIENTS, f"{len(copies)} files of one instance name different patients")
    return None


def _are_equal(one: File, other: File) -> bool:
    assert one.header is not None
    assert other.header is not None
    return one.header.frames == other.header.frames and np.array_equal(one.pixels, other.pixels)  # type: ignore[arg-type]


def _spoiler(files: list[File]) -> Refusal | None:
    """A file of the series of which nobody can tell which part it belongs to, and that has no sound copy."""
    loose = (file.refusal for file in files if file.header is None and file.identity is None)
    return next((refusal for refusal in loose if refusal is not None), None)


def _take(
    part: Part, files: list[File], room: Room, spoiler: Refusal | None, is_released: Callable[[int], bool]
) -> Taken:
    indices = tuple(dict.fromkeys(plane.file for plane in part))
    identities = [identity for index in indices if (identity := files[index].identity) is not None]
    dates = [identity.acquired_on for identity in identities if identity.acquired_on is not None]
    volume: Volume | None = None
    refusal = spoiler or next((why for index in indices if (why := files[index].refusal) is not None), None)
    marks = dict.fromkeys(mark for index in indices if (mark := files[index].marks) is not None)
    refusal = refusal or _refused_by_header(identities, marks)
    if refusal is None:
        try:
            volume = _assemble(part, files, room)
            if any(map(is_at_risk, marks)) and not all(map(is_released, indices)):
                refusal = _seen_text(volume, part[0].header.modality)
        except UnreadableScan as error:
            refusal = (error.reason, error.detail)
    return Taken(
        files=indices,
        facts=_header_facts(part[0].header, len(indices)) | size_facts(volume),
        identity=identities[0],
        acquired_on=min(dates, default=None),
        volume=volume if refusal is None else None,
        refusal=refusal,
    )


def _refused_by_header(identities: Sequence[Identity], marks: Iterable[Marks]) -> Refusal | None:
    if len({identity.patient_id for identity in identities}) > 1:
        return (TWO_PATIENTS, "files of one series name different patients")
    why = next((why for mark in marks if (why := refusal_by_rule(mark)) is not None), None)
    return None if why is None else (why, "the header says that text is drawn into the pixels, or comes from a screen")


def _seen_text(volume: Volume, modality: str) -> Refusal | None:
    """What looks like text in the pixels waits for a person."""
    seen = has_text_like_regions(volume.voxels.reshape(-1, *volume.voxels.shape[-2:]), modality)
    return None if seen is None else (BURNED_IN_TEXT, seen.detail)


def _assemble(part: Part, files: list[File], room: Room) -> Volume:
    """Put the planes in order: (z, y, x), or (t, z, y, x)."""
    if part[0].header.is_projection:
        return Volume(_voxels(part, files, room), None)
    stack = arrange(part)
    voxels = _voxels([part[index] for index in stack.order.ravel()], files, room)
    n_t, n_z = stack.order.shape
    shape = (n_z, *voxels.shape[1:]) if n_t == 1 else (n_t, n_z, *voxels.shape[1:])
    return Volume(voxels.reshape(shape), stack.geometry)


def _voxels(planes: Sequence[Plane], files: list[File], room: Room) -> Voxels:
    """(plane, y, x) in units; a view of the room where all planes lie in it evenly."""
    slots = [slot for plane in planes if (slot := files[plane.file].slot) is not None]
    if room.planes is not None and len(slots) == len(planes):
        return _from_room(room.planes, slots)
    return stacked([_decoded(files[plane.file])[plane.frame.index] for plane in planes])


def _from_room(planes: Voxels, slots: list[int]) -> Voxels:
    step = slots[1] - slots[0] if len(slots) > 1 else 1
    stop = slots[0] + step * len(slots)
    if step == 0 or slots != list(range(slots[0], stop, step)):
        return np.asarray(planes[np.array(slots)])
    return planes[slots[0] : stop if stop >= 0 else None : step]


def _decoded(file: File) -> Voxels:
    assert file.pixels is not None
    return file.pixels


def _header_facts(header: Header, n_files: int) -> dict[str, Any]:
    names = (
        "modality manufacturer scanner_model software kernel kvp exposure_mas repetition_time_ms echo_time_ms "
        "flip_angle_deg field_strength_t pixel_bandwidth_hz slice_thickness_mm body_part view transfer_syntax"
    )
    facts = {name: getattr(header, name) for name in names.split()}
    stratum = stratum_of(
        header.modality,
        header.body_part,
        contrast=header.has_contrast,
        sequence=header.sequence,
        kernel=header.kernel,
    )
    return facts | {"n_x": header.n_columns, "n_y": header.n_rows, "stratum": stratum, "n_files": n_files}
