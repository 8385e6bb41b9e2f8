from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from platform_core.manifest.schemas import REFERENCE
from platform_core.shift.sketch.cells import count_days, merge_cells
from platform_core.shift.sketch.frechet import frechet, moments_of
from platform_core.shift.sketch.patient_days import Basis, PatientDays
from platform_core.shift.sketch.references import Frozen, reference_rows
from platform_core.shift.sketch.statistics import BINNED, compare_sketches
from platform_core.shift.sketch.vector_maps import Whitening, fourier_terms, moment_terms
from platform_core.storage.tables import rows_of

Reals = npt.NDArray[np.float64]
BASIS = Basis(reference="model@1", recipe="native")
TOTALS = ("unit", "stratum", "feature", "kind", "n", "sum", "sum_squares", "sketch")
DAY = np.datetime64("2026-01-05")


def patients(**features: Reals) -> PatientDays:
    n = len(next(iter(features.values())))
    about = {"stratum": ["ct"] * n, "day": pa.array(np.full(n, DAY)), "patient_key": [str(i) for i in range(n)]}
    return PatientDays(pa.table({**about, **features}), tuple(features))


def embedded(z: Reals) -> PatientDays:
    about = patients(x=np.zeros(len(z))).rows.select(["stratum", "day", "patient_key"])
    return PatientDays(about.append_column("embedding", pa.array(z.tolist())), ())


def frozen_from(reference: PatientDays) -> Frozen:
    rows = [row | {"run": "r"} for row in reference_rows(reference, BASIS)]
    return Frozen(BASIS, rows_of(REFERENCE, rows))


def totals_of(frozen: Frozen, units: dict[str, PatientDays]) -> pa.Table:
    rows = []
    for unit, here in units.items():
        for (stratum, _, _, feature), cell in count_days(here, frozen).items():
            is_histogram = cell.kind == "histogram"
            sketch = cell.sums[:-2] if is_histogram else cell.sums
            rows.append(
                {
                    "unit": unit,
                    "stratum": stratum,
                    "feature": feature,
                    "kind": cell.kind,
                    "n": cell.n,
                    "sketch": sketch.tolist(),
                }
            )
    schema = pa.schema([frozen.totals().schema.field(name) for name in TOTALS])
    return pa.concat_tables([frozen.totals().cast(schema), pa.Table.from_pylist(rows, schema=schema)])


def compared(reference: PatientDays, units: dict[str, PatientDays]) -> list[dict[str, Any]]:
    frozen = frozen_from(reference)
    found = compare_sketches(totals_of(frozen, units), frozen, [(BASIS.reference, unit) for unit in units])
    return list(found.rows.to_pylist())


def pick(rows: list[dict[str, Any]], statistic: str, unit: str = "b", feature: str = "x") -> dict[str, Any]:
    return next(r for r in rows if (r["statistic"], r["second"], r["feature"]) == (statistic, unit, feature))


def counts(frozen: Frozen, here: PatientDays) -> tuple[Reals, Reals, Reals]:
    """Edges, and counts of reference and current."""
    row = next(row for row in frozen.rows.to_pylist() if row["feature"] == "x")
    current = merge_cells(cell for key, cell in count_days(here, frozen).items() if key[3] == "x").sums[:-2]
    return np.asarray(row["edges"]), np.asarray(row["sketch"]), current


SAMPLES = st.tuples(
    st.integers(0, 10_000), st.integers(40, 400), st.integers(2, 400), st.floats(-2, 2), st.floats(0.3, 3)
)


@settings(max_examples=12)
@given(SAMPLES)
def test_distances_agree_with_numpy_on_the_same_counts(sample: tuple[int, int, int, float, float]) -> None:
    seed, m, n, shift, spread = sample
    rng = np.random.default_rng(seed)
    reference, current = patients(x=rng.normal(size=m)), patients(x=rng.normal(shift, spread, n))
    frozen = frozen_from(reference)
    edges, a, b = counts(frozen, current)
    rows = compared(reference, {"b": current})
    coarse = np.minimum((np.cumsum(a) - a / 2) / m * 10, 9).astype(int)
    used = np.unique(coarse)
    p, q = (np.array([0.5 + x[coarse == k].sum() for k in used]) for x in (a, b))
    p, q = p / p.sum(), q / q.sum()
    c = 1 / m + 1 / n
    psi, js = pick(rows, "psi"), pick(rows, "jensen_shannon")
    assert psi["value"] == pytest.approx(np.sum((q - p) * np.log(q / p)), rel=1e-9, abs=1e-15)
    assert psi["expected"] == pytest.approx((len(used) - 1) * c)
    half = (p + q) / 2
    divergence = (stats.entropy(p, half, base=2) + stats.entropy(q, half, base=2)) / 2
    assert js["value"] == pytest.approx(divergence, rel=1e-9, abs=1e-12)
    f, g = np.cumsum(a) / m, np.cumsum(b) / n
    assert pick(rows, "ks")["value"] == pytest.approx(np.abs(f - g).max())
    grid = np.concatenate(
        [np.linspace(edges[i], edges[i + 1], 2001)[:-1] for i in range(len(edges) - 1)] + [edges[-1:]]
    )
    gap = np.abs(np.interp(grid, edges, f[:-1]) - np.interp(grid, edges, g[:-1]))
    assert pick(rows, "wasserstein")["value"] == pytest.approx(np.trapezoid(gap, grid), rel=1e-3, abs=1e-6)


@settings(max_examples=12)
@given(SAMPLES)
def test_distances_agree_with_the_rows_within_the_width_of_a_bin(sample: tuple[int, int, int, float, float]) -> None:
    seed, m, n, shift, spread = sample
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=m), rng.normal(shift, spread, n)
    frozen = frozen_from(patients(x=x))
    edges, a, b = counts(frozen, patients(x=y))
    rows = compared(patients(x=x), {"b": patients(x=y)})
    exact, binned = stats.ks_2samp(x, y).statistic, pick(rows, "ks")["value"]
    assert binned - 1e-12 <= exact <= binned + max((a / m).max(), (b / n).max()) + 1e-12
    cut = [np.clip(values, edges[0], edges[-1]) for values in (x, y)]
    slack = np.sum(np.diff(edges) * np.maximum(a / m, b / n)[1:-1])
    assert abs(stats.wasserstein_distance(*cut) - pick(rows, "wasserstein")["value"]) <= slack + 1e-12


def test_what_chance_gives_is_what_simulation_gives() -> None:
    rng = np.random.default_rng(1)
    units = {f"u{i}": patients(x=rng.gamma(3, 2, 150)) for i in range(400)}
    references = rng.gamma(3, 2, 3000)
    rows = compared(patients(x=references), units)
    for statistic in BINNED:
        found = [row for row in rows if row["statistic"] == statistic]
        values = np.array([row["value"] for row in found])
        # one reference for all: its own error is shared, so the mean wanders by about a tenth
        assert values.mean() == pytest.approx(np.mean([row["expected"] for row in found]), rel=0.15), statistic


def test_no_change_is_called_one_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    units = {f"u{i}": patients(x=rng.normal(size=120)) for i in range(600)}
    rows = compared(patients(x=rng.normal(size=5000)), units)
    low, high = (float(stats.binom.ppf(share, len(units), 0.05)) / len(units) for share in (0.0005, 0.9995))
    called = {
        name: np.mean([row["evidence"] < 0.05 for row in rows if row["statistic"] == name and row["feature"] == "x"])
        for name in ("psi", "jensen_shannon", "ks")
    }
    assert max(called.values()) <= high
    assert called["psi"] >= low


def test_intervals_hold_the_distance_of_the_populations() -> None:
    """Coverage of 95 % intervals over 250 samples of each kind, against the distance of a very large one."""
    rng = np.random.default_rng(3)
    normal = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    kinds = {"same": (0.0, 1.0), "moved": (0.3, 1.0), "wider": (0.0, 1.4), "far": (1.0, 1.0)}
    units = {
        f"{kind}{i}": patients(x=rng.normal(shift, spread, 200))
        for kind, (shift, spread) in kinds.items()
        for i in range(250)
    }
    large = stats.norm.ppf((np.arange(40_000) + 0.5) / 40_000)
    truths = {kind: patients(x=large * spread + shift) for kind, (shift, spread) in kinds.items()}
    rows = [row for row in compared(patients(x=normal), {**units, **truths}) if row["feature"] == "x"]
    for kind, statistic in product(kinds, BINNED):
        true = pick(rows, statistic, kind)["value"]
        found = [r for r in rows if r["statistic"] == statistic and str(r["second"]).rstrip("0123456789") == kind]
        samples = [r for r in found if r["second"] != kind]
        assert len(samples) == 250
        # at no shift the large sample itself lies a rounding of the bins from 0
        covered = np.mean([r["low"] <= true + 1e-3 and r["high"] >= true - 1e-3 for r in samples])
        assert covered >= 0.92, (kind, statistic)


def test_the_discrepancy_is_that_of_the_kernel_and_its_null_holds() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(1500, 5))
    units = {f"u{i}": embedded(rng.normal(size=(80, 5))) for i in range(400)}
    units["b"] = embedded(rng.normal([0.8, 0, 0, 0, 0], 1, size=(80, 5)))
    frozen = frozen_from(embedded(z))
    rows = [row for row in compared(embedded(z), units) if row["statistic"] == "mmd"]
    p = np.array([row["evidence"] for row in rows if row["second"] != "b"])
    assert 0.02 <= (p < 0.05).mean() <= 0.085
    assert abs(np.mean([row["value"] for row in rows if row["second"] != "b"])) < 2e-3
    moments, fourier = (
        next(r for r in frozen.rows.to_pylist() if r["kind"] == kind) for kind in ("moments", "fourier")
    )
    whitening, length = Whitening.from_list(moments["map"], 5), fourier["map"][0]
    x, y = (whitening.apply(v) for v in (z, np.asarray(units["b"].embedding())))
    terms = [fourier_terms(v, length, "model@1/native/ct/embedding") for v in (x, y)]
    kernels = [s @ t.T for s, t in ((terms[0], terms[0]), (terms[1], terms[1]), (terms[0], terms[1]))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    found = next(row for row in rows if row["second"] == "b")
    assert found["value"] == pytest.approx(sum(within) - 2 * kernels[2].mean(), rel=1e-9)
    assert found["evidence"] < 1e-3
    true = np.exp(-((x[:200, None] - y[None, :40]) ** 2).sum(axis=2) / (2 * length**2))
    assert np.abs(terms[0][:200] @ terms[1][:40].T - true).max() < 0.6
    assert np.abs(terms[0][:200] @ terms[1][:40].T - true).mean() < 0.12


def test_covariance_distances_agree_with_scipy() -> None:
    rng = np.random.default_rng(5)
    z, y = rng.normal(size=(900, 4)), rng.normal(size=(300, 4)) @ np.diag([1.5, 1, 0.7, 1]) + 0.3
    rows = compared(embedded(z), {"b": embedded(y)})
    whitening = Whitening.of(z)
    assert whitening is not None
    u, v = whitening.apply(z), whitening.apply(y)
    a, b = np.cov(u, rowvar=False), np.cov(v, rowvar=False)
    assert pick(rows, "coral", feature="embedding")["value"] == pytest.approx(((a - b) ** 2).sum() / 64, rel=1e-9)
    gap = u.mean(axis=0) - v.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * np.real(linalg.sqrtm(a @ b)))
    assert pick(rows, "frechet", feature="embedding")["value"] == pytest.approx(expected, rel=1e-6)


def test_chance_and_interval_of_covariance_distances_are_those_of_simulation() -> None:
    rng = np.random.default_rng(6)
    z = rng.normal(size=(2000, 6))
    same = {f"u{i}": embedded(rng.normal(size=(120, 6))) for i in range(150)}
    moved = {f"v{i}": embedded(rng.normal(size=(120, 6)) * 1.3 + 0.4) for i in range(150)}
    truth = embedded(rng.normal(size=(20_000, 6)) * 1.3 + 0.4)
    every = compared(embedded(z), {**same, **moved, "truth": truth})
    for statistic in ("coral", "frechet"):
        check_spread([row for row in every if row["statistic"] == statistic])


def check_spread(rows: list[dict[str, Any]]) -> None:
    quiet = [row for row in rows if str(row["second"]).startswith("u")]
    assert np.mean([r["value"] for r in quiet]) == pytest.approx(np.mean([r["expected"] for r in quiet]), rel=0.2)
    true = next(row["value"] for row in rows if row["second"] == "truth")
    covered = [row["low"] <= true <= row["high"] for row in rows if str(row["second"]).startswith("v")]
    assert np.mean(covered) >= 0.92


def test_moments_come_back_from_their_sums() -> None:
    z = np.random.default_rng(7).normal(size=(50, 3))
    n, mean, covariance = moments_of(50, moment_terms(z).sum(axis=0))
    assert n == 50
    np.testing.assert_allclose(mean, z.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(z, rowvar=False))
    assert frechet((n, mean, covariance), (n, mean, covariance))[0] == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_says_why_and_nothing_is_nan() -> None:
    rng = np.random.default_rng(8)
    reference = patients(x=rng.normal(size=200), constant=np.full(200, 2.5), only_here=rng.normal(size=200))
    units = {
        "one": patients(x=np.zeros(1), constant=np.full(1, 2.5)),
        "nothing": patients(x=np.full(5, np.nan), constant=np.full(5, np.inf)),
        "moved": patients(x=rng.normal(size=50), constant=np.full(50, 3.0)),
    }
    frozen = frozen_from(reference)
    found = compare_sketches(
        totals_of(frozen, units), frozen, [(BASIS.reference, unit) for unit in (*units, "unknown")]
    )
    reasons = {(row["second"], row["feature"]): row["reason"] for row in found.skipped.to_pylist()}
    assert reasons["one", "x"] == "few_values"
    assert reasons["nothing", "x"] == reasons["unknown", "x"] == reasons["moved", "only_here"] == "no_values"
    assert reasons["moved", "constant"] == "constant"
    rows = found.rows.to_pylist()
    assert {row["second"] for row in rows} == {"moved"}
    assert pick(rows, "ks", "moved", "constant")["value"] == 1
    numbers = [row[name] for row in rows for name in ("value", "expected", "excess", "low", "high", "evidence")]
    assert all(number is None or np.isfinite(number) for number in numbers)


def test_an_empty_window_gives_no_row() -> None:
    frozen = frozen_from(patients(x=np.random.default_rng(9).normal(size=100)))
    found = compare_sketches(totals_of(frozen, {}).slice(0, 0), frozen, [("a", "b")])
    assert len(found.rows) == len(found.skipped) == 0


@pytest.mark.parametrize("statistic", BINNED)
def test_a_sample_is_no_distance_from_itself_and_the_order_does_not_matter(statistic: str) -> None:
    rng = np.random.default_rng(10)
    here, there = patients(x=rng.normal(size=300)), patients(x=rng.normal(0.5, 2, 200))
    frozen = frozen_from(here)
    totals = totals_of(frozen, {"a": here, "b": there})
    rows = compare_sketches(totals, frozen, [("a", "b"), ("b", "a"), ("a", "a")]).rows.to_pylist()
    value = {(r["first"], r["second"]): r["value"] for r in rows if (r["statistic"], r["feature"]) == (statistic, "x")}
    assert value["a", "a"] == pytest.approx(0, abs=1e-12)
    assert value["a", "b"] == pytest.approx(value["b", "a"], rel=1e-12)
    assert value["a", "b"] > 0
