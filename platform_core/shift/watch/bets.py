"""Fixed bets against uniform ranks: functions of a rank in (0, 1) that are not negative and return 1 on average.

While nothing changes the expectation of a bet is 1 whatever came before, so the product over
all ranks stays small for ever (Ville); when ranks begin to lean where it bets, the product grows
exponentially. A bet that is fixed beforehand makes the product a plain SQL sum of logarithms.

The bets on place and spread are likelihood ratios of a normal sample that has moved or spread, averaged over 64
bins of the rank. They find a mean shift about a tenth sooner than the cosine waves 1 + strength cos(frequency pi p) of
the same number, and a change of spread in half the time: a cosine pays for the middle of the sample, but a spread shows
in its tails. Waves remain for skew, where no parametric family suggests itself.

The score of a model has bets of its own for prevalence: if the share of positives went from
`pi` to `pi'`, the density of its rank would be 1 + (pi' - pi)(g1 - g0), and that is the bet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from platform_core.errors import EmptySample
from platform_core.queries import connect, load
from platform_core.shift.risk import Reals

HERE = "platform_core.shift.watch"
STRENGTHS = (0.1, 0.25, 0.5, 0.9)
LEANS = {1: ("lower", "higher"), 2: ("more spread out", "less spread out"), 3: ("skewed", "skewed")}
"""What the values do when a wave of this frequency wins, with strength above and below 0."""
SHIFTS_SD = (0.12, 0.25, 0.5, 1.0)
SPREADS = (0.6, 0.75, 0.87, 1.15, 1.3, 1.6)
RANK_BINS = 64
ODDS_RATIOS = (0.25, 0.5, 2.0, 4.0)
"""Changes of the odds of a positive that the score's own bets are made for."""
N_BINS = 10
MIN_CLASS_PATIENTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A bet on 1 + strength cos(frequency pi p)."""

    frequency: int
    """1 wins when ranks move, 2 when they spread or gather, 3 when they skew."""
    strength: float
    """(-1, 1)."""
    weight: float = 1.0
    """Share of the stake, relative to the other bets on the feature."""

    @property
    def name(self) -> str:
        """As tables know it."""
        return f"wave{self.frequency}{self.strength:+.2f}"

    @property
    def meaning(self) -> str:
        """What the values do when it wins."""
        return LEANS[self.frequency][self.strength < 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A bet whose return is constant on equal bins of (0, 1)."""

    name: str
    meaning: str
    heights: tuple[float, ...]
    """What a stake of 1 returns per bin, > 0, mean 1."""
    weight: float = 1.0
    """Share of the stake, relative to the other bets on the feature."""


Bet = Wave | Step

WAVES: tuple[Wave, ...] = tuple(
    Wave(frequency=frequency, strength=sign * strength)
    for frequency in LEANS
    for strength in STRENGTHS
    for sign in (1, -1)
)
"""The classical family; `BETS` does better."""


def normal_bet(shift: float, spread: float, *, weight: float = 1.0) -> Step:
    """The bet that a normal sample has moved by `shift` of its standard deviations and widened by a factor `spread`."""
    from statistics import NormalDist

    normal = NormalDist()
    edges = [-math.inf, *(normal.inv_cdf(i / RANK_BINS) for i in range(1, RANK_BINS)), math.inf]
    below = np.array([normal.cdf((edge - shift) / spread) for edge in edges])
    if shift:
        return _step(f"shift{shift:+.2f}", "higher" if shift > 0 else "lower", np.diff(below), weight)
    return _step(f"spread{spread:.2f}", f"{'more' if spread > 1 else 'less'} spread out", np.diff(below), weight)


def _step(name: str, meaning: str, heights: Reals, weight: float) -> Step:
    return Step(name=name, meaning=meaning, heights=tuple((heights / heights.mean()).tolist()), weight=weight)


BETS: tuple[Bet, ...] = (
    *(normal_bet(sign * shift, 1.0, weight=0.5 / 8) for shift in SHIFTS_SD for sign in (1, -1)),
    *(normal_bet(0.0, spread, weight=0.3 / 6) for spread in SPREADS),
    *(Wave(frequency=3, strength=sign * strength, weight=0.2 / 4) for strength in (0.3, 0.8) for sign in (1, -1)),
)
"""Every feature's: half of the stake on place, three tenths on spread, two on skew."""


def prevalence_bets(score: Reals, y: Reals, *, n_bins: int = N_BINS) -> tuple[Step, ...]:
    """Bets on the score's rank that win if only the share of positives changes, from the labelled reference.

    Together they take as much of the stake as the `BETS` beside them. They are fixed before the first
    rank, so any error of the histograms costs power, never validity.

    Args:
        score: Of patients of the reference.
        y: Their labels, 1 positive, 0 negative; NaN is left out.
        n_bins: Equal-frequency bins of the score.

    Raises:
        EmptySample: If a class has fewer than `MIN_CLASS_PATIENTS`.
    """
    known = np.isfinite(y) & np.isfinite(score)
    positive = y[known] > 0
    for name, n in (("positive", positive.sum()), ("negative", (~positive).sum())):
        if n < MIN_CLASS_PATIENTS:
            raise EmptySample(f"{name} patients of the reference", MIN_CLASS_PATIENTS, int(n))
    order = np.lexsort((positive, score[known]))
    rank = np.empty(len(order))
    rank[order] = (np.arange(len(order)) + 0.5) / len(order)
    # half a count per bin keeps every return above 0
    g1, g0 = (
        (np.histogram(rank[of], n_bins, (0, 1))[0] + 0.5) / (of.sum() / n_bins + 0.5) for of in (positive, ~positive)
    )
    share, bets = positive.mean(), []
    for ratio in ODDS_RATIOS:
        changed = ratio * share / (1 - share + ratio * share)
        heights = np.maximum(1 + (changed - share) * (g1 - g0), 0.05)
        way = "more" if ratio > 1 else "fewer"
        bets.append(_step(f"prevalence_x{ratio:g}", f"{way} positives", heights, 1 / len(ODDS_RATIOS)))
    return tuple(bets)


def log_returns(ranks: Reals, bets: Sequence[Bet] = BETS) -> Reals:
    """Logarithm of what each bet returns on each rank: (...) to (..., bets), nats."""
    cosines = {frequency: np.cos(frequency * np.pi * ranks) for frequency in LEANS}
    won = np.empty((*ranks.shape, len(bets)))
    for i, bet in enumerate(bets):
        if isinstance(bet, Wave):
            won[..., i] = 1 + bet.strength * cosines[bet.frequency]
        else:
            bins = np.floor(ranks * len(bet.heights)).astype(np.intp)
            won[..., i] = np.asarray(bet.heights)[np.minimum(bins, len(bet.heights) - 1)]
    return np.log(won, out=won)


def block_sums(ranked: pa.Table, streams: pa.Table, bets: Mapping[str, Sequence[Bet]]) -> pa.Table:
    """What every bet has won over each full block that is not settled yet.

    Args:
        ranked: feature, sequence, observed_on and rank, as in `core__rank`.
        streams: feature, size (ranks per block) and n_settled (blocks).
        bets: The bets of each feature.

    Returns:
        feature, block, bet, log_won (nats), first_on, last_on, in that order.
    """
    kits = list({id(offered): tuple(offered) for offered in bets.values()}.values())
    place = {key: i for i, key in enumerate(dict.fromkeys(id(offered) for offered in bets.values()))}
    of = {feature: place[id(offered)] for feature, offered in bets.items()}
    kit = pa.array([of.get(feature) for feature in streams.column("feature").to_pylist()], pa.int32())
    waves, steps = _wave_table(tuple(kits)), _step_table(tuple(kits))
    tables = {"ranked": ranked, "stream": streams.append_column("kit", kit), "wave": waves, "step": steps}
    with connect(tables) as db:
        return load(HERE, "bets").run(db)


def log_weights(bets: Sequence[Bet]) -> Reals:
    """Logarithm of each bet's share of the stake; the shares add up to 1."""
    weights = np.array([bet.weight for bet in bets])
    return np.asarray(np.log(weights / weights.sum()), np.float64)


@lru_cache(maxsize=16)
def _wave_table(kits: tuple[tuple[Bet, ...], ...]) -> pa.Table:
    rows = [(kit, bet) for kit, offered in enumerate(kits) for bet in offered if isinstance(bet, Wave)]
    return pa.table(
        {
            "kit": pa.array([kit for kit, _ in rows], pa.int32()),
            "bet": pa.array([bet.name for _, bet in rows], pa.string()),
            "frequency": pa.array([bet.frequency for _, bet in rows], pa.int32()),
            "strength": pa.array([bet.strength for _, bet in rows], pa.float64()),
        }
    )


@lru_cache(maxsize=16)
def _step_table(kits: tuple[tuple[Bet, ...], ...]) -> pa.Table:
    rows = [(kit, bet) for kit, offered in enumerate(kits) for bet in offered if isinstance(bet, Step)]
    n_bins = [len(bet.heights) for _, bet in rows]
    at = np.repeat(np.arange(len(rows)), n_bins)
    return pa.table(
        {
            "kit": pa.array([kit for kit, _ in rows], pa.int32()).take(at),
            "bet": pa.array([bet.name for _, bet in rows], pa.string()).take(at),
            "n_bins": pa.array(n_bins, pa.int32()).take(at),
            "bin": pa.array([bin_ for n in n_bins for bin_ in range(n)], pa.int32()),
            "height": pa.array([height for _, bet in rows for height in bet.heights], pa.float64()),
        }
    )
