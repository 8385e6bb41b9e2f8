"""The detection experiment: its table can be trusted, and every kind of cell runs in miniature."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ks_2samp, wasserstein_distance

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.ranks import features_of_days, open_reference, rank_new
from platform_core.storage.tables import rows_of
from tests.benchmarks.detection import __main__ as command
from tests.benchmarks.detection import audit, delays, nuisances, practice, streams, table, units
from tests.benchmarks.detection.table import Cell, Line, Row


def cell(index: int, ran: list[int], *, name: str = "c") -> Cell:
    def run(seed: int) -> dict[str, float]:
        ran.append(seed)
        if seed == 13:
            raise ValueError
        return {"k": 1, "n": 3, "never": math.inf, "third": 1 / 3}

    return Cell(metric="M1", name=name, index=index, run=run)


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, ran = tmp_path / "rows.csv", list[int]()
    cells = [cell(i, ran) for i in range(3)]
    assert table.run_cells(cells[:2], file, first_seed=100) == (0, 0)
    assert table.run_cells(cells, file, first_seed=100, until=-math.inf) == (1, 0)
    assert table.run_cells(cells, file, first_seed=100) == (0, 0)
    assert ran == [100, 101, 102]
    rows = table.read_rows(file)
    assert [row.key for row in rows] == [("M1", "c", seed) for seed in (100, 101, 102)]
    assert all(row.numbers == {"k": 1, "n": 3, "never": math.inf, "third": 1 / 3} for row in rows)
    assert table.total(rows, "k") == 3


def test_other_seeds_are_other_rows(tmp_path: Path) -> None:
    file, ran = tmp_path / "rows.csv", list[int]()
    for first in (100, 200):
        table.run_cells([cell(0, ran)], file, first_seed=first)
    assert ran == [100, 200]


def test_a_cell_that_fails_leaves_no_row_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, ran = tmp_path / "rows.csv", list[int]()
    assert table.run_cells([cell(i, ran) for i in range(3)], file, first_seed=12) == (0, 1)
    assert [row.seed for row in table.read_rows(file)] == [12, 14]
    assert "FAILED: ValueError" in capsys.readouterr().out


def test_the_kinds_of_runs_share_no_seed() -> None:
    seeds = table.FROZEN["seeds"]
    firsts = sorted(seeds.values())
    assert set(seeds) == {"reported", "development", "quick"}
    assert min(np.diff(firsts)) > 10_000


@given(st.integers(0, 300), st.integers(0, 300))
def test_intervals_are_clopper_and_pearson_s(k: int, more: int) -> None:
    n = k + more
    if not n:
        assert table.clopper_pearson(0, 0) == (0, 1)
        return
    expected = binomtest(k, n).proportion_ci(method="exact")
    assert table.clopper_pearson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_miss_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        table.rate("M2", "power", 9, 10, bar=0.95, way="at least", note="why"),
        table.rate("M1", "alarms", 1, 100, bar=0.05, beside={"others": 1.0}),
        Line(metric="M12", what="cost", value=3.0, unit="ms"),
    ]
    assert [line.is_met for line in lines] == [False, True, None]
    table.print_lines(lines)
    told = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in told if line.startswith("M")] == ["M1  met ", "M2  MISS", "M12     "]
    assert any("others" in line for line in told)
    assert "why" in told[-2]


def test_the_command_runs_what_is_lacking_and_tells_of_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = list[int]()
    offered = SimpleNamespace(
        cells=lambda *, is_quick: [cell(i, ran) for i in range(1 if is_quick else 2)],
        lines=lambda rows: [table.rate("M1", "alarms", table.total(rows, "k"), table.total(rows, "n"), bar=0.05)],
    )
    monkeypatch.setattr(command, "modules", lambda: [offered])
    monkeypatch.setattr("sys.argv", ["detection", "--quick", "--out", str(tmp_path / "rows.csv")])
    assert command.main() == 1
    assert command.main() == 1
    assert ran == [table.FROZEN["seeds"]["quick"]]
    assert "MISS alarms" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["detection", "--print", "--only", "M2", "--out", str(tmp_path / "none.csv")])
    assert command.main() == 0


@pytest.mark.parametrize("decimals", [9, 1], ids=["continuous", "ties"])
def test_ordinary_practice_is_what_scipy_says(decimals: int) -> None:
    rng = np.random.default_rng(0)
    values, small, large = (rng.normal(size=n).round(decimals) for n in (400, 900, 1700))
    ends = np.arange(100, 401, 25)
    windows = practice.windows_of(values, ends, 100)
    expected = [ks_2samp(values[end - 100 : end], small) for end in ends]
    np.testing.assert_allclose(practice.ks_distances(windows, small), [e.statistic for e in expected], atol=1e-12)
    assert practice.evidently_flags(windows, small).tolist() == [e.pvalue < 0.05 for e in expected]
    apart = [wasserstein_distance(values[end - 100 : end], large) / large.std() for end in ends]
    assert practice.evidently_flags(windows, large).tolist() == [each >= 0.1 for each in apart]


MANY = nuisances.Nuisance(images_per_patient=2, missing=0.2, resent=0.3, has_clocks=True, returning=0.3)


@pytest.mark.parametrize(("nuisance", "unit"), [(nuisances.ALL, "day"), (MANY, "patient_day")], ids=["all", "many"])
def test_ranks_are_those_of_the_platform_night_by_night(
    workspace: Workspace, nuisance: nuisances.Nuisance, unit: str
) -> None:
    """Through the lake, 12 nights: the shortcut over all nights gives the same ranks of the same series."""
    n_days, n_before = nuisances.N_REFERENCE_DAYS + 12, nuisances.N_REFERENCE_DAYS
    scans = nuisances.send(nuisance, np.random.default_rng(7), n_days)
    scope = Scope(site="north", stratum="ct", reference="reference")
    for night in range(n_before - 1, n_days):
        is_history = night < n_before
        write(workspace, scans.only(scans.night <= night if is_history else scans.night == night))
        is_due = (scans.night <= night) & ((scans.observed < n_before) == is_history)
        keys = [units.series_key(key) for key in scans.key[is_due]]
        days = features_of_days(workspace, "north", "ct", keys, layout.NATIVE)
        if is_history:
            open_reference(workspace, scope, days, run="r")
        elif keys:
            rank_new(workspace, scope, days, run="r")
    written = workspace.lake.read(layout.RANK).to_pylist()
    of_unit = [row for row in written if row["sequence"] == -1 and row["unit"] == unit]
    assert of_unit
    is_visit = units.is_new_visit(scans)
    reference = scans.only((scans.observed < n_before) & (scans.night < n_before) & is_visit)
    later = scans.only((scans.observed >= n_before) & is_visit)
    for row in of_unit:
        feature, n_values = int(row["feature"][1:]), row["n_values"] if unit == "day" else 0
        new = units.due(later, feature, n_values)
        ranks = units.rank(units.due(reference, feature, n_values).value, new, row["feature"], scope.reference)
        mine = [each for each in written if each["feature"] == row["feature"] and each["rank"] is not None]
        mine.sort(key=lambda each: int(each["sequence"]))
        assert [each["series_key"] for each in mine] == [units.series_key(key) for key in new.key]
        assert [each["rank"] for each in mine] == ranks.tolist()
        assert len(mine) > 5


def write(workspace: Workspace, scans: nuisances.Scans) -> None:
    """Series and features of some images, as ingest and measuring leave them."""
    values = units.as_values(scans).slice(0, len(scans.key)).to_pylist()
    about = [{"site": "north", "series_key": row["series_key"], "revision": 1, "run": "r"} for row in values]
    told = {"modality": "CT", "stratum": "ct", "volume_uri": "v", "patient_known": True}
    series = [
        each | told | {name: row[name] for name in ("patient_key", "observed_on")} | {"ingested_at": row["arrived_at"]}
        for each, row in zip(about, values, strict=True)
    ]
    place = {"recipe": layout.NATIVE, "stratum": "ct"}
    rows = [each | place | {"observed_on": row["observed_on"]} for each, row in zip(about, values, strict=True)]
    features = rows_of(workspace.lake.schemas[layout.FEATURE], rows)
    for feature in range(nuisances.N_FEATURES):
        features = features.append_column(f"f{feature}", pa.array(scans.values[:, feature], pa.float64()))
    name = str(scans.night.max())
    workspace.lake.append(layout.SERIES, rows_of(workspace.lake.schemas[layout.SERIES], series), transaction=f"s{name}")
    workspace.lake.append(layout.FEATURE, features, transaction=f"f{name}")


def test_a_site_is_watched_by_all() -> None:
    told = streams.watch_site("all", [1, 2], 30, is_compared=True)
    assert told["alarmed"] in (0, 1)
    assert 0 <= told["ks_checks"] <= 30
    numbers = streams.watch_sites("nothing", 3, n_sites=2, n_checks=10)
    row = Row(metric="M1", cell="nothing", seed=3, commit="c", seconds=1, numbers=numbers)
    (line,) = streams.lines([row])
    assert line.n == 2
    assert line.value == numbers["alarmed"] / 2


def test_a_large_change_is_found_in_two_checks() -> None:
    def draw(rng: np.random.Generator, n_clean: int, n_after: int) -> delays.Site:
        values = rng.normal(size=(n_clean + n_after // 30, 2))
        values[n_clean:, 1] += 3
        return delays.Site(rng.normal(size=(300, 2)), values, n_clean, (delays.Family((0, 1), 2),))

    found = delays.delays_of(draw, 5, 3)
    assert all(0 < found[f"watch{i}"] <= 50 for i in range(3))
    assert all(0 < found[f"ks{i}"] <= 100 for i in range(3))


def test_the_interval_of_a_median_holds_its_order_statistics() -> None:
    values = np.arange(100.0)
    low, high = delays.median_interval(np.random.default_rng(0).permutation(values))
    inside = math.fsum(math.comb(100, k) for k in range(int(low) + 1, int(high) + 1)) / 2**100
    assert low < 49.5 < high
    assert inside >= 0.95
    assert all(math.isnan(each) for each in delays.median_interval(values[:5]))


def test_everything_can_be_computed_again() -> None:
    numbers = audit.computed_again(3)
    for name in ("tie_breaks", "ranks", "watches", layout.FINDING, layout.SHIFT):
        assert numbers[name] == numbers[f"{name}_n"] > 0
