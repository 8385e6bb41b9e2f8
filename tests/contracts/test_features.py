"""What every family of features promises."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest

from platform_core.features import FAMILIES
from platform_core.features.acquisition import STATED
from platform_core.features.contract import Family
from platform_core.features.measure import FEATURES, measure
from platform_core.features.slices import cut_slices
from platform_core.imaging.volume import Geometry, Volume

UNIT_ENDINGS = (
    *("_hu", "_relative", "_mm", "_fraction", "_ratio", "_mm2", "_mm4", "_per_mm", "_slope"),
    *("_mas", "_ms", "_deg", "_t", "_hz"),
)
HEADER: dict[str, float | None] = dict.fromkeys(STATED, 2.5)
GRID = Geometry((1.2, 1.2, 2.5))


def body(seed: int = 0, dtype: str = "int16") -> Volume:
    """A disk of tissue in air with noise, HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :56]
    hu = np.where((y - 30) ** 2 + (x - 28) ** 2 < 20**2, 60.0, -1000.0)
    return Volume((hu + rng.normal(0, 12, (9, 60, 56))).astype(dtype), GRID)


def brain(seed: int = 0) -> Volume:
    """Positive arbitrary units."""
    return Volume((body(seed).voxels.astype(np.float32) + 1100) * 0.7, GRID)


VOLUMES: dict[str, tuple[Volume, str]] = {
    "ct": (body(), "CT"),
    "mr": (brain(), "MR"),
    "unsigned": (Volume(brain().voxels.astype(np.uint16), GRID), "MR"),
    "plain": (Volume(brain().voxels[:1].astype(np.uint8)), "CR"),
    "constant": (Volume(np.full((4, 20, 20), 5, dtype=np.int16), GRID), "CT"),
    "constant_mr": (Volume(np.full((4, 20, 20), 5, dtype=np.int16), GRID), "MR"),
    "zero": (Volume(np.zeros((4, 20, 20), dtype=np.float32), GRID), "MR"),
    "air": (Volume(body().voxels[:, :8, :8], GRID), "CT"),
    "tiny": (Volume(body().voxels[:1, 20:28, 20:28], GRID), "CT"),
    "negative": (Volume(-brain().voxels, GRID), "MR"),
    "huge": (Volume(brain().voxels * np.float32(1e15), GRID), "MR"),
    "two_values": (Volume((body().voxels > 0).astype(np.uint8), GRID), "MR"),
    "in_time": (Volume(np.stack([body().voxels, body(1).voxels]), GRID), "CT"),
    "very_coarse": (Volume(body().voxels, Geometry((30.0, 30.0, 50.0))), "CT"),
    "left_handed": (Volume(body().voxels, Geometry((1.2, 1.2, 2.5), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))), "CT"),
    "many_slices": (Volume(np.resize(body().voxels[:, 22:38, 20:36], (10_000, 16, 16)), GRID), "CT"),
    "few_foreground": (Volume(np.where(np.arange(4800) % 100, 10, 900).reshape(12, 20, 20), GRID), "MR"),
    "saturated": (Volume(np.clip(body().voxels, -100, 100), GRID), "CT"),
    "thin_slices": (Volume(body().voxels, Geometry((1.2, 1.2, 0.1))), "CT"),
    "oblong_pixels": (Volume(body().voxels, Geometry((0.4, 3.0, 1.0))), "CT"),
    "very_fine": (Volume(body().voxels, Geometry((0.001, 0.001, 0.001))), "CT"),
}


@pytest.fixture(params=FAMILIES.values(), ids=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(params=VOLUMES.values(), ids=list(VOLUMES))
def volume(request: pytest.FixtureRequest) -> tuple[Volume, str]:
    found: tuple[Volume, str] = request.param
    return found


def test_every_value_is_finite_or_none(family: Family, volume: tuple[Volume, str]) -> None:
    told = family.measure(cut_slices(*volume))
    assert [name for name, value in told.items() if value is not None and not math.isfinite(value)] == []
    assert {type(value) for value in told.values()} <= {float, type(None)}


def test_nothing_is_told_that_was_not_announced(family: Family, volume: tuple[Volume, str]) -> None:
    assert family.measure(cut_slices(*volume)).keys() <= {feature.name for feature in family.features}


def test_no_family_warns(family: Family, volume: tuple[Volume, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        family.measure(cut_slices(*volume))


def test_slices_are_left_alone(family: Family, volume: tuple[Volume, str]) -> None:
    slices = cut_slices(*volume)
    voxels, mask = slices.voxels.copy(), slices.foreground.copy()
    family.measure(slices)
    assert np.array_equal(slices.voxels, voxels)
    assert np.array_equal(slices.foreground, mask)


def test_the_same_scan_tells_the_same(family: Family, volume: tuple[Volume, str]) -> None:
    assert family.measure(cut_slices(*volume)) == family.measure(cut_slices(*volume))


def test_every_feature_of_the_modality_is_told_for_a_clean_scan(family: Family) -> None:
    """Together CT and MR tell everything, save bands above 0.9 of this grid's Nyquist frequency."""
    told = {
        name
        for key in ("ct", "mr")
        for name, value in family.measure(cut_slices(*VOLUMES[key], HEADER)).items()
        if value is not None
    }
    above = {f.name for f in family.features if f.name.startswith(("power_30", "power_40", "power_50"))}
    assert told == {feature.name for feature in family.features} - above


def test_units_are_in_the_names(family: Family) -> None:
    """Counts begin with `n_`; `kvp` is called as in `core__series`."""
    named = [f.name for f in family.features if not f.name.startswith("n_") and f.name != "kvp"]
    assert [name for name in named if not name.endswith(UNIT_ENDINGS)] == []


def test_each_feature_says_what_it_is(family: Family) -> None:
    assert all(feature.unit and feature.meaning for feature in family.features)
    assert {feature.bank for feature in family.features} <= {"acquisition", "content"}
    assert (family.measure.__doc__ or "").strip()


def test_no_two_features_share_a_name() -> None:
    names = [feature.name for family in FAMILIES.values() for feature in family.features]
    assert len(names) == len(set(names)) == len(FEATURES)


def test_a_scan_has_a_column_for_every_feature(volume: tuple[Volume, str]) -> None:
    assert measure(*volume).keys() == FEATURES.keys()


def test_ct_is_told_in_hu_and_others_relative() -> None:
    ct, mr = ({k for k, v in measure(*VOLUMES[key]).items() if v is not None} for key in ("ct", "mr"))
    assert not any("relative" in name for name in ct)
    assert not any("hu" in name for name in mr)


def test_of_a_plain_image_nothing_is_told_in_millimetres() -> None:
    told = {name for name, value in measure(*VOLUMES["plain"]).items() if value is not None}
    assert told
    assert not any("_mm" in name or name == "spectrum_slope" for name in told)


def test_of_a_series_in_time_the_first_volume_is_measured() -> None:
    assert measure(*VOLUMES["in_time"]) == measure(*VOLUMES["ct"])


def test_gain_does_not_move_what_is_told_relative() -> None:
    once, tenfold = measure(brain(), "MR"), measure(Volume(brain().voxels * 8, GRID), "MR")
    told = [name for name, value in once.items() if value is not None]
    assert [tenfold[name] for name in told] == pytest.approx([once[name] for name in told], rel=1e-3, abs=1e-3)


def test_ten_thousand_slices_need_little_memory() -> None:
    volume, modality = VOLUMES["many_slices"]
    tracemalloc.start()
    try:
        measure(volume, modality)
        assert tracemalloc.get_traced_memory()[1] < volume.voxels.nbytes / 2
    finally:
        tracemalloc.stop()


def test_a_left_handed_grid_is_measured_as_any_other() -> None:
    assert measure(*VOLUMES["left_handed"]) == measure(*VOLUMES["ct"])


def test_centring_a_scan_does_not_move_what_is_told_relative() -> None:
    """After `zscore` or `white_stripe` there is no ratio to the number 0; the background's median takes its place."""
    voxels = brain().voxels - np.median(brain().voxels[brain().voxels < 300])
    once = measure(Volume(voxels, GRID), "MR")
    centred = measure(Volume((voxels - 400) / 90, GRID), "MR")
    told = [name for name, value in once.items() if value is not None and name != "n_levels"]
    assert [centred[name] for name in told] == pytest.approx([once[name] for name in told], rel=1e-3, abs=1e-3)
