"""The reference's scans, shown as another scanner would have made them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from platform_core.harmonize.band_gain import BandGain
from platform_core.harmonize.transport import Transport, fewer_slices, learn_end, learn_transport, transport_volume
from platform_core.imaging.volume import Geometry, Volume
from platform_core.phantom.acquire import Acquisition, acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence

Reals = npt.NDArray[np.float64]
CT = BandGain(foreground_above=-500.0)
MM = 0.8
N_FITTED = 30
REFERENCE_PATIENTS, SITE_PATIENTS = 0, 10_000
"""First seeds: no patient is at both."""


@dataclass(frozen=True)
class Scanner:
    psf_mm: float
    noise_hu: float
    grain_mm: float = 0.6

    def scan(self, patient: int, *, is_positive: bool = False) -> Volume:
        n = round(72 / MM)
        acquisition = Acquisition(
            spacing_mm=(MM, MM, 5.0),
            size=(n, n, 4),
            psf_sigma_mm=self.psf_mm,
            noise_hu=self.noise_hu,
            noise_grain_mm=self.grain_mm,
        )
        anatomy = draw_anatomy("malignant" if is_positive else "benign", np.random.default_rng(patient))
        return acquire(anatomy, acquisition, np.random.default_rng([patient, round(1000 * self.noise_hu)]))


REFERENCE = Scanner(0.7, 8)
BLURRED, NOISY, SHARP_AND_NOISY = Scanner(1.1, 8), Scanner(0.7, 16), Scanner(0.5, 16)
BLURRED_AND_NOISY, COARSE, QUIET = Scanner(1.1, 16), Scanner(1.1, 8, 0.9), Scanner(0.7, 5)
SCANNERS = [BLURRED, NOISY, SHARP_AND_NOISY, BLURRED_AND_NOISY, COARSE]


@lru_cache
def learned(scanner: Scanner) -> Transport:
    """From thirty patients at either end, none at both."""
    sample = [REFERENCE.scan(REFERENCE_PATIENTS + k) for k in range(N_FITTED)]
    seen = [scanner.scan(SITE_PATIENTS + k) for k in range(N_FITTED)]
    found = learn_transport(CT, sample, learn_end(CT, seen))
    assert found is not None
    return found


def log_power(volumes: list[Volume], low: float, high: float) -> float:
    """Periodogram of the central 40 mm, by other means than the code under test: ln(HU^2 mm^2)."""
    powers = []
    for volume in volumes:
        half, middle = round(20 / MM), volume.voxels.shape[1] // 2
        cut = volume.voxels[:, middle - half : middle + half, middle - half : middle + half].astype(float)
        window = np.hanning(2 * half)[:, None] * np.hanning(2 * half)
        power = np.abs(np.fft.fft2((cut - cut.mean(axis=(1, 2), keepdims=True)) * window)) ** 2 * MM**2
        f = np.fft.fftfreq(2 * half, MM)
        radius = np.hypot(f[:, None], f)
        powers.append(power[:, (radius >= low) & (radius < high)].mean() / (window**2).sum())
    return float(np.mean(np.log(powers)))


def noise_sd_hu(one: Volume, other: Volume) -> float:
    """Of one scan, from two of the same patient, inside the organ: differences hold noise and nothing else."""
    inner = np.s_[:, 33:45, 30:50]
    return float((one.voxels[inner].astype(float) - other.voxels[inner]).std() / np.sqrt(2))


UNSEEN = range(500, 512)


@lru_cache
def unseen(scanner: Scanner) -> list[Volume]:
    """Patients that nothing was learned from."""
    return [scanner.scan(k) for k in UNSEEN]


@lru_cache
def transported(scanner: Scanner) -> list[Volume]:
    """The same patients by the reference's scanner, shown as by this one."""
    return [transport_volume(volume, learned(scanner), seed=k) for k, volume in enumerate(unseen(REFERENCE))]


@pytest.mark.parametrize("scanner", SCANNERS, ids=str)
@pytest.mark.parametrize("band", [(0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.55)])
def test_transported_scans_have_the_power_of_the_site_s_scans_of_the_same_patients(
    scanner: Scanner, band: tuple[float, float]
) -> None:
    """0.15 is 15 % of power, 7 % of amplitude."""
    assert log_power(transported(scanner), *band) == pytest.approx(log_power(unseen(scanner), *band), abs=0.15)


def test_the_bands_differed_before() -> None:
    """Else the test above would say nothing."""
    for scanner, least in zip(SCANNERS, (0.5, 0.9, 0.9, 0.5, 0.5), strict=True):
        gaps = [
            log_power(unseen(scanner), *band) - log_power(unseen(REFERENCE), *band)
            for band in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.55))
        ]
        assert np.abs(gaps).max() > least


@pytest.mark.parametrize("scanner", [NOISY, BLURRED_AND_NOISY, SHARP_AND_NOISY], ids=str)
def test_noise_is_the_site_s(scanner: Scanner) -> None:
    """Two scans of one patient by the reference, each transported with noise of its own."""
    again = Scanner(REFERENCE.psf_mm, REFERENCE.noise_hu + 1e-3)
    found = learned(scanner)
    sds = [
        noise_sd_hu(*(transport_volume(of.scan(k), found, seed=2 * k + i) for i, of in enumerate((REFERENCE, again))))
        for k in UNSEEN
    ]
    assert np.median(sds) == pytest.approx(scanner.noise_hu, rel=0.07)


@pytest.mark.parametrize("scanner", SCANNERS, ids=str)
def test_the_blur_is_what_was_planted(scanner: Scanner) -> None:
    found = learned(scanner)
    planted = scanner.psf_mm**2 - REFERENCE.psf_mm**2
    assert found.blur_mm2 == pytest.approx(planted, abs=max(0.25 * abs(planted), 0.1))
    assert abs(found.blur_mm2 - planted) < 2.5 * found.blur_se_mm2
    assert found.worst < 0.15


def test_noise_that_the_site_has_not_cannot_be_taken_away_and_that_is_said() -> None:
    assert learned(QUIET).worst > 0.3
    assert max(learned(QUIET).added_power) == pytest.approx(0, abs=1)


def test_the_reference_itself_is_hardly_moved() -> None:
    found = learned(REFERENCE)
    assert abs(found.blur_mm2) < 0.1
    for k in UNSEEN[:5]:
        before = REFERENCE.scan(k)
        after = transport_volume(before, found, seed=k)
        assert (after.voxels - before.voxels)[:, 33:45, 30:50].std() < 0.6 * REFERENCE.noise_hu


def test_the_same_seed_gives_the_same_scan_another_one_other_noise_and_the_input_stays() -> None:
    volume = REFERENCE.scan(1)
    kept = volume.voxels.copy()
    first, again, other = (transport_volume(volume, learned(NOISY), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.voxels, again.voxels)
    assert not np.array_equal(first.voxels, other.voxels)
    assert np.array_equal(volume.voxels, kept)
    assert first.geometry == volume.geometry
    assert first.voxels.min() >= kept.min()


def test_too_few_scans_or_a_site_that_nothing_was_learned_of_give_no_transport() -> None:
    sample = [REFERENCE.scan(k) for k in range(3)]
    site = learn_end(CT, sample)
    assert learn_transport(CT, sample[:2], site) is None
    assert learn_transport(CT, sample, {}) is None
    assert learn_transport(CT, [Volume(np.zeros((2, 90, 90), np.int16))] * 5, site) is None


def test_noise_is_told_where_texture_hides_it() -> None:
    """At 0.125 cycles/mm the flattest squares of one slice hold half as much again: a look at differences does not."""
    found = learned(NOISY)
    at = found.frequency_per_mm.index(0.125)
    expected = (NOISY.noise_hu**2 - REFERENCE.noise_hu**2) * MM**2 * 4 * np.pi * (NOISY.grain_mm / MM) ** 2
    expected *= np.exp(-((2 * np.pi * NOISY.grain_mm * 0.125) ** 2))
    assert found.added_power[at] == pytest.approx(expected, rel=0.25)


def test_few_slices_are_pairs_of_neighbours() -> None:
    voxels = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 9, 9), np.float32)
    kept = fewer_slices(Volume(voxels)).voxels[:, 0, 0]
    assert len(kept) == 14
    assert np.array_equal(np.diff(kept)[::2], np.ones(7))
    assert len(fewer_slices(Volume(voxels[:5])).voxels) == 5


# -- what it is for ---------------------------------------------------------------------------------------------------

N = 400


def score(volume: Volume) -> float:
    """The brightest spot of the organ, less its darkest by a third: AUROC .95, and noise and sharpness move it."""
    organ = volume.voxels[:, 28:50, 27:54].astype(float)
    spots = gaussian_filter(organ, (0, 0.75, 0.75)) - gaussian_filter(organ, (0, 5, 5))
    return float(spots.max() + 0.3 * spots.min())


def classes(prevalence: float) -> Reals:
    return (np.arange(N) < round(N * prevalence)).astype(float)


@lru_cache
def reference_scans() -> list[Volume]:
    return [REFERENCE.scan(20_000 + k, is_positive=bool(y)) for k, y in enumerate(classes(0.3))]


def told(scores: list[float], reference: list[float]) -> PrevalenceEstimate:
    return estimate_prevalence(np.array(scores), np.array(reference), classes(0.3), assumed=0.3, n_simulated=1)


@pytest.mark.parametrize(
    ("scanner", "prevalence"), [(NOISY, 0.3), (SHARP_AND_NOISY, 0.5), (BLURRED, 0.5)], ids=["noise", "sharp", "blur"]
)
def test_prevalence_is_told_through_another_scanner(scanner: Scanner, prevalence: float) -> None:
    """All scores by one function that knows neither scanner; 400 labelled at the reference, none at the site."""
    site = [score(scanner.scan(60_000 + k, is_positive=bool(y))) for k, y in enumerate(classes(prevalence))]
    naive = told(site, [score(volume) for volume in reference_scans()])
    shown = [transport_volume(volume, learned(scanner), seed=k) for k, volume in enumerate(reference_scans())]
    through = told(site, [score(volume) for volume in shown])
    assert abs(naive.value - prevalence) > 0.1
    assert abs(through.value - prevalence) < 0.03
    assert through.low <= prevalence <= through.high
    assert through.p_fit > 0.01


def coarse_scan(seed: int) -> Volume:
    """Smooth texture on the left, none on the right, noise on both."""
    rng = np.random.default_rng(seed)
    texture = 600 * gaussian_filter(rng.normal(size=(4, 96, 96)), (0, 1, 1))
    texture[:, :, 48:] = 0
    voxels = (texture + 5 * rng.normal(size=texture.shape)).astype(np.float32)
    return Volume(voxels=voxels, geometry=Geometry((3.75, 3.75, 5.0)))


def test_pixels_too_coarse_to_hold_noise_against_noise_give_no_transport() -> None:
    """Seven rings with signal, all below the frequency from which on it is told whether noise is matched."""
    settings = BandGain(patch_mm=60.0, foreground_above=-5000.0)
    reference, site = ([coarse_scan(first + k) for k in range(6)] for first in (0, 100))
    end = learn_end(settings, site)
    assert max(end["frequency_per_mm"]) == pytest.approx(7 / 60, rel=1e-5)
    assert learn_transport(settings, reference, end) is None
