"""One factor per scan, towards the reference's foreground."""

from pathlib import Path

import numpy as np
import pytest

from platform_core.errors import UnreadableScan
from platform_core.harmonize.contract import Learned
from platform_core.harmonize.foreground_scale import ForegroundScale, learn_reference_value, scale_to_reference
from platform_core.imaging.nifti import decode_volume
from platform_core.imaging.volume import Volume

MEDIAN = ForegroundScale()


def patient(seed: int, gain: float = 1.0) -> Volume:
    rng = np.random.default_rng(seed)
    voxels = np.abs(rng.normal(0, 10, (6, 40, 40)))
    voxels[:, 8:32, 8:32] = rng.normal(400, 60, (6, 24, 24))
    return Volume((np.rint(voxels) * gain).astype(np.float64))


@pytest.fixture(scope="module")
def reference() -> Learned:
    """Gains 1, 2 and 4: the middle scan has the median."""
    return learn_reference_value(MEDIAN, [patient(n, gain) for n, gain in enumerate((1, 4, 2))], None)


def test_the_reference_value_is_the_median_over_scans(reference: Learned) -> None:
    expected = 2 * np.median(patient(2).voxels[:, 8:32, 8:32])
    assert reference == {"reference_value": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("gain", [0.125, 1, 3.7, 8, 1000])
@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.9])
def test_any_gain_ends_at_the_reference_value(gain: float, quantile: float) -> None:
    settings = ForegroundScale(quantile=quantile)
    out = scale_to_reference(patient(9, gain), settings, {"reference_value": 150.0}).voxels
    assert np.quantile(out[:, 8:32, 8:32], quantile) == pytest.approx(150, rel=1e-3)


def test_a_gain_of_8_changes_no_bit_that_counts(reference: Learned) -> None:
    one, eight = (scale_to_reference(patient(9, gain), MEDIAN, reference).voxels for gain in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-6)


def test_zero_stays_zero_and_ratios_stay(reference: Learned) -> None:
    volume = patient(9)
    out = scale_to_reference(volume, MEDIAN, reference).voxels
    inside = volume.voxels > 0
    ratio = out[inside] / volume.voxels[inside]
    assert np.ptp(ratio) < 1e-5 * ratio.max()
    assert not out[~inside].any()


def test_a_site_takes_the_value_of_the_reference(reference: Learned) -> None:
    assert learn_reference_value(MEDIAN, [patient(7, 50)], reference) == reference


def test_a_scan_of_the_reference_at_the_median_is_left_as_it_is(reference: Learned) -> None:
    np.testing.assert_allclose(scale_to_reference(patient(2, 2), MEDIAN, reference).voxels, patient(2, 2).voxels, 1e-5)


def test_where_nothing_can_be_learned_nothing_is_changed() -> None:
    learned = learn_reference_value(MEDIAN, [Volume(np.zeros((2, 9, 9)))], None)
    assert learned == {"reference_value": None}
    assert np.array_equal(scale_to_reference(patient(0), MEDIAN, learned).voxels, patient(0).voxels)


def test_negative_foregrounds_are_left_out_of_the_reference(reference: Learned) -> None:
    below = Volume(patient(3).voxels - 1000)
    sample = [below, *(patient(n, gain) for n, gain in enumerate((1, 4, 2)))]
    assert learn_reference_value(MEDIAN, sample, None) == reference


@pytest.mark.parametrize(
    ("settings", "reason"),
    [(MEDIAN, "foreground_not_positive"), (ForegroundScale(foreground_above=1e6), "empty_foreground")],
)
def test_what_no_gain_explains_is_refused_with_a_reason(
    settings: ForegroundScale, reason: str, reference: Learned
) -> None:
    with pytest.raises(UnreadableScan) as caught:
        scale_to_reference(Volume(patient(3).voxels - 1000), settings, reference)
    assert caught.value.reason == reason


def test_a_real_scan_with_another_gain_becomes_the_same(test_data: Path, reference: Learned) -> None:
    volume = decode_volume((test_data / "dicom/dcm_qa_ts/Ref/1.nii").read_bytes()).first()
    loud = Volume(volume.voxels * 8)
    one, eight = (scale_to_reference(v, MEDIAN, reference).voxels for v in (volume, loud))
    np.testing.assert_allclose(eight, one, rtol=1e-6)
