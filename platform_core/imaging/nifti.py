"""Volumes as `.nii.gz` bytes, and back.

NIfTI counts x to the right and y to the front (RAS), this platform follows DICOM (LPS);
the change of sign happens here and nowhere else. The header stores its affine in single
precision, so volumes of this platform carry their exact geometry in a comment extension,
which is believed only where it agrees with the affine.
"""

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib
from nibabel.nifti1 import Nifti1Extension

from platform_core.errors import UnreadableScan
from platform_core.imaging.volume import Geometry, Volume, Voxels

KEPT = ("uint8", "int16", "uint16", "int32", "float32")
CAST = {"bool": "uint8", "int8": "int16"}
"""Types that are stored as a wider one; all others become float32."""

COMMENT = 6
"""NIfTI extension code of a comment: nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
KINDS = {
    size.to_bytes(4, order): kind
    for size, kind in ((348, nib.Nifti1Image), (540, nib.Nifti2Image))
    for order in ("little", "big")
}
"""A NIfTI file opens with the size of its header, in its own byte order."""
GZIP, GZIP_BITS = b"\x1f\x8b", 16 + 15
ORTHOGONAL = 1e-3
"""Largest dot product of two axes that still counts as a right angle (0.06 degrees)."""


def encode_volume(volume: Volume) -> bytes:
    """The volume as `.nii.gz`; equal volumes give equal bytes.

    `uint8 int16 uint16 int32 float32` are kept; other types are cast to the nearest of them.
    """
    header, voxels = _header_and_voxels(volume)
    squeeze = isal_zlib.compressobj(1, isal_zlib.DEFLATED, GZIP_BITS)
    out = [squeeze.compress(header), *(squeeze.compress(plane) for plane in _planes(voxels)), squeeze.flush()]
    return b"".join(out)


def write_raw(volume: Volume, file: BinaryIO) -> None:
    """The volume as uncompressed `.nii`, plane by plane."""
    header, voxels = _header_and_voxels(volume)
    file.write(header)
    file.writelines(_planes(voxels))


def _planes(voxels: Voxels) -> Iterator[memoryview]:
    """The bytes of one plane after the other, without a copy of the whole."""
    for plane in voxels.reshape(-1, *voxels.shape[-2:]):
        yield np.ascontiguousarray(plane).data.cast("B")


def _header_and_voxels(volume: Volume) -> tuple[bytes, Voxels]:
    voxels = _storable(volume.voxels)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.T.shape)
    _state_geometry(header, volume.geometry)
    raw = BytesIO()
    header.write_to(raw)
    return raw.getvalue(), voxels


def decode_volume(data: bytes) -> Volume:
    """The volume in `.nii` or `.nii.gz` bytes, ours or anyone's; stored scale factors are applied.

    Raises:
        UnreadableScan: `not_nifti`, `truncated`, `colour`, `axes` or `sheared`.
    """
    image = _open(data)
    voxels = np.asarray(_voxels_of(image)).T
    while voxels.ndim > 4 and voxels.shape[0] == 1:
        voxels = voxels[0]
    if voxels.ndim == 2:
        voxels = voxels[np.newaxis]
    if voxels.ndim not in (3, 4):
        raise UnreadableScan("axes", f"expected 2 to 4 axes, found {voxels.ndim}")
    return Volume(np.ascontiguousarray(_storable(voxels)), _geometry_of(image.header))


def voxels_sha256(volume: Volume) -> str:
    """Hash of type, size and voxels, wherever they lie: the same for the same pixels under two names."""
    voxels = _storable(volume.voxels)
    digest = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape}\n".encode())
    for plane in voxels:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def volume_sha256(volume: Volume, voxels: str | None = None) -> str:
    """Hash of voxels and geometry: equal exactly when two volumes are.

    Args:
        volume: The volume.
        voxels: Its `voxels_sha256`, where it is known already.
    """
    told = f"{voxels or voxels_sha256(volume)} {_geometry_text(volume.geometry)}"
    return hashlib.sha256(told.encode()).hexdigest()


def _storable(voxels: Voxels) -> Voxels:
    name = voxels.dtype.name
    if name in KEPT:
        return voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
    return voxels.astype(CAST.get(name, "float32"))


def _geometry_text(geometry: Geometry | None) -> str:
    if geometry is None:
        return "plain"
    numbers = (geometry.spacing_mm, geometry.origin_mm, geometry.direction)
    return json.dumps([[float(x) + 0.0 for x in part] for part in numbers])


def _state_geometry(header: Any, geometry: Geometry | None) -> None:
    """Write the affine in both forms, or in neither."""
    if geometry is None:
        header.set_sform(None, code=0)
        header.set_qform(None, code=0)
        return
    affine = LPS_TO_RAS @ geometry.affine
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm", "sec")
    header.extensions.append(Nifti1Extension(COMMENT, _geometry_text(geometry).encode()))


def _open(data: bytes) -> Any:
    try:
        raw = igzip.decompress(data) if data[:2] == GZIP else data
    except (OSError, EOFError) as error:
        raise UnreadableScan("truncated", "the compressed NIfTI ends early") from error
    kind = KINDS.get(bytes(raw[:4]))
    if kind is None:
        raise UnreadableScan("not_nifti", "expected a NIfTI header, found something else")
    try:
        return kind.from_bytes(bytes(raw))
    except Exception as error:  # nibabel raises many kinds; any means that the header cannot be used
        raise UnreadableScan("not_nifti", "the NIfTI header cannot be used") from error


def _voxels_of(image: Any) -> Voxels:
    if image.header.get_data_dtype().names is not None:
        raise UnreadableScan("colour", "expected one number per voxel, found a colour type")
    try:
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError) as error:
        raise UnreadableScan("truncated", "the voxels of the NIfTI end early") from error


def _geometry_of(header: Any) -> Geometry | None:
    if not (header["sform_code"] or header["qform_code"]):
        return None
    affine = LPS_TO_RAS @ np.asarray(header.get_best_affine(), dtype=np.float64)
    return _exact_geometry(header, affine) or _geometry_from(affine)


def _exact_geometry(header: Any, affine: npt.NDArray[np.float64]) -> Geometry | None:
    for extension in header.extensions:
        if extension.get_code() != COMMENT:
            continue
        try:
            spacing, origin, direction = json.loads(extension.text.rstrip("\x00"))
            exact = Geometry(tuple(spacing), tuple(origin), tuple(direction))
        except (ValueError, TypeError):
            continue
        if np.allclose(exact.affine, affine, rtol=1e-5, atol=1e-4):
            return exact
    return None


def _geometry_from(affine: npt.NDArray[np.float64]) -> Geometry:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or np.any(spacing <= 0):
        raise UnreadableScan("no_spacing", "the affine of the NIfTI has an axis without length")
    direction = affine[:3, :3] / spacing
    if np.max(np.abs(direction.T @ direction - np.eye(3))) > ORTHOGONAL:
        raise UnreadableScan("sheared", "the axes of the NIfTI are not at right angles")
    x, y, z = (float(value) for value in spacing)
    a, b, c = (float(value) for value in affine[:3, 3])
    return Geometry((x, y, z), (a, b, c), tuple(float(value) for value in direction.ravel()))
