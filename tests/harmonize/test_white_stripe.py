"""The white stripe, on histograms whose white matter is known."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from scipy.stats import norm

from platform_core.errors import UnreadableScan
from platform_core.harmonize.white_stripe import WhiteStripe, white_stripe
from platform_core.imaging.nifti import decode_volume
from platform_core.imaging.volume import Volume, Voxels

Contrast = Literal["t1", "t2", "flair", "pd"]
N = 120_000
TISSUES: dict[Contrast, dict[str, tuple[float, float, float]]] = {
    "t1": {"fluid": (300, 40, 0.1), "grey": (600, 45, 0.5), "white": (900, 40, 0.4)},
    "t2": {"white": (500, 40, 0.5), "grey": (750, 50, 0.35), "fluid": (1500, 90, 0.15)},
    "flair": {"fluid": (250, 40, 0.1), "white": (600, 40, 0.6), "grey": (800, 45, 0.3)},
    "pd": {"white": (700, 35, 0.4), "grey": (950, 40, 0.5), "fluid": (1150, 40, 0.1)},
}
"""Mean, standard deviation and share of each tissue."""


def brain(contrast: Contrast = "t1", *, seed: int = 0, n: int = N, n_lesion: int = 0) -> Volume:
    """Tissues in random places, and as much air as brain; the last `n_lesion` voxels are brighter than all."""
    rng = np.random.default_rng(seed)
    tissue = np.concatenate([rng.normal(m, sd, int(n * share)) for m, sd, share in TISSUES[contrast].values()])
    values = rng.permutation(np.concatenate([np.abs(rng.normal(0, 5, n)), tissue]))
    if n_lesion:
        values[-n_lesion:] = rng.normal(1800, 150, n_lesion)
    return Volume(np.rint(values).astype(np.int16).reshape(4, 20, -1))


@pytest.mark.parametrize("contrast", TISSUES)
def test_white_matter_is_found_where_its_contrast_has_it(contrast: Contrast) -> None:
    """A stripe of ranks r -+ w about the mean of a normal has that mean; its spread follows from the normal's tails."""
    mean, sd, share = TISSUES[contrast]["white"]
    out = white_stripe(brain(contrast), WhiteStripe(contrast=contrast, foreground_above=100), {}).voxels
    half = norm.ppf(0.5 + 0.05 / share)
    within = np.sqrt(1 - 2 * half * norm.pdf(half) / (2 * norm.cdf(half) - 1))
    spread = (np.subtract(*np.interp([mean + 200, mean - 200], *line(contrast, out)))) / 400
    zero = np.interp(0, *line(contrast, out)[::-1])
    assert zero == pytest.approx(mean, abs=0.25 * sd)
    assert 1 / spread == pytest.approx(within * sd, rel=0.2)


def line(contrast: Contrast, out: Voxels) -> tuple[Voxels, Voxels]:
    """Input and output of the voxels, ordered: the map is a straight line."""
    values, first = np.unique(brain(contrast).voxels, return_index=True)
    return values.astype(float), out.ravel()[first].astype(float)


def test_the_stripe_has_mean_0_and_spread_1() -> None:
    """By definition: ranks within 5 % of the peak's, counted by a plain sort."""
    volume = brain()
    out = np.sort(white_stripe(volume, WhiteStripe(foreground_above=100), {}).voxels[volume.voxels > 100])
    rank = np.searchsorted(out, 0) / len(out)
    stripe = out[int((rank - 0.05) * len(out)) : int((rank + 0.05) * len(out))]
    assert stripe.mean() == pytest.approx(0, abs=0.05)
    assert stripe.std() == pytest.approx(1, abs=0.02)


@given(st.integers(0, 50), st.sampled_from([0.125, 0.5, 2.0, 8.0]), st.integers(-2000, 2000))
@tries(max_examples=15)
def test_gain_and_offset_do_not_show(seed: int, gain: float, offset: int) -> None:
    volume = brain(seed=seed, n=20_000)
    other = Volume(volume.voxels.astype(np.float64) * gain + offset)
    plain = white_stripe(volume, WhiteStripe(), {}).voxels
    np.testing.assert_allclose(white_stripe(other, WhiteStripe(), {}).voxels, plain, atol=2e-2)


def test_a_lesion_moves_white_matter_little_and_widens_the_stripe_by_its_own_share() -> None:
    """A fifth of the brain is bright lesion: its mean moves by six spreads of the stripe."""
    volumes = [brain(n_lesion=n) for n in (0, N // 5)]
    well, sick = (white_stripe(volume, WhiteStripe(), {}).voxels.ravel()[: -N // 5] for volume in volumes)
    first, second = (volume.voxels.ravel()[: -N // 5] for volume in volumes)
    assert np.array_equal(first, second)
    assert np.abs(sick - well)[np.abs(well) < 1].max() < 0.5
    assert np.polyfit(well, sick, 1)[0] == pytest.approx(0.85, abs=0.1)


def test_what_was_clipped_is_no_tissue() -> None:
    volume = brain(n_lesion=N // 10)
    clipped = Volume(np.minimum(volume.voxels, 1600))
    one, other = (white_stripe(v, WhiteStripe(foreground_above=100), {}).voxels for v in (volume, clipped))
    kept = volume.voxels < 1600
    np.testing.assert_allclose(other[kept], one[kept], atol=0.02 * np.abs(one).max())


def test_grey_levels_too_coarse_for_a_spread_give_finite_values() -> None:
    coarse = Volume(brain().voxels // 60)
    out = white_stripe(coarse, WhiteStripe(foreground_above=0), {}).voxels
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= np.sqrt(12) * np.ptp(coarse.voxels)


@pytest.mark.parametrize("above", [None, 0.5])
def test_a_foreground_of_one_value_becomes_zero(above: float | None) -> None:
    voxels = np.zeros((2, 9, 9), dtype=np.int16)
    voxels[:, 2:7, 2:7] = 7
    assert not white_stripe(Volume(voxels), WhiteStripe(foreground_above=above), {}).voxels.any()


@pytest.mark.parametrize("contrast", TISSUES)
@pytest.mark.parametrize("seed", range(5))
def test_noise_without_tissue_is_refused_with_a_reason(contrast: Contrast, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 128, 128)).astype(np.uint8)
    with pytest.raises(UnreadableScan) as caught:
        white_stripe(Volume(noise), WhiteStripe(contrast=contrast), {})
    assert caught.value.reason == "no_tissue_peak"


def test_a_threshold_above_every_voxel_is_refused_with_a_reason() -> None:
    with pytest.raises(UnreadableScan) as caught:
        white_stripe(brain(n=1000), WhiteStripe(foreground_above=1e6), {})
    assert caught.value.reason == "empty_foreground"


@given(st.lists(st.integers(-5, 200), min_size=1, max_size=200), st.sampled_from(list(TISSUES)))
@tries(max_examples=100)
def test_never_gives_a_number_that_is_none(values: list[int], contrast: Contrast) -> None:
    volume = Volume(np.array(values, dtype=np.int16).reshape(1, 1, -1))
    try:
        out = white_stripe(volume, WhiteStripe(contrast=contrast), {}).voxels
    except UnreadableScan:
        return
    assert np.isfinite(out).all()


def test_a_real_scan_with_another_gain_becomes_the_same(test_data: Path) -> None:
    volume = decode_volume((test_data / "dicom/dcm_qa_ts/Ref/1.nii").read_bytes()).first()
    one, eight = (white_stripe(Volume(volume.voxels * gain), WhiteStripe(), {}).voxels for gain in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-3)
