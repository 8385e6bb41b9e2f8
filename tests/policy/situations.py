"""Situations for tests: one where nothing is wrong, changed by what a test is about, and any at all."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from platform_core.policy.candidates import CHEAPEST_FIRST
from platform_core.policy.episodes import ACTS
from platform_core.policy.rules import ACTIONS
from platform_core.policy.situation import KINDS, Situation
from platform_core.policy.table import built_in
from platform_core.shift.risk import Estimate

SOURCE = Estimate(0.40, 0.34, 0.46)
SAME = Estimate(0.44, 0.36, 0.52)
HIGHER = Estimate(0.70, 0.58, 0.82)

QUIET = Situation(
    kind="none",
    size=Estimate(0.3, 0.2, 0.4),
    n_patients=200,
    min_patients=100,
    n_labels=200,
    n_train_labels=100,
    n_evaluation_labels=80,
    min_labels=60,
    accepted_risk=SOURCE,
    target_risk=SAME,
    cool_down_days=28,
    strategies=CHEAPEST_FIRST,
)


def situation(**facts: Any) -> Situation:
    return replace(QUIET, **facts)


def reharmonized(**facts: Any) -> Situation:
    """A new recipe and the labels' calibration were tried."""
    return situation(**{"kind": "covariate_acquisition", "taken": ("reharmonize", "calibrate"), **facts})


def harmful(**facts: Any) -> Situation:
    return reharmonized(**{"target_risk": HIGHER, **facts})


def estimates(low: float, high: float) -> st.SearchStrategy[Estimate]:
    number = st.floats(low, high)
    return st.tuples(number, number, number).map(lambda three: Estimate(sorted(three)[1], min(three), max(three)))


ACTED = st.lists(st.sampled_from(ACTS), unique=True).map(tuple)
MAYBE = st.none() | st.booleans()
HOLDS = [rule.name for rule in built_in().rules if rule.action == "hold"]

situations = st.builds(
    Situation,
    kind=st.sampled_from(KINDS),
    size=st.none() | estimates(-1, 1),
    n_patients=st.integers(0, 2000),
    min_patients=st.integers(10, 500),
    n_labels=st.integers(0, 2000),
    n_train_labels=st.integers(0, 2000),
    n_evaluation_labels=st.integers(0, 2000),
    min_labels=st.integers(10, 500),
    accepted_risk=st.none() | estimates(0, 3),
    target_risk=st.none() | estimates(0, 3),
    taken=ACTED,
    tried=ACTED,
    n_gates_failed=st.integers(0, 3),
    is_watching=st.booleans(),
    growth=st.none() | st.floats(0, 3),
    divergence_stays=MAYBE,
    has_prevalence_moved=MAYBE,
    label_noise=st.none() | st.floats(0, 1),
    has_guideline_changed=st.booleans(),
    n_sites_alarmed=st.integers(0, 3),
    is_training_running=st.booleans(),
    gpu_hours_used=st.floats(0, 100),
    gpu_hours_per_month=st.none() | st.floats(0, 100),
    days_since_fine_tune=st.none() | st.integers(0, 500),
    cool_down_days=st.integers(0, 90),
    strategies=st.just(CHEAPEST_FIRST),
    alarm=st.none() | st.just("noise_air_hu higher since about 2026-02-16"),
    approve=st.lists(st.sampled_from(ACTIONS), unique=True).map(tuple),
    released=st.lists(st.sampled_from(HOLDS), unique=True).map(tuple),
)
