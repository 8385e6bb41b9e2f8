"""What every shift statistic promises, and each against an independent oracle."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from platform_core.errors import EmptySample
from platform_core.queries import load
from platform_core.shift.contract import LONG, Statistic
from platform_core.shift.statistics import HERE, STATISTICS

Values = npt.NDArray[np.float64]

numbers = st.one_of(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), st.sampled_from([-1.0, 0.0, 2.0]))
samples = st.lists(numbers, min_size=1, max_size=40).map(np.array)
SYMMETRIC = {"ks"}


@pytest.fixture(params=STATISTICS.values(), ids=list(STATISTICS))
def statistic(request: pytest.FixtureRequest) -> Statistic:
    found: Statistic = request.param
    return found


def long(**features: Values | list[float]) -> pa.Table:
    rows = [(name, float(value)) for name, values in features.items() for value in values]
    return pa.table({"feature": [name for name, _ in rows], "value": [value for _, value in rows]}, schema=LONG)


def distance(statistic: Statistic, reference: Values, current: Values) -> float | None:
    (value,) = statistic.compute(long(x=reference), long(x=current)).column("value").to_pylist()
    return None if value is None else float(value)


def shares(reference: Values, current: Values) -> tuple[Values, Values]:
    """Shares per equal-frequency bin of the reference that either sample reaches, half a count added."""
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf"))
    counts = [np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) for x in (reference, current)]
    p, q = (n[counts[0] + counts[1] > 0] + 0.5 for n in counts)
    return p / p.sum(), q / q.sum()


def psi(reference: Values, current: Values) -> float:
    p, q = shares(reference, current)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Values, current: Values) -> float:
    return float(jensenshannon(*shares(reference, current), base=2) ** 2)


def ks(reference: Values, current: Values) -> float:
    return float(stats.ks_2samp(reference, current, method="asymp").statistic)


def wasserstein(reference: Values, current: Values) -> float | None:
    area = float(stats.wasserstein_distance(reference, current))
    if area < 1e-12:
        return 0.0
    return area / float(reference.std()) if len(set(reference)) > 1 else None


ORACLES: dict[str, Callable[[Values, Values], float | None]] = {
    "psi": psi,
    "jensen_shannon": jensen_shannon,
    "ks": ks,
    "wasserstein": wasserstein,
}


def test_every_statistic_has_an_oracle() -> None:
    assert set(STATISTICS) == set(ORACLES)


@pytest.mark.filterwarnings("ignore:divide by zero")  # SciPy's p-value of one row, which is not used
@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=30, deadline=None)
@given(reference=samples, current=samples)
def test_agrees_with_its_oracle(name: str, reference: Values, current: Values) -> None:
    found = distance(STATISTICS[name], reference, current)
    expected = ORACLES[name](reference, current)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9))


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=12, deadline=None)
@given(sample=samples)
def test_a_sample_is_at_distance_zero_from_itself(name: str, sample: Values) -> None:
    assert distance(STATISTICS[name], sample, sample[::-1]) == 0


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
@settings(max_examples=12, deadline=None)
@given(reference=samples, current=samples)
def test_symmetric_statistics_ignore_which_sample_is_which(name: str, reference: Values, current: Values) -> None:
    there, back = distance(STATISTICS[name], reference, current), distance(STATISTICS[name], current, reference)
    assert there == pytest.approx(back, abs=1e-12)


def test_a_larger_shift_is_a_larger_distance(statistic: Statistic) -> None:
    x = np.random.default_rng(0).normal(size=300)
    found = [distance(statistic, x, x + shift) for shift in (0.0, 0.3, 1.0)]
    assert found == sorted(found, key=float)  # type: ignore[arg-type]
    assert len(set(found)) == 3


def test_stays_in_the_range_of_its_header(statistic: Statistic) -> None:
    apart = distance(statistic, np.arange(50.0), np.arange(50.0) + 1000)
    bounded = load(HERE, statistic.name).header["range"].startswith("[0, 1]")
    assert apart is not None
    assert apart > 0.5
    assert apart <= 1 or not bounded


def test_measures_each_feature_on_its_own(statistic: Statistic) -> None:
    x, y = np.arange(30.0), np.arange(30.0) * 2
    both = statistic.compute(long(a=x, b=y), long(a=y, b=x))
    assert both.column("feature").to_pylist() == ["a", "b"]
    assert both.column("value").to_pylist() == [distance(statistic, x, y), distance(statistic, y, x)]


def test_a_constant_feature_that_stays_is_at_distance_zero(statistic: Statistic) -> None:
    assert distance(statistic, np.ones(20), np.ones(30)) == 0


def test_refuses_an_empty_sample(statistic: Statistic) -> None:
    with pytest.raises(EmptySample):
        statistic.compute(long(x=[]), long(x=[1.0]))
    with pytest.raises(EmptySample):
        statistic.compute(long(x=[1.0]), long(x=[]))


def test_refuses_a_feature_that_one_sample_lacks(statistic: Statistic) -> None:
    with pytest.raises(EmptySample, match="current sample of b"):
        statistic.compute(long(a=[1.0], b=[1.0]), long(a=[1.0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_values_that_are_no_numbers(statistic: Statistic, bad: float) -> None:
    with pytest.raises(EmptySample, match="finite"):
        statistic.compute(long(x=[1.0, 2.0]), long(x=[1.0, bad]))


def test_says_its_unit(statistic: Statistic) -> None:
    expected = {"psi": "nats", "jensen_shannon": "bits", "ks": "1", "wasserstein": "reference SD"}
    assert statistic.unit == expected[statistic.name]
