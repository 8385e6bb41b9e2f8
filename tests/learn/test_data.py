"""From stored volumes to what a network sees."""

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnknownName, UnreadableScan
from platform_core.imaging.volume import Volume
from platform_core.learn.data import (
    HEAVIEST,
    Framing,
    Scan,
    even_weights,
    find_scans,
    frame,
    framing_of,
    load_scans,
)
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace

Plant = Callable[..., list[str]]
WINDOW = Framing(grid=(4, 4, 4), window=(0.0, 100.0))


@given(st.tuples(*[st.integers(2, 9)] * 3))
def test_the_centre_of_a_volume_stays_in_the_centre(shape: tuple[int, int, int]) -> None:
    voxels = np.zeros(shape, dtype=np.float32)
    middle = tuple(n // 2 for n in shape)
    voxels[middle] = 100
    framed = frame(Volume(voxels), Framing(grid=(6, 6, 6), window=(0, 100)))
    assert framed.shape == (6, 6, 6)
    found = np.argwhere(framed == 1)
    assert len(found) == 1
    assert np.abs(found[0] - 3).max() <= 1


def test_a_window_maps_its_ends_to_zero_and_one_and_cuts_what_lies_beyond() -> None:
    voxels = np.full((4, 4, 4), 50.0)
    voxels[0, 0, 0], voxels[0, 0, 1], voxels[0, 0, 2] = -999, 100, 999
    framed = frame(Volume(voxels), WINDOW)
    assert framed[0, 0, :3].tolist() == [0, 1, 1]
    assert framed[1, 1, 1] == 0.5


def test_without_a_window_a_scan_has_mean_zero_and_standard_deviation_one() -> None:
    voxels = np.random.default_rng(0).normal(300, 20, (4, 4, 4))
    framed = frame(Volume(voxels), Framing(grid=(4, 4, 4), window=None))
    assert framed.mean() == pytest.approx(0, abs=1e-5)
    assert framed.std() == pytest.approx(1, rel=1e-5)


def test_a_constant_image_stays_finite() -> None:
    framed = frame(Volume(np.full((1, 9, 9), 7)), Framing(grid=(4, 4), window=None))
    assert np.isfinite(framed).all()


def test_an_image_is_resized_not_cropped() -> None:
    plane = np.zeros((1, 40, 20), dtype=np.float32)
    plane[0, :20] = 100
    framed = frame(Volume(plane), Framing(grid=(8, 8), window=(0, 100)))
    assert framed.shape == (8, 8)
    assert framed[:3].min() == pytest.approx(1, abs=0.01)
    assert framed[5:].max() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("shape", "grid"), [((1, 8, 8), (4, 4, 4)), ((3, 8, 8), (4, 4))])
def test_a_volume_of_other_dimensions_is_refused(shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    with pytest.raises(UnreadableScan) as refused:
        frame(Volume(np.zeros(shape)), Framing(grid=grid, window=None))
    assert refused.value.reason == "wrong_dimensions"


def test_a_voxel_that_is_no_number_is_refused() -> None:
    voxels = np.zeros((4, 4, 4))
    voxels[0, 0, 0] = np.nan
    with pytest.raises(UnreadableScan) as refused:
        frame(Volume(voxels), WINDOW)
    assert refused.value.reason == "not_finite"


def test_the_window_is_that_of_the_recipe(with_target: Workspace) -> None:
    framing = framing_of(with_target.settings.target["lesion"])
    assert framing == Framing(grid=(8, 8, 8), window=(0.0, 100.0))


def test_an_unknown_target_is_named_with_those_that_exist(with_target: Workspace) -> None:
    with pytest.raises(UnknownName, match="lesion"):
        with_target.target("nodule")


def test_a_series_that_quality_refused_is_not_found(with_target: Workspace, plant: Plant) -> None:
    bad, *good = plant("north", 4)
    record_stage(with_target, "north", "quality", [Verdict(series_key=bad, revision=1, reason="why")], run="run2")
    assert [scan.series_key for scan in find_scans(with_target, "lesion", "north", "r1")] == good


def test_native_volumes_need_no_recipe(with_target: Workspace, plant: Plant) -> None:
    keys = plant("north", 3)
    assert [scan.series_key for scan in find_scans(with_target, "lesion", "north", "native")] == keys
    assert find_scans(with_target, "lesion", "north", "r2") == []


def test_a_label_of_neither_class_is_no_label(with_target: Workspace, plant: Plant) -> None:
    plant("north", 3, labels=["benign", "malignant", "uncertain"])
    assert [scan.y for scan in find_scans(with_target, "lesion", "north", "r1")] == [0, 1, None]


def test_one_broken_volume_does_not_stop_the_others(with_target: Workspace, plant: Plant) -> None:
    plant("north", 3)
    scans = find_scans(with_target, "lesion", "north", "r1")
    with_target.objects.put(scans[1].volume_uri, b"no image")
    settings = with_target.settings.target["lesion"]
    loaded = load_scans(with_target, scans, settings, framing_of(settings))
    assert loaded.refused == {scans[1].series_key: "not_nifti"}
    assert [scan.series_key for scan in loaded.scans] == [scans[0].series_key, scans[2].series_key]
    assert loaded.arrays.shape == (2, 1, 8, 8, 8)


def scan(site: str, y: int) -> Scan:
    return Scan(
        site=site,
        series_key="k",
        revision=1,
        patient_key="p",
        patient_known=True,
        modality="CT",
        observed_on=date(2026, 1, 5),
        volume_uri="u",
        y=y,
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), min_size=1, max_size=15))
def test_both_classes_of_a_site_weigh_the_same(rows: list[tuple[str, int]]) -> None:
    weights = even_weights([scan(*row) for row in rows])
    for site in "ab":
        sums = [sum(w for w, row in zip(weights, rows, strict=True) if row == (site, y)) for y in (0, 1)]
        if min(sums) > 0:
            assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_no_scan_weighs_more_than_the_heaviest() -> None:
    weights = even_weights([scan("a", 0)] * 99 + [scan("a", 1)])
    assert weights.max() == HEAVIEST
