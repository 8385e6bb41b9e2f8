"""How many labels show that a hospital labels otherwise, and how often unchanged ones raise an alarm.

    python tests/benchmarks/relabelling.py [streams]

Scores are two unit normals at an AUROC of .90, prevalence .30, 2,000 labelled reference patients, 2,000 labels
per stream, one look after each. Per kind of change, labels until the promise of 5 % for ever is exceeded: median,
80th percentile, and share of streams that get there. Columns:

    published   32 bets 1 + lambda g(s) (y - p), |lambda| <= .8, against the reference's share of positives per bin
    ours        likelihood ratios of named changes, against the share that reference and earlier labels foretell

Every stream is drawn from its own seed; same numbers on every run.
"""

import sys
from collections.abc import Callable

import numpy as np

from platform_core.shift.labels.concept import log_e_path
from platform_core.shift.labels.reliability import Reliability, reliability_of
from platform_core.shift.risk import Reals

APART, PREVALENCE = 1.812, 0.30
N_REFERENCE, N_LABELS, N_STREAMS = 2000, 2000, 200
LAMBDAS = (-0.8, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 0.8)

Change = Callable[[np.random.Generator, Reals, Reals], Reals]
"""(generator, scores, labels as at the reference) to labels as given here."""
Path = Callable[[Reliability, Reals, Reals], Reals]


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


CHANGES: dict[str, Change] = {
    "nothing (false alarms)": positives_dropped(0),
    "10 % of positives called negative": positives_dropped(0.10),
    "25 % of positives called negative": positives_dropped(0.25),
    "50 % of positives called negative": positives_dropped(0.50),
    "10 % of negatives called positive": negatives_added(0.10),
    "10 % of both flipped": flipped(0.10),
    "weakest third of positives called negative": weakest_dropped(1 / 3),
}


def published_path(reliability: Reliability, scores: Reals, y: Reals) -> Reals:
    """Evidence of the fixed bets after each label, in nats."""
    positive, n = reliability.counts_at(reliability.prevalence)
    p = (positive / n)[reliability.bins(scores)]
    features = np.stack([np.ones_like(p), 2 * p - 1, p < 0.5, p >= 0.5])
    bets = np.concatenate([stake * features for stake in LAMBDAS])
    wealth = np.cumsum(np.log1p(bets * (y - p)), axis=1)
    return np.asarray(np.logaddexp.reduce(wealth, axis=0) - np.log(len(bets)), dtype=np.float64)


def labels_to_see(change: Change, path: Path, n_streams: int = N_STREAMS, n_reference: int = N_REFERENCE) -> Reals:
    """Labels until each stream exceeds 1 in 20; infinity for those that never do."""
    return np.array([_first(change, path, seed, n_reference) for seed in range(n_streams)])


def _first(change: Change, path: Path, seed: int, n_reference: int) -> float:
    rng = np.random.default_rng(seed)
    reliability = reliability_of(*_patients(rng, n_reference))
    scores, y = _patients(rng, N_LABELS)
    is_seen = path(reliability, scores, change(rng, scores, y)) >= np.log(20)
    return float(is_seen.argmax() + 1) if is_seen.any() else np.inf


def _patients(rng: np.random.Generator, n: int) -> tuple[Reals, Reals]:
    y = (rng.random(n) < PREVALENCE).astype(float)
    return rng.normal(y * APART, 1), y


def main() -> None:
    """Print the table."""
    n_streams = int(sys.argv[1]) if len(sys.argv) > 1 else N_STREAMS
    print(f"{'':44}{'published':>24}{'ours':>24}")
    for name, change in CHANGES.items():
        cells = []
        for path in (published_path, log_e_path):
            first = labels_to_see(change, path, n_streams)
            median, later = np.percentile(first, [50, 80], method="higher")
            cells.append(f"{median:8.0f} {later:6.0f} {np.isfinite(first).mean():8.1%}")
        print(f"{name:44}" + "".join(cells))


if __name__ == "__main__":
    main()
