"""Situation in, decision out, by the built-in table."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnknownName
from platform_core.policy.decide import decide
from platform_core.policy.rules import ACTIONS
from platform_core.policy.situation import FEWEST_LABELS, MOST_LABELS, Situation, difference
from platform_core.policy.table import built_in
from platform_core.shift.risk import Estimate
from tests.policy.situations import HIGHER, HOLDS, QUIET, estimates, harmful, reharmonized, situation, situations

ENDS = ("reharmonize", "recalibrate", "calibrate", "adapt", "fine_tune")


def test_nothing_found_means_nothing_done() -> None:
    assert decide(QUIET).action == "none"


def test_too_few_patients_means_waiting_and_says_for_how_many() -> None:
    decision = decide(situation(kind="undetermined", n_patients=60))
    assert decision.action == "none"
    assert "needs 40 more" in decision.because


def test_an_undetermined_shift_among_enough_patients_asks_for_labels() -> None:
    decision = decide(situation(kind="undetermined", n_labels=0))
    assert (decision.action, decision.n_labels_wanted) == ("request_labels", 60)


def test_what_labels_show_to_be_harmless_needs_no_cause() -> None:
    unknown = situation(kind="undetermined", taken=("calibrate",))
    assert decide(unknown).rule == "type_unknown_harmless"
    assert decide(replace(unknown, target_risk=HIGHER)).action == "hold"


@pytest.mark.parametrize("kind", ["covariate_acquisition", "covariate_case_mix", "mixed", "undetermined"])
@pytest.mark.parametrize("risk", [QUIET.target_risk, HIGHER])
def test_labels_are_first_asked_how_far_scores_are_to_be_believed(kind: str, risk: Estimate) -> None:
    decision = decide(situation(kind=kind, taken=("reharmonize",), target_risk=risk))
    assert (decision.action, decision.candidates) == ("calibrate", ())
    assert "of the 200 labelled patients" in decision.because


@pytest.mark.parametrize("kind", ["covariate_case_mix", "undetermined"])
def test_scores_are_fitted_to_no_labels_that_are_unsound(kind: str) -> None:
    fine = situation(kind=kind)
    assert decide(fine).action == "calibrate"
    assert decide(replace(fine, label_noise=0.2)).rule == "labels_disputed_harmless"
    assert decide(replace(fine, has_guideline_changed=True)).rule == "guideline_changed_harmless"
    assert decide(replace(fine, has_guideline_changed=True, target_risk=HIGHER)).rule == "guideline_changed"
    assert decide(replace(fine, n_labels=10)).action == "request_labels"


def test_a_new_scanner_is_harmonized_before_any_weight_moves() -> None:
    decision = decide(situation(kind="covariate_acquisition", target_risk=HIGHER))
    assert (decision.action, decision.candidates) == ("reharmonize", ())
    assert "0.30 [0.20, 0.40]" in decision.because


def test_both_together_are_harmonized_first_too() -> None:
    assert decide(situation(kind="mixed", target_risk=HIGHER)).action == "reharmonize"


def test_a_repaired_site_is_left_alone() -> None:
    assert decide(reharmonized()).rule == "repaired"


@pytest.mark.parametrize("kind", ["covariate_acquisition", "mixed", "covariate_case_mix"])
def test_risk_that_stays_higher_asks_for_fine_tuning(kind: str) -> None:
    decision = decide(harmful(kind=kind))
    assert (decision.action, decision.status, decision.candidates[0]) == ("fine_tune", "proposed", "linear_probe")
    assert "0.30 [" in decision.because


def test_an_action_waits_for_a_person_where_the_settings_say_so() -> None:
    assert decide(harmful(approve=("fine_tune",))).status == "waiting"
    assert decide(situation(kind="label", approve=("fine_tune",))).status == "proposed"
    assert decide(situation(kind="label", approve=("recalibrate",))).status == "waiting"


@pytest.mark.parametrize("facts", [{"n_labels": 59}, {"target_risk": None}, {"accepted_risk": None}])
def test_unknown_harm_asks_for_labels(facts: dict[str, Any]) -> None:
    assert decide(harmful(**facts)).rule == "harm_unknown"


@pytest.mark.parametrize(("days", "action"), [(None, "fine_tune"), (27, "hold"), (28, "fine_tune")])
def test_a_site_is_not_fine_tuned_again_within_the_cool_down(days: int | None, action: str) -> None:
    assert decide(harmful(days_since_fine_tune=days)).action == action


def test_a_change_of_prevalence_moves_logits_only() -> None:
    assert decide(situation(kind="label", target_risk=HIGHER)).action == "recalibrate"


APART = {"divergence_stays": True, "n_labels": 0, "n_patients": 200, "has_prevalence_moved": False}


def test_a_site_that_stays_apart_and_has_no_labels_is_adapted() -> None:
    assert decide(reharmonized(**APART)).action == "adapt"


@pytest.mark.parametrize(
    "facts",
    [
        {"divergence_stays": False},
        {"divergence_stays": None},
        {"n_patients": 199},
        {"has_prevalence_moved": True},
        {"has_prevalence_moved": None},
        {"tried": ("adapt",)},
        {"kind": "mixed"},
    ],
)
def test_without_all_that_makes_it_safe_nothing_is_adapted(facts: dict[str, Any]) -> None:
    assert decide(reharmonized(**(APART | facts))).action == "request_labels"


@pytest.mark.parametrize(("noise", "action"), [(0.19, "fine_tune"), (0.2, "hold"), (None, "fine_tune")])
def test_labels_on_which_readers_disagree_train_nothing(noise: float | None, action: str) -> None:
    decision = decide(harmful(label_noise=noise))
    assert decision.action == action
    assert ("0.20 of the double readings" in decision.because) == (action == "hold")


def test_the_last_layers_alone_are_trained_on_labels_that_are_disputed_a_little() -> None:
    assert decide(harmful(label_noise=0.15)).candidates == ("linear_probe", "surgical_late")


def test_another_guideline_is_looked_at_by_a_person_first() -> None:
    assert decide(harmful(has_guideline_changed=True)).rule == "guideline_changed"
    assert decide(harmful(has_guideline_changed=True, released=("guideline_changed",))).action == "fine_tune"


def test_a_new_meaning_is_confirmed_by_a_person_before_the_last_layers_learn_it() -> None:
    concept = situation(kind="concept", target_risk=HIGHER, taken=("calibrate",))
    assert decide(concept).rule == "meaning_changed"
    confirmed = replace(concept, released=("meaning_changed",))
    assert decide(confirmed).action == "fine_tune"
    assert "surgical_late" in decide(confirmed).candidates
    assert decide(replace(confirmed, n_labels=10)).action == "request_labels"
    assert decide(replace(confirmed, target_risk=QUIET.target_risk)).action == "none"


def test_two_sites_that_alarm_together_stop_everything() -> None:
    for kind in ("covariate_acquisition", "label", "mixed"):
        assert decide(situation(kind=kind, n_sites_alarmed=2)).rule == "alarmed_together"
    assert decide(situation(kind="label", n_sites_alarmed=1)).action == "recalibrate"


def test_two_failed_gates_stop_the_episode() -> None:
    assert decide(harmful(n_gates_failed=1)).action == "fine_tune"
    assert decide(harmful(n_gates_failed=2)).rule == "gates_failed"


def test_what_was_acted_upon_is_watched_until_it_grows_or_does_harm() -> None:
    watched = situation(kind="label", is_watching=True, growth=1.24)
    assert decide(watched).rule == "watched"
    assert decide(replace(watched, growth=1.25)).action == "recalibrate"
    assert decide(replace(watched, growth=None)).action == "recalibrate"
    assert decide(replace(watched, target_risk=HIGHER)).action == "recalibrate"
    assert decide(replace(watched, alarm="score higher")).action == "recalibrate"


@pytest.mark.parametrize(("n", "rule"), [(0, "gain_unseen"), (20, "gain_unseen"), (40, "still_worse")])
def test_nothing_is_raced_whose_gain_the_gate_could_hardly_see(n: int, rule: str) -> None:
    """An excess of 0.3 nats where losses have an SD of 0.87: 30 patients see it as often as not."""
    assert decide(harmful(n_evaluation_labels=n)).rule == rule


@given(situations)
def test_who_can_be_judged_by_few_can_be_judged_by_more(s: Situation) -> None:
    more = replace(s, n_evaluation_labels=s.n_evaluation_labels + 100)
    assert more.can_be_judged or not s.is_worse or not s.can_be_judged


@pytest.mark.parametrize(("used", "action"), [(9.9, "fine_tune"), (10.0, "hold")])
def test_hours_of_training_are_a_budget(used: float, action: str) -> None:
    assert decide(harmful(gpu_hours_used=used, gpu_hours_per_month=10.0)).action == action


def test_a_training_for_another_site_is_waited_for() -> None:
    assert decide(harmful(is_training_running=True)).rule == "training_under_way"
    assert decide(situation(kind="covariate_acquisition", is_training_running=True)).action == "reharmonize"


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownName, match="covariate_acquisition"):
        decide(situation(kind="drift"))


@given(situations)
def test_every_situation_gets_one_decision_with_a_whole_sentence(s: Situation) -> None:
    decision = decide(s)
    assert decision.action in ACTIONS
    assert decision.because.strip()
    assert "{" not in decision.because
    assert bool(decision.candidates) == (decision.action == "fine_tune")
    assert (decision.n_labels_wanted is not None) == (decision.action == "request_labels")


@given(situations)
def test_the_same_situation_is_decided_the_same_way(s: Situation) -> None:
    assert decide(s) == decide(replace(s)) == decide(s, built_in())


@given(situations)
def test_weights_move_only_on_shown_harm_with_labels_after_harmonizing(s: Situation) -> None:
    if decide(s).action == "fine_tune":
        assert s.kind in ("covariate_case_mix", "concept") or "reharmonize" in s.taken
        assert "fine_tune" not in s.taken
        assert s.is_worse
        assert s.n_labels >= s.min_labels
        assert s.label_noise is None or s.label_noise < 0.2 or "labels_disputed" in s.released


@given(situations)
def test_a_prior_moves_for_prevalence_alone(s: Situation) -> None:
    """Never while acquisition is alarmed or no mixture fits: such findings are of another kind."""
    if decide(s).action == "recalibrate":
        assert s.kind == "label"


@given(situations)
def test_nothing_is_adapted_where_prevalence_may_have_moved(s: Situation) -> None:
    if decide(s).action == "adapt":
        assert s.has_prevalence_moved is False
        assert "reharmonize" in s.taken


@given(situations)
def test_a_new_meaning_trains_nothing_without_a_person(s: Situation) -> None:
    if s.kind == "concept" and "meaning_changed" not in s.released:
        assert decide(s).action == "hold"


@given(situations)
def test_nothing_is_changed_while_sites_alarm_together(s: Situation) -> None:
    if s.n_sites_alarmed >= 2 and "alarmed_together" not in s.released:
        assert decide(s).action not in ENDS


@given(situations)
def test_a_hold_that_was_lifted_is_passed_over(s: Situation) -> None:
    decision = decide(replace(s, released=tuple(HOLDS)))
    assert decision.action != "hold"


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
    s = replace(s, released=())
    first = next(rule for rule in built_in().rules if rule.fits(s))
    assert decide(s).rule == first.name


@given(situations, st.sampled_from(ENDS))
def test_no_action_is_taken_twice_for_one_period(s: Situation, action: str) -> None:
    """So that a loop that acts, measures and asks again comes to an end."""
    assert decide(replace(s, taken=(*s.taken, action))).action != action


def test_every_row_of_the_policy_can_decide() -> None:
    """A row that no situation reaches is dead text that a reader would trust."""
    confirmed = {"kind": "concept", "released": ("meaning_changed",)}
    facts = [
        situation(kind="none", alarm="noise is higher"),
        QUIET,
        situation(kind="undetermined", n_patients=5, alarm="noise is higher"),
        situation(kind="undetermined", n_patients=5),
        situation(kind="label", n_sites_alarmed=2),
        situation(kind="label", n_gates_failed=2),
        situation(kind="label", is_watching=True, growth=1.0),
        situation(kind="undetermined", n_labels=0),
        situation(kind="label", taken=("recalibrate",)),
        situation(kind="label"),
        situation(kind="concept"),
        situation(kind="covariate_acquisition"),
        situation(kind="mixed"),
        reharmonized(taken=("reharmonize", "fine_tune")),
        reharmonized(**APART),
        reharmonized(n_labels=0),
        reharmonized(kind="mixed", n_labels=0),
        situation(kind="covariate_case_mix", n_labels=0),
        situation(**confirmed, n_labels=0),
        harmful(label_noise=0.3),
        harmful(has_guideline_changed=True),
        reharmonized(label_noise=0.3),
        reharmonized(has_guideline_changed=True),
        reharmonized(taken=("reharmonize",)),
        situation(kind="undetermined", taken=("calibrate",), target_risk=HIGHER),
        situation(kind="undetermined", taken=("calibrate",)),
        reharmonized(),
        situation(kind="covariate_case_mix", taken=("calibrate",)),
        harmful(n_evaluation_labels=10),
        harmful(days_since_fine_tune=3),
        harmful(gpu_hours_per_month=0.0),
        harmful(is_training_running=True),
        harmful(),
        harmful(kind="covariate_case_mix"),
        harmful(**confirmed),
    ]
    assert [decide(s).rule for s in facts] == [rule.name for rule in built_in().rules]


def test_the_interval_of_a_difference_of_normal_estimates_is_the_textbook_one() -> None:
    a, b = Estimate(1.0, 1.0 - 0.3, 1.0 + 0.3), Estimate(0.4, 0.4 - 0.4, 0.4 + 0.4)
    found = difference(a, b)
    assert [found.value, found.low, found.high] == pytest.approx([0.6, 0.6 - 0.5, 0.6 + 0.5])


@given(estimates(0, 3), estimates(0, 3))
def test_a_difference_lies_within_its_interval_and_turns_its_sign_with_the_order(a: Estimate, b: Estimate) -> None:
    ab, ba = difference(a, b), difference(b, a)
    assert ab.low <= ab.value <= ab.high
    assert [ab.low, ab.high] == pytest.approx([-ba.high, -ba.low])
