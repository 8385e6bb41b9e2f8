"""A patient with one lesion, as formulas in mm and HU; no voxel exists before a scanner looks.

Everything is a sum of ellipses with sharp rims, plane waves (tissue texture) and Gaussian
blobs (vessels, lesion), because a scanner's blur of each is known in closed form. Axes are
(z, y, x) in mm from the centre of the volume, x to the left, y to the back, z to the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

Lesion = Literal["benign", "malignant"]
Array = npt.NDArray[np.float32]

N_WAVES = 128
LARGEST_MM, SMALLEST_MM = 50.0, 3.0
"""Wavelengths of the texture; shorter ones would drown in the noise of any scanner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A normal distribution that is cut off three standard deviations from its mean."""

    mean: float
    sd: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return self.mean + self.sd * float(np.clip(rng.standard_normal(), -3, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionHabit:
    """How lesions of one class look; the two classes overlap in each of these."""

    contrast_hu: Spread
    """Peak above the organ, before any blur."""
    radius_mm: Spread
    """Standard deviation of the Gaussian profile; the width at half height is 2.35 times that."""


LESIONS: Mapping[Lesion, LesionHabit] = MappingProxyType(
    {
        "benign": LesionHabit(contrast_hu=Spread(mean=-175, sd=78), radius_mm=Spread(mean=2.3, sd=0.2)),
        "malignant": LesionHabit(contrast_hu=Spread(mean=180, sd=78), radius_mm=Spread(mean=2.4, sd=0.2)),
    }
)
ENDLESS_MM = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """A region that adds `step_hu` to what surrounds it; an infinite semi-axis along z makes it a cylinder."""

    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    step_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """Texture: plane waves `amplitude_hu * cos(2 pi frequency . position + phase)`."""

    frequency_per_mm: Array
    """(wave, 3): along z, y, x."""
    phase: Array
    """(wave,) in radians."""
    amplitude_hu: Array
    """(wave,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """Gaussian profiles; with a radius of `ENDLESS_MM` along z, tubes that may lean."""

    centre_mm: Array
    """(blob, 3): z, y, x."""
    radius_mm: Array
    """(blob, 3): standard deviation along z, y, x."""
    peak_hu: Array
    """(blob,)"""
    lean: Array = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    """(blob, 2): how far the centre moves along y and x per mm along z."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What is there to be seen in one patient on one day."""

    lesion: Lesion
    body: Ellipsoid
    inner: tuple[Ellipsoid, ...]
    waves: Waves
    blobs: Blobs


def draw_anatomy(lesion: Lesion, rng: np.random.Generator) -> Anatomy:
    """Draw a patient: same generator state and class, same patient."""
    body = Ellipsoid(
        centre_mm=(0.0, 0.0, 0.0),
        semi_axes_mm=(np.inf, Spread(mean=25, sd=1.2).draw(rng), Spread(mean=31, sd=1.4).draw(rng)),
        step_hu=910.0,
    )
    fat_mm = Spread(mean=3.5, sd=0.5).draw(rng)
    muscle = Ellipsoid(
        centre_mm=body.centre_mm,
        semi_axes_mm=(np.inf, body.semi_axes_mm[1] - fat_mm, body.semi_axes_mm[2] - fat_mm),
        step_hu=Spread(mean=135, sd=4).draw(rng),
    )
    organ = Ellipsoid(
        centre_mm=(0.0, Spread(mean=-5, sd=1).draw(rng), Spread(mean=-4, sd=1.5).draw(rng)),
        semi_axes_mm=(45.0, Spread(mean=14, sd=1).draw(rng), Spread(mean=18, sd=1).draw(rng)),
        step_hu=Spread(mean=25, sd=4).draw(rng),
    )
    spine = Ellipsoid(
        centre_mm=(0.0, body.semi_axes_mm[1] - Spread(mean=11.5, sd=0.6).draw(rng), Spread(mean=0, sd=0.6).draw(rng)),
        semi_axes_mm=(np.inf, Spread(mean=6, sd=0.5).draw(rng), Spread(mean=8.5, sd=0.7).draw(rng)),
        step_hu=Spread(mean=260, sd=30).draw(rng),
    )
    return Anatomy(
        lesion=lesion,
        body=body,
        inner=(muscle, organ, spine),
        waves=_draw_waves(rng),
        blobs=_draw_blobs(lesion, organ, rng),
    )


def _draw_waves(rng: np.random.Generator) -> Waves:
    """Equal energy per octave in every direction: a power spectrum of about f^-2 in a slice.

    Source:
        Chen et al. 2012 (breast CT, thin slices: 1.72 to 1.88), PMC3298563.
    """
    frequency = np.exp(rng.uniform(np.log(1 / LARGEST_MM), np.log(1 / SMALLEST_MM), N_WAVES))
    direction = rng.standard_normal((N_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    sd_hu = 6.0 * np.exp(0.12 * rng.standard_normal())
    return Waves(
        frequency_per_mm=(frequency[:, None] * direction).astype(np.float32),
        phase=rng.uniform(0, 2 * np.pi, N_WAVES).astype(np.float32),
        amplitude_hu=np.full(N_WAVES, sd_hu * np.sqrt(2 / N_WAVES), np.float32),
    )


def _draw_blobs(lesion: Lesion, organ: Ellipsoid, rng: np.random.Generator) -> Blobs:
    lesions, vessels = _draw_lesion(LESIONS[lesion], organ, rng), _draw_vessels(rng)
    parts = [np.concatenate(pair) for pair in zip(lesions, vessels, strict=True)]
    centre, radius, peak, lean = (part.astype(np.float32) for part in parts)
    return Blobs(centre_mm=centre, radius_mm=radius, peak_hu=peak, lean=lean)


Parts = tuple[npt.NDArray[np.float64], ...]


def _draw_lesion(habit: LesionHabit, organ: Ellipsoid, rng: np.random.Generator) -> Parts:
    angle, reach = rng.uniform(0, 2 * np.pi), 0.55 * np.sqrt(rng.uniform())
    _, y0, x0 = organ.centre_mm
    _, b, a = organ.semi_axes_mm
    centre = np.array([[rng.uniform(-9, 9), y0 + b * reach * np.sin(angle), x0 + a * reach * np.cos(angle)]])
    radius = habit.radius_mm.draw(rng) * rng.uniform(0.9, 1.1, (1, 3))
    return centre, radius, np.array([habit.contrast_hu.draw(rng)]), np.zeros((1, 2))


def _draw_vessels(rng: np.random.Generator) -> Parts:
    """Bright leaning tubes: they carry the upper quantiles of a scan, so that the lesion does not."""
    n = int(rng.integers(3, 7))
    angle, reach = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.2, 1, n)
    centre = np.stack([np.zeros(n), 18 * reach * np.sin(angle), 24 * reach * np.cos(angle)], axis=1)
    radius = rng.uniform(1.2, 2.0, (n, 1)) * np.ones(3)
    radius[:, 0] = ENDLESS_MM
    return centre, radius, rng.uniform(40, 90, n), rng.normal(0, 0.12, (n, 2))
