"""Plain images (PNG, JPEG, NumPy arrays) and NIfTI as volumes, by their first bytes."""

from io import BytesIO

import numpy as np

from platform_core.errors import UnreadableScan
from platform_core.imaging.nifti import GZIP, KINDS, decode_volume
from platform_core.imaging.volume import Volume, Voxels

PNG, JPEG, NUMPY = b"\x89PNG", b"\xff\xd8\xff", b"\x93NUMPY"
ALMOST_GREY = 2
"""Largest difference between colour channels, of 255, that counts as grey: what JPEG rounding leaves."""
OPAQUE = 255


def image_format(data: bytes) -> str | None:
    """`png`, `jpeg`, `numpy` or `nifti` by the first bytes; None for anything else."""
    for start, name in ((PNG, "png"), (JPEG, "jpeg"), (NUMPY, "numpy"), (GZIP, "nifti")):
        if data.startswith(start):
            return name
    return "nifti" if bytes(data[:4]) in KINDS else None


def decode_image(data: bytes) -> Volume:
    """The image as a volume with z = 1 and no geometry; NIfTI keeps its geometry.

    Raises:
        UnreadableScan: `not_an_image`, `undecodable`, `colour`, `axes`, or as `decode_volume`.
    """
    kind = image_format(data)
    if kind is None:
        raise UnreadableScan("not_an_image", "expected PNG, JPEG or NIfTI, found something else")
    if kind == "nifti":
        return decode_volume(data)
    pixels = _array(data) if kind == "numpy" else _picture(data)
    if pixels.ndim == 3:
        pixels = _grey(pixels)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise UnreadableScan("axes", f"expected rows and columns, found {pixels.ndim} axes")
    return Volume(np.ascontiguousarray(pixels)[np.newaxis])


def _array(data: bytes) -> Voxels:
    try:
        return np.asarray(np.load(BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise UnreadableScan("undecodable", "the NumPy array is broken or ends early") from error


def _picture(data: bytes) -> Voxels:
    """Pixels of a PNG or JPEG, (y, x) or (y, x, channel)."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(_expanded(image))
    except Exception as error:  # pillow raises many kinds on broken or huge images; any means: no pixels
        raise UnreadableScan("undecodable", "the image file is broken, ends early, or is far too large") from error


def _expanded(image: "Image.Image") -> "Image.Image":  # type: ignore[name-defined] # noqa: F821 - pillow stays lazy
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA") if image.mode in ("P", "PA") else image


def _grey(pixels: Voxels) -> Voxels:
    """One channel of an image whose colour channels agree.

    Raises:
        UnreadableScan: `colour` if they do not, or if parts are transparent.
    """
    n_channels = pixels.shape[-1]
    colours = pixels[..., : n_channels - (n_channels in (2, 4))].astype(np.int32)
    if n_channels in (2, 4) and pixels[..., -1].min() < OPAQUE:
        raise UnreadableScan("colour", "parts of the image are transparent")
    if colours.shape[-1] > 1 and int(np.ptp(colours, axis=-1).max()) > ALMOST_GREY:
        raise UnreadableScan("colour", "expected a grey image, found colours")
    return pixels[..., 0]
