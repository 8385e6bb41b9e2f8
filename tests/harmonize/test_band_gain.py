"""The radial gain of one site onto the reference."""

import json

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from platform_core.features.sharpness import measure_sharpness
from platform_core.features.slices import cut_slices
from platform_core.harmonize.band_gain import BandGain, apply_gain, gain_at, learn_spectrum
from platform_core.harmonize.contract import Learned
from platform_core.imaging.volume import Geometry, Volume
from platform_core.phantom.acquire import Acquisition, acquire
from platform_core.phantom.anatomy import draw_anatomy

CT = BandGain(foreground_above=-500.0)
MM = 0.8
SHARP, SOFT = 0.7, 1.1
N_FITTED = 10


def scan(seed: int, psf_mm: float, noise_hu: float = 4.0, spacing_mm: float = MM) -> Volume:
    """One patient per seed: the same one whatever the scanner."""
    n = round(72 / spacing_mm)
    acquisition = Acquisition(
        spacing_mm=(spacing_mm, spacing_mm, 2.5), size=(n, n, 8), psf_sigma_mm=psf_mm, noise_hu=noise_hu
    )
    anatomy = draw_anatomy("benign", np.random.default_rng(seed))
    return acquire(anatomy, acquisition, np.random.default_rng([seed, 1]))


def site(psf_mm: float, first: int, noise_hu: float = 4.0, spacing_mm: float = MM) -> list[Volume]:
    return [scan(first + k, psf_mm, noise_hu, spacing_mm) for k in range(N_FITTED)]


@pytest.fixture(scope="module")
def reference() -> Learned:
    return learn_spectrum(CT, site(SHARP, 0), None)


@pytest.fixture(scope="module")
def softer(reference: Learned) -> Learned:
    return learn_spectrum(CT, site(SOFT, 100), reference)


@pytest.fixture(scope="module")
def sharper(reference: Learned) -> Learned:
    return learn_spectrum(CT, site(0.5, 200), reference)


def tissue_log_power(volumes: list[Volume], low: float, high: float) -> float:
    """Periodogram of the central 40 mm, by other means than the code under test: ln(HU^2 mm^2)."""
    powers = []
    for volume in volumes:
        mm = volume.geometry.spacing_mm[0] if volume.geometry else 0.0
        half, middle = round(20 / mm), volume.voxels.shape[1] // 2
        inner = slice(middle - half, middle + half)
        cut = volume.voxels[:, inner, inner].astype(float)
        window = np.hanning(2 * half)[:, None] * np.hanning(2 * half)
        power = np.abs(np.fft.fft2((cut - cut.mean(axis=(1, 2), keepdims=True)) * window)) ** 2 * mm**2
        f = np.fft.fftfreq(2 * half, mm)
        radius = np.sqrt(f[:, None] ** 2 + f**2)
        powers.append(power[:, (radius >= low) & (radius < high)].mean() / (window**2).sum())
    return float(np.mean(np.log(powers)))


def moved(site_scans: list[Volume], learned: Learned, truth: list[Volume], band: tuple[float, float]) -> float:
    """Share of the way to the reference's scans of the same patients."""
    before, there = tissue_log_power(site_scans, *band), tissue_log_power(truth, *band)
    after = tissue_log_power([apply_gain(volume, CT, learned) for volume in site_scans], *band)
    assert abs(there - before) > 0.2
    return (after - before) / (there - before)


def edge_mm(volume: Volume) -> float:
    width = measure_sharpness(cut_slices(volume, "CT"))["edge_width_mm"]
    assert width is not None
    return width


def distance_hu(one: Volume, other: Volume) -> float:
    return float(np.sqrt(np.mean((one.voxels.astype(float) - other.voxels) ** 2)))


UNSEEN = range(500, 504)


@pytest.mark.parametrize("band", [(0.1, 0.2), (0.2, 0.3)])
def test_a_soft_kernel_is_undone_in_the_bands_that_noise_has_left(softer: Learned, band: tuple[float, float]) -> None:
    """On patients that were not fitted on."""
    seen, truth = ([scan(k, psf) for k in UNSEEN] for psf in (SOFT, SHARP))
    assert 0.6 < moved(seen, softer, truth, band) < 1.3


@pytest.mark.parametrize("band", [(0.25, 0.4), (0.4, 0.5)])
def test_a_sharp_kernel_is_damped(sharper: Learned, band: tuple[float, float]) -> None:
    seen, truth = ([scan(k, psf) for k in UNSEEN] for psf in (0.5, SHARP))
    assert 0.6 < moved(seen, sharper, truth, band) < 1.4


def test_edges_become_as_wide_as_the_reference_s(softer: Learned, sharper: Learned) -> None:
    for psf, learned in ((SOFT, softer), (0.5, sharper)):
        for seed in UNSEEN:
            seen, truth = scan(seed, psf), scan(seed, SHARP)
            before, after = edge_mm(seen) - edge_mm(truth), edge_mm(apply_gain(seen, CT, learned)) - edge_mm(truth)
            assert abs(after) < 0.7 * abs(before)


def test_scans_come_closer_to_what_the_reference_scanner_would_have_seen(softer: Learned, sharper: Learned) -> None:
    for psf, learned in ((SOFT, softer), (0.5, sharper)):
        for seed in UNSEEN:
            seen, truth = scan(seed, psf, noise_hu=2), scan(seed, SHARP, noise_hu=2)
            assert distance_hu(apply_gain(seen, CT, learned), truth) < 0.75 * distance_hu(seen, truth)


def test_the_gain_follows_the_ratio_of_the_two_transfer_functions(softer: Learned) -> None:
    f = np.array([0.125, 0.15, 0.175, 0.2])
    true = np.exp(-2 * np.pi**2 * f**2 * (SHARP**2 - SOFT**2))
    assert gain_at(f, 1.0, CT, softer) == pytest.approx(true, rel=0.15)


def test_the_reference_is_left_alone(reference: Learned) -> None:
    again = learn_spectrum(CT, site(SHARP, 0), reference)
    volume = scan(500, SHARP)
    for learned in (reference, again):
        assert np.abs(apply_gain(volume, CT, learned).voxels - volume.voxels).max() <= 1e-3


def test_other_patients_on_the_same_scanner_are_hardly_moved(reference: Learned) -> None:
    """Ten patients differ from ten others by chance; that must not become a filter."""
    learned = learn_spectrum(CT, site(SHARP, 300), reference)
    assert gain_at(np.linspace(0, 0.6, 50), 1.0, CT, learned) == pytest.approx(1, abs=0.1)


def test_another_contrast_is_not_taken_for_another_kernel(reference: Learned) -> None:
    """An intensity scale multiplies all frequencies alike; that is for another step."""
    bright = [Volume((v.voxels + 1000.0) * 1.3 - 1000, v.geometry) for v in site(SHARP, 0)]
    learned = learn_spectrum(BandGain(foreground_above=-350.0), bright, reference)
    assert gain_at(np.linspace(0, 0.6, 50), 1.0, CT, learned) == pytest.approx(1, abs=0.05)


def test_nothing_is_amplified_beyond_the_cap_or_where_noise_rules(softer: Learned) -> None:
    f = np.linspace(0, 0.9, 200)
    gain = gain_at(f, 1.0, CT, softer)
    assert gain.max() <= CT.max_gain
    assert gain_at(f, 1.0, BandGain(max_gain=1.2), softer).max() <= 1.2
    assert gain_at(f, 1.0, BandGain(max_gain=1.2), softer).min() >= 1 / 1.2
    at = np.asarray(softer["site"]["frequency_per_mm"])
    power, noise = (np.exp(softer["site"][name]) for name in ("log_power", "log_noise"))
    buried = at[power - noise < 0.5 * noise].min() + at[0]
    assert gain[f > buried].max() <= 1


def test_noise_grows_by_no_more_than_the_cap(softer: Learned) -> None:
    air = Volume(np.random.default_rng(0).normal(0, 4, (4, 90, 90)).astype(np.float32), Geometry((MM, MM, 2.5)))
    out = apply_gain(air, CT, softer)
    assert float(out.voxels.std()) <= CT.max_gain * float(air.voxels.std())


def test_noise_that_drowns_the_difference_is_not_sharpened(reference: Learned) -> None:
    learned = learn_spectrum(CT, site(SOFT, 100, noise_hu=60), reference)
    f = np.linspace(0.2, 0.6, 50)
    assert gain_at(f, 1.0, CT, learned).max() <= 1.05


def test_more_noise_than_the_reference_s_is_damped(reference: Learned) -> None:
    learned = learn_spectrum(CT, site(SHARP, 100, noise_hu=16), reference)
    seen = scan(500, SHARP, noise_hu=16)
    assert float(gain_at(np.array([0.45]), 1.0, CT, learned)[0]) < 0.6
    truth = scan(500, SHARP, noise_hu=0)
    assert distance_hu(apply_gain(seen, CT, learned), truth) < distance_hu(seen, truth)


def test_no_frequency_is_amplified_near_the_nyquist_of_a_coarse_scan(softer: Learned) -> None:
    f = np.array([0.2, 0.25])
    assert (gain_at(f, 0.2, CT, softer) == 1).all()
    assert (gain_at(f, 1.0, CT, softer) > 1).all()


def test_a_site_on_another_grid_gets_the_gain_of_its_kernel(reference: Learned, softer: Learned) -> None:
    """Frequencies are in cycles/mm."""
    learned = learn_spectrum(CT, site(SOFT, 100, spacing_mm=0.6), reference)
    f = np.array([0.125, 0.15, 0.175, 0.2])
    assert gain_at(f, 1.0, CT, learned) == pytest.approx(gain_at(f, 1.0, CT, softer), rel=0.1)


def test_means_are_kept(softer: Learned, sharper: Learned) -> None:
    seen = scan(501, SOFT)
    for learned in (softer, sharper):
        out = apply_gain(seen, CT, learned)
        assert out.voxels.mean(axis=(1, 2)) == pytest.approx(seen.voxels.mean(axis=(1, 2)), abs=0.5)
        smooth = [gaussian_filter(v.voxels.astype(float), (0, 12, 12), mode="reflect") for v in (seen, out)]
        assert np.abs(smooth[1] - smooth[0]).max() < 0.5


def test_opposite_borders_do_not_know_of_each_other(softer: Learned) -> None:
    """A transform is periodic; the rim that it sees must not be."""
    voxels: npt.NDArray[np.float32] = np.zeros((1, 100, 100), dtype=np.float32)
    voxels[:, :, :3] = 1000
    out = apply_gain(Volume(voxels, Geometry((MM, MM, 2.5))), CT, softer)
    assert np.abs(out.voxels[:, :, -20:]).max() < 3


def test_a_finger_can_be_learned_from_with_smaller_squares() -> None:
    rng = np.random.default_rng(0)
    finger = np.full((6, 40, 40), -1000.0)
    finger[:, 12:28, 12:28] = rng.normal(50, 10, (6, 16, 16))
    volume = Volume(finger.astype(np.float32), Geometry((1.0, 1.0, 1.0)))
    assert learn_spectrum(CT, [volume] * 3, None)["site"] == {}
    small = learn_spectrum(BandGain(foreground_above=-500.0, patch_mm=8), [volume] * 3, None)
    assert small["site"]["log_noise"] == pytest.approx([np.log(100)] * 3, abs=1)


def test_where_nothing_was_seen_nothing_is_done(reference: Learned) -> None:
    empty = Volume(np.full((4, 90, 90), -1000, dtype=np.int16), Geometry((MM, MM, 2.5)))
    learned = learn_spectrum(CT, [empty, Volume(empty.voxels)], reference)
    assert learned["site"] == {}
    volume = scan(500, SHARP)
    assert np.array_equal(apply_gain(volume, CT, learned).voxels, volume.voxels)
    assert learn_spectrum(CT, [], None) == {"site": {}, "target": {}}


def test_one_or_two_scans_teach_nothing(reference: Learned) -> None:
    """Their spectra are those of the patients as much as of the kernel."""
    assert learn_spectrum(CT, site(SOFT, 100)[:2], reference)["site"] == {}
    assert learn_spectrum(CT, site(SOFT, 100)[:3], reference)["site"] != {}


def test_a_spoilt_volume_does_not_move_what_is_learned(reference: Learned) -> None:
    """Medians over volumes."""
    spoilt = Volume(np.random.default_rng(0).normal(0, 900, (8, 90, 90)), Geometry((MM, MM, 2.5)))
    learned = learn_spectrum(CT, [*site(SHARP, 0), spoilt], reference)
    assert gain_at(np.linspace(0, 0.6, 50), 1.0, CT, learned) == pytest.approx(1, abs=0.1)


def test_what_is_learned_has_six_digits(softer: Learned) -> None:
    numbers = [value for side in softer.values() for values in side.values() for value in values]
    assert numbers == [float(f"{value:.6g}") for value in numbers]
    assert json.loads(json.dumps(softer, allow_nan=False)) == softer
