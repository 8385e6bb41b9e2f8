"""What may happen to a site, in physical units, at strengths 0 (barely), 1 (moderate) and 2 (strong).

An operator on the scanner makes other images of the same patients; an operator on the patients makes another choice
of them; an operator on the labels makes another reading of the same patients. Axes of images are (z, y, x).

Source:
    The table is that of `world`'s reference: blur after f50 .42 to .35 mm^-1 and further, dose 10 % to a factor 2.1 of
    noise, spacing +4 % to +40 %, slices 1.5 to 5 times as thick. `SHARP_KERNEL` was held out of development.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from platform_core.phantom.acquire import AIR_HU, Acquisition

Reals = npt.NDArray[np.float64]
Strength = int
STRENGTHS: tuple[Strength, ...] = (0, 1, 2)
NONE = ("none", 0)
"""The untouched world."""


def unchanged(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """The scanner as it was."""
    return acquisition


def untouched(voxels: Reals, strength: Strength, rng: np.random.Generator) -> Reals:
    """The image as it was."""
    return voxels


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerOperator:
    """Something that changes how scans are made."""

    name: str
    scan: Callable[[Acquisition, Strength], Acquisition] = unchanged
    """Applied before noise is made, so that noise is that of the new scanner and not the old one's, blurred."""
    image: Callable[[Reals, Strength, np.random.Generator], Reals] = untouched
    """Applied to the measured HU."""


def _wider_psf(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """In-plane point spread 1.2, 1.57, 2.6 times as wide; the noise keeps its size and grain."""
    return replace(acquisition, psf_sigma_mm=acquisition.psf_sigma_mm * (1.2, 1.57, 2.6)[strength])


def _sharper_kernel(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """f50 from .30 to .34, .38, .42 mm^-1 (B30 to B50): blur and grain shrink as much, and noise grows."""
    finer = 0.30 / (0.34, 0.38, 0.42)[strength]
    return replace(
        acquisition,
        psf_sigma_mm=acquisition.psf_sigma_mm * finer,
        noise_grain_mm=acquisition.noise_grain_mm * finer,
        noise_hu=acquisition.noise_hu * (1.15, 1.35, 1.6)[strength],
    )


def _less_dose(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """Dose times .83, .53, .22: noise times its inverse root."""
    return replace(acquisition, noise_hu=acquisition.noise_hu / np.sqrt((0.83, 0.53, 0.22)[strength]))


def _larger_pixels(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """Pixels 4, 15, 40 % larger; the matrix stays, as scanners have it, so the field of view grows."""
    x, y, z = acquisition.spacing_mm
    larger = (1.04, 1.15, 1.40)[strength]
    return replace(acquisition, spacing_mm=(x * larger, y * larger, z))


def _thicker_slices(acquisition: Acquisition, strength: Strength) -> Acquisition:
    """Slices 1.5, 3, 5 times as thick, over the same length of the patient; photons add up, so noise falls."""
    (n_x, n_y, n_z), (x, y, z) = acquisition.size, acquisition.spacing_mm
    thicker = (1.5, 3.0, 5.0)[strength]
    return replace(
        acquisition,
        size=(n_x, n_y, max(4, round(n_z / thicker))),
        spacing_mm=(x, y, z * thicker),
        noise_hu=acquisition.noise_hu / np.sqrt(thicker),
    )


LOW_HU, HIGH_HU = -200.0, 300.0
"""The window whose look-up table is bent; outside it nothing changes."""


def _bent_intensity(voxels: Reals, strength: Strength, rng: np.random.Generator) -> Reals:
    """Gamma .95, .85, .65 within a window: soft tissue gets brighter by about 9, 28, 70 HU, its ends stay."""
    share = np.clip((voxels - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
    return voxels + (HIGH_HU - LOW_HU) * (share ** (0.95, 0.85, 0.65)[strength] - share)


def field_of(n_y: int, n_x: int, sd: float, rng: np.random.Generator) -> Reals:
    """(y, x): exp of a random polynomial of second degree whose values have the standard deviation `sd`."""
    y, x = np.linspace(-1, 1, n_y)[:, None], np.linspace(-1, 1, n_x)[None, :]
    terms = [x + 0 * y, y + 0 * x, x * y, x**2 + 0 * y, y**2 + 0 * x]
    poly = np.tensordot(rng.standard_normal(len(terms)), np.stack([t - t.mean() for t in terms]), axes=1)
    field: Reals = np.exp(sd * poly / poly.std())
    return field


def _bias_field(voxels: Reals, strength: Strength, rng: np.random.Generator) -> Reals:
    """HU + 1000 times a smooth field in plane, another one for each scan, whose ln has an SD of .05, .12, .25."""
    n_y, n_x = voxels.shape[1:]
    field = field_of(n_y, n_x, (0.05, 0.12, 0.25)[strength], rng)
    return (voxels - AIR_HU) * field + AIR_HU


NO_OPERATOR = ScannerOperator(name="none")
SHARP_KERNEL = ScannerOperator(name="sharp_kernel", scan=_sharper_kernel)
SCANNER_OPERATORS: dict[str, ScannerOperator] = {
    operator.name: operator
    for operator in (
        ScannerOperator(name="psf", scan=_wider_psf),
        ScannerOperator(name="dose", scan=_less_dose),
        ScannerOperator(name="spacing", scan=_larger_pixels),
        ScannerOperator(name="thickness", scan=_thicker_slices),
        ScannerOperator(name="gamma", image=_bent_intensity),
        ScannerOperator(name="bias_field", image=_bias_field),
        SHARP_KERNEL,
    )
}
HELD_OUT = SHARP_KERNEL.name
"""Nothing was developed on this family. Its AUROC was printed when pools were built, and its first rows lay in the
CSV while the diagnosis was mended for other reasons."""
DEVELOPED_ON = tuple(name for name in SCANNER_OPERATORS if name != HELD_OUT)

PREVALENCE = 0.30
"""Of the reference and of a site to which nothing has happened."""
PREVALENCES = (0.36, 0.45, 0.65)
"""By strength."""
RELABELLED_SHARE = (0.10, 0.25, 0.50)
"""Positives that are called negative whatever they look like, by strength."""
SIZE_CUT = (0.15, 0.30, 0.55)
"""Share of the range of severity below which positives are called negative, by strength."""
TILTED_BY = (0.10, 0.25, 0.50)
"""By how much of itself a case-mix moves the mean severity of positives, by strength."""


def relabelled_at_random(y: Reals, strength: Strength, rng: np.random.Generator) -> Reals:
    """Some positives are called negative."""
    return np.asarray(y * (rng.random(len(y)) >= RELABELLED_SHARE[strength]), dtype=np.float64)


def relabelled_by_size(y: Reals, severity: Reals, strength: Strength) -> Reals:
    """The smallest positives are called negative: a threshold on size has moved."""
    return np.asarray(y * (severity >= SIZE_CUT[strength]), dtype=np.float64)


def tilted_weights(severity: Reals, factor: float) -> Reals:
    """Weights, of sum 1, that multiply the mean of `severity` by `factor` and are otherwise as even as can be.

    Source:
        Exponential tilting; the slope is found by bisection.
    """
    wanted, low, high = factor * severity.mean(), -60.0, 60.0
    for _ in range(60):
        slope = (low + high) / 2
        weight = np.exp(slope * (severity - severity.mean()))
        low, high = (slope, high) if np.average(severity, weights=weight) < wanted else (low, slope)
    tilted: Reals = weight / weight.sum()
    return tilted
