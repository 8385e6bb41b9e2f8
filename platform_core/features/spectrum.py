"""How power is spread over spatial frequency, in cycles/mm and never in pixels."""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from platform_core.features.contract import Family, Feature
from platform_core.features.slices import Slices

Floats = npt.NDArray[np.float64]

BANDS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.7))
"""Cycles/mm. Kernel, noise and matrix show in them: Gallardo-Estrella et al. 2016, doi:10.1007/s00330-015-3824-y."""
SLOPE_BAND = (0.05, 0.25)
"""Cycles/mm where the spectrum is anatomy; above it is noise and kernel."""
TRUSTED = 0.9
"""Share of the Nyquist frequency up to which a spectrum is believed."""
MIN_RINGS = 4


def measure_spectrum(slices: Slices) -> Mapping[str, float | None]:
    """Slope of the power spectrum, and log power in bands.

    Definition: P = |FFT(w (I - mean I))|^2 * pixel area / sum w^2 with a Hann window w over the field of view (the same
    window in mm, however fine the pixels are), mean over slices, then over rings one frequency step wide. P is free
    of the grid below Nyquist; a wider field of view dilutes the patient's with air.

    spectrum_slope is alpha of P ~ f^-alpha, least squares of ln P on ln f over .05 to .25 cycles/mm; it grows with
    smoothing and slice thickness. A band is ln of the mean of P over its frequencies; it grows with structure,
    sharpness and noise. All real numbers. A feature whose band reaches above 0.9 of the Nyquist frequency of the
    coarser axis, or holds too few frequencies, is None; so are all for plain images.

    Unit: HU^2 mm^2 for CT, others mm^2 after division by the foreground's median.

    Source:
        Power law of natural images: Tolhurst, Tadmor & Chao 1992, Ophthalmic Physiol. Opt. 12(2):229-232; of breast
        CT slices (alpha about 1.8) and slabs (about 3): Chen et al. 2012, PMC3298563.
    """
    if slices.geometry is None or slices.image is None:
        return {}
    x_mm, y_mm, _ = slices.geometry.spacing_mm
    power = _power(slices.image, x_mm, y_mm)
    frequency, weight = _frequencies(*slices.voxels.shape[1:], x_mm, y_mm)
    highest = TRUSTED / (2 * max(x_mm, y_mm))
    step = 1 / min(slices.size[0] * x_mm, slices.size[1] * y_mm)
    told: dict[str, float | None] = {}
    for band in BANDS:
        told[_band_name(band, slices.unit)] = _log_power(power, frequency, weight, band, highest)
    return told | {"spectrum_slope": _slope(power, frequency, weight, step, highest)}


def _power(image: npt.NDArray[np.float32], x_mm: float, y_mm: float) -> Floats:
    """Mean power spectrum of the slices, (y, non-negative x frequencies), in squared intensity times mm^2."""
    image = image - image.mean(axis=(1, 2), keepdims=True)
    window = np.outer(_hann(image.shape[1]), _hann(image.shape[2])).astype(np.float32)
    total = np.zeros((image.shape[1], image.shape[2] // 2 + 1))
    for plane in image:
        spectrum = np.fft.rfft2(plane * window)
        total += spectrum.real**2 + spectrum.imag**2
    area: Floats = total / len(image) * (x_mm * y_mm) / float(np.square(window, dtype=np.float64).sum())
    return area


def _hann(n: int) -> Floats:
    """The window at the middle of each pixel: the same window in mm, however fine the pixels are."""
    return np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2


@lru_cache(maxsize=32)
def _frequencies(n_y: int, n_x: int, x_mm: float, y_mm: float) -> tuple[Floats, Floats]:
    """Frequency in cycles/mm of each coefficient of `rfft2`, and how many coefficients of `fft2` it stands for."""
    along_x = np.fft.rfftfreq(n_x, x_mm)
    frequency = np.hypot(np.fft.fftfreq(n_y, y_mm)[:, None], along_x)
    weight = np.full(frequency.shape, 2.0)
    weight[:, 0] = 1
    if n_x % 2 == 0:
        weight[:, -1] = 1
    return frequency, weight


def _log_power(
    power: Floats, frequency: Floats, weight: Floats, band: tuple[float, float], highest: float
) -> float | None:
    inside = (frequency >= band[0]) & (frequency < band[1])
    if band[1] > highest or not inside.any():
        return None
    mean = float(np.average(power[inside], weights=weight[inside]))
    return math.log(mean) if mean > 0 else None


def _slope(power: Floats, frequency: Floats, weight: Floats, step: float, highest: float) -> float | None:
    low, high = SLOPE_BAND
    inside = (frequency >= low) & (frequency < high)
    ring = np.floor((frequency[inside] - low) / step).astype(np.intp)
    if high > highest or ring.size == 0:
        return None
    n = np.bincount(ring, weight[inside])
    full = n > 0
    f = np.bincount(ring, frequency[inside] * weight[inside])[full] / n[full]
    p = np.bincount(ring, power[inside] * weight[inside])[full] / n[full]
    if len(f) < MIN_RINGS or not (p > 0).all():
        return None
    return -float(np.polyfit(np.log(f), np.log(p), 1)[0])


def _band_name(band: tuple[float, float], unit: str) -> str:
    """`power_05_10_log_hu2_mm2` is the band of .05 to .10 cycles/mm."""
    low, high = (f"{100 * edge:02.0f}" for edge in band)
    return f"power_{low}_{high}_log_{'hu2' if unit == 'hu' else unit}_mm2"


def _band_feature(band: tuple[float, float], unit: str) -> Feature:
    told = "ln(HU^2 mm^2)" if unit == "hu" else "ln(mm^2)"
    which = "CT" if unit == "hu" else "not CT"
    meaning = f"power from {band[0]} to {band[1]} cycles/mm; {which}"
    return Feature(name=_band_name(band, unit), unit=told, bank="acquisition", meaning=meaning)


SPECTRUM = Family(
    name="spectrum",
    features=(
        Feature(name="spectrum_slope", unit="1", bank="acquisition", meaning="alpha of P ~ f^-alpha"),
        *(_band_feature(band, unit) for unit in ("hu", "relative") for band in BANDS),
    ),
    measure=measure_spectrum,
)
