"""M10: how many labels show that a hospital labels otherwise, and how often do unchanged ones raise an alarm?

Prevalence .30, 2,000 labelled reference patients, 2,000 labels per stream, one look after each. Per kind of change,
labels until the promise of 5 % for ever is exceeded. Scores are two unit normals at an AUROC of .90, or those of the
pool's reader. Beside it the bets of the publication, 1 + lambda g(s) (y - p), |lambda| <= .8, against the reference's
share of positives per bin. It is the method that is measured: no night of the product bets on labels yet, and its
findings test the labels of a period once (M4).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from platform_core.shift.labels.concept import log_e_path
from platform_core.shift.labels.reliability import Reliability, reliability_of
from platform_core.shift.risk import Reals
from tests.benchmarks.detection.oneshot import pool_of
from tests.benchmarks.detection.operators import NONE, PREVALENCE
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate

M10 = FROZEN["m10"]
METRIC = "M10"
APART = 1.812
"""Of the two normals, in their SD: an AUROC of .90."""
LAMBDAS = (-0.8, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 0.8)

Change = Callable[[np.random.Generator, Reals, Reals], Reals]
"""(generator, scores, labels as at the reference) to labels as given here."""
Path = Callable[[Reliability, Reals, Reals], Reals]
Draw = Callable[[np.random.Generator, int], tuple[Reals, Reals]]
"""(generator, patients) to scores and labels."""


def positives_dropped(share: float) -> Change:
    """So many positives are called negative."""
    return lambda rng, _, y: np.asarray(y * (rng.random(len(y)) >= share), dtype=np.float64)


def negatives_added(share: float) -> Change:
    """So many negatives are called positive."""
    return lambda rng, _, y: np.maximum(y, rng.random(len(y)) < share)


def flipped(share: float) -> Change:
    """So many of either class are called the other."""
    return lambda rng, _, y: np.abs(y - (rng.random(len(y)) < share))


def weakest_dropped(share: float) -> Change:
    """The positives with the lowest scores are called negative."""
    return lambda _, scores, y: np.where(scores < np.quantile(scores[y == 1], share), 0.0, y)


UNCHANGED = "nothing"
CHANGES: dict[str, Change] = {
    UNCHANGED: positives_dropped(0),
    "10 % of positives called negative": positives_dropped(0.10),
    "25 % of positives called negative": positives_dropped(0.25),
    "50 % of positives called negative": positives_dropped(0.50),
    "10 % of negatives called positive": negatives_added(0.10),
    "10 % of both flipped": flipped(0.10),
    "weakest third of positives called negative": weakest_dropped(1 / 3),
}
SOURCES = ("normal scores", "the reader's scores")


def cells(*, is_quick: bool) -> list[Cell]:
    """Every change with both sources of scores."""
    n = 1 if is_quick else M10["cells"]
    return [
        Cell(metric=METRIC, name=f"{change}; {source}", index=i, run=partial(_run, change, source, is_quick))
        for change in CHANGES
        for source in SOURCES
        for i in range(n)
    ]


def _run(change: str, source: str, is_quick: bool, seed: int) -> Numbers:
    draw = normal_scores if source == SOURCES[0] else reader_scores(is_quick)
    found = {}
    for i in range(M10["streams"]):
        for method, path in (("ours", log_e_path), ("published", published_path)):
            found[f"{method}{i}"] = labels_to_see(CHANGES[change], path, draw, np.random.default_rng([seed, i]))
    return found


def labels_to_see(change: Change, path: Path, draw: Draw, rng: np.random.Generator) -> float:
    """Labels until a stream exceeds 1 in 20; infinity if it never does."""
    reliability = reliability_of(*draw(rng, M10["n_reference"]))
    scores, y = draw(rng, M10["n_labels"])
    is_seen = path(reliability, scores, change(rng, scores, y)) >= -np.log(FROZEN["alpha"]["site"])
    return float(is_seen.argmax() + 1) if is_seen.any() else np.inf


def published_path(reliability: Reliability, scores: Reals, y: Reals) -> Reals:
    """Evidence of the fixed bets after each label, in nats."""
    positive, n = reliability.counts_at(reliability.prevalence)
    p = (positive / n)[reliability.bins(scores)]
    features = np.stack([np.ones_like(p), 2 * p - 1, p < 0.5, p >= 0.5])
    bets = np.concatenate([stake * features for stake in LAMBDAS])
    wealth = np.cumsum(np.log1p(bets * (y - p)), axis=1)
    return np.asarray(np.logaddexp.reduce(wealth, axis=0) - np.log(len(bets)), dtype=np.float64)


def normal_scores(rng: np.random.Generator, n: int) -> tuple[Reals, Reals]:
    """Two unit normals."""
    y = (rng.random(n) < PREVALENCE).astype(float)
    return rng.normal(y * APART, 1), y


def reader_scores(is_quick: bool) -> Draw:
    """Patients of the pool on the untouched scanner, drawn with replacement."""
    pool = pool_of(is_quick)
    by_class = [np.flatnonzero(pool.y == value) for value in (0, 1)]

    def draw(rng: np.random.Generator, n: int) -> tuple[Reals, Reals]:
        y = (rng.random(n) < PREVALENCE).astype(float)
        rows = np.where(y == 1, rng.choice(by_class[1], n), rng.choice(by_class[0], n))
        return pool.score[NONE][rows], y

    return draw


def lines(rows: Sequence[Row]) -> list[Line]:
    """Median labels per change, and how many unchanged streams raise an alarm."""
    found = []
    for change in CHANGES:
        for source in SOURCES:
            mine = of_metric(rows, METRIC, f"{change}; {source}")
            ours, published = (_labels(mine, method) for method in ("ours", "published"))
            if not len(ours):
                continue
            if change == UNCHANGED:
                k = int(np.isfinite(ours).sum())
                beside = {"bets of the publication": float(np.isfinite(published).mean())}
                what = f"unchanged streams that ever alarm in {M10['n_labels']} labels; {source}"
                found.append(rate(METRIC, what, k, len(ours), bar=FROZEN["alpha"]["site"], beside=beside))
                continue
            low, high = median_interval(ours)
            found.append(
                Line(
                    metric=METRIC,
                    what=f"labels to see {change}; {source}",
                    value=_middle(ours),
                    low=low,
                    high=high,
                    n=len(ours),
                    bar=M10["bars"].get(change),
                    unit="labels",
                    beside={"bets of the publication": _middle(published)},
                )
            )
    return found


def _labels(rows: Sequence[Row], method: str) -> Reals:
    return np.array([value for row in rows for name, value in row.numbers.items() if name.startswith(method)])


def _middle(values: Reals) -> float:
    """The upper median: infinite where half of the streams never alarm."""
    return float(np.sort(values)[len(values) // 2])


def median_interval(values: Reals) -> tuple[float, float]:
    """95 % interval of the median, by order statistics."""
    from scipy.stats import binom

    ordered, k = np.sort(values), int(binom.ppf(0.025, len(values), 0.5))
    return float(ordered[max(k - 1, 0)]), float(ordered[min(len(values) - k, len(values) - 1)])
