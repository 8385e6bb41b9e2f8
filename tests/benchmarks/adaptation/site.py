"""One hospital to which something has happened: its period, what is known of it, and its hidden test.

What a strategy or the policy may see is a `Period` (`seen.py`): scans, their features, and the labels of the budget.
What only the benchmark knows stays in `Site`: what happened, and the labels of everybody else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from platform_core.shift.risk import Reals
from tests.benchmarks.adaptation.seen import Measured, Other, Period, Seen, measured, probability
from tests.benchmarks.adaptation.sizes import sizes
from tests.benchmarks.adaptation.slabs import Rows, World, slabs_of
from tests.benchmarks.adaptation.source import TRAIN, Served, fitted, size_of, source_of
from tests.benchmarks.detection.operators import (
    HELD_OUT,
    NONE,
    PREVALENCE,
    PREVALENCES,
    relabelled_at_random,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What happened to a hospital."""

    kind: str
    strength: int

    def __str__(self) -> str:
        """`psf 1`."""
        return f"{self.kind} {self.strength}"

    @property
    def world(self) -> World:
        """How its scans look."""
        if self.kind in ("none", "prevalence", "relabelled"):
            return NONE
        return ("psf", self.strength) if self.kind == "psf+prevalence" else (self.kind, self.strength)

    @property
    def prevalence(self) -> float:
        """Its share of positives."""
        return PREVALENCES[self.strength] if "prevalence" in self.kind else PREVALENCE


NOTHING = Shift(kind="none", strength=0)
KINDS = ("psf", "dose", "gamma", "spacing", "bias_field", "prevalence", "relabelled", "psf+prevalence", HELD_OUT)
SHIFTS = (NOTHING, *(Shift(kind=kind, strength=strength) for kind in KINDS for strength in (1, 2)))
OTHERS: tuple[World, ...] = (("psf", 0), ("gamma", 0))
"""Scanners of the other sites that the champion serves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """The hospital as the benchmark knows it."""

    shift: Shift
    seed: int
    period: Seen
    period_y: Reals
    test: Seen
    test_y: Reals
    order: Rows
    """Places of the period's patients, at random: the first n are labelled."""

    def known(self, n_labels: int) -> Period:
        """What is known with a budget."""
        y = np.full(len(self.period), np.nan)
        asked = self.order[:n_labels]
        y[asked] = self.period_y[asked]
        return Period(seen=self.period, y=y)

    def judged(self, served: Served) -> Measured:
        """What a serving costs on the hidden test."""
        return measured(self.test_y, probability(served, self.test))


@lru_cache(maxsize=1)
def site_of(shift: Shift, seed: int, *, is_quick: bool) -> Site:
    """The hospital of a shift and seed; its patients, readers and labelled ones vary with the seed."""
    slabs, n = slabs_of(shift.world, size_of(is_quick=is_quick)), sizes(is_quick=is_quick)
    rng = np.random.default_rng([seed, 1, *str(shift).encode()])
    rows = slabs.draw(rng, n["n_period"] + n["n_test"], shift.prevalence)
    y = slabs.y[rows]
    if shift.kind == "relabelled":
        y = relabelled_at_random(y, shift.strength, rng)
    period, test = slice(n["n_period"]), slice(n["n_period"], None)
    return Site(
        shift=shift,
        seed=seed,
        period=Seen(slabs=slabs, rows=rows[period]),
        period_y=y[period],
        test=Seen(slabs=slabs, rows=rows[test]),
        test_y=y[test],
        order=rng.permutation(n["n_period"]),
    )


@lru_cache(maxsize=1)
def others_of(seed: int, *, is_quick: bool) -> Mapping[str, Other]:
    """The other sites that the champion serves, each by a recipe of its own."""
    found = {}
    for name, strength in OTHERS:
        slabs = slabs_of((name, strength), size_of(is_quick=is_quick))
        rng = np.random.default_rng([seed, 2, *name.encode()])
        n = min(sizes(is_quick=is_quick)["n_other"], int(0.9 * len(slabs)))
        rows = slabs.draw(rng, n, PREVALENCE)
        recipe = fitted(slabs, rows[: TRAIN["n_fit"]], source_of(seed, is_quick=is_quick).served.recipe)
        found[name] = Other(seen=Seen(slabs=slabs, rows=rows), recipe=recipe)
    return found
