"""Divide out the smooth shading that coils and field leave over an MR (N4)."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.foreground import otsu_threshold
from platform_core.imaging.volume import Volume, Voxels

Floats = npt.NDArray[np.float32]
Positive = Annotated[int, Field(gt=0, le=1000)]

MIN_ALONG = 16
"""Voxels that the coarse grid keeps along an axis, where the scan has them: its splines need a few."""
MIN_SLICES = 3
"""Fewer slices are averaged: N4's splines swing between the two ends of an axis that has nothing between them."""
MIN_FOREGROUND = 64
"""Voxels of foreground on the coarse grid, below which shading cannot be told from anatomy. Ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasField:
    """How finely, how long and where the field is sought."""

    grid_spacing_mm: Annotated[float, Field(gt=0, le=50)] = 4.0
    """About the spacing of the coarse grid on which the field is sought; twice as wide is eight times as fast."""
    iterations: tuple[Positive, ...] = (30, 30, 30)
    """Most iterations at each level; every level halves the distance of the knots, from the whole field of view."""
    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground; left out: Otsu's threshold of each volume. Only positive ones are used."""

    def __post_init__(self) -> None:
        if not self.iterations:
            raise ValueError("iterations needs at least one level")


def remove_bias_field(volume: Volume, settings: BiasField, learned: Learned) -> Volume:  # noqa: ARG001
    """Divide by the field that N4 finds in the foreground on a coarse grid.

    The field has the geometric mean 1 over the foreground, so a scan keeps its scale. It is positive: zero stays
    zero and signs stay. A scan of one or two slices is corrected in two dimensions.

    Args:
        volume: Still volume (z, y, x) with geometry, MR magnitudes.
        settings: Grid, iterations, foreground.
        learned: Not used.

    Returns:
        float32 volume on the same grid, in the unit of the input. Unchanged if it is constant or holds next to no
        positive foreground.

    Raises:
        UnreadableScan: `bias_field_failed` if N4 finds no finite field.

    Source:
        Tustison et al. 2010, IEEE Trans. Med. Imaging 29(6):1310-1320, doi:10.1109/TMI.2010.2046908, as in
        SimpleITK. The field is smooth, so it is carried from the coarse grid to the full one linearly.
    """
    assert volume.geometry is not None, "the recipe skips volumes without geometry"
    factors = _factors(volume.voxels.shape, volume.geometry.spacing_mm[::-1], settings.grid_spacing_mm)
    coarse = _block_means(volume.voxels, factors)
    inside = _positive_foreground(coarse, settings.foreground_above)
    if np.count_nonzero(inside) < MIN_FOREGROUND:
        return replace(volume, voxels=volume.voxels.astype(np.float32))
    spacing_mm = [f * mm for f, mm in zip(factors, volume.geometry.spacing_mm[::-1], strict=True)]
    log_field = _log_field(coarse, inside, spacing_mm, settings.iterations)
    log_field -= log_field[inside].mean()
    return replace(volume, voxels=_divided(volume.voxels, log_field, factors))


def _factors(shape: tuple[int, ...], spacing_mm: tuple[float, ...], wanted_mm: float) -> list[int]:
    """Voxels along (z, y, x) that become one."""
    factors = [max(1, min(round(wanted_mm / mm), n // MIN_ALONG)) for n, mm in zip(shape, spacing_mm, strict=True)]
    return [shape[0] if shape[0] < MIN_SLICES else factors[0], *factors[1:]]


def _block_means(voxels: Voxels, factors: list[int]) -> Floats:
    """Means of blocks (z, y, x); an incomplete block at the far end is left out."""
    z, y, x = (n // f for n, f in zip(voxels.shape, factors, strict=True))
    fz, fy, fx = factors
    whole = voxels[: z * fz, : y * fy, : x * fx]
    means: Floats = whole.reshape(z, fz, y, fy, x, fx).mean(axis=(1, 3, 5), dtype=np.float32)
    return means


def _positive_foreground(coarse: Floats, above: float | None) -> npt.NDArray[np.bool_]:
    threshold = otsu_threshold(coarse) if above is None else above
    return np.zeros(coarse.shape, dtype=bool) if threshold is None else coarse > max(threshold, 0.0)


def _log_field(
    coarse: Floats, inside: npt.NDArray[np.bool_], spacing_mm: list[float], iterations: tuple[int, ...]
) -> Floats:
    """The natural logarithm of the field on the coarse grid (z, y, x)."""
    import SimpleITK as sitk  # noqa: N813 - its documentation knows it by this name

    # the sums of ITK hang on the number of threads in their last bits, and some of N4's inner filters take the default
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    flat = coarse.shape[0] == 1
    image, mask = (sitk.GetImageFromArray(array[0] if flat else array) for array in (coarse, inside.astype(np.uint8)))
    for grid in (image, mask):
        grid.SetSpacing(spacing_mm[:0:-1] if flat else spacing_mm[::-1])
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(iterations)
    try:
        n4.Execute(image, mask)
        field: Floats = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).reshape(coarse.shape)
    except RuntimeError as error:
        raise UnreadableScan("bias_field_failed", "N4 cannot work on this volume") from error
    if not np.isfinite(field).all():
        raise UnreadableScan("bias_field_failed", "N4 found a field that is not finite")
    return field


def _divided(voxels: Voxels, log_field: Floats, factors: list[int]) -> Floats:
    """Voxels over the field, plane by plane; beyond the outermost coarse voxels the field goes on as it is."""
    along_z, along_y, along_x = (
        _interpolation(n, n_coarse, factor)
        for n, n_coarse, factor in zip(voxels.shape, log_field.shape, factors, strict=True)
    )
    divided = np.empty(voxels.shape, dtype=np.float32)
    for z, plane in enumerate(voxels):
        coarse_plane = np.tensordot(along_z[z], log_field, axes=1)
        np.multiply(plane, np.exp(-(along_y @ coarse_plane @ along_x.T)), out=divided[z])
    return divided


def _interpolation(n: int, n_coarse: int, factor: int) -> Floats:
    """Weights (n, n_coarse) of linear interpolation from centres of blocks to voxels."""
    place = np.clip((np.arange(n) - (factor - 1) / 2) / factor, 0, n_coarse - 1)
    weights: Floats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(n_coarse))).astype(np.float32)
    return weights


BIAS_FIELD = Harmonizer(name="bias_field", settings=BiasField, apply=remove_bias_field, needs_spacing=True)
