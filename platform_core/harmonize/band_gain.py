"""Bring the power of a site's spatial frequencies onto the reference's by one saved radial gain per site.

A reconstruction kernel, a focal spot or a filter multiplies the spectrum. Histogram matching maps each intensity by
itself and can neither undo nor see that; a gain per frequency can, as far as noise lets it. One gain for all scans of a
site, so that a scan with much structure is not smoothed to look like the others. What noise has buried stays buried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import fft

from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.foreground import otsu_threshold
from platform_core.imaging.volume import Geometry, Volume, Voxels

Floats = npt.NDArray[np.float64]

COVERED = 0.8
"""Share of a square that must be foreground: the step from air to skin would drown what lies inside."""
N_SLICES, CENTRAL = 12, 0.8
"""Slices per volume that are looked at, evenly over the central share of z."""
MIN_PATCHES = 8
MIN_VOLUMES = 3
"""Of one or two scans nobody can say what is the kernel's and what the patient's."""
FLAT = 0.2
"""Share of the squares, those with the least power from `FLAT_FROM` on, that are taken for noise and nothing else."""
FLAT_FROM = 0.1
"""Cycles/mm: below it an organ's slow shading would choose the squares."""
KEPT_BELOW, FULL_FROM = 0.05, 0.1
"""Cycles/mm up to which nothing is changed, so that means and HU stay, and from which on the gain is whole."""
ANCHOR = (0.05, 0.2)
"""Cycles/mm over which what the ratio of two spectra tends to at frequency zero is read off."""
TRUSTED = 0.9
"""Share of the coarser axis' Nyquist frequency up to which a spectrum is believed."""
SNR_FROM, SNR_FULL = 1.0, 3.0
"""Signal over noise power: at the first nothing is amplified, from the second on the gain is whole."""
LEAST_SIGNAL = 0.01
"""Share of the power that is taken for signal at least, so that its logarithm exists."""
SPREAD, N_SPREAD = 0.3, 3
"""Standard deviation of ln P between patients that is expected, and how many volumes that expectation is worth."""
PAD_MM = 16.0
"""Reflected rim: a gain as smooth as this one reaches no further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandGain:
    """How far a frequency may be moved, and what counts as the patient."""

    max_gain: Annotated[float, Field(ge=1, le=10)] = 2.5
    """Amplitudes are multiplied by at most this and by no less than one over this."""
    patch_mm: Annotated[float, Field(ge=4, le=100)] = 32.0
    """Side of the squares that spectra are taken on; a ring is one over it wide. Smaller ones fit into fingers."""
    foreground_above: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Voxels above this are foreground (-500 HU suits CT); left out: Otsu's threshold of each volume."""


def learn_spectrum(settings: BandGain, sample: Sequence[Volume], reference: Learned | None) -> Learned:
    """Find the site's power and noise per in-plane spatial frequency, inside the patient.

    Power is P = |FFT(w (I - mean I))|^2 * pixel area / sum w^2 over half-overlapping squares with a Hann
    window w, mean over rings, then over the squares; noise is the same over the flattest fifth of the squares. Of both
    the median of logarithms over volumes. Texture that is everywhere counts as noise and is then amplified less.

    Args:
        settings: What is foreground.
        sample: Still volumes (z, y, x) of one site; those without geometry or without eight squares are passed over.
        reference: What this step learned at the reference; None where the reference itself is fitted.

    Returns:
        `site` and `target`: `frequency_per_mm` (cycles/mm, increasing), `log_power` and `log_noise` (ln of
        intensity^2 mm^2) and `log_power_se` (standard error over patients), equally long. `site` and `target` are
        equal at the reference, and empty (no gain) if fewer than three volumes tell anything.

    Source:
        Gallardo-Estrella et al. 2016, Eur. Radiol., doi:10.1007/s00330-015-3824-y: band energies brought to
        a reference's, there scan by scan and without regard to noise. Per site, signal and noise apart, is ours.
    """
    spectra = [spectrum for volume in sample if (spectrum := _spectrum(settings, volume)) is not None]
    site = _typical(spectra, 1 / settings.patch_mm) if len(spectra) >= MIN_VOLUMES else {}
    target = (reference or {}).get("target") or site
    return {"site": site, "target": target}


def apply_gain(volume: Volume, settings: BandGain, learned: Learned) -> Volume:
    """Multiply the in-plane spectrum of every slice by the gain that leads from the site to the target.

    The gain is one below 0.05 cycles/mm; never above one where the site's signal is weaker than its noise, or beyond
    0.9 of the Nyquist frequency of the coarsest axis in play. float32 on the same grid; overshoot may leave the range
    of the input. The identity at the reference itself, and where nothing was learned.
    """
    assert volume.geometry is not None, "the recipe skips volumes without geometry"
    if not learned["site"] or learned["site"] == learned["target"]:
        return replace(volume, voxels=volume.voxels.astype(np.float32))
    n_x, n_y, _ = volume.size
    x_mm, y_mm, _ = volume.geometry.spacing_mm
    pad_y, pad_x = _padding(n_y, y_mm), _padding(n_x, x_mm)
    shape = (n_y + sum(pad_y), n_x + sum(pad_x))
    frequency = np.hypot(np.fft.fftfreq(shape[0], y_mm)[:, None], np.fft.rfftfreq(shape[1], x_mm))
    gain = gain_at(frequency, TRUSTED / (2 * max(x_mm, y_mm)), settings, learned).astype(np.float32)
    inside = slice(pad_y[0], pad_y[0] + n_y), slice(pad_x[0], pad_x[0] + n_x)
    voxels = np.empty(volume.voxels.shape, dtype=np.float32)
    for z, plane in enumerate(volume.voxels):
        # About their mean, float32 keeps a thousandth of a HU.
        mean = np.float32(plane.mean(dtype=np.float64))
        padded = np.pad(plane.astype(np.float32) - mean, (pad_y, pad_x), mode="symmetric")
        spectrum = fft.rfft2(padded, overwrite_x=True)
        spectrum *= gain
        voxels[z] = fft.irfft2(spectrum, s=shape, overwrite_x=True)[inside] + mean
    return replace(volume, voxels=voxels)


def gain_at(frequency_per_mm: Floats, highest_per_mm: float, settings: BandGain, learned: Learned) -> Floats:
    """Tell the factor on amplitudes at each frequency, in [1/max_gain, max_gain].

    sqrt(S_target / S_site) of the signal, power less noise, where both stand out of their noise; where they do not,
    sqrt(P_target / P_site) of all power, and only to damp; in between, in between. Both relative to the limit of
    S_target / S_site at frequency zero: any transfer function is one there, so that limit is contrast and anatomy
    and no kernel. Shrunk by what chance alone would have given between two samples of patients.

    Args:
        frequency_per_mm: Where, in cycles/mm.
        highest_per_mm: Up to where a frequency of this volume may be amplified.
        settings: The cap.
        learned: What `learn_spectrum` found, not empty.
    """
    n = min(len(learned[side]["frequency_per_mm"]) for side in ("site", "target"))
    at = np.asarray(learned["site"]["frequency_per_mm"][:n])
    site, target = (
        np.asarray([learned[side][what][:n] for what in ("log_power", "log_noise", "log_power_se")])
        for side in ("site", "target")
    )
    wanted = _log_gain(at, site, target)
    limit = math.log(settings.max_gain)
    wanted = np.clip(wanted, -limit, limit) * np.clip((at - KEPT_BELOW) / (FULL_FROM - KEPT_BELOW), 0, 1)
    log_gain = np.interp(frequency_per_mm, [0, KEPT_BELOW, *at[at > KEPT_BELOW]], [0, 0, *wanted[at > KEPT_BELOW]])
    top = min(float(at[-1]), highest_per_mm)
    fading = np.clip((top - frequency_per_mm) / at[0], 0, 1)
    gain: Floats = np.exp(np.where(log_gain > 0, log_gain * fading, log_gain))
    return gain


def _log_gain(at: Floats, site: Floats, target: Floats) -> Floats:
    """Logarithm of the gain before the cap; `site` and `target` are the three things learned, (3, frequency)."""
    power, noise = (np.exp([site[k], target[k]]) for k in (0, 1))
    signal = np.maximum(power - noise, LEAST_SIGNAL * power)
    of_signal, of_all = (np.log(both[1] / both[0]) for both in (signal, power))
    contrast = _at_zero(at, of_signal)
    trust = np.clip(((signal / noise).min(axis=0) - SNR_FROM) / (SNR_FULL - SNR_FROM), 0, 1)
    ratio = trust * (of_signal - contrast) + (1 - trust) * np.minimum(0, of_all - contrast)
    return _smooth(ratio * _beyond_chance(ratio, site[2], target[2])) / 2


def _beyond_chance(ratio: Floats, *errors: Floats) -> Floats:
    """Share of a log ratio that its standard errors do not explain, in [0, 1], judged with the neighbouring rings.

    Source:
        The positive part of James & Stein 1961, Proc. Fourth Berkeley Symp. 1:361-379, ring by ring.
    """
    chance = _smooth(_smooth(np.square(errors).sum(axis=0)))
    share: Floats = np.maximum(0, 1 - chance / np.maximum(_smooth(_smooth(ratio**2)), np.finfo(float).tiny))
    return share


def _at_zero(at: Floats, ratio: Floats) -> float:
    """Limit of a log ratio of powers at frequency zero, where log transfer functions go as the frequency squared."""
    low = (at >= ANCHOR[0]) & (at < ANCHOR[1])
    if np.count_nonzero(low) < 3:
        return 0.0
    return float(np.polyfit(at[low] ** 2, ratio[low], 1)[1])


def _smooth(values: Floats) -> Floats:
    """Quarter, half, quarter; ends repeated."""
    padded = np.pad(values, 1, mode="edge")
    smooth: Floats = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smooth


def _padding(n: int, spacing_mm: float) -> tuple[int, int]:
    """Pixels before and after, up to a length that transforms fast."""
    least = min(math.ceil(PAD_MM / spacing_mm), n)
    whole = fft.next_fast_len(n + 2 * least, real=True)
    return least, whole - n - least


def _typical(spectra: Sequence[Floats], step: float) -> Learned:
    """Median over volumes of (power, noise) per ring, as far as half of the volumes reach."""
    n = int(np.median([spectrum.shape[1] for spectrum in spectra]))
    reaching = np.log([spectrum[:, :n] for spectrum in spectra if spectrum.shape[1] >= n])
    power, noise = np.median(reaching, axis=0)
    told = {"log_power": power, "log_noise": noise, "log_power_se": _standard_error(reaching[:, 0])}
    frequency = [_rounded(k * step) for k in range(1, n + 1)]
    return {"frequency_per_mm": frequency} | {name: [_rounded(v) for v in values] for name, values in told.items()}


def _standard_error(log_power: Floats) -> Floats:
    """Of a median over volumes, (volume, ring); few volumes lean on the spread that is expected."""
    spread = np.square(log_power - log_power.mean(axis=0)).sum(axis=0) + N_SPREAD * SPREAD**2
    n = len(log_power)
    error: Floats = np.sqrt(spread / (n - 1 + N_SPREAD) * (np.pi / 2) / n)
    return error


def _rounded(value: float) -> float:
    """Six digits, so that a recipe's hash does not hang on the last bit of a sum."""
    return float(f"{value:.6g}")


def _spectrum(settings: BandGain, volume: Volume) -> Floats | None:
    """Power and noise of one volume, (2, ring), ring k about k steps; None where too little can be seen."""
    if volume.geometry is None:
        return None
    x_mm, y_mm, _ = volume.geometry.spacing_mm
    side = round(settings.patch_mm / y_mm), round(settings.patch_mm / x_mm)
    n_rings = math.floor(TRUSTED / (2 * max(x_mm, y_mm)) * settings.patch_mm)
    voxels = _sampled(volume.voxels)
    threshold = otsu_threshold(voxels) if settings.foreground_above is None else settings.foreground_above
    if threshold is None or side[0] > volume.size[1] or side[1] > volume.size[0] or n_rings < 1:
        return None
    patches = [_patches(plane, threshold, side) for plane in voxels]
    found = np.concatenate([ring_power(some, volume.geometry, settings.patch_mm, n_rings) for some in patches])
    if len(found) < MIN_PATCHES:
        return None
    restless = found[:, math.floor(FLAT_FROM * settings.patch_mm) :].sum(axis=1)
    flat = np.argsort(restless, kind="stable")[: max(2, round(FLAT * len(found)))]
    both = np.stack([found.mean(axis=0), found[flat].mean(axis=0)])
    return both if (both > 0).all() else None


def _sampled(voxels: Voxels) -> Voxels:
    """(slice, y, x), evenly over the central share of z: the ends of a stack are often empty or fold over."""
    edge = (1 - CENTRAL) / 2 * (len(voxels) - 1)
    chosen = np.unique(np.rint(np.linspace(edge, len(voxels) - 1 - edge, min(N_SLICES, len(voxels)))).astype(int))
    sampled: Voxels = voxels[chosen]
    return sampled


def _patches(plane: Voxels, threshold: float, side: tuple[int, int]) -> Voxels:
    """(patch, y, x): half-overlapping squares of one slice that lie in the foreground."""
    every = (max(1, side[0] // 2), max(1, side[1] // 2))
    views = np.lib.stride_tricks.sliding_window_view(plane, side)[:: every[0], :: every[1]]
    covered = (views > threshold).mean(axis=(2, 3)) >= COVERED
    patches: Voxels = views[covered]
    return patches


def ring_power(patches: Voxels, geometry: Geometry, patch_mm: float, n_rings: int) -> Floats:
    """(patch, ring), ring k about k over `patch_mm`: mean power over the ring, in squared intensity times mm^2."""
    x_mm, y_mm, _ = geometry.spacing_mm
    _, n_y, n_x = patches.shape
    window = np.outer(np.hanning(n_y + 2)[1:-1], np.hanning(n_x + 2)[1:-1])
    about = patches - np.mean(patches, axis=(1, 2), keepdims=True, dtype=np.float64)
    spectrum = np.fft.fft2(about * window)
    power = (spectrum.real**2 + spectrum.imag**2) * (x_mm * y_mm) / np.square(window).sum()
    frequency = np.hypot(np.fft.fftfreq(n_y, y_mm)[:, None], np.fft.fftfreq(n_x, x_mm))
    ring = np.rint(frequency * patch_mm).astype(np.intp)
    told = [power[:, ring == k].mean(axis=1) for k in range(1, n_rings + 1)]
    return np.stack(told, axis=1)


BAND_GAIN = Harmonizer(name="band_gain", settings=BandGain, fit=learn_spectrum, apply=apply_gain, needs_spacing=True)
