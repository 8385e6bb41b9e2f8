"""Site by site: how far every hospital is from every other."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.shift.sketch.references import Frozen
from platform_core.shift.sketch.statistics import N_COARSE, compare_sketches


@dataclass(frozen=True, slots=True)
class Matrix:
    """One statistic of one stratum and feature between all units."""

    stratum: str
    feature: str
    statistic: str
    units: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    """Symmetric, 0 on the diagonal; None where a pair cannot be compared."""

    def to_rows(self) -> list[dict[str, object]]:
        """One row per pair that could be compared, the earlier name first."""
        return [
            {
                "stratum": self.stratum,
                "feature": self.feature,
                "statistic": self.statistic,
                "first": self.units[i],
                "second": self.units[j],
                "value": self.values[i][j],
            }
            for i, j in combinations(range(len(self.units)), 2)
            if self.values[i][j] is not None
        ]


def site_matrices(
    totals: pa.Table,
    frozen: Frozen,
    *,
    features: Sequence[str] | None = None,
    column: str = "excess",
    n_coarse: int = N_COARSE,
) -> list[Matrix]:
    """Every statistic between all pairs of units, per stratum and feature, in order.

    Args:
        totals: What `sum_sketches` returned.
        frozen: The reference on whose edges and maps they are.
        features: Only these; None for all.
        column: `excess` (beyond chance; the default, as sites differ in size), `value`, `low` or `high`.
        n_coarse: Bins of the divergences.
    """
    chosen = totals if features is None else totals.filter(pc.field("feature").isin(pa.array(features, pa.string())))
    units = sorted(set(chosen.column("unit").to_pylist()))
    rows = compare_sketches(chosen, frozen, combinations(units, 2), n_coarse=n_coarse).rows
    place = {unit: i for i, unit in enumerate(units)}
    found: dict[tuple[str, str, str], list[list[float | None]]] = {}
    for row in rows.to_pylist():
        key = (row["stratum"], row["feature"], row["statistic"])
        values = found.setdefault(key, _blank(len(units)))
        i, j = place[row["first"]], place[row["second"]]
        values[i][j] = values[j][i] = row[column]
    return [Matrix(*key, tuple(units), tuple(map(tuple, found[key]))) for key in sorted(found)]


def _blank(n: int) -> list[list[float | None]]:
    return [[0.0 if i == j else None for j in range(n)] for i in range(n)]
