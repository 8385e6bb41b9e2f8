"""Rows of `core__feature`."""

import math
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from platform_core import layout
from platform_core.features.measure import FEATURES, measure
from platform_core.features.stage import feature_schema, measure_shard
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.schemas import FEATURE, SERIES, VOLUME
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

RECIPE = "lesion-north-0123456789ab"


def scan(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    hu = np.full((5, 40, 40), -1000.0)
    hu[:, 8:32, 8:32] = 50
    return Volume((hu + rng.normal(0, 10, hu.shape)).astype(np.int16), Geometry((1.0, 1.0, 2.0)))


def arrive(
    workspace: Workspace,
    volumes: dict[str, Volume],
    modality: str | None = "CT",
    header: dict[str, float] | None = None,
) -> list[str]:
    rows: list[dict[str, Any]] = []
    for key, volume in volumes.items():
        uri = layout.volume_path("north", layout.NATIVE, key, 1)
        workspace.write_volume(uri, volume)
        identity = {"site": "north", "series_key": key, "revision": 1, "modality": modality, "stratum": "ct/chest"}
        rows.append({**identity, **(header or {}), "observed_on": date(2026, 1, 5), "volume_uri": uri})
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction=str(sorted(volumes)))
    return sorted(volumes)


def harmonized(workspace: Workspace, key: str, volume: Volume) -> None:
    uri = layout.volume_path("north", RECIPE, key, 1)
    sha256 = workspace.write_volume(uri, volume)
    row = {"site": "north", "series_key": key, "revision": 1, "recipe": RECIPE, "volume_uri": uri, "run": "r"}
    workspace.lake.append(layout.VOLUME, rows_of(VOLUME, [row | {"volume_sha256": sha256}]), transaction=key)


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workspace.lake.read(table).sort_by("series_key").to_pylist()
    return found


def test_the_table_has_its_promised_columns_and_one_per_feature() -> None:
    schema = feature_schema()
    assert schema.names == [*FEATURE.names, *FEATURES]
    assert {schema.field(name).type for name in FEATURES} == {pa.float64()}


def test_native_volumes_are_measured(workspace: Workspace) -> None:
    keys = arrive(workspace, {"a": scan(0), "b": scan(1)})
    assert measure_shard(workspace, "north", keys, recipe=layout.NATIVE, run="r").n_done == 2
    for seed, row in enumerate(rows(workspace, layout.FEATURE)):
        assert {name: row[name] for name in FEATURES} == measure(scan(seed), "CT")
        assert (row["stratum"], row["observed_on"], row["recipe"]) == ("ct/chest", date(2026, 1, 5), layout.NATIVE)


def test_volumes_by_a_recipe_are_measured_once_they_exist(workspace: Workspace) -> None:
    keys = arrive(workspace, {"a": scan(0), "b": scan(1)})
    harmonized(workspace, "b", scan(7))
    count = measure_shard(workspace, "north", keys, recipe=RECIPE, run="r")
    assert (count.n_in, count.n_done) == (1, 1)
    (row,) = rows(workspace, layout.FEATURE)
    assert (row["series_key"], row["recipe"]) == ("b", RECIPE)
    assert row["q50_hu"] == measure(scan(7), "CT")["q50_hu"]
    harmonized(workspace, "a", scan(8))
    assert measure_shard(workspace, "north", keys, recipe=RECIPE, run="r").n_done == 1


def test_scans_that_cannot_be_measured_are_refused_and_the_others_pass(workspace: Workspace) -> None:
    keys = arrive(
        workspace, {"good": scan(0), "constant": Volume(np.full((3, 16, 16), 4, dtype=np.int16)), "gone": scan(2)}
    )
    workspace.objects.delete(layout.volume_path("north", layout.NATIVE, "gone", 1))
    count = measure_shard(workspace, "north", keys, recipe=layout.NATIVE, run="r")
    assert (count.n_in, count.n_done, count.n_refused) == (3, 1, 2)
    reasons = {row["series_key"]: row["reason"] for row in rows(workspace, layout.STAGE)}
    assert reasons == {"good": None, "constant": "constant", "gone": "volume_missing"}


def test_a_second_run_writes_nothing(workspace: Workspace) -> None:
    keys = arrive(workspace, {"a": scan(0), "b": scan(1)})
    measure_shard(workspace, "north", keys[:1], recipe=layout.NATIVE, run="r")
    assert measure_shard(workspace, "north", keys, recipe=layout.NATIVE, run="r").n_in == 1
    assert measure_shard(workspace, "north", keys, recipe=layout.NATIVE, run="r").n_in == 0
    assert len(rows(workspace, layout.FEATURE)) == 2


def test_a_plain_image_without_modality_is_measured(workspace: Workspace) -> None:
    keys = arrive(workspace, {"a": Volume(scan(0).voxels[:1].astype(np.float32) + 1100)}, modality=None)
    assert measure_shard(workspace, "north", keys, recipe=layout.NATIVE, run="r").n_done == 1
    (row,) = rows(workspace, layout.FEATURE)
    assert row["spacing_x_mm"] is None
    assert row["q95_relative"] > 1


def test_bad_scans_get_a_reason_each_and_no_table_a_nan(workspace: Workspace) -> None:
    """A spacing or direction that is none cannot even be written; what can be read and is unusable has a reason."""
    inside = np.zeros((3, 12, 12), np.float32)
    inside[1, 4:8, 4:8] = 300
    volumes = {
        "2x2x1": Volume(np.arange(4, dtype=np.int16).reshape(1, 2, 2)),
        "nan": Volume(np.where(np.arange(432).reshape(3, 12, 12) == 7, np.nan, inside).astype(np.float32)),
        "infinite": Volume(np.where(np.arange(432).reshape(3, 12, 12) == 7, np.inf, inside).astype(np.float32)),
        "no patient": Volume(np.random.default_rng(0).normal(-1000, 10, (3, 20, 20)).astype(np.int16)),
        "good": scan(0),
        "left-handed": replace(scan(1), geometry=Geometry((1.0, 1.0, 2.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))),
    }
    measure_shard(workspace, "north", arrive(workspace, volumes), recipe=layout.NATIVE, run="r")
    reasons = {row["series_key"]: row["reason"] for row in rows(workspace, layout.STAGE)}
    assert reasons == {
        "2x2x1": "too_small",
        "nan": "not_finite",
        "infinite": "not_finite",
        "no patient": None,
        "good": None,
        "left-handed": None,
    }
    found = rows(workspace, layout.FEATURE)
    assert {row["series_key"] for row in found} == {"good", "left-handed", "no patient"}
    assert all(value is None or math.isfinite(value) for row in found for value in (row[name] for name in FEATURES))
    nobody = next(row for row in found if row["series_key"] == "no patient")
    assert (nobody["foreground_fraction"], nobody["q50_hu"], nobody["tissue_snr_ratio"]) == (None, None, None)


def test_the_header_is_told_of_native_volumes_alone(workspace: Workspace) -> None:
    """No recipe moves it: told again, it would be a distance between sites that none could close."""
    header = {"slice_thickness_mm": 2.5, "kvp": 120.0, "exposure_mas": 0.0}
    keys = arrive(workspace, {"a": scan(0)}, header=header)
    harmonized(workspace, "a", scan(0))
    for recipe in (layout.NATIVE, RECIPE):
        measure_shard(workspace, "north", keys, recipe=recipe, run="r")
    native, by_recipe = sorted(rows(workspace, layout.FEATURE), key=lambda row: row["recipe"] != layout.NATIVE)
    assert (native["slice_thickness_mm"], native["kvp"], native["echo_time_ms"]) == (2.5, 120.0, None)
    assert native["exposure_mas"] is None, "zero is how a scanner says that it does not know"
    assert (by_recipe["slice_thickness_mm"], by_recipe["kvp"]) == (None, None)
    assert by_recipe["q50_hu"] == native["q50_hu"]
