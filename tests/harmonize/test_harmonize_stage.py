"""A site's recipe and its volumes, through the tables."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core import layout
from platform_core.errors import BadSetting, EmptySample, UnknownName
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, check_recipes, fit_recipe, parse_recipe
from platform_core.harmonize.stage import fit_site_recipe, harmonize_shard, load_recipe
from platform_core.imaging.memory import Budget
from platform_core.imaging.nifti import volume_sha256
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.schemas import LABEL, SERIES
from platform_core.manifest.stages import StageCount, Verdict, record_stage
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.settings import StepSettings
from platform_core.storage.tables import rows_of
from tests.conftest import configured

AT = datetime(2026, 2, 1, tzinfo=UTC)
RECIPE = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"

[[target.lesion.recipe]]
harmonizer = "resample"
spacing_mm = [1.5, 1.5, 3.0]

[[target.lesion.recipe]]
harmonizer = "histogram_match"

[[target.lesion.recipe]]
harmonizer = "clip_intensity"
low = -1000.0
high = 400.0

[target.plain]
label = "lesion"
modality = "CT"
source_site = "north"
"""


def scan(seed: int, gain: float = 1.0) -> Volume:
    rng = np.random.default_rng(seed)
    hu = np.full((6, 32, 32), -1000.0)
    hu[:, 6:26, 6:26] = 100.0 * gain
    return Volume((hu + rng.normal(0, 15, hu.shape)).astype(np.int16), Geometry((1.0, 1.0, 2.0)))


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    """The workspace with a target whose recipe learns."""
    return configured(workspace, RECIPE)


def arrive(workspace: Workspace, site: str, volumes: dict[str, Volume | None], revision: int = 1) -> list[str]:
    """As ingest leaves them; None is a volume that got lost in the store."""
    rows: list[dict[str, Any]] = []
    for key, volume in volumes.items():
        uri = layout.volume_path(site, layout.NATIVE, key, revision)
        sha256 = "lost" if volume is None else workspace.write_volume(uri, volume)
        rows.append(
            {
                "site": site,
                "series_key": key,
                "revision": revision,
                "modality": "CT",
                "patient_key": f"p-{key}",
                "observed_on": date(2026, 1, 5),
                "volume_uri": uri,
                "volume_sha256": sha256,
            }
        )
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction=f"{site}-{revision}-{sorted(volumes)}")
    return sorted(volumes)


def fit(workspace: Workspace, site: str, keys: list[str], reference: str | None, target: str = "lesion") -> str:
    return fit_site_recipe(workspace, site, target, keys, run="r", at=AT, reference=reference)


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workspace.lake.read(table).to_pylist()
    return found


def test_a_recipe_is_fitted_once_and_read_back(ready: Workspace) -> None:
    keys = arrive(ready, "north", {f"n{i}": scan(i) for i in range(4)})
    name = fit(ready, "north", keys, None)
    assert fit(ready, "north", keys, None) == name
    (row,) = rows(ready, layout.RECIPE)
    assert (row["recipe"], row["n_fitted"]) == (name, 4)
    assert name == f"lesion-north-{load_recipe(ready, name).name}"


def test_a_site_is_fitted_onto_the_reference_site(ready: Workspace) -> None:
    north = arrive(ready, "north", {f"n{i}": scan(i) for i in range(4)})
    south = arrive(ready, "south", {f"s{i}": scan(i + 50, gain=2.0) for i in range(4)})
    source = fit(ready, "north", north, None)
    here = fit(ready, "south", south, source)
    assert load_recipe(ready, here).steps[1].learned["target"] == load_recipe(ready, source).steps[1].learned["target"]
    harmonize_shard(ready, "south", south, recipe=here, run="r")
    (uri, *_) = sorted(row["volume_uri"] for row in rows(ready, layout.VOLUME))
    assert ready.read_volume(uri).voxels[:, 7:14, 7:14].mean() == pytest.approx(100, abs=5)


def test_a_reference_that_was_never_fitted_is_told(ready: Workspace) -> None:
    keys = arrive(ready, "south", {"s0": scan(0)})
    with pytest.raises(UnknownName, match="'north'; known: native"):
        fit(ready, "south", keys, "north")


def test_a_target_that_does_not_exist_is_told(ready: Workspace) -> None:
    with pytest.raises(UnknownName, match="known: lesion, plain"):
        fit(ready, "north", [], None, target="tumour")


def test_a_wrong_recipe_fails_before_a_scan_is_read(ready: Workspace) -> None:
    file = Path(ready.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8").replace("spacing_mm", "spacing"), encoding="utf-8")
    keys = arrive(ready, "north", {"lost": None})
    with pytest.raises(BadSetting, match=r"target\.lesion\.recipe\[0\]\.spacing"):
        fit(open_workspace(ready.uri), "north", keys, None)


def test_a_target_without_steps_runs_on_native_volumes(ready: Workspace) -> None:
    keys = arrive(ready, "north", {"n0": scan(0)})
    assert fit(ready, "north", keys, None, target="plain") == layout.NATIVE
    assert harmonize_shard(ready, "north", keys, recipe=layout.NATIVE, run="r").n_done == 1
    (row,) = rows(ready, layout.VOLUME)
    assert row["volume_uri"] == layout.volume_path("north", layout.NATIVE, "n0", 1)
    assert row["volume_sha256"] == volume_sha256(scan(0))


def test_bad_scans_are_left_out_of_the_fit(ready: Workspace) -> None:
    good = {f"n{i}": scan(i) for i in range(3)}
    bad = {"zero": Volume(np.zeros((4, 16, 16), dtype=np.int16)), "lost": None}
    name = fit(ready, "north", arrive(ready, "north", {**good, **bad}), None)
    assert rows(ready, layout.RECIPE)[0]["n_fitted"] == 3
    assert name == fit(ready, "north", sorted(good), None)


def test_a_fit_without_one_usable_scan_is_refused(ready: Workspace) -> None:
    keys = arrive(ready, "north", {"lost": None})
    with pytest.raises(EmptySample):
        fit(ready, "north", keys, None)


def test_a_fit_looks_at_forty_scans_spread_over_the_keys(ready: Workspace) -> None:
    keys = arrive(ready, "north", {f"n{i:03}": scan(i) for i in range(101)})
    fit(ready, "north", keys, None)
    assert rows(ready, layout.RECIPE)[0]["n_fitted"] == 40


def sick(seed: int) -> Volume:
    """A scan with more of the bright tissue than of the other."""
    healthy = scan(seed)
    healthy.voxels[:, 6:22, 6:26] += 150
    return healthy


def cohort(workspace: Workspace, site: str, n: int, n_sick: int, *, labelled: bool) -> list[str]:
    keys = arrive(workspace, site, {f"{site}{i:03}": sick(i) if i < n_sick else scan(i) for i in range(n)})
    labels = [
        {"site": site, "target": "lesion", "series_key": key, "value": str(int(i < n_sick)), "run": "r"}
        for i, key in enumerate(keys)
    ]  # fmt: skip
    sound = [Verdict(series_key=key, revision=1) for key in keys]
    record_stage(workspace, site, "quality", sound, run="r")
    if labelled:
        workspace.lake.append(layout.LABEL, rows_of(LABEL, labels), transaction=f"labels-{site}")
    return keys


def moved(workspace: Workspace, recipe: str) -> float:
    """How far the map that was learned moves its landmarks at most, HU."""
    learned = load_recipe(workspace, recipe).steps[1].learned
    return float(np.abs(np.subtract(learned["target"], learned["site"])).max())


def test_a_map_does_not_eat_a_difference_of_prevalence_where_labels_tell_it(ready: Workspace) -> None:
    reference = fit(ready, "north", cohort(ready, "north", 48, 12, labelled=True), None)
    known = fit(ready, "south", cohort(ready, "south", 48, 36, labelled=True), reference)
    unknown = fit(ready, "east", cohort(ready, "east", 48, 36, labelled=False), reference)
    assert moved(ready, known) < 10
    assert moved(ready, unknown) > 50


def test_without_labels_the_site_is_held_against_the_reference_as_it_is_and_not_half_and_half(ready: Workspace) -> None:
    reference = fit(ready, "north", cohort(ready, "north", 120, 18, labelled=True), None)
    same = fit(ready, "east", cohort(ready, "east", 120, 18, labelled=False), reference)
    assert moved(ready, same) < 10


def test_without_labels_the_reference_is_brought_to_the_prevalence_that_is_known(ready: Workspace) -> None:
    reference = fit(ready, "north", cohort(ready, "north", 80, 20, labelled=True), None)
    keys = cohort(ready, "east", 48, 36, labelled=False)
    told = fit_site_recipe(ready, "east", "lesion", keys, run="r", at=AT, reference=reference, prevalence=0.75)
    assert moved(ready, told) < 10


def test_a_step_that_is_left_out_does_what_it_does_at_the_reference(ready: Workspace) -> None:
    reference = fit(ready, "north", arrive(ready, "north", {f"n{i}": scan(i) for i in range(4)}), None)
    keys = arrive(ready, "south", {f"s{i}": scan(i, gain=1.5) for i in range(4)})
    left_out = fit_site_recipe(ready, "south", "lesion", keys, run="r", at=AT, reference=reference, as_reference={1})
    assert moved(ready, left_out) == 0
    assert load_recipe(ready, left_out) == load_recipe(ready, reference)


def test_a_volume_that_needs_more_memory_than_is_allowed_is_refused(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = arrive(ready, "north", {"n0": scan(0)})
    name = fit(ready, "north", keys, None)
    monkeypatch.setattr("platform_core.harmonize.stage.budget", lambda: Budget(10, 2))
    assert harmonize_shard(ready, "north", keys, recipe=name, run="r").n_refused == 1
    (stage,) = (row for row in rows(ready, layout.STAGE) if row["stage"] == "harmonize")
    assert stage["reason"] == "memory_budget"
    monkeypatch.undo()
    assert harmonize_shard(ready, "north", keys, recipe=name, run="later").n_done == 1
    assert harmonize_shard(ready, "north", keys, recipe=name, run="later still").n_in == 0


def test_a_fit_goes_on_without_scans_that_a_step_refuses_once_it_has_learned(ready: Workspace) -> None:
    steps = [
        StepSettings(harmonizer="foreground_scale", foreground_above=300.0),  # type: ignore[call-arg]
        StepSettings(harmonizer="histogram_match"),
    ]
    bright = [scan(n, gain=6.0) for n in range(3)]
    dark = scan(9)
    with_dark = fit_recipe(parse_recipe(steps), [*bright[:2], dark, bright[2]], None)
    assert with_dark.steps[1] == fit_recipe(parse_recipe(steps), bright, None).steps[1]


def test_every_recipe_is_checked_before_anything_is_read(ready: Workspace) -> None:
    check_recipes(ready.settings)
    file = Path(ready.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8").replace('"clip_intensity"', '"clip"'), encoding="utf-8")
    with pytest.raises(UnknownName, match=r"'clip'; known: .*clip_intensity"):
        check_recipes(open_workspace(ready.uri).settings)


def test_volumes_are_stored_as_the_recipe_makes_them(ready: Workspace) -> None:
    keys = arrive(ready, "north", {f"n{i}": scan(i) for i in range(3)})
    name = fit(ready, "north", keys, None)
    count = harmonize_shard(ready, "north", keys, recipe=name, run="r")
    assert count == StageCount(site="north", stage="harmonize", n_in=3, n_done=3, n_refused=0)
    for n, row in enumerate(sorted(rows(ready, layout.VOLUME), key=lambda row: str(row["series_key"]))):
        assert row["volume_uri"] == layout.volume_path("north", name, f"n{n}", 1)
        stored, expected = ready.read_volume(row["volume_uri"]), apply_recipe(load_recipe(ready, name), scan(n)).volume
        assert np.abs(stored.voxels - expected.voxels).max() <= 1000 / 32_767
        assert stored.geometry == expected.geometry
        assert row["volume_sha256"] == volume_sha256(stored)
        assert row["skipped"] is None


def test_bad_scans_are_refused_with_a_reason_and_good_ones_pass(ready: Workspace) -> None:
    keys = arrive(ready, "north", {"n0": scan(0), "n1": scan(1)})
    name = fit(ready, "north", keys, None)
    nan = np.zeros((4, 16, 16), dtype=np.float32)
    nan[0, 0, 0] = np.nan
    more = {
        "constant": Volume(np.full((4, 16, 16), 7, dtype=np.int16), Geometry((1.0, 1.0, 1.0))),
        "not_finite": Volume(nan, Geometry((1.0, 1.0, 1.0))),
        "too_small": Volume(np.arange(48, dtype=np.int16).reshape(3, 4, 4), Geometry((1.0, 1.0, 1.0))),
        "volume_missing": None,
    }
    keys += arrive(ready, "north", {**more, "n2": scan(2)})
    count = harmonize_shard(ready, "north", keys, recipe=name, run="r")
    assert (count.n_in, count.n_done, count.n_refused) == (7, 3, 4)
    refused = {row["series_key"]: row["reason"] for row in rows(ready, layout.STAGE) if row["outcome"] == "refused"}
    assert refused == {key: key for key in more}
    assert {row["series_key"] for row in rows(ready, layout.VOLUME)} == {"n0", "n1", "n2"}


def test_a_second_run_writes_nothing(ready: Workspace) -> None:
    keys = arrive(ready, "north", {f"n{i}": scan(i) for i in range(3)})
    name = fit(ready, "north", keys, None)
    harmonize_shard(ready, "north", keys[:2], recipe=name, run="r")
    assert harmonize_shard(ready, "north", keys, recipe=name, run="r2").n_in == 1
    assert harmonize_shard(ready, "north", keys, recipe=name, run="r3").n_in == 0
    assert len(rows(ready, layout.VOLUME)) == len(rows(ready, layout.STAGE)) == 3


def test_a_new_revision_is_harmonized_beside_the_old_one(ready: Workspace) -> None:
    keys = arrive(ready, "north", {"n0": scan(0)})
    name = fit(ready, "north", keys, None)
    harmonize_shard(ready, "north", keys, recipe=name, run="r")
    arrive(ready, "north", {"n0": scan(9)}, revision=2)
    assert harmonize_shard(ready, "north", keys, recipe=name, run="r").n_done == 1
    assert sorted(row["revision"] for row in rows(ready, layout.VOLUME)) == [1, 2]


def test_a_step_skipped_for_want_of_spacing_is_written_down(ready: Workspace) -> None:
    keys = arrive(ready, "north", {"n0": Volume(scan(0).voxels[:1])})
    name = fit(ready, "north", keys, None)
    harmonize_shard(ready, "north", keys, recipe=name, run="r")
    (row,) = rows(ready, layout.VOLUME)
    assert row["skipped"] == "resample:needs_spacing"


def test_an_unknown_recipe_lists_those_that_exist(ready: Workspace) -> None:
    assert load_recipe(ready, layout.NATIVE) == FittedRecipe(())
    name = fit(ready, "north", arrive(ready, "north", {"n0": scan(0)}), None)
    with pytest.raises(UnknownName, match=f"known: {name}, native"):
        load_recipe(ready, "lesion-north-000000000000")
