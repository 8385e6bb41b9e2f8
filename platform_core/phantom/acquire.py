"""A scanner looks at a patient: blur, sampling and noise in physical units."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d
from scipy.special import ndtr

from platform_core.imaging.volume import Geometry, Volume
from platform_core.phantom.anatomy import Anatomy, Array, Blobs, Ellipsoid, Waves

FLOOR_HU = -1024
"""The least value a CT stores; noise in air is cut off there, as scanners do."""
AIR_HU = -1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How a scan is made. Order is (x, y, z), as in `Geometry`."""

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    psf_sigma_mm: float
    """In-plane blur: standard deviation of the Gaussian point spread function (MTF50 = 0.187 / sigma)."""
    noise_hu: float
    """Standard deviation of the noise in one voxel."""
    noise_grain_mm: float = 0.6
    """Standard deviation of the in-plane smoothing of that noise: what the kernel leaves of its high frequencies."""
    gain: float = 1.0
    """Calibration error: measured (HU + 1000) over true."""
    offset_hu: float = 0.0


def acquire(anatomy: Anatomy, acquisition: Acquisition, rng: np.random.Generator) -> Volume:
    """Scan a patient: int16 HU, (z, y, x), centred on the patient."""
    truth = (expected_hu(anatomy, acquisition) - AIR_HU) * acquisition.gain + AIR_HU + acquisition.offset_hu
    measured = truth + _noise_hu(acquisition, rng)
    voxels = np.maximum(np.rint(measured), FLOOR_HU).astype(np.int16)
    return Volume(voxels, Geometry(acquisition.spacing_mm, origin_mm(acquisition)))


def origin_mm(acquisition: Acquisition) -> tuple[float, float, float]:
    """Centre of the first voxel (x, y, z), the patient's centre being zero."""
    x, y, z = (-(n - 1) / 2 * mm for n, mm in zip(acquisition.size, acquisition.spacing_mm, strict=True))
    return x, y, z


def expected_hu(anatomy: Anatomy, acquisition: Acquisition) -> Array:
    """What a scanner without noise or calibration error would see: blurred in plane, averaged over the slice."""
    blur = _blur_mm(acquisition)
    z, y, x = _axes_mm(acquisition)
    body = _inside(anatomy.body, z, y, x, blur)
    tissue = _texture(anatomy.waves, z, y, x, acquisition) + _profiles(anatomy.blobs, z, y, x, blur)
    for part in anatomy.inner:
        tissue += np.float32(part.step_hu) * _inside(part, z, y, x, blur)
    hu: Array = np.float32(AIR_HU) + body * (np.float32(anatomy.body.step_hu) + tissue)
    return hu


def _blur_mm(acquisition: Acquisition) -> Array:
    """Standard deviation of the blur along z, y, x; a slice is a box, of variance thickness^2 / 12."""
    in_plane = acquisition.psf_sigma_mm
    return np.array([acquisition.spacing_mm[2] / np.sqrt(12), in_plane, in_plane], np.float32)


def _axes_mm(acquisition: Acquisition) -> tuple[Array, Array, Array]:
    axes = zip(acquisition.size, acquisition.spacing_mm, strict=True)
    x, y, z = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(mm) for n, mm in axes)
    return z, y, x


def _inside(region: Ellipsoid, z: Array, y: Array, x: Array, blur: Array) -> Array:
    """Share of a blurred voxel that lies inside: the normal integral of the distance to the rim (first order)."""
    centre, axes = region.centre_mm, region.semi_axes_mm
    (u, v, w) = (np.float32(1 / a) for a in axes)
    dz = ((z if np.isfinite(axes[0]) else z[:1]) - np.float32(centre[0]))[:, None, None] * u
    dy, dx = (y - np.float32(centre[1]))[None, :, None] * v, (x - np.float32(centre[2]))[None, None, :] * w
    rho = np.sqrt(dz**2 + dy**2 + dx**2) + np.float32(1e-6)
    slope = np.sqrt((dz * u) ** 2 + (dy * v) ** 2 + (dx * w) ** 2) / rho + np.float32(1e-6)
    share: Array = ndtr((1 - rho) / (slope * blur[1]))
    return share


def _texture(waves: Waves, z: Array, y: Array, x: Array, acquisition: Acquisition) -> Array:
    """Sum of the waves, each damped by the transfer function; as two matrix products, (z y, wave) by (wave, x)."""
    fz, fy, fx = waves.frequency_per_mm.T
    sigma, thickness = acquisition.psf_sigma_mm, acquisition.spacing_mm[2]
    damped = waves.amplitude_hu * np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2)) * np.sinc(fz * thickness)
    turn = np.float32(2 * np.pi)
    along = (turn * (z[:, None, None] * fz + y[:, None] * fy) + waves.phase).reshape(-1, len(damped))
    across = turn * fx[:, None] * x
    field: Array = (damped * np.cos(along)) @ np.cos(across) - (damped * np.sin(along)) @ np.sin(across)
    return field.reshape(len(z), len(y), len(x))


def _profiles(blobs: Blobs, z: Array, y: Array, x: Array, blur: Array) -> Array:
    """Sum of the blobs: a blurred Gaussian is a wider and lower Gaussian."""
    width = np.hypot(blobs.radius_mm, blur)
    along_z = np.exp(-0.5 * ((z[:, None] - blobs.centre_mm[:, 0]) / width[:, 0]) ** 2)
    centre = blobs.centre_mm[:, 1:] + z[:, None, None] * blobs.lean
    along_y = np.exp(-0.5 * ((y - centre[..., 0, None]) / width[:, 1, None]) ** 2)
    along_x = np.exp(-0.5 * ((x - centre[..., 1, None]) / width[:, 2, None]) ** 2)
    height = along_z * blobs.peak_hu * (blobs.radius_mm / width).prod(axis=1)
    summed: Array = np.matmul((along_y * height[..., None]).transpose(0, 2, 1), along_x)
    return summed


def _noise_hu(acquisition: Acquisition, rng: np.random.Generator) -> Array:
    n_x, n_y, n_z = acquisition.size
    white = rng.standard_normal((n_z, n_y, n_x), dtype=np.float32)
    for axis, mm in ((1, acquisition.spacing_mm[1]), (2, acquisition.spacing_mm[0])):
        white = correlate1d(white, _grain(round(acquisition.noise_grain_mm / mm, 4)), axis=axis, mode="wrap")
    return np.float32(acquisition.noise_hu) * white


@lru_cache
def _grain(sigma_voxels: float) -> npt.NDArray[np.float64]:
    """A Gaussian whose squares add up to one, so that it keeps the variance of white noise."""
    reach = max(1, round(4 * sigma_voxels))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_voxels) ** 2)
    weights: npt.NDArray[np.float64] = kernel / np.sqrt((kernel**2).sum())
    return weights
