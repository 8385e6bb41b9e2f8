"""ComBat on a hospital that it has never seen: leave out one site of ABIDE after the other.

    python tests/benchmarks/combat.py mriqc_abide.tsv

The table is MRIQC's image quality metrics of 1,101 T1-weighted heads from 17 sites (github.com/nipreps/mriqc-learn,
Apache-2.0). No covariates: it has none. Per left-out site, over features, the mean of |mean of the site - mean of the
others| in SDs of the others:

    before    as measured
    in fit    the site was in the fit, the only way that peers have
    unseen    it was not; judged by all its rows
    later     it was not; judged by one half of its rows and told of the other half, mean of 20 splits
    halves    what two such halves of one site differ by anyway
    beyond 2  share of features for which the site lies beyond two between-site SDs
"""

import csv
import math
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from platform_core.harmonize.combat import Combat, fit_combat

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

NOT_MEASURED = ("subject_id", "site", "rater", "size", "spacing", "qi_1", "summary_bg_p05")
"""Who rated, the grid, and what is zero for most scans."""
ROW_COUNTS = (1, 3, 10)
N_DRAWS = 20


@dataclass(frozen=True)
class Line:
    """The columns above."""

    n_rows: float
    before: float
    in_fit: float
    unseen: float
    later: float
    halves: float
    beyond_2: float

    def __str__(self) -> str:
        return f"{self.n_rows:5.0f}" + "".join(f"{x:9.3f}" for x in astuple(self)[1:-1]) + f"{self.beyond_2:10.0%}"


def read_table(path: Path) -> tuple[Floats, Names]:
    """(row, feature), and the site's number of each row in name order."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    features = [name for name in rows[0] if not name.startswith(NOT_MEASURED)]
    values = [[float("nan" if row[name] in ("", "n/a") else row[name]) for name in features] for row in rows]
    return np.array(values), np.array([row["site"] for row in rows])


def distance(values: Floats, others: Floats) -> float:
    """Mean over features of |difference of means|, in SDs of the others."""
    difference = np.abs(np.nanmean(values, axis=0) - np.nanmean(others, axis=0))
    return float(np.nanmean(difference / np.nanstd(others, axis=0)))


def later_distance(combat: Combat, own: Floats, others: Floats, rng: np.random.Generator) -> float:
    """Of the half of a site's rows that its location and scale were not judged by."""
    found = []
    for _ in range(N_DRAWS):
        order = rng.permutation(len(own))
        first, second = own[order[: len(own) // 2]], own[order[len(own) // 2 :]]
        kept = combat.with_sites(first, ["new"] * len(first))
        found.append(distance(kept.apply(second, ["new"] * len(second)).values, others))
    return float(np.mean(found))


def few_rows_distance(combat: Combat, own: Floats, others: Floats, n: int, rng: np.random.Generator) -> float:
    """Of all rows of a site, judged by `n` of them at a time."""
    found = []
    for _ in range(N_DRAWS):
        rows = own[rng.permutation(len(own))[: len(own) // n * n]]
        groups = [f"group {k // n}" for k in range(len(rows))]
        found.append(distance(combat.apply(rows, groups).values, others))
    return float(np.mean(found))


def leave_out(values: Floats, sites: Names, site: str, rng: np.random.Generator) -> tuple[Line, list[float]]:
    """One line, and the distances where only few rows are had at a time."""
    is_own = sites == site
    own, rest = values[is_own], values[~is_own]
    seen = fit_combat(values, sites.tolist()).apply(values, sites.tolist()).values
    combat = fit_combat(rest, sites[~is_own].tolist())
    others = combat.apply(rest, sites[~is_own].tolist()).values
    unseen = combat.apply(own, [site] * len(own))
    n, half = len(own), len(own) // 2
    line = Line(
        n_rows=n,
        before=distance(own, rest),
        in_fit=distance(seen[is_own], seen[~is_own]),
        unseen=distance(unseen.values, others),
        later=later_distance(combat, own, others, rng),
        halves=math.sqrt(2 / math.pi * (1 / half + 1 / (n - half))),
        beyond_2=unseen.extrapolation[0].share_beyond_2,
    )
    return line, [few_rows_distance(combat, own, others, n, rng) for n in ROW_COUNTS]


def main(path: Path) -> None:
    """Print one line per site, then medians."""
    values, sites = read_table(path)
    names, rng = sorted(set(sites.tolist())), np.random.default_rng(0)
    print(f"{len(values)} rows, {len(names)} sites, {values.shape[1]} features; mean |site - others| in SD")
    print(f"{'site':10s} rows   before   in fit   unseen    later   halves  beyond 2")
    lines, few = zip(*(leave_out(values, sites, name, rng) for name in names), strict=True)
    for name, line in zip(names, lines, strict=True):
        print(f"{name:9s} {line}")
    print(f"{'median':9s} {Line(*np.median([astuple(line) for line in lines], axis=0))}")
    for n, told in zip(ROW_COUNTS, np.median(few, axis=0), strict=True):
        print(f"unseen, judged by {n:2d} row{'s' if n > 1 else ''} at a time: median {told:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
