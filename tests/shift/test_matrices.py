import json

import numpy as np
import pyarrow as pa
import pytest

from platform_core.shift.sketch.matrices import Matrix, site_matrices
from tests.shift.test_sketch_statistics import Reals, frozen_from, patients, totals_of

STATISTICS = ("jensen_shannon", "ks", "psi", "wasserstein")


@pytest.fixture(scope="module")
def matrices() -> dict[tuple[str, str], Matrix]:
    rng = np.random.default_rng(0)

    def sample(shift: float) -> Reals:
        return rng.normal(shift, 1, 400)

    frozen = frozen_from(patients(x=sample(0), y=sample(0)))
    units = {f"h{i}": patients(x=sample(0.4 * i), y=sample(0)) for i in range(4)}
    units["lacks"] = patients(y=sample(0))
    totals = totals_of(frozen, units)
    mine = totals.filter(pa.compute.field("unit") != frozen.basis.reference)
    found = site_matrices(mine, frozen, features=["x", "y"])
    return {(matrix.feature, matrix.statistic): matrix for matrix in found}


@pytest.mark.parametrize("statistic", STATISTICS)
def test_sites_further_apart_are_further_apart_in_the_matrix(
    matrices: dict[tuple[str, str], Matrix], statistic: str
) -> None:
    first = [value or 0.0 for value in matrices["x", statistic].values[0]]
    assert 0 == first[0] < first[1] < first[2] < first[3]


def test_a_matrix_is_symmetric_and_zero_on_its_diagonal(matrices: dict[tuple[str, str], Matrix]) -> None:
    for matrix in matrices.values():
        assert matrix.units == ("h0", "h1", "h2", "h3", "lacks")[: len(matrix.units)]
        for i, row in enumerate(matrix.values):
            assert row[i] == 0
            assert [matrix.values[j][i] for j in range(len(row))] == list(row)


def test_a_pair_that_cannot_be_compared_is_none_and_no_row(matrices: dict[tuple[str, str], Matrix]) -> None:
    matrix = matrices["x", "ks"]
    assert [row[4] for row in matrix.values] == [None, None, None, None, 0.0]
    rows = matrix.to_rows()
    assert len(rows) == 6
    assert "NaN" not in json.dumps(rows)


def test_sites_without_a_difference_are_at_most_chance_apart(matrices: dict[tuple[str, str], Matrix]) -> None:
    every = [row["value"] for row in matrices["y", "psi"].to_rows()]
    assert len(every) == 10
    assert np.median(np.asarray(every, dtype=float)) < 0.03
