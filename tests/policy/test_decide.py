"""Situation in, decision out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnknownName
from platform_core.policy.decide import decide
from platform_core.policy.rules import POLICY
from platform_core.policy.situation import FEWEST_LABELS, KINDS, MOST_LABELS, Situation, difference
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
    min_labels=60,
    accepted_risk=SOURCE,
    target_risk=SAME,
    cool_down_days=28,
    strategies=("linear_probe", "partial", "full"),
)


def situation(**facts: Any) -> Situation:
    return replace(QUIET, **facts)


def reharmonized(**facts: Any) -> Situation:
    return situation(**{"kind": "covariate_acquisition", "taken": ("reharmonize",), **facts})


def test_nothing_found_means_nothing_done() -> None:
    assert decide(QUIET).action == "none"


def test_too_few_patients_means_waiting_and_says_for_how_many() -> None:
    decision = decide(situation(kind="undetermined", n_patients=60))
    assert decision.action == "none"
    assert "needs 40 more" in decision.because


def test_an_undetermined_shift_among_enough_patients_asks_for_labels() -> None:
    decision = decide(situation(kind="undetermined", n_labels=0))
    assert (decision.action, decision.n_labels_wanted) == ("request_labels", 60)


def test_a_new_scanner_is_harmonized_before_any_weight_moves() -> None:
    decision = decide(situation(kind="covariate_acquisition", target_risk=HIGHER))
    assert (decision.action, decision.candidates) == ("reharmonize", ())
    assert "0.30 [0.20, 0.40]" in decision.because


def test_a_repaired_site_is_left_alone() -> None:
    assert decide(reharmonized()).rule == "repaired"


def test_risk_that_stays_higher_asks_for_fine_tuning() -> None:
    decision = decide(reharmonized(target_risk=HIGHER))
    assert (decision.action, decision.candidates[0], decision.status) == ("fine_tune", "linear_probe", "proposed")


def test_fine_tuning_waits_for_a_person_where_the_settings_say_so() -> None:
    assert decide(reharmonized(target_risk=HIGHER, needs_approval=True)).status == "waiting"


def test_only_fine_tuning_waits_for_a_person() -> None:
    assert decide(situation(kind="label", needs_approval=True)).status == "proposed"


@pytest.mark.parametrize("facts", [{"n_labels": 59}, {"target_risk": None}, {"accepted_risk": None}])
def test_unknown_harm_asks_for_labels(facts: dict[str, Any]) -> None:
    assert decide(reharmonized(**{"target_risk": HIGHER, **facts})).rule == "harm_unknown"


@pytest.mark.parametrize(("days", "action"), [(None, "fine_tune"), (27, "hold"), (28, "fine_tune")])
def test_a_site_is_not_fine_tuned_again_within_the_cool_down(days: int | None, action: str) -> None:
    assert decide(reharmonized(target_risk=HIGHER, days_since_fine_tune=days)).action == action


def test_a_change_of_prevalence_moves_logits_only() -> None:
    assert decide(situation(kind="label", target_risk=HIGHER)).action == "recalibrate"


@pytest.mark.parametrize(
    ("kind", "n_labels", "action"),
    [
        ("covariate_case_mix", 200, "request_labels"),
        ("mixed", 0, "request_labels"),
        ("mixed", 200, "hold"),
        ("concept", 200, "hold"),
    ],
)
def test_what_cannot_be_mended_alone_goes_to_people(kind: str, n_labels: int, action: str) -> None:
    assert decide(situation(kind=kind, n_labels=n_labels)).action == action


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownName, match="covariate_acquisition"):
        decide(situation(kind="drift"))


def estimates(low: float, high: float) -> st.SearchStrategy[Estimate]:
    number = st.floats(low, high)
    return st.tuples(number, number, number).map(lambda three: Estimate(sorted(three)[1], min(three), max(three)))


situations = st.builds(
    Situation,
    kind=st.sampled_from(KINDS),
    size=st.none() | estimates(-1, 1),
    n_patients=st.integers(0, 2000),
    min_patients=st.integers(10, 500),
    n_labels=st.integers(0, 2000),
    n_train_labels=st.integers(0, 2000),
    min_labels=st.integers(10, 500),
    accepted_risk=st.none() | estimates(0, 3),
    target_risk=st.none() | estimates(0, 3),
    taken=st.lists(st.sampled_from(["reharmonize", "recalibrate", "fine_tune"]), unique=True).map(tuple),
    days_since_fine_tune=st.none() | st.integers(0, 500),
    cool_down_days=st.integers(0, 90),
    strategies=st.just(("linear_probe", "partial", "full")),
    needs_approval=st.booleans(),
)


@given(situations)
def test_every_situation_gets_a_decision_with_a_whole_sentence(s: Situation) -> None:
    decision = decide(s)
    assert "{" not in decision.because
    assert bool(decision.candidates) == (decision.action == "fine_tune")
    assert (decision.n_labels_wanted is not None) == (decision.action == "request_labels")


@given(situations)
def test_weights_move_only_on_shown_harm_after_harmonizing_with_labels(s: Situation) -> None:
    if decide(s).action == "fine_tune":
        assert "reharmonize" in s.taken
        assert "fine_tune" not in s.taken
        assert s.is_worse
        assert s.n_labels >= s.min_labels


@given(situations)
def test_a_request_is_for_at_most_a_hundred_labels(s: Situation) -> None:
    n_labels = decide(s).n_labels_wanted
    assert n_labels is None or 1 <= n_labels <= MOST_LABELS


@given(situations)
def test_the_first_request_is_for_at_least_fifty_labels(s: Situation) -> None:
    n_labels = decide(replace(s, n_labels=0)).n_labels_wanted
    assert n_labels is None or n_labels >= FEWEST_LABELS


@given(situations)
def test_the_order_of_reading_is_the_only_tie_break(s: Situation) -> None:
    first = next(rule for rule in POLICY if rule.when(s))
    assert decide(s).rule == first.name


def test_every_row_of_the_policy_can_decide() -> None:
    """A row that no situation reaches is dead text that a reader would trust."""
    facts = [
        situation(kind="none", alarm="noise is higher"),
        situation(kind="undetermined", n_patients=5, alarm="noise is higher"),
        QUIET,
        situation(kind="undetermined", n_patients=5),
        situation(kind="undetermined"),
        situation(kind="covariate_acquisition"),
        reharmonized(taken=("reharmonize", "fine_tune")),
        reharmonized(n_labels=0),
        reharmonized(),
        reharmonized(target_risk=HIGHER, days_since_fine_tune=3),
        reharmonized(target_risk=HIGHER),
        situation(kind="label", taken=("recalibrate",)),
        situation(kind="label"),
        situation(kind="covariate_case_mix"),
        situation(kind="mixed", n_labels=0),
        situation(kind="mixed"),
        situation(kind="concept"),
    ]
    assert [decide(s).rule for s in facts] == [rule.name for rule in POLICY]


def test_the_interval_of_a_difference_of_normal_estimates_is_the_textbook_one() -> None:
    a, b = Estimate(1.0, 1.0 - 0.3, 1.0 + 0.3), Estimate(0.4, 0.4 - 0.4, 0.4 + 0.4)
    found = difference(a, b)
    assert [found.value, found.low, found.high] == pytest.approx([0.6, 0.6 - 0.5, 0.6 + 0.5])


@given(estimates(0, 3), estimates(0, 3))
def test_a_difference_lies_within_its_interval_and_turns_its_sign_with_the_order(a: Estimate, b: Estimate) -> None:
    ab, ba = difference(a, b), difference(b, a)
    assert ab.low <= ab.value <= ab.high
    assert [ab.low, ab.high] == pytest.approx([-ba.high, -ba.low])


@given(situations)
def test_no_action_is_taken_twice_for_one_period(s: Situation) -> None:
    """So that a loop that acts, measures and asks again comes to an end."""
    assert decide(s).action not in {"reharmonize", "recalibrate", "fine_tune"} & set(s.taken)
