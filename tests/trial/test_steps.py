"""The receipt's numbers move the right way for the right step, and the wrong step is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp

from platform_core.harmonize.recipe import FittedRecipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Geometry, Volume
from platform_core.settings import StepSettings
from platform_core.shift.reweighted import class_weights, weighted_ks
from platform_core.shift.risk import Estimate
from platform_core.trial.steps import (
    EMBEDDING,
    EVERY,
    FIT,
    SIGNAL_HERE,
    SIGNAL_THERE,
    SITE_BY_FEATURES,
    VOLUME_ERROR,
    Sides,
    StepReceipt,
    implied_prevalence,
    receipts_of,
)
from platform_core.trial.walk import Walk, walk

Reals = npt.NDArray[np.float64]
N_THERE, N_HERE = 50, 40
NATIVE_MM = (1.0, 1.0, 3.0)


def scan(
    positive: bool,
    seed: int,
    *,
    gain: float = 1.0,
    gamma: float = 1.0,
    blur: float = 0.5,
    spacing_mm: float = 1.0,
    noise_hu: float = 8.0,
) -> Volume:
    """A body that is 25 HU denser in the sick; drawn in mm, so any spacing shows the same patient."""
    rng = np.random.default_rng(seed)
    n = round(48 / spacing_mm)
    _, y, x = np.mgrid[:6, :n, :n].astype(np.float64)
    y, x = (y - (n - 1) / 2) * spacing_mm, (x - (n - 1) / 2) * spacing_mm
    size = rng.normal(1, 0.03)
    tissue = rng.normal(0, 9) + 25 * positive
    hu = np.where(y**2 + x**2 < (19 * size) ** 2, tissue, -1000.0)
    hu[y**2 + (x + 4) ** 2 < (9 * size) ** 2] = tissue + 40
    hu[(y - 11) ** 2 + x**2 < 16] = 250 + rng.normal(0, 20)
    hu = gaussian_filter(hu, (0, blur / spacing_mm, blur / spacing_mm))
    noise = gaussian_filter(rng.normal(0, 1, hu.shape), (0, 0.4, 0.4)) * 2 * noise_hu
    seen = 1500 * np.clip((hu + 1000) / 1500, 0, None) ** gamma * gain - 1000 + noise
    return Volume(seen.astype(np.float32), Geometry((spacing_mm, spacing_mm, 3.0)))


def see(volume: Volume) -> tuple[float, Reals]:
    """A network that knows how dense the tissue is, whatever the grid."""
    n_y, n_x = volume.voxels.shape[1:]
    part = volume.voxels[:, round(0.4 * n_y) : round(0.6 * n_y), round(0.35 * n_x) : round(0.5 * n_x)]
    brightness = float(part.mean())
    return (brightness - 52) / 5, np.array([brightness / 10, float(part.std()) / 10, float(volume.voxels.max()) / 100])


def recipe(*steps: dict[str, Any]) -> Any:
    return parse_recipe([StepSettings(**step) for step in steps])


def compare(
    steps: Sequence[dict[str, Any]],
    *,
    labels_here: bool = True,
    share: float = 0.5,
    share_there: float = 0.5,
    fitted: FittedRecipe | None = None,
    **habit: Any,
) -> tuple[StepReceipt, ...]:
    """Receipts of a site that scans with `habit`, against a reference that does not."""
    y_there, y_here = np.arange(N_THERE) < round(share_there * N_THERE), np.arange(N_HERE) < round(share * N_HERE)
    there = [scan(bool(y), n) for n, y in enumerate(y_there)]
    here = [scan(bool(y), 1000 + n, **habit) for n, y in enumerate(y_here)]
    at_reference = fit_recipe(recipe(*steps), there, None)
    ours = fitted or fit_recipe(recipe(*steps), here, at_reference)
    walked, reference, pushed = (
        walk(((str(n), v) for n, v in enumerate(scans)), way, modality="CT", see=see)
        for scans, way in ((here, ours), (there, at_reference), (there, ours))
    )
    sides = Sides(
        site=walked,
        y=y_here.astype(float) if labels_here else np.full(N_HERE, np.nan),
        reference=reference,
        y_reference=y_there.astype(float),
        pushed=None if labels_here else pushed,
        y_pushed=None if labels_here else y_there.astype(float),
        prevalence=float(y_here.mean()) if labels_here else None,
    )
    return receipts_of(sides)


RESAMPLE = {"harmonizer": "resample", "spacing_mm": [1.0, 1.0, 3.0]}
MATCH = {"harmonizer": "histogram_match", "foreground_above": -500.0}
NYUL = {"harmonizer": "nyul"}
BANDS = {"harmonizer": "band_gain", "patch_mm": 16.0, "foreground_above": -500.0}


def test_a_site_that_scans_as_the_reference_does_is_near_before_and_after() -> None:
    (one,) = compare([MATCH])
    assert one.before[SITE_BY_FEATURES].low < 0.1
    assert one.change[EVERY].value < 0.02
    assert one.refusals == ()


def test_resampling_takes_a_difference_of_spacing_away() -> None:
    (one,) = compare([RESAMPLE], spacing_mm=1.5)
    assert one.change[EVERY].high < 0
    assert one.before[("spacing_x_mm", "ks")].value == 1
    assert one.after[("spacing_x_mm", "ks")].value == 0
    assert one.refusals == ()


def test_matching_histograms_takes_a_difference_of_gain_away_and_leaves_the_label() -> None:
    (one,) = compare([MATCH], gain=1.15)
    assert one.change[EVERY].high < 0
    assert one.after[("q50_hu", "ks")].value < one.before[("q50_hu", "ks")].value - 0.3
    assert one.signal_at == "site"
    assert one.after[SIGNAL_HERE].value > one.before[SIGNAL_HERE].value - 0.02
    assert one.refusals == ()


def test_matching_histograms_takes_a_gamma_away() -> None:
    (one,) = compare([MATCH], gamma=0.9)
    assert one.change[EVERY].high < 0
    assert one.after[("q50_hu", "ks")].value < one.before[("q50_hu", "ks")].value - 0.3
    assert one.refusals == ()


def test_band_gains_take_a_blur_away_that_matching_histograms_cannot() -> None:
    (pointwise,) = compare([MATCH], blur=1.1, noise_hu=3.0)
    (bands,) = compare([BANDS], blur=1.1, noise_hu=3.0)
    blurred = ("power_10_20_log_hu2_mm2", "ks")
    assert pointwise.after[blurred].value > 0.6
    assert any("rises" in why for why in pointwise.refusals)
    assert bands.after[blurred].value < 0.3 < bands.before[blurred].value
    assert bands.change[EVERY].high < 0
    assert bands.refusals == ()


def test_matching_histograms_across_a_difference_of_prevalence_is_refused() -> None:
    """The scanners are alike; the map takes the sick tissue of the many for the scanner's doing."""
    (one,) = compare([MATCH], share=0.75, share_there=0.25)
    assert one.before[("q50_hu", "ks")].value < 0.3
    assert one.after[("q50_hu", "ks")].value > one.before[("q50_hu", "ks")].value + 0.2
    assert any("rises" in why for why in one.refusals)


def test_matching_histograms_does_not_undo_noise() -> None:
    (one,) = compare([MATCH], noise_hu=16.0)
    assert one.after[("noise_haar_hu", "ks")].value > 0.9


def test_matching_every_scan_eats_the_label_and_is_refused() -> None:
    (one,) = compare([NYUL], gain=1.1, share=0.7)
    assert one.before[SIGNAL_HERE].value > 0.85
    assert one.change[SIGNAL_HERE].high < 0
    assert any("harder to tell" in why for why in one.refusals)
    assert "refused" in one.because


def test_without_labels_at_the_site_the_reference_pays_for_the_proof() -> None:
    (one,) = compare([NYUL], gain=1.1, labels_here=False)
    assert one.signal_at == "reference"
    assert one.change[SIGNAL_THERE].high < 0
    assert "label signal not measured at this site" in one.because
    assert one.refusals


def test_a_map_that_leads_away_is_refused() -> None:
    wrong = fit_recipe(recipe(MATCH), [scan(False, 0), scan(True, 1)], None).steps[0]
    learned = {"site": wrong.learned["site"], "target": [v + 60 for v in wrong.learned["target"]]}
    fitted = FittedRecipe((type(wrong)(wrong.step, learned),))
    (one,) = compare([MATCH], fitted=fitted)
    assert one.change[EVERY].low > 0
    assert any("rises" in why for why in one.refusals)


def test_scores_that_a_map_has_moved_beyond_any_mixture_are_refused_without_labels() -> None:
    wrong = fit_recipe(recipe(MATCH), [scan(False, 0), scan(True, 1)], None).steps[0]
    learned = {"site": wrong.learned["site"], "target": [v + 120 for v in wrong.learned["target"]]}
    (one,) = compare([MATCH], fitted=FittedRecipe((type(wrong)(wrong.step, learned),)), labels_here=False)
    assert one.before[FIT].value >= 0.01 > one.after[FIT].value
    assert any("label shift" in why for why in one.refusals)


def test_every_step_has_its_own_receipt_and_they_join() -> None:
    first, second = compare([RESAMPLE, MATCH], spacing_mm=1.5, gain=1.1)
    assert (first.number, first.harmonizer, second.number, second.harmonizer) == (1, "resample", 2, "histogram_match")
    assert all(second.before[named] == estimate for named, estimate in first.after.items() if named[0] != "label_map")


def test_resampling_keeps_the_volume_of_a_label_map() -> None:
    (one,) = compare([RESAMPLE], spacing_mm=1.5)
    assert abs(one.after[VOLUME_ERROR].value) < 0.02


def test_a_step_that_changes_the_volume_of_a_label_map_is_refused() -> None:
    told = {VOLUME_ERROR: Estimate(0.2, 0.1, 0.3)}
    one = StepReceipt(number=1, harmonizer="any", before={}, after=told, change={}, n_patients=9, n_reference=9)
    assert one.refusals == ("a label map changes its volume by +20%",)


def test_too_few_scans_tell_nothing_and_refuse_nothing() -> None:
    few = walk([("a", scan(True, 0))], FittedRecipe(()), modality="CT", see=None)
    assert receipts_of(Sides(site=few, y=np.array([1.0]), reference=few, y_reference=np.array([1.0]))) == ()
    match = fit_recipe(recipe(MATCH), [scan(True, 0)], None)
    few = walk([("a", scan(True, 0))], match, modality="CT", see=None)
    (one,) = receipts_of(Sides(site=few, y=np.array([1.0]), reference=few, y_reference=np.array([1.0])))
    assert (one.refusals, one.signal_at) == ((), "nowhere")
    assert "not measured" in one.because


def test_no_scan_at_all_tells_nothing() -> None:
    match = fit_recipe(recipe(MATCH), [scan(True, 0)], None)
    none = walk([], match, modality="CT", see=see)
    there = walk([(str(n), scan(n % 2 == 0, n)) for n in range(22)], match, modality="CT", see=see)
    y = (np.arange(22) % 2).astype(np.float64)
    (one,) = receipts_of(Sides(site=none, y=np.empty(0), reference=there, y_reference=y))
    assert one.refusals == ()


def test_a_scan_that_a_step_refuses_leaves_the_walk_with_its_reason() -> None:
    flat = Volume(np.full((4, 16, 16), 3.0, dtype=np.float32), Geometry(NATIVE_MM))
    walked = walk([("flat", flat), ("good", scan(True, 1))], FittedRecipe(()), modality="CT", see=see)
    assert walked.keys == ("good",)
    assert walked.refused == {"flat": "constant"}


def test_scores_imply_the_prevalence_where_a_mixture_explains_them() -> None:
    rng = np.random.default_rng(0)

    def scored(y: npt.NDArray[np.bool_], move: float = 0.0) -> Walk:
        empty = np.empty((1, len(y), 0))
        return Walk(steps=(), keys=tuple(map(str, y)), features=empty, scores=(rng.normal(2.5 * y, 1) + move)[None],
                    embeddings=empty, label_maps=np.empty((0, 0, 0)), refused={})  # fmt: skip

    y_there, y_here = np.arange(200) < 60, np.arange(300) < 210
    there = scored(y_there)
    unknown = np.full(300, np.nan)
    fits = Sides(site=scored(y_here), y=unknown, reference=there, y_reference=y_there.astype(float))
    moved = Sides(site=scored(y_here, move=4.0), y=unknown, reference=there, y_reference=y_there.astype(float))
    assert implied_prevalence(fits, 0) == pytest.approx(0.7, abs=0.08)
    assert implied_prevalence(moved, 0) is None


SAMPLES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(SAMPLES, SAMPLES)
def test_with_even_weights_the_distance_is_that_of_scipy(a: list[float], b: list[float]) -> None:
    ours = weighted_ks(np.array(a), np.full(len(a), 1 / len(a)), np.array(b))
    assert ours == pytest.approx(ks_2samp(a, b).statistic)


@given(SAMPLES, SAMPLES, st.data())
def test_a_weight_is_a_number_of_copies(a: list[float], b: list[float], data: st.DataObject) -> None:
    n = data.draw(st.lists(st.integers(1, 4), min_size=len(a), max_size=len(a)))
    ours = weighted_ks(np.array(a), np.array(n, dtype=float), np.array(b))
    assert ours == pytest.approx(ks_2samp(np.repeat(a, n), b).statistic)


def test_weights_bring_the_reference_to_the_prevalence_of_the_site() -> None:
    y = np.array([1.0] * 10 + [0.0] * 30 + [np.nan] * 5)
    weights = class_weights(y, 0.8)
    assert weights[y == 1].sum() == pytest.approx(0.8)
    assert weights[y == 0].sum() == pytest.approx(0.2)
    assert weights[np.isnan(y)].sum() == 0
    assert len(set(class_weights(y, None))) == 1


def test_a_difference_of_prevalence_alone_is_no_distance_between_scans() -> None:
    y = np.repeat([1.0, 0.0], [100, 300])
    there = np.random.default_rng(0).normal(2 * y, 1)
    here = np.random.default_rng(1).normal(2 * np.repeat([1.0, 0.0], [320, 80]), 1)
    assert weighted_ks(there, class_weights(y, None), here) > 0.35
    assert weighted_ks(there, class_weights(y, 0.8), here) < 0.12


def test_a_step_after_which_the_network_tells_the_site_better_is_refused() -> None:
    near, far = Estimate(0.01, -0.02, 0.03), Estimate(0.2, 0.15, 0.25)
    one = StepReceipt(number=1, harmonizer="any", before={EMBEDDING: near}, after={EMBEDDING: far}, change={},
                      n_patients=50, n_reference=50)  # fmt: skip
    assert one.refusals == ("the network tells the site better: squared MMD 0.01 [-0.02, 0.03] to 0.20 [0.15, 0.25]",)
