"""From the files of one series to its parts, each a volume or the reason why not. Knows no tables."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from platform_core.dicom.geometry import arrange, orientation_letters
from platform_core.dicom.grouping import Part, Plane, split_parts
from platform_core.dicom.header import Header, Identity, open_scan
from platform_core.dicom.pixels import decode, in_units
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
    pixels: Voxels | None = None
    refusal: Refusal | None = None
    """Why its pixels cannot be used."""
    copy_of: int | None = None
    """The file that holds the same pixels already."""


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


def read_series(contents: Sequence[bytes], is_preferred: Callable[[int], bool]) -> Reading:
    """Decode the DICOM files of one series and decide on each part.

    Args:
        contents: The files, in the order of their addresses.
        is_preferred: Whether a file was accepted before, so that a copy of it is the copy.
    """
    files = [_open(data) for data in contents]
    _settle_copies(files, is_preferred)
    spoiler = _spoiler(files)
    planes = [
        Plane(index, file.header, frame)
        for index, file in enumerate(files)
        if file.header is not None and file.copy_of is None
        for frame in file.header.frames
    ]
    return Reading(files, [_take(part, files, spoiler) for part in split_parts(planes)])


def read_image(
    contents: Sequence[bytes], settings: SiteSettings, view: str | None, is_preferred: Callable[[int], bool]
) -> Reading:
    """Decode a plain image of which `contents` holds one or more equal copies."""
    kept = next((index for index in range(len(contents)) if is_preferred(index)), 0)
    files = [File(copy_of=None if index == kept else kept) for index in range(len(contents))]
    volume: Volume | None = None
    try:
        volume = decode_image(contents[0])
    except UnreadableScan as error:
        files = [File(refusal=(error.reason, error.detail)) for _ in contents]
    modality = settings.modality or "OT"
    facts = {
        "modality": modality,
        "body_part": settings.body_part,
        "view": view,
        "stratum": stratum_of(modality, settings.body_part),
        "transfer_syntax": image_format(contents[0]),
        "n_files": 1,
        **size_facts(volume),
    }
    refusal = files[kept].refusal
    return Reading(
        files, [Taken(files=(kept,), facts=facts, identity=None, acquired_on=None, volume=volume, refusal=refusal)]
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


def _open(data: bytes) -> File:
    file = File()
    try:
        scan = open_scan(data)
        file.header, file.identity = scan.header, scan.identity
        file.pixels = decode(scan)
    except UnreadableScan as error:
        file.refusal = (error.reason, error.detail)
    except Exception as error:  # noqa: BLE001 - decoders raise many kinds on odd bytes; one file must not stop the others
        file.refusal = ("undecodable", f"the decoder gave up on this file ({type(error).__name__})")
    return file


def _settle_copies(files: list[File], is_preferred: Callable[[int], bool]) -> None:
    """Of files with one SOPInstanceUID keep one; if their pixels differ nobody knows which is right."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        if file.identity is not None:
            same[file.identity.sop_uid].append(index)
    for copies in same.values():
        whole = sorted((i for i in copies if files[i].pixels is not None), key=lambda i: (not is_preferred(i), i))
        if not whole:
            continue
        for broken in set(copies) - set(whole):
            files[broken].header = None
        first = files[whole[0]]
        if all(_are_equal(first, files[other]) for other in whole[1:]):
            for other in whole[1:]:
                files[other].copy_of = whole[0]
        else:
            for index in whole:
                files[index].refusal = (CONFLICT, f"{len(whole)} files of one instance hold different pixels")


def _are_equal(one: File, other: File) -> bool:
    assert one.header is not None
    assert other.header is not None
    return one.header.frames == other.header.frames and np.array_equal(one.pixels, other.pixels)  # type: ignore[arg-type]


def _spoiler(files: list[File]) -> Refusal | None:
    """A file of the series of which nobody can tell which part it belongs to, and that has no sound copy."""
    loose = (file.refusal for file in files if file.header is None and file.identity is None)
    return next((refusal for refusal in loose if refusal is not None), None)


def _take(part: Part, files: list[File], spoiler: Refusal | None) -> Taken:
    indices = tuple(dict.fromkeys(plane.file for plane in part))
    identities = [identity for index in indices if (identity := files[index].identity) is not None]
    dates = [identity.acquired_on for identity in identities if identity.acquired_on is not None]
    volume: Volume | None = None
    refusal = spoiler or next((why for index in indices if (why := files[index].refusal) is not None), None)
    if refusal is None and len({identity.patient_id for identity in identities}) > 1:
        refusal = (TWO_PATIENTS, "files of one series name different patients")
    if refusal is None:
        try:
            volume = _assemble(part, files)
        except UnreadableScan as error:
            refusal = (error.reason, error.detail)
    return Taken(
        files=indices,
        facts=_header_facts(part[0].header, len(indices)) | size_facts(volume),
        identity=identities[0],
        acquired_on=min(dates, default=None),
        volume=volume,
        refusal=refusal,
    )


def _assemble(part: Part, files: list[File]) -> Volume:
    """Put the planes in order and in units: (z, y, x), or (t, z, y, x)."""
    if part[0].header.is_projection:
        return Volume(_voxels(part, files), None)
    stack = arrange(part)
    voxels = _voxels([part[index] for index in stack.order.ravel()], files)
    n_t, n_z = stack.order.shape
    shape = (n_z, *voxels.shape[1:]) if n_t == 1 else (n_t, n_z, *voxels.shape[1:])
    return Volume(voxels.reshape(shape), stack.geometry)


def _voxels(planes: Sequence[Plane], files: list[File]) -> Voxels:
    pixels = []
    for plane in planes:
        decoded = files[plane.file].pixels
        assert decoded is not None
        pixels.append(decoded[plane.frame.index])
    return in_units(pixels, [plane.frame.slope for plane in planes], [plane.frame.intercept for plane in planes])


def _header_facts(header: Header, n_files: int) -> dict[str, Any]:
    names = "modality manufacturer scanner_model software kernel kvp repetition_time_ms echo_time_ms field_strength_t"
    facts = {name: getattr(header, name) for name in (*names.split(), "body_part", "view", "transfer_syntax")}
    stratum = stratum_of(
        header.modality,
        header.body_part,
        contrast=header.has_contrast,
        sequence=header.sequence,
        kernel=header.kernel,
    )
    return facts | {"n_x": header.n_columns, "n_y": header.n_rows, "stratum": stratum, "n_files": n_files}
