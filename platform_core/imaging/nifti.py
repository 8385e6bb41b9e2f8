"""Volumes as `.nii.gz` bytes, and back.

NIfTI counts x to the right and y to the front (RAS), this platform follows DICOM (LPS);
the change of sign happens here and nowhere else. The header stores its affine in single
precision, so volumes of this platform carry their exact geometry in a comment extension,
which is believed only where it agrees with the affine.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib, isal_zlib
from nibabel.nifti1 import Nifti1Extension

from platform_core.errors import UnreadableScan
from platform_core.imaging.foreground import evenly
from platform_core.imaging.volume import Geometry, Volume, Voxels

KEPT = ("uint8", "int16", "uint16", "int32", "float32")
CAST = {"bool": "uint8", "int8": "int16"}
"""Types that are stored as a wider one; all others become float32."""

COMMENT = 6
"""NIfTI extension code of a comment: nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, cast("type[Exception]", igzip_lib.IsalError))
"""What a compressed file raises that is cut, or has a bit turned."""
KINDS = {
    size.to_bytes(4, order): kind
    for size, kind in ((348, nib.Nifti1Image), (540, nib.Nifti2Image))
    for order in ("little", "big")
}
"""A NIfTI file opens with the size of its header, in its own byte order."""
LEAST_PEAK, FINEST_OF_SPREAD, N_SPREAD = 1e-30, 1e-3, 200_000
"""Of `rounding_step`: below the first, single precision loses digits; the last is how many voxels are looked at."""
GZIP, GZIP_BITS = b"\x1f\x8b", 16 + 15
ORTHOGONAL = 1e-3
"""Largest dot product of two axes that still counts as a right angle (0.06 degrees)."""


def encode_volume(volume: Volume) -> bytes:
    """The volume as `.nii.gz`; equal volumes give equal bytes.

    `uint8 int16 uint16 int32 float32` are kept; other types are cast to the nearest of them.
    """
    header, voxels = _header_and_voxels(volume)
    return _squeezed(header, _planes(voxels))


def encode_rounded(volume: Volume) -> tuple[bytes, str]:
    """A float32 volume as `.nii.gz` of half the size and time, and the `volume_sha256` of what a reader gets back.

    Voxels are rounded to multiples of a step, a power of two, so that they are stored as int16 with NIfTI's scale
    factor and every reader gets the same float32 numbers. No voxel moves by more than 1/32,767 of the greatest
    magnitude: 1/64 HU in a window from -1000 to 400 HU. Where `rounding_step` finds none, nothing is rounded.
    """
    step = rounding_step(volume.voxels)
    if step is None:
        return encode_volume(volume), volume_sha256(volume)
    kept = hashlib.sha256(_voxels_told(volume.voxels))

    def codes() -> Iterator[memoryview]:
        for plane in volume.voxels.reshape(-1, *volume.voxels.shape[-2:]):
            code = np.rint(plane * np.float32(1 / step)).astype("<i2")
            kept.update(np.multiply(code, np.float32(step), dtype="<f4").data)
            yield code.data.cast("B")

    header = _header(np.dtype("<i2"), volume.voxels.shape, volume.geometry, step)
    data = _squeezed(header, codes())
    return data, volume_sha256(volume, kept.hexdigest())


def rounding_step(voxels: Voxels) -> float | None:
    """The step of which `encode_rounded` keeps multiples; None where voxels are not float32, not finite or too uneven.

    The least power of two that 16 bits can count up to the greatest magnitude; not 1, for a scale factor of 1 is
    none. Too uneven: the step would exceed a thousandth of the range of the middle 98 % of the voxels, as where
    metal outshines all others.
    """
    peak = max(abs(float(voxels.min())), abs(float(voxels.max())))
    if voxels.dtype.name != "float32" or not LEAST_PEAK < peak < math.inf:
        return None
    step = 2.0 ** math.ceil(math.log2(peak / np.iinfo(np.int16).max))
    low, high = np.quantile(evenly(voxels, N_SPREAD), (0.01, 0.99))
    return step if step != 1 and step <= FINEST_OF_SPREAD * (high - low) else None


def _squeezed(header: bytes, planes: Iterator[memoryview]) -> bytes:
    squeeze = isal_zlib.compressobj(1, isal_zlib.DEFLATED, GZIP_BITS)
    return b"".join([squeeze.compress(header), *(squeeze.compress(plane) for plane in planes), squeeze.flush()])


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
    return _header(voxels.dtype, voxels.shape, volume.geometry), voxels


def _header(dtype: np.dtype[Any], shape: tuple[int, ...], geometry: Geometry | None, slope: float = 1.0) -> bytes:
    """`shape` is (t, z, y, x) or (z, y, x)."""
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape[::-1])
    header.set_slope_inter(*((slope, 0.0) if slope != 1 else (None, None)))
    _state_geometry(header, geometry)
    raw = BytesIO()
    header.write_to(raw)
    return raw.getvalue()


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
    digest = hashlib.sha256(_voxels_told(voxels))
    for plane in voxels:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _voxels_told(voxels: Voxels) -> bytes:
    return f"{voxels.dtype.str} {voxels.shape}\n".encode()


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
    except DAMAGED as error:
        raise UnreadableScan("truncated", "the compressed NIfTI is damaged or ends early") from error
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
        stored = image.dataobj
        if stored.inter == 0 and stored.slope != 1 and math.frexp(stored.slope)[0] == 0.5 and stored.dtype.itemsize < 4:
            # a power of two: single precision gives what nibabel's double precision would, in half the memory
            exact: Voxels = np.multiply(stored.get_unscaled(), np.float32(stored.slope), dtype=np.float32)
            return exact
        return np.asanyarray(stored)
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
