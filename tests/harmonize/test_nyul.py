"""Landmarks of each scan onto the reference's, against a plain loop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from platform_core.harmonize.contract import Learned
from platform_core.harmonize.landmarks import map_piecewise, merge_close
from platform_core.harmonize.nyul import QUANTILES, Nyul, learn_standard_scale, map_to_standard_scale
from platform_core.imaging.foreground import foreground_values
from platform_core.imaging.nifti import decode_volume
from platform_core.imaging.volume import Volume, Voxels

OTSU = Nyul()
BODY = (slice(None), slice(5, 35), slice(5, 35))


def patient(seed: int, *, lesion: bool = False) -> Voxels:
    """Tissue of several kinds in a dark background, arbitrary units."""
    rng = np.random.default_rng(seed)
    voxels = np.abs(rng.normal(0, 4, (6, 40, 40)))
    voxels[BODY] = 100 + 60 * rng.beta(2, 3, (6, 30, 30)) + 15 * np.sin(np.arange(30) / 4)
    if lesion:
        voxels[1:5, 8:26, 8:26] += 100
    return voxels


def other_scanner(voxels: Voxels) -> Voxels:
    """Gain, offset and gamma."""
    return 40 + 900 * (np.maximum(voxels, 0) / 250) ** 0.7


@pytest.fixture(scope="module")
def reference() -> Learned:
    return learn_standard_scale(OTSU, [Volume(patient(n)) for n in range(8)], None)


def planted(landmarks: list[float], n: int = 50) -> Volume:
    """A foreground whose quantiles at 0, 0.05, 0.1, ..., 0.95, 1 are known, after as many zeros."""
    place = np.linspace(0, 1, 20 * n + 1)
    values = np.interp(place, [0, *QUANTILES, 1], landmarks)
    return Volume(np.concatenate([np.zeros(len(values)), values]).reshape(2, 1, -1))


def by_loop(volume: Volume, x: list[float], y: list[float]) -> list[float]:
    """The map as the paper writes it, a voxel at a time; ends go on with the slope of their segment."""
    out = []
    for value in volume.voxels.ravel().tolist():
        k = next((k for k in range(1, len(x) - 1) if value <= x[k]), len(x) - 1)
        out.append(y[k - 1] + (y[k] - y[k - 1]) / (x[k] - x[k - 1]) * (value - x[k - 1]))
    return out


ABOVE_0 = Nyul(foreground_above=0.0)
FIRST = [90.0, *np.linspace(100, 300, 11), 330.0]
SECOND = [40.0, 50, 60, 65, 80, 100, 110, 115, 116, 150, 180, 250, 400]


def test_the_standard_scale_is_the_mean_of_scans_brought_to_one_range() -> None:
    """Ranges 100 to 300 and 50 to 250: the standard one is 75 to 275."""
    learned = learn_standard_scale(ABOVE_0, [planted(FIRST), planted(SECOND)], None)
    a, b = np.array(FIRST[1:-1]), np.array(SECOND[1:-1])
    expected = [75 + 200 * ((p - 100) / 200 + (q - 50) / 200) / 2 for p, q in zip(a, b, strict=True)]
    assert learned["target"] == pytest.approx(expected, rel=1e-3)
    assert learned["background"] == 0


def test_apply_agrees_with_a_plain_loop() -> None:
    target = [float(v) for v in np.linspace(10, 210, 11) ** 1.1]
    volume = planted(SECOND)
    out = map_to_standard_scale(volume, ABOVE_0, {"target": target, "background": -3.0}).voxels.ravel()
    np.testing.assert_allclose(out, by_loop(volume, [0, *SECOND[1:-1]], [-3.0, *target]), rtol=1e-4, atol=0.02)


def test_every_scan_ends_with_the_reference_quantiles(reference: Learned) -> None:
    for seed in (50, 51):
        out = map_to_standard_scale(Volume(other_scanner(patient(seed))), OTSU, reference).voxels
        assert np.quantile(out[BODY], QUANTILES) == pytest.approx(reference["target"], abs=0.5)


def test_a_site_never_seen_needs_no_fit(reference: Learned) -> None:
    """Its fit is the reference's, whatever the sample holds."""
    site = [Volume(other_scanner(patient(n))) for n in range(20, 23)]
    assert learn_standard_scale(OTSU, site, reference) == reference


def test_another_scaling_is_undone(reference: Learned) -> None:
    truth = patient(60)
    plain = map_to_standard_scale(Volume(truth), OTSU, reference).voxels
    back = map_to_standard_scale(Volume(other_scanner(truth)), OTSU, reference).voxels
    assert np.abs(back[BODY] - plain[BODY]).mean() < 0.3
    assert abs(float(np.median(back[:, :4]) - np.median(truth[:, :4]))) < 2


@pytest.mark.parametrize("gain", [0.125, 8.0])
def test_a_gain_does_not_show(gain: float, reference: Learned) -> None:
    one, other = (map_to_standard_scale(Volume(patient(9) * g), OTSU, reference).voxels for g in (1.0, gain))
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-3)


def test_gains_within_the_reference_do_not_weigh() -> None:
    quiet = [Volume(patient(n)) for n in range(5)]
    one_loud = [Volume(patient(n) * (100 if n == 2 else 1)) for n in range(5)]
    plain, loud = (learn_standard_scale(OTSU, sample, None)["target"] for sample in (quiet, one_loud))
    assert loud == pytest.approx(plain, rel=0.02)


def test_the_reference_is_changed_little(reference: Learned) -> None:
    volume = patient(3)
    assert np.abs(map_to_standard_scale(Volume(volume), OTSU, reference).voxels - volume)[BODY].max() < 5


def test_a_lesion_is_paid_for_by_its_surroundings(reference: Learned) -> None:
    """Why the module warns: the same healthy voxels come out darker in the sick scan."""
    well, sick = (map_to_standard_scale(Volume(patient(9, lesion=b)), OTSU, reference).voxels for b in (False, True))
    beside = (slice(None), slice(28, 35), slice(28, 35))
    assert float((sick[beside] - well[beside]).mean()) < -5


@given(st.lists(st.integers(-3000, 5000), min_size=2, max_size=60))
@tries(max_examples=60)
def test_reorders_nothing(values: list[int]) -> None:
    learned = {"target": [20.0, 21, 22, 50, 51, 90, 91, 91, 200, 500, 501], "background": -900.0}
    ordered = np.sort(np.array(values, dtype=np.float32))
    mapped = map_to_standard_scale(Volume(ordered.reshape(1, 1, -1)), OTSU, learned).voxels.ravel()
    assert np.isfinite(mapped).all()
    assert (np.diff(mapped) >= -1e-6 * np.abs(mapped).max()).all()


def test_landmarks_that_coincide_become_one() -> None:
    """Half of the foreground is one grey level."""
    flat = np.full(400, 70.0)
    volume = Volume(np.concatenate([np.zeros(800), flat, np.linspace(70, 170, 400)]).reshape(2, 4, -1))
    out = map_to_standard_scale(volume, OTSU, {"target": [float(v) for v in range(10, 120, 10)], "background": 0.0})
    assert np.isfinite(out.voxels).all()
    assert np.ptp(out.voxels[volume.voxels == 70]) == 0


def test_a_scan_without_background_is_mapped_by_its_foreground(reference: Learned) -> None:
    crop = Volume(patient(9)[BODY])
    out = map_to_standard_scale(crop, Nyul(foreground_above=10.0), reference).voxels
    assert np.quantile(out, QUANTILES) == pytest.approx(reference["target"], abs=0.5)


def test_where_nothing_can_be_learned_nothing_is_changed() -> None:
    learned = learn_standard_scale(OTSU, [Volume(np.full((2, 9, 9), 3.0))], None)
    assert learned == {"target": [], "background": None}
    assert np.array_equal(
        map_to_standard_scale(Volume(patient(0)), OTSU, learned).voxels, patient(0).astype(np.float32)
    )


def test_constant_scans_are_left_out_of_the_reference(reference: Learned) -> None:
    empty = Volume(np.full((6, 40, 40), 3.0))
    assert learn_standard_scale(OTSU, [empty, *(Volume(patient(n)) for n in range(8)), empty], None) == reference


def test_a_single_landmark_is_a_shift() -> None:
    x, y = merge_close(np.array([5.0, 5.0]), np.array([8.0, 10.0]))
    assert map_piecewise(np.array([[[4.0, 5.0, 7.0]]]), x, y).ravel().tolist() == [8, 9, 11]


def test_two_real_scans_end_on_one_scale(test_data: Path) -> None:
    paths = ("dicom/dcm_qa_ts/Ref/1.nii", "dicom/dicom2nifti/hitachi/anatomical/001_ground_truth.nii.gz")
    scans = [decode_volume((test_data / path).read_bytes()).first() for path in paths]
    learned = learn_standard_scale(OTSU, scans[:1], None)
    for scan in scans:
        inside = foreground_values(scan.voxels).min() <= scan.voxels
        mapped = map_to_standard_scale(scan, OTSU, learned).voxels[inside]
        assert np.quantile(mapped, QUANTILES) == pytest.approx(learned["target"], rel=0.01)
