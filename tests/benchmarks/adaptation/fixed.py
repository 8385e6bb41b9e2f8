"""What others would do every time, whatever the finding: fixed strategies, with and without labels.

Names: `nothing`; `prior` sets the prevalence that scores tell, ungated; `reharmonize` fits the recipe to the period;
`adabn` and `coral` adapt without labels; `labelled_prior` sets the prevalence of the labels; a fine-tuning strategy
trains on every label and on the replayed source, and assumes the labels' prevalence. `raw:` is by the recipe of the
source, all other fine-tunings are by the site's own.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from platform_core.errors import EmptySample
from platform_core.harmonize.recipe import FittedRecipe
from platform_core.harmonize.stage import MIN_CLASS_PATIENTS
from platform_core.learn.adaptations import ADAPTATIONS
from platform_core.learn.calibrate import fit_platt, smoothed_share
from platform_core.learn.cost import n_passes_to_train
from platform_core.learn.data import Loaded
from platform_core.learn.networks import Classifier
from platform_core.learn.strategies import STRATEGIES
from platform_core.shift.labels.prevalence import estimate_prevalence
from tests.benchmarks.adaptation.seen import Other, Period, Seen, measured, probability
from tests.benchmarks.adaptation.sizes import FROZEN
from tests.benchmarks.adaptation.source import (
    SETTINGS,
    SOURCE,
    Array,
    Served,
    Source,
    evenly,
    fitted,
    joined,
    labels_of,
    loaded,
    logits_of,
    some,
    trained,
)

STRATEGIES_RUN = ("linear_probe", "surgical_late", "surgical_early", "lp_ft", "l2_sp", "full")
RAW_TOO = ("linear_probe", "l2_sp", "full")
"""Also by the source's recipe."""
SITE = "site"
N_FIT, N_REPLAY = FROZEN["train"]["n_fit"], FROZEN["train"]["n_replay"]
LEAST = 1e-3
"""Prevalence is kept this far from 0 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an action costs."""

    seconds: float = 0.0
    """Of one core."""
    passes: float = 0.0
    """Of one scan, forward and backward, as the race counts them."""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(seconds=self.seconds + other.seconds, passes=self.passes + other.passes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a strategy would serve at the site."""

    served: Served
    spent: Spent = Spent()


def recipe_of(source: Source, period: Period) -> FittedRecipe:
    """The recipe as the product fits it to a period: by class where ten of each are labelled, else as they come."""
    y = period.y[period.labelled]
    rows = period.seen.rows
    if min(int((y == value).sum()) for value in (0, 1)) >= MIN_CLASS_PATIENTS:
        chosen = evenly(rows[period.labelled], y, N_FIT)
        return fitted(period.seen.slabs, chosen, source.fitted_even)
    return fitted(period.seen.slabs, rows[:N_FIT], source.served.recipe)


def unlabelled(source: Source, period: Period) -> dict[str, Outcome]:
    """Every strategy that needs no label."""
    raw = source.served
    near = replace(raw, recipe=recipe_of(source, period))
    found = {"nothing": Outcome(served=raw), "reharmonize": Outcome(served=near)}
    for name, served in (("prior", raw), ("reharmonize+prior", near)):
        found[name] = Outcome(served=served.at(prevalence_told(source, served, period.seen)))
    for name, served in (("", raw), ("reharmonize+", near)):
        for adaptation in ("adabn", "coral"):
            found[name + adaptation] = _adapted(source, served, period.seen, adaptation)
    return found


def prevalence_told(source: Source, served: Served, seen: Seen) -> float:
    """Share of positives that scores tell, ungated; what is assumed if they tell nothing."""
    assumed = served.calibration.prevalence
    there, here = served.score(source.reference_arrays)[0], served.score(seen.arrays(served.recipe))[0]
    try:
        told = estimate_prevalence(here, there, source.reference_y, assumed=assumed, n_simulated=1).value
    except EmptySample:
        return assumed
    return float(np.clip(told, LEAST, 1 - LEAST))


def _adapted(source: Source, served: Served, seen: Seen, name: str) -> Outcome:
    started = time.process_time()
    arrays = seen.arrays(served.recipe)
    network = ADAPTATIONS[name].adapt(served.network, arrays, source.reference_arrays, seed=source.seed)
    spent = Spent(seconds=time.process_time() - started, passes=(len(arrays) + len(source.reference_arrays)) / 3)
    return Outcome(served=replace(served, network=network), spent=spent)


def labelled(source: Source, period: Period, *, with_raw: bool) -> dict[str, Outcome]:
    """Every strategy that needs labels; those that a class is missing for are left out."""
    y = period.y[period.labelled]
    raw, near = source.served, replace(source.served, recipe=recipe_of(source, period))
    share = smoothed_share(y)
    found = {
        "raw:labelled_prior": Outcome(served=raw.at(share)),
        "labelled_prior": Outcome(served=near.at(share)),
    }
    if len(set(y.tolist())) < 2:
        return found
    plan = [(name, near, name) for name in STRATEGIES_RUN]
    plan += [(f"raw:{name}", raw, name) for name in (RAW_TOO if with_raw else ("full",))]
    return found | {told: tuned(source, served, period, name, share) for told, served, name in plan}


def tuned(source: Source, served: Served, period: Period, strategy: str, prevalence: float) -> Outcome:
    """Fine-tune on every label and the replay; calibrated on the source's validation patients."""
    data = joined(own(period, served), replayed(source))
    started = time.process_time()
    network = trained(deepcopy(served.network), data, STRATEGIES[strategy], source.seed)
    spent = Spent(seconds=time.process_time() - started, passes=passes(network, strategy, len(data.scans)))
    return Outcome(served=calibrated(source, replace(served, network=network)).at(prevalence), spent=spent)


def passes(network: Classifier, strategy: str, n_scans: int) -> float:
    """Scan-passes of one training."""
    return n_passes_to_train(STRATEGIES[strategy], network.block_names, n_scans, SETTINGS)


def calibrated(source: Source, served: Served, more: Loaded | None = None) -> Served:
    """The same with slope and intercept of its own network, on validation patients."""
    held_out = source.validation if more is None else joined(more, source.validation)
    sites = [scan.site for scan in held_out.scans]
    platt = fit_platt(logits_of(served.network, held_out.arrays), labels_of(held_out), sites)
    return replace(served, platt=platt)


def own(period: Period, served: Served) -> Loaded:
    """The labelled patients of the period as the network sees them."""
    places = period.labelled
    arrays: Array = period.seen.arrays(served.recipe)[places]
    return loaded(SITE, period.seen.rows[places], arrays, period.y[places])


def replayed(source: Source) -> Loaded:
    """The source's patients in every fine-tuning."""
    return some(source.train, np.arange(N_REPLAY))


def forgotten(source: Source, served: Served, others: Mapping[str, Other]) -> dict[str, float]:
    """Rise of the error at the source and at every other site, each by its own recipe, if the network went there."""
    before = source.served
    rise = {SOURCE: _error_there(source, served) - _error_there(source, before)}
    for name, other in others.items():
        there = [replace(each, recipe=other.recipe, calibration=before.calibration) for each in (before, served)]
        was, now = (measured(other.y, probability(each, other.seen)).error for each in there)
        rise[name] = now - was
    return rise


def _error_there(source: Source, served: Served) -> float:
    score, _ = served.score(source.reference_arrays)
    return measured(source.reference_y, source.served.calibration.probability(score)).error
