"""M3: how many scans after a change does the nightly watch alarm, under the promise of M1?

A reference of 2,000 patients, 750 clean scans of the site, a change before any of the next ten checks, then all scans
changed. The delay runs to the end of the check that alarms, 25 scans each. Every repetition draws patients
anew, with replacement, from one pool: the reference, the clean scans and the changed ones are of the same patients.
The small pool serves, also in full runs: 140 patients whom each operator was applied to, 1,140 for prevalence; 60 more
show what the operators that were developed on do, from which the directions of `matched` are learnt.
Beside it a Kolmogorov-Smirnov test of the last 100 scans that is corrected for features and a thousand checks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from platform_core.shift.risk import Reals
from platform_core.shift.watch.alarms import SCANS_PER_CHECK
from platform_core.shift.watch.bets import BETS, Bet, normal_bet, prevalence_bets
from platform_core.shift.watch.conformal import conformal_ranks, grid_of
from platform_core.shift.watch.matched import learn_directions, scores_along
from platform_core.shift.watch.power import first_crossing
from platform_core.shift.watch.ranks import MIN_REFERENCE, N_PER_GRID_ROW
from platform_core.shift.watch.wealth import share
from tests.benchmarks.detection.practice import ks_flags, windows_of
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric

if TYPE_CHECKING:
    from tests.benchmarks.detection.pool import Pool

M3 = FROZEN["m3"]
N_NORMAL, SOON = 8, 250
N_PAIRS, N_TAUGHT = 60, 500
"""Scans with and without a change, and patients of the reference, that directions are learnt from."""
CHANGES = M3["reference"] | dict.fromkeys([*M3["by_day"], *M3["others"], *M3["held_out"]])
METHODS = {
    "watch": "",
    "matched": "the same with directions matched to six changes, a third family",
    "oracle": "one who knows the change beforehand, and bets on nothing else",
    "ks": "KS of the last 100 scans, at the same promise over 1,000 checks",
}


@dataclass(frozen=True, slots=True)
class Family:
    """Streams that are watched together."""

    columns: tuple[int, ...]
    n_streams: int
    """That its share of alpha is for; more than columns, where those without a change are left out."""
    bets: tuple[Bet, ...] = BETS


@dataclass(frozen=True, slots=True)
class Site:
    """Patients of the reference, and of the site in order; columns are streams."""

    reference: Reals
    values: Reals
    change: int
    """Rows before the change."""
    families: tuple[Family, ...]
    """In the order in which they were opened: each has its share of alpha."""
    known: Bet | None = None
    """The bet of one who knows the change of the first column."""
    scans_per_row: int = 1
    """More where days are ranked, not patients."""
    matched: "Site | None" = None
    """The same patients along learnt directions, without those of the reference that these were learnt from."""

    @property
    def n_streams(self) -> int:
        """Of all families."""
        return sum(family.n_streams for family in self.families)


Draw = Callable[[np.random.Generator, int, int], Site]
"""From clean scans and scans after the change to a site."""


def cells(*, is_quick: bool) -> list[Cell]:
    """Every change of the frozen file; the held-out family in full runs only."""
    n = 1 if is_quick else M3["cells"]
    names = [name for name in CHANGES if not (is_quick and name in M3["held_out"])]
    repetitions = M3["quick_repetitions" if is_quick else "repetitions"]
    return [
        Cell(metric="M3", name=name, index=i, run=partial(_run, name, repetitions)) for name in names for i in range(n)
    ]


def _run(name: str, n_sites: int, seed: int) -> Numbers:
    makers = dict.fromkeys(M3["normal"], normal_change) | dict.fromkeys(M3["by_day"], day_change)
    return delays_of(makers.get(name, pool_change)(name), seed, n_sites)


def delays_of(draw: Draw, seed: int, n_sites: int) -> Numbers:
    """The delay at every site by every method: infinite if there was none, negative if it came before the change."""
    found: dict[str, float] = {}
    for i in range(n_sites):
        rng = np.random.default_rng([seed, i])
        site = draw(rng, M3["clean"] + SCANS_PER_CHECK * int(rng.integers(M3["uniform"])), M3["after"])
        ties = rng.random(site.values.shape)
        found[f"watch{i}"] = soon_or_later(site, partial(watch_delay, ties=ties))
        if site.scans_per_row == 1:
            found[f"ks{i}"] = soon_or_later(site, ks_delay)
        if site.matched:
            along = soon_or_later(site.matched, partial(watch_delay, ties=ties, share_of=lambda _: share(2)))
            found[f"matched{i}"] = min(found[f"watch{i}"], along)
        if site.known:
            knowing = replace(site, families=(Family((0,), site.n_streams, (site.known,)),))
            found[f"oracle{i}"] = watch_delay(knowing, ties=ties, share_of=lambda _: 1.0)
    return found


def soon_or_later(site: Site, method: Callable[[Site], float]) -> float:
    """What a method finds among the first scans after the change, and only if it finds nothing there, among all."""
    soon = method(replace(site, values=site.values[: site.change + SOON // site.scans_per_row]))
    return soon if np.isfinite(soon) else method(site)


def watch_delay(site: Site, *, ties: Reals, share_of: Callable[[int], float] = share) -> float:
    """Scans from the change to the alarm of the platform's watches, each at its share of the site's alpha."""
    alarms = [math.inf]
    for i, family in enumerate(site.families):
        level = math.log(family.n_streams / (FROZEN["alpha"]["site"] * share_of(i)))
        alarms += [_alarm(site, column, family.bets, level, ties) for column in family.columns]
    return (min(alarms) - site.change) * site.scans_per_row


def _alarm(site: Site, column: int, bets: Sequence[Bet], level: float, ties: Reals) -> float:
    """Rows until a stream alarms."""
    known, size = np.flatnonzero(np.isfinite(site.values[:, column])), SCANS_PER_CHECK // site.scans_per_row
    reference = site.reference[np.isfinite(site.reference[:, column]), column]
    ranks = rank(reference, site.values[known, column], ties[known, column])
    block = first_crossing(ranks[None], size, level, bets)[0]
    return math.inf if np.isinf(block) else float(known[int(block + 1) * size - 1] + 1)


def rank(reference: Reals, values: Reals, ties: Reals) -> Reals:
    """Conformal ranks as the watch makes them: a twentieth of the reference sets the grid and is no part of it."""
    sets_grid = np.arange(len(reference)) % N_PER_GRID_ROW == 0
    grid = grid_of(reference[sets_grid])
    pool, new = (np.rint(each / grid) * grid for each in (reference[~sets_grid], values))
    return conformal_ranks(pool, new, ties)


def ks_delay(site: Site) -> float:
    """Scans from the change to the first window that a KS test finds, at a level that 1,000 checks share."""
    window, alpha = FROZEN["practice"]["window"], FROZEN["alpha"]["site"] / site.n_streams / FROZEN["m1"]["checks"]
    ends = np.arange(window, len(site.values) + 1, SCANS_PER_CHECK)
    is_up = np.zeros(len(ends), bool)
    for column in range(site.values.shape[1]):
        reference = site.reference[np.isfinite(site.reference[:, column]), column]
        values = site.values[:, column]
        known = np.isfinite(values)
        if len(reference) >= MIN_REFERENCE and known.sum() > window:
            of_known = np.cumsum(known)[ends - 1]
            is_up |= ks_flags(windows_of(values[known], of_known, window), reference, alpha) & (of_known >= window)
    return float(ends[is_up][0] - site.change) if is_up.any() else math.inf


def normal_change(name: str) -> Draw:
    """One of eight normal features moves or spreads; the other seven, which do not, are left out."""
    shift, spread = M3["normal"][name]

    def draw(rng: np.random.Generator, n_clean: int, n_after: int) -> Site:
        values = rng.normal(size=(n_clean + n_after, 1))
        values[n_clean:] = shift + spread * values[n_clean:]
        known = normal_bet(shift, spread)
        families = (Family((0,), N_NORMAL),)
        return Site(rng.normal(size=(M3["n_reference"], 1)), values, n_clean, families, known)

    return draw


def day_change(name: str) -> Draw:
    """The same where the patients of a day are alike, so that the watch ranks the medians of days."""
    shift, spread = M3["by_day"][name]
    n, icc = SCANS_PER_CHECK, M3["icc"]

    def draw(rng: np.random.Generator, n_clean: int, n_after: int) -> Site:
        days = (n_clean + n_after) // n
        patients = math.sqrt(icc) * rng.normal(size=(days, 1)) + math.sqrt(1 - icc) * rng.normal(size=(days, n))
        patients[n_clean // n :] = shift + spread * patients[n_clean // n :]
        before = rng.normal(size=(M3["n_reference"] // n, 1))
        old = math.sqrt(icc) * before + math.sqrt(1 - icc) * rng.normal(size=(len(before), n))
        reference, values = (np.median(each, axis=1)[:, None] for each in (old, patients))
        return Site(reference, values, n_clean // n, (Family((0,), N_NORMAL),), scans_per_row=n)

    return draw


def pool_change(name: str) -> Draw:
    """Every feature of the rendered pool and then, as a watch of its own, the score: by an operator or a prevalence."""
    from tests.benchmarks.detection.operators import DEVELOPED_ON, NONE, PREVALENCE, PREVALENCES

    pool = small_pool()
    operator, strength = name.rsplit(" ", 1)
    is_label, world = operator == "prevalence", (operator, int(strength))
    after = PREVALENCES[int(strength)] if is_label else PREVALENCE
    among = np.arange(N_PAIRS, len(pool.y) if is_label else pool.n_of(world))
    y = pool.y[among]
    clean = np.column_stack([pool.values[NONE][among], pool.score[NONE][among]])
    changed = clean if is_label else np.column_stack([pool.values[world][among], pool.score[world][among]])
    taught = {name: (pool.values[NONE][:N_PAIRS], pool.values[name, 0][:N_PAIRS]) for name in DEVELOPED_ON}

    def some(rng: np.random.Generator, n: int, prevalence: float) -> np.ndarray:
        weight = np.where(y == 1, prevalence / (y == 1).sum(), (1 - prevalence) / (y == 0).sum())
        return np.asarray(rng.choice(len(among), n, p=weight))

    def draw(rng: np.random.Generator, n_clean: int, n_after: int) -> Site:
        old, before, now = (
            some(rng, M3["n_reference"], PREVALENCE),
            some(rng, n_clean, PREVALENCE),
            some(rng, n_after, after),
        )
        watched = np.flatnonzero(np.isfinite(clean[old, :-1]).sum(axis=0) >= MIN_REFERENCE)
        families = (
            Family(tuple(watched.tolist()), len(watched)),
            Family((clean.shape[1] - 1,), 1, (*BETS, *prevalence_bets(clean[old, -1], y[old]))),
        )
        reference, values = clean[old], np.concatenate([clean[before], changed[now]])
        directions = learn_directions(pool.features, reference[:N_TAUGHT, :-1], taught)
        told, telling = (scores_along(directions, each[:, :-1]) for each in (reference[N_TAUGHT:], values))
        matched = Site(told, telling, n_clean, (Family(tuple(range(len(taught))), len(taught)),))
        return Site(reference, values, n_clean, families, matched=matched)

    return draw


@cache
def small_pool() -> "Pool":
    """The small rendered pool, read once."""
    from tests.benchmarks.detection.pool import load_pool

    return load_pool(quick=True)


def lines(rows: Sequence[Row]) -> list[Line]:
    """Median delay per change, with the interval of the median."""
    found = []
    for name, reference in CHANGES.items():
        delays = {method: _delays(of_metric(rows, "M3", name), method) for method in METHODS}
        mine = delays["watch"]
        if not len(mine):
            continue
        low, high = median_interval(mine[mine >= 0])
        aim = f"aim {M3['aim'] * reference:.0f}; " if reference and reference > SCANS_PER_CHECK else ""
        found.append(
            Line(
                metric="M3",
                what=f"median delay of the watch: {name}",
                value=_median(mine),
                low=low,
                high=high,
                n=len(mine),
                bar=reference,
                unit="scans",
                beside={told: _median(delays[method]) for method, told in METHODS.items() if told},
                note=f"{aim}alarms before the change {int((mine < 0).sum())}, never after {int(np.isinf(mine).sum())}",
            )
        )
    return found


def median_interval(values: Reals) -> tuple[float, float]:
    """Of the median, at least 95 %, from order statistics; not a number for fewer than six values."""
    from scipy.stats import binom

    n = len(values)
    k = int(binom.ppf(0.025, n, 0.5)) if n >= 6 else 0
    if k < 1:
        return math.nan, math.nan
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[n - k])


def _median(delays: Reals) -> float:
    """Of those that did not come before the change; not a number if there are none."""
    late = delays[delays >= 0]
    return float(np.median(late)) if len(late) else math.nan


def _delays(rows: Sequence[Row], method: str) -> Reals:
    told = [value for row in rows for name, value in row.numbers.items() if name.rstrip("0123456789") == method]
    return np.array(told, dtype=np.float64)
