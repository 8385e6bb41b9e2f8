"""Show the reference's scans as the site's scanner would have made them: its blur, and then its noise.

The other way round than a harmonizer, and therefore none: labels of the reference are kept, and scores of the
transported scans say what each class looks like to the model at a site that has no labels yet. Blur is a Gaussian's,
so kernels that overshoot are met only roughly; intensity scales, bias fields and spacings are for the recipe's steps
before. What cannot be taken away, the reference's own noise where the site has less, stays and is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft

from platform_core.harmonize.band_gain import (
    COVERED,
    FLAT,
    FLAT_FROM,
    MIN_PATCHES,
    MIN_VOLUMES,
    TRUSTED,
    BandGain,
    learn_spectrum,
    ring_power,
)
from platform_core.harmonize.contract import Learned
from platform_core.imaging.foreground import otsu_threshold
from platform_core.imaging.volume import Volume, Voxels

Floats = npt.NDArray[np.float64]

N_ROUNDS = 4
N_PAIRS = 7
"""Pairs of neighbouring slices per volume that a transport is learned from; spectra look at twelve slices."""
FITTED_FROM = 0.05
"""Cycles/mm: below it a ring of a 32 mm square holds more of the window than of the patient."""
NOISE_FROM = 0.12
"""Cycles/mm: below it the flattest squares of a body still hold shading, and the noise is taken to stay as it is."""
SNR_FROM, SNR_FULL = 1.0, 3.0
"""Reference's signal over its noise: up to the first, a frequency's gain may follow the noise; from the second on
it is the blur's alone."""
CONTRAST_SD = 0.2
"""Expected spread of ln of the ratio of two sites' signal powers at frequency zero: chance of patients and contrast."""
N_SMOOTHINGS = 4
"""Of the ratio of two scanners' noise, which changes less from ring to ring than either does."""
MIN_RINGS = 3
"""Frequencies with signal at both ends, fewer than which say nothing about blur."""
PAD_MM = 16.0
"""Reflected rim: further than any blur reaches that leaves something to be seen."""
N_LINE = 4
"""Rings that the noise of those below is told from."""
PURE = 0.4
"""Noise over all power, as a share of where that is most, from which on the flattest squares are taken to hold noise
alone: below, texture that is everywhere fills them too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How to show a scan of the reference as one of the site."""

    blur_mm2: float
    """In-plane variance of the site's point spread less the reference's; negative where the site is sharper."""
    blur_se_mm2: float
    """Its standard error over patients."""
    frequency_per_mm: tuple[float, ...]
    """Cycles/mm, increasing: where the next three hold; in between linear, beyond the ends constant."""
    gain: tuple[float, ...]
    """Factor on amplitudes."""
    added_power: tuple[float, ...]
    """Power of the noise that is added after that, intensity^2 mm^2."""
    excess: tuple[float, ...]
    """ln of noise power after transport over the site's: about 0 where it is matched, positive where the site has
    less noise than the reference's scans keep, negative where it has more than was found."""

    @property
    def worst(self) -> float:
        """The largest of the excesses by size, [0, inf): from .3 on (a third more or less power) do not trust it."""
        return max(abs(value) for value in self.excess)


@dataclass(frozen=True, slots=True)
class _Spectra:
    """Powers of one set of patients, each (frequency,)."""

    power: Floats
    noise: Floats
    se: Floats
    """Standard error of ln power."""

    @property
    def signal(self) -> Floats:
        return self.power - self.noise

    @property
    def snr(self) -> Floats:
        return self.signal / self.noise


def fewer_slices(volume: Volume) -> Volume:
    """At most seven pairs of neighbouring slices, evenly over the stack, as others tell little more."""
    n_z = volume.voxels.shape[0]
    if n_z <= 2 * N_PAIRS:
        return volume
    first = np.rint(np.linspace(0, n_z - 2, N_PAIRS)).astype(int)
    return replace(volume, voxels=volume.voxels[np.stack([first, first + 1], axis=1).ravel()])


def learn_end(settings: BandGain, sample: Sequence[Volume]) -> Learned:
    """Learn what a transport must know of one end: power, and noise by two ways.

    Squares of one slice that look flat still hold texture, the more the lower the frequency; differences of
    neighbouring slices hold less of it where slices are thin, but noise of slices that overlap is less in them too.

    Args:
        settings: What is foreground.
        sample: Still volumes (z, y, x), as the recipe's steps before left them; each second slice is a neighbour of the
            one before it.

    Returns:
        `site` of `band_gain.learn_spectrum`, and `log_difference`: ln of power in differences, halved, of neighbouring
        slices, intensity^2 mm^2; empty where too few volumes tell. Empty where nothing can be told.
    """
    learned: Learned = learn_spectrum(settings, [v for v in sample if v.geometry is not None], None)["site"]
    if not learned:
        return {}
    n = len(learned["frequency_per_mm"])
    told = [power for volume in sample if (power := _difference_power(settings, volume, n)) is not None]
    return learned | {"log_difference": np.median(np.log(told), axis=0).tolist() if len(told) >= MIN_VOLUMES else []}


def learn_transport(settings: BandGain, sample: Sequence[Volume], site: Learned) -> Transport | None:
    """Find blur and noise that lead from the reference to the site.

    The logarithm of the ratio of signal powers (all power less noise) falls by (2 pi)^2 v f^2 if the site's point
    spread has v mm^2 more variance. v is fitted where signal stands out at both ends, rings weighted by their error,
    and H^2 = exp(-(2 pi)^2 v f^2) holds beyond, where noise hides the rest. Noise N_site - H^2 N_reference is added.
    Squares of 32 mm smear steep spectra, which by itself takes v a third too low; so the sample is transported,
    measured again by the same means, and what is left is added, four times. A v that its error explains is none.

    Args:
        settings: Those that the site's spectra were learned by.
        sample: Of the reference: still volumes (z, y, x), as the recipe's steps before left them. Twenty tell v to
            about a tenth of itself.
        site: What `learn_end` found at the site, on volumes of the same in-plane spacing.

    Returns:
        None if either end tells nothing, too few frequencies carry signal, or pixels are so coarse that no ring is at
        or above `NOISE_FROM`: nobody could say whether the noise is the site's.

    Source:
        Kijewski & Judy 1987, doi:10.1088/0031-9155/32/5/003 (a kernel multiplies signal by H and noise power by H^2).
        Estimating H between two sites' patients, and its use on labelled scans, is ours.
    """
    learned = learn_end(settings, sample)
    if not learned or not site:
        return None
    placed = [fewer_slices(volume) for volume in sample if volume.geometry is not None]
    n = min(len(each["frequency_per_mm"]) for each in (learned, site))
    at = np.asarray(site["frequency_per_mm"][:n], dtype=np.float64)
    if not (at >= NOISE_FROM).any():
        return None
    first = _first_pure(learned, site, n)
    reference, there = _both_ends(learned, site, at, first)
    there = replace(there, noise=reference.noise * np.exp(_smooth(np.log(there.noise / reference.noise), N_SMOOTHINGS)))
    here, blur, log_noise = reference, 0.0, np.log(there.noise)
    for _ in range(N_ROUNDS):
        fitted = _fit_blur(at, here, there)
        if fitted is None:
            return None
        blur = _beyond_chance(blur + fitted[0], fitted[1])
        found = _transport(at, blur, fitted[1], reference, np.exp(log_noise))
        moved = [transport_volume(volume, found, seed=number) for number, volume in enumerate(placed)]
        seen = learn_spectrum(settings, moved, None)["site"]
        if not seen or len(seen["frequency_per_mm"]) < n:
            return None
        shown = np.square(found.gain) * reference.noise + np.asarray(found.added_power)
        here = _spectra(seen, at, np.log(shown[:first]))
        excess = np.log(here.noise / there.noise)
        correction = np.where(np.arange(n) < first, excess[first : first + N_LINE].mean(), excess)
        log_noise = log_noise - np.where(np.asarray(found.added_power) > 0, correction, 0)
    return replace(found, excess=tuple(excess[at >= NOISE_FROM].tolist()))


def transport_volume(volume: Volume, transport: Transport, *, seed: int) -> Volume:
    """Blur (or sharpen) every slice in plane and add noise, independent from slice to slice.

    Args:
        volume: Still, (z, y, x), with geometry, as the steps of the recipe left it on which `transport` was learned.
        transport: What leads from the reference to the site.
        seed: Of the noise; take it from the series' key, so that the same scan gets the same noise again.

    Returns:
        float32 on the same grid; nothing below the least value of the input, as a scanner cuts noise in air off.
    """
    assert volume.geometry is not None, "nothing in mm can be said of a plain image"
    x_mm, y_mm, _ = volume.geometry.spacing_mm
    n_x, n_y, n_z = volume.size
    pad_y, pad_x = _padding(n_y, y_mm), _padding(n_x, x_mm)
    shape = (n_y + sum(pad_y), n_x + sum(pad_x))
    radius = np.hypot(np.fft.fftfreq(shape[0], y_mm)[:, None], np.fft.rfftfreq(shape[1], x_mm))
    at = transport.frequency_per_mm
    gain = np.interp(radius, [0.0, *at], [1.0, *transport.gain])
    amplitude = np.sqrt(np.interp(radius, at, transport.added_power) / (x_mm * y_mm))
    inside = slice(pad_y[0], pad_y[0] + n_y), slice(pad_x[0], pad_x[0] + n_x)
    rng = np.random.default_rng(seed)
    voxels = np.empty(volume.voxels.shape, dtype=np.float32)
    for z in range(n_z):
        plane = volume.voxels[z].astype(np.float64)
        mean = plane.mean()
        spectrum = gain * fft.rfft2(np.pad(plane - mean, (pad_y, pad_x), mode="symmetric"))
        spectrum += amplitude * fft.rfft2(rng.standard_normal(shape))
        voxels[z] = fft.irfft2(spectrum, s=shape)[inside] + mean
    return replace(volume, voxels=np.maximum(voxels, np.float32(volume.voxels.min())))


def _first_pure(here: Learned, there: Learned, n: int) -> int:
    """The ring from which on the flattest squares of both ends hold noise alone; 0 where that cannot be told."""
    purity = np.min([np.subtract(end["log_noise"][:n], end["log_power"][:n]) for end in (here, there)], axis=0)
    mixed = np.flatnonzero(purity < purity.max() + math.log(PURE))
    first = int(mixed[-1]) + 1 if mixed.size else 0
    return first if n - first >= MIN_RINGS else 0


def _both_ends(here: Learned, there: Learned, at: Floats, first: int) -> tuple[_Spectra, _Spectra]:
    """Spectra of both ends; noise below ring `first` by the same way at either, so that what is wrong cancels.

    Differences of slices tell it where they hold at most twice what a line does that goes on from the rings above, as
    a Gaussian grain's noise would: ln of power over frequency squared. Else that line does.
    """
    ends, rings = (here, there), slice(first, first + N_LINE)
    lines = [_line(at, np.asarray(end["log_noise"][: len(at)]), rings)[:first] for end in ends]
    if all(end.get("log_difference") for end in ends):
        differences = [_anchored(end, rings)[:first] for end in ends]
        is_told = np.max(np.subtract(differences, lines), axis=0, initial=-np.inf) < math.log(2)
        lines = [np.where(is_told, *both) for both in zip(differences, lines, strict=True)]
    return _spectra(here, at, lines[0]), _spectra(there, at, lines[1])


def _line(at: Floats, log_noise: Floats, rings: slice) -> Floats:
    """Through some rings, on to all; never more than the flattest squares hold."""
    if rings.start == 0:
        return log_noise
    line: Floats = np.minimum(np.polyval(np.polyfit(at[rings] ** 2, log_noise[rings], 1), at**2), log_noise)
    return line


def _anchored(end: Learned, rings: slice) -> Floats:
    """Noise by differences of slices, as much of it as the rings hold where squares tell it too."""
    difference = np.asarray(end["log_difference"], dtype=np.float64)
    moved: Floats = difference + np.mean(np.asarray(end["log_noise"][rings]) - difference[rings])
    return moved


def _spectra(learned: Learned, at: Floats, lowest: Floats) -> _Spectra:
    """What was found, at the frequencies of both ends, with ln of noise at the lowest rings; noise is smoothed.

    Where no ring is pure, noise is level below `NOISE_FROM`.
    """
    power, noise, se = (
        np.asarray(learned[name][: len(at)], dtype=np.float64) for name in ("log_power", "log_noise", "log_power_se")
    )
    if len(lowest):
        noise = np.concatenate([lowest, noise[len(lowest) :]])
    else:
        level = min(int(np.searchsorted(at, NOISE_FROM)), len(at) - 1)
        noise = np.where(at < NOISE_FROM, noise[level], noise)
    return _Spectra(np.exp(power), np.exp(_smooth(noise, 1)), se)


def _smooth(values: Floats, n_times: int) -> Floats:
    """Quarter, half, quarter, so many times; ends repeated."""
    for _ in range(n_times):
        padded = np.pad(values, 1, mode="edge")
        values = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return values


def _beyond_chance(value: float, se: float) -> float:
    """What is left of an estimate when its error has had its share: nothing of one that is smaller than its error.

    Source:
        The positive part of James & Stein 1961, Proc. Fourth Berkeley Symp. 1:361-379, for one number.
    """
    return value * max(0.0, 1 - (se / value) ** 2) if value else 0.0


def _difference_power(settings: BandGain, volume: Volume, n_rings: int) -> Floats | None:
    """Power per ring in differences of neighbouring slices, halved, where their sum is flattest."""
    if volume.geometry is None or len(volume.voxels) < 2:
        return None
    x_mm, y_mm, _ = volume.geometry.spacing_mm
    side = round(settings.patch_mm / y_mm), round(settings.patch_mm / x_mm)
    threshold = otsu_threshold(volume.voxels) if settings.foreground_above is None else settings.foreground_above
    if threshold is None or side[0] > volume.size[1] or side[1] > volume.size[0]:
        return None
    if math.floor(TRUSTED / (2 * max(x_mm, y_mm)) * settings.patch_mm) < n_rings:
        return None
    pairs = [volume.voxels[z : z + 2] for z in range(0, len(volume.voxels) - 1, 2)]
    found = [_pair_patches(pair, threshold, side) for pair in pairs]
    differences, sums = (np.concatenate(some) for some in zip(*found, strict=True))
    if len(differences) < MIN_PATCHES:
        return None
    told, around = (ring_power(some, volume.geometry, settings.patch_mm, n_rings) for some in (differences, sums))
    restless = around[:, math.floor(FLAT_FROM * settings.patch_mm) :].sum(axis=1)
    flat = np.argsort(restless, kind="stable")[: max(2, round(FLAT * len(told)))]
    power: Floats = told[flat].mean(axis=0)
    return power if (power > 0).all() else None


def _pair_patches(pair: Voxels, threshold: float, side: tuple[int, int]) -> tuple[Voxels, Voxels]:
    """(patch, y, x) of the difference and of the sum of two slices, over sqrt(2), where both are foreground.

    Their noise is independent: whoever chooses squares by the sum does not choose those with little noise.
    """
    below, above = pair.astype(np.float32)
    every = max(1, side[0] // 2), max(1, side[1] // 2)
    planes = (above - below, above + below, np.minimum(below, above))
    views = [np.lib.stride_tricks.sliding_window_view(plane, side)[:: every[0], :: every[1]] for plane in planes]
    covered = (views[2] > threshold).mean(axis=(2, 3)) >= COVERED
    root = np.float32(math.sqrt(2))
    return views[0][covered] / root, views[1][covered] / root


def _transport(at: Floats, blur_mm2: float, se_mm2: float, reference: _Spectra, noise: Floats) -> Transport:
    """The transport of a blur to scans with `noise`, intensity^2 mm^2."""
    squared = np.exp(-((2 * np.pi * at) ** 2) * blur_mm2)
    trust = np.clip((reference.snr - SNR_FROM) / (SNR_FULL - SNR_FROM), 0, 1)
    squared = trust * squared + (1 - trust) * np.minimum(squared, noise / reference.noise)
    return Transport(
        blur_mm2=blur_mm2,
        blur_se_mm2=se_mm2,
        frequency_per_mm=tuple(at.tolist()),
        gain=tuple(np.sqrt(squared).tolist()),
        added_power=tuple(np.maximum(noise - squared * reference.noise, 0).tolist()),
        excess=(),
    )


def _fit_blur(at: Floats, here: _Spectra, there: _Spectra) -> tuple[float, float] | None:
    """Variance that the blur there has more than here, mm^2, and its standard error."""
    is_told = (here.snr > 1) & (there.snr > 1)
    # beyond the first gap, a ring stands out by chance
    gaps = at[~is_told & (at >= FITTED_FROM)]
    is_told &= (at >= FITTED_FROM) & (at < (gaps[0] if gaps.size else np.inf))
    if np.count_nonzero(is_told) < MIN_RINGS:
        return None
    f, ratio = at[is_told], np.log(there.signal[is_told] / here.signal[is_told])
    # an error of power weighs the more, the less of it is signal
    errors = [(end.se * end.power / end.signal)[is_told] for end in (here, there)]
    weight = 1 / np.square(errors).sum(axis=0)
    design = np.stack([np.ones_like(f), -((2 * np.pi * f) ** 2)])
    covariance = np.linalg.inv((design * weight) @ design.T + np.diag([1 / CONTRAST_SD**2, 0]))
    _, blur = covariance @ (design * weight) @ ratio
    return float(blur), math.sqrt(covariance[1, 1])


def _padding(n: int, spacing_mm: float) -> tuple[int, int]:
    """Pixels before and after, up to a length that transforms fast."""
    least = min(math.ceil(PAD_MM / spacing_mm), n)
    whole = fft.next_fast_len(n + 2 * least, real=True)
    return least, whole - n - least
