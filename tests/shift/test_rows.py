from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from platform_core.queries import connect
from platform_core.shift.sketch import rows
from platform_core.shift.sketch.rows import (
    Grid,
    RowCounts,
    compare_rows,
    count_rows,
    count_rows_in_sql,
    reference_grids,
)

VALUES = st.lists(
    st.floats(width=64) | st.sampled_from([0.0, 0.5, 1.0, float("nan"), float("inf"), -float("inf"), 1e300, -1e300]),
    min_size=1,
    max_size=60,
)


def wide(n: int = 4000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    site = np.array(["north", "south", "west"])[rng.integers(3, size=n)]
    x = rng.normal(size=n) + 0.5 * (site == "south")
    return pa.table({"site": site, "x": x, "y": rng.gamma(2, 3, n), "constant": np.full(n, 2.5)})


def by_hand(values: list[float], grid: Grid) -> list[int]:
    counts = [0] * (grid.n + 2)
    for value in values:
        if np.isfinite(value):
            with np.errstate(over="ignore"):
                way = np.floor((np.float64(value) - grid.low) * grid.scale)
            counts[int(min(max(way, -1), grid.n)) + 1] += 1
    return counts


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "compiled_tally", lambda: None)


@settings(max_examples=60)
@given(VALUES, st.sampled_from([Grid(0.0, 1.0, 8), Grid(-3.0, 5.0, 1024), Grid(0.1, 0.7, 3)]))
def test_every_way_counts_every_finite_value_once(values: list[float], grid: Grid) -> None:
    table = pa.table({"site": ["a"] * len(values), "x": pa.array(values, pa.float64())})
    expected = by_hand(values, grid)
    with connect({"wide": table}) as db, pytest.MonkeyPatch.context() as patch:
        found = [count_rows(table, {"x": grid}), count_rows_in_sql(db, "wide", {"x": grid})]
        without_numba(patch)
        found.append(count_rows(table, {"x": grid}))
    for counts in found:
        assert (counts.counts["x"][0].tolist() if counts.sites else [0] * (grid.n + 2)) == expected


def test_every_way_gives_the_same_counts_on_files_of_several_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    table = wide(50_000)
    table = table.append_column("single", pa.array(rng.normal(size=50_000).astype(np.float32)))
    table = table.append_column("whole", pa.array(rng.integers(-5, 5, 50_000)))
    table = table.append_column("gaps", pa.array([None if i % 7 == 0 else float(i) for i in range(50_000)]))
    sites = pa.array([None if i % 11 == 0 else site for i, site in enumerate(table.column("site").to_pylist())])
    table = table.set_column(0, "site", sites.dictionary_encode())
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=7_000)
    source = ds.dataset(tmp_path / "rows.parquet")
    grids = reference_grids(table.slice(0, 5000), table.column_names[1:])
    ours = count_rows(source, grids)
    with connect({"wide": source}) as db:
        sql = count_rows_in_sql(db, "wide", grids)
    assert ours.sites == sql.sites == ("north", "south", "west")
    without_numba(monkeypatch)
    plain = count_rows(source, grids)
    for name in grids:
        np.testing.assert_array_equal(ours.counts[name], sql.counts[name])
        np.testing.assert_array_equal(ours.counts[name], plain.counts[name])
    assert ours.counts["x"].sum() == 50_000 - len(range(0, 50_000, 11))


def test_distances_agree_with_the_rows_within_a_bin() -> None:
    table = wide()
    grids = reference_grids(table, ["x", "y"])
    counts = count_rows(table, grids)
    rows = compare_rows(counts, [("north", "south")]).rows.to_pylist()
    site = np.asarray(table.column("site").to_pylist())
    for name in ("x", "y"):
        grid, width = grids[name], (grids[name].high - grids[name].low) / grids[name].n
        a, b = (table.column(name).to_numpy()[site == each] for each in ("north", "south"))
        value = {row["statistic"]: row["value"] for row in rows if row["feature"] == name}
        shares = counts.counts[name] / counts.counts[name].sum(axis=1, keepdims=True)
        assert abs(stats.ks_2samp(a, b).statistic - value["ks"]) <= shares.max()
        exact = stats.wasserstein_distance(*(np.clip(each, grid.low, grid.high) for each in (a, b)))
        assert abs(exact - value["wasserstein"]) <= width


def test_what_moved_is_told_from_what_did_not() -> None:
    counts = count_rows(wide(30_000), reference_grids(wide(), ["x", "y"]))
    rows = compare_rows(counts, [("north", "south"), ("north", "west")]).rows.to_pylist()
    p = {(row["second"], row["feature"]): row["evidence"] for row in rows if row["statistic"] == "psi"}
    assert p["south", "x"] < 1e-6
    assert min(p["south", "y"], p["west", "x"], p["west", "y"]) > 1e-3


def test_a_constant_is_counted_below_at_and_above() -> None:
    grid = reference_grids(wide(), ["constant"])["constant"]
    table = pa.table({"site": ["a"] * 4, "constant": [2.0, 2.5, 2.5, 3.0]})
    counts = count_rows(table, {"constant": grid}).counts["constant"][0]
    assert counts[:3].tolist() == [1, 2, 1]
    with connect({"wide": table}) as db:
        assert count_rows_in_sql(db, "wide", {"constant": grid}).counts["constant"][0].tolist() == counts.tolist()


@pytest.mark.parametrize("values", [[], [float("nan")] * 3, [1.0]])
def test_too_little_is_skipped_with_a_reason(values: list[float]) -> None:
    few = pa.table({"site": pa.array(["few"] * len(values), pa.string()), "x": pa.array(values, pa.float64())})
    many = wide().select(["site", "x"])
    counts = count_rows(pa.concat_tables([many, few]), reference_grids(many, ["x"]))
    found = compare_rows(counts, [("north", "few")])
    assert len(found.rows) == 0
    assert found.skipped.column("reason").to_pylist() == ["few_values" if values == [1.0] else "no_values"]


def test_nothing_at_all_gives_no_row() -> None:
    empty = wide().slice(0, 0)
    assert reference_grids(empty, ["x"]) == {}
    counts = count_rows(empty, {"x": Grid(0, 1)})
    assert counts == RowCounts((), {"x": Grid(0, 1)}, counts.counts)
    assert len(compare_rows(counts, [("north", "south")]).rows) == 0
