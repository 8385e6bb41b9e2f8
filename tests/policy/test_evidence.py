"""The facts of a situation, against tables that were written by hand."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.schemas import ALARM, DECISION, FINDING, LABEL, SERIES, SHIFT
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy import episodes
from platform_core.policy.decide import Decision
from platform_core.policy.evidence import FEWEST_DOUBLE_READINGS, read_situation
from platform_core.policy.record import record_decision
from platform_core.shift.risk import Estimate
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
START = date(2026, 1, 5)
FOUND: dict[str, Any] = {
    "site": "east",
    "finding_key": "f1",
    "stratum": "CT",
    "target": "lesion",
    "period_start": START,
    "period_end": START + timedelta(days=27),
    "kind": "covariate_acquisition",
    "size": 0.4,
    "low": 0.3,
    "high": 0.5,
    "source_risk": 0.4,
    "source_risk_low": 0.35,
    "source_risk_high": 0.45,
}


@pytest.fixture
def site(workspace: Workspace) -> Workspace:
    """20 patients in the period of whom 8 are labelled, one before it and one of another stratum, both labelled."""
    with (Path(workspace.uri) / layout.SETTINGS).open("a") as file:
        file.write('\n[target.lesion]\nlabel = "lesion"\nmodality = "CT"\nsource_site = "north"\n')
    workspace = open_workspace(workspace.uri)
    days = {f"s{n:02d}": ("CT", START + timedelta(days=n)) for n in range(20)}
    days |= {"before": ("CT", START - timedelta(days=1)), "other": ("MR", START)}
    rows = [
        {"site": "east", "series_key": key, "revision": 1, "patient_key": f"p-{key}", "stratum": stratum,
         "observed_on": day, "volume_uri": "v"}
        for key, (stratum, day) in days.items()
    ]  # fmt: skip
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction="s")
    labelled = [*(f"s{n:02d}" for n in range(12, 20)), "before", "other"]
    labels = [{"site": "east", "target": "lesion", "series_key": key, "value": "1", "run": "r"} for key in labelled]
    workspace.lake.append(layout.LABEL, rows_of(LABEL, labels), transaction="l")
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [FOUND]), transaction="f")
    return workspace


def act(workspace: Workspace, action: Any, status: Any, at: datetime) -> None:
    decision = Decision(action=action, because="b", rule="r")
    record_decision(
        workspace, decision, finding=FOUND, status=status, serving_before=None, serving_after=None, evidence=None,
        run="r", at=at,
    )  # fmt: skip


def test_patients_and_labels_are_those_of_the_stratum_and_period(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert (situation.n_patients, situation.n_labels) == (20, 8)
    labelled = [f"p-s{n:02d}" for n in range(12, 20)]
    in_training = [key for key in labelled if part_of(key, site.settings.split) == "train"]
    assert situation.n_train_labels == len(in_training)


def test_risks_come_from_the_finding_unless_measured_again(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert situation.accepted_risk == Estimate(0.4, 0.35, 0.45)
    assert situation.target_risk is None
    again = Estimate(0.6, 0.5, 0.7)
    assert read_situation(site, FOUND, at=AT, target_risk=again).target_risk == again


def test_an_interval_that_is_not_a_number_is_no_evidence(site: Workspace) -> None:
    assert read_situation(site, {**FOUND, "low": float("nan")}, at=AT).size is None


def test_actions_of_the_period_are_remembered_refused_ones_too_and_proposals_not(site: Workspace) -> None:
    act(site, "reharmonize", "refused", AT)
    act(site, "fine_tune", "proposed", AT + timedelta(minutes=1))
    assert read_situation(site, FOUND, at=AT).taken == ("reharmonize",)


def test_a_challenger_in_the_shadow_was_made(site: Workspace) -> None:
    """Or the next night would train another one for the same period."""
    act(site, "fine_tune", "shadow", AT)
    situation = read_situation(site, FOUND, at=AT + timedelta(days=2))
    assert (situation.has_fine_tuned, situation.days_since_fine_tune) == (True, 2)


def test_the_cool_down_counts_from_the_last_challenger(site: Workspace) -> None:
    assert read_situation(site, FOUND, at=AT).days_since_fine_tune is None
    act(site, "fine_tune", "refused", AT - timedelta(days=9))
    assert read_situation(site, FOUND, at=AT).days_since_fine_tune == 9


@pytest.mark.parametrize(
    ("evidence", "days"), [({"refused": "the GPU is gone"}, None), ({"refused": "none won", "race": {}}, 0)]
)
def test_a_fine_tuning_cools_down_only_if_it_raced(site: Workspace, evidence: dict[str, Any], days: int | None) -> None:
    settle(site, follow(site, 0), "fine_tune", "refused", **evidence)
    assert read_situation(site, FOUND, at=AT).days_since_fine_tune == days


def test_rules_come_from_the_settings(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert (situation.min_patients, situation.min_labels, situation.cool_down_days) == (100, 60, 28)
    assert situation.strategies == site.settings.target["lesion"].strategies


def follow(workspace: Workspace, period: int, kind: str = "covariate_acquisition", size: float = 0.4) -> dict[str, Any]:
    start = START + timedelta(days=28 * period)
    row = FOUND | {"finding_key": f"p{period}", "period_start": start, "period_end": start + timedelta(days=27)}
    row |= {"kind": kind, "size": size}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction=f"p{period}")
    return row


def settle(workspace: Workspace, row: dict[str, Any], action: Any, status: Any, **evidence: Any) -> None:
    """Record a decision and move the episode on, as a run does."""
    at = AT + timedelta(days=(row["period_start"] - START).days)
    record_decision(
        workspace, Decision(action=action, because="b", rule="r"), finding=row, status=status, serving_before=None,
        serving_after=None, evidence=evidence, run="r", at=at,
    )  # fmt: skip
    episodes.follow(workspace, row, has_acted=status == "done" and action != "hold", run="r", at=at)


def test_what_an_episode_has_seen_is_remembered_over_its_periods(site: Workspace) -> None:
    first = follow(site, 0)
    settle(site, first, "reharmonize", "refused", receipt={"reduction": {"value": 0.1}})
    settle(site, first, "adapt", "refused")
    settle(site, first, "hold", "approved")
    now = read_situation(site, follow(site, 1), at=AT)
    assert (now.taken, now.tried) == ((), ("reharmonize", "adapt"))
    assert (now.n_gates_failed, now.released) == (1, ("r",))
    assert now.has_adapted
    assert not now.has_reharmonized


def test_another_episode_begins_without_what_came_before(site: Workspace) -> None:
    settle(site, follow(site, 0), "fine_tune", "refused")
    episodes.follow(site, follow(site, 1, kind="none"), has_acted=False, run="r", at=AT + timedelta(days=28))
    now = read_situation(site, follow(site, 2), at=AT + timedelta(days=56))
    assert (now.tried, now.n_gates_failed) == ((), 0)


def test_what_could_not_be_tried_has_failed_at_no_gate(site: Workspace) -> None:
    settle(site, follow(site, 0), "fine_tune", "refused", refused="too few patients")
    assert read_situation(site, follow(site, 1), at=AT).n_gates_failed == 0


@pytest.mark.parametrize("action", ["reharmonize", "calibrate"])
def test_what_had_no_gain_to_show_has_failed_at_no_gate(site: Workspace, action: str) -> None:
    settle(site, follow(site, 0), action, "refused")
    assert read_situation(site, follow(site, 1), at=AT).n_gates_failed == 0


def test_scores_that_were_fitted_to_labels_silence_no_later_period(site: Workspace) -> None:
    row = follow(site, 0, kind="covariate_acquisition")
    settle(site, row, "calibrate", "done")
    assert read_situation(site, row, at=AT).has_calibrated
    after = read_situation(site, follow(site, 1, kind="covariate_acquisition"), at=AT)
    assert (after.is_watching, after.has_calibrated) == (False, False)


def test_growth_is_told_against_the_finding_that_was_acted_upon(site: Workspace) -> None:
    settle(site, follow(site, 0, kind="label", size=-0.2), "recalibrate", "done")
    grown = read_situation(site, follow(site, 1, kind="label", size=-0.3), at=AT)
    assert grown.is_watching
    assert grown.growth == pytest.approx(1.5)
    other = read_situation(site, follow(site, 2, kind="covariate_acquisition", size=0.3), at=AT)
    assert (other.is_watching, other.growth) == (True, None)


@pytest.mark.parametrize(
    ("who", "action", "days", "watched"),
    [
        ("east", "restore", -1, True),
        ("east", "restore", 0, True),
        ("east", "restore", 1, False),
        ("west", "restore", 1, True),
        ("north", "rollback", 1, False),
    ],
)
def test_what_was_put_back_after_an_action_is_watched_no_longer(
    site: Workspace, who: str, action: str, days: int, watched: bool
) -> None:
    """Its time was over, or a person took it back: the same finding may be acted upon again."""
    settle(site, follow(site, 0, kind="label"), "recalibrate", "done")
    row = {"site": who, "decision_key": "by itself", "target": "lesion", "action": action, "status": "done"}
    put_back = row | {"decided_at": AT + timedelta(days=days), "step": 0}
    site.lake.append(layout.DECISION, rows_of(DECISION, [put_back]), transaction="restore")
    assert read_situation(site, follow(site, 1, kind="label"), at=AT).is_watching is watched


def test_nothing_is_watched_in_the_period_that_was_acted_upon(site: Workspace) -> None:
    row = follow(site, 0, kind="label")
    settle(site, row, "recalibrate", "done")
    assert not read_situation(site, row, at=AT).is_watching


@pytest.mark.parametrize(
    ("status", "reduction", "stays"), [("refused", 0.9, True), ("done", 0.49, True), ("done", 0.5, False)]
)
def test_the_distance_stays_after_a_recipe_that_took_less_than_half(
    site: Workspace, status: str, reduction: float, stays: bool
) -> None:
    row = follow(site, 0)
    assert read_situation(site, row, at=AT).divergence_stays is None
    settle(site, row, "reharmonize", status, receipt={"reduction": {"value": reduction}})
    assert read_situation(site, row, at=AT).divergence_stays is stays


def shift_row(statistic: str, value: float, half: float, run: str = "r") -> dict[str, Any]:
    about = {name: FOUND[name] for name in ("site", "stratum", "period_start", "period_end")}
    return about | {
        "recipe": "native", "reference": "lesion@1", "feature": "score", "statistic": statistic, "value": value,
        "low": value - half, "high": value + half, "run": run,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "moved"),
    [
        ([], None),
        ([shift_row("prevalence_from_scores", 0.9, 0.01)], None),
        ([shift_row("prevalence_through_scanner", 0.52, 0.06)], False),
        ([shift_row("prevalence_through_scanner", 0.54, 0.01)], False),
        ([shift_row("prevalence_through_scanner", 0.6, 0.06)], True),
        ([shift_row("prevalence_through_scanner", 0.5, 0.1), shift_row("prevalence_from_labels", 0.7, 0.1)], True),
        ([shift_row("prevalence_from_labels", 0.7, 0.1), shift_row("prevalence_from_labels", 0.5, 0.1, "s")], False),
    ],
)
def test_prevalence_has_moved_if_one_that_can_be_believed_says_so(
    site: Workspace, rows: list[dict[str, Any]], moved: bool | None
) -> None:
    calibration = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
    serving = Serving(
        site="east", target="lesion", model="lesion@1", recipe="native", calibration=calibration, epoch=-1
    )
    change_serving(site, serving, decision_key=None, at=AT, run="r")
    site.lake.append(layout.SHIFT, rows_of(SHIFT, rows), transaction="shift")
    assert read_situation(site, FOUND | {"model": "lesion@1"}, at=AT).has_prevalence_moved is moved


def test_what_was_shown_through_the_scanner_counts_by_the_recipe_in_force_only(site: Workspace) -> None:
    """Right after a new recipe nobody knows: an adaptation would be tried, and could not pass."""
    calibration = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
    serving = Serving(site="east", target="lesion", model="lesion@1", recipe="new", calibration=calibration, epoch=-1)
    change_serving(site, serving, decision_key=None, at=AT, run="r")

    def moved(*rows: dict[str, Any]) -> bool | None:
        site.lake.append(layout.SHIFT, rows_of(SHIFT, list(rows)), transaction=str(rows))
        return read_situation(site, FOUND | {"model": "lesion@1"}, at=AT).has_prevalence_moved

    still = shift_row("prevalence_through_scanner", 0.5, 0.1)
    assert moved(still) is None
    assert moved(still | {"recipe": "new"}) is False
    assert moved(shift_row("prevalence_from_labels", 0.9, 0.1)) is True


def test_a_guideline_is_new_if_nobody_read_by_it_before(site: Workspace) -> None:
    def label(key: str, guideline: str) -> None:
        row = {"site": "east", "target": "lesion", "series_key": key, "value": "1", "guideline": guideline, "run": "s"}
        site.lake.append(layout.LABEL, rows_of(LABEL, [row]), transaction=f"{key}{guideline}")

    label("s01", "2026")
    assert not read_situation(site, FOUND, at=AT).has_guideline_changed  # nothing is known of before
    label("before", "2025")
    assert read_situation(site, FOUND, at=AT).has_guideline_changed
    label("before", "2026")
    assert not read_situation(site, FOUND, at=AT).has_guideline_changed


def raise_alarms(workspace: Workspace, *sites: tuple[str, str, datetime]) -> None:
    rows = [
        {"site": site, "alarm_key": site, "stratum": "CT", "period_start": START, "feature": feature,
         "meaning": "higher", "alarmed_on": START, "changed_on": START, "sentence": "s", "raised_at": at, "run": site}
        for site, feature, at in sites
    ]  # fmt: skip
    workspace.lake.append(layout.ALARM, rows_of(ALARM, rows), transaction="alarms")


def test_sites_alarm_together_of_one_feature_on_one_day(site: Workspace) -> None:
    assert read_situation(site, FOUND, at=AT).n_sites_alarmed == 0
    later = AT + timedelta(hours=3)
    other_day = AT + timedelta(days=1)
    raise_alarms(
        site, ("east", "noise", AT), ("south", "noise", later), ("west", "noise", other_day), ("n", "edge", AT)
    )
    assert read_situation(site, FOUND, at=AT).n_sites_alarmed == 2


def test_readers_who_disagree_are_noise_only_if_enough_was_read_twice(site: Workspace) -> None:
    def read_twice(n: int) -> None:
        rows = [
            {"site": "east", "target": "lesion", "series_key": f"d{k}", "reader": reader, "run": "s",
             "value": "1" if reader == "a" or k % 2 else "0"}
            for k in range(n) for reader in ("a", "b")
        ]  # fmt: skip
        site.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=f"twice {n}")

    read_twice(FEWEST_DOUBLE_READINGS - 1)
    assert read_situation(site, FOUND, at=AT).label_noise is None
    read_twice(FEWEST_DOUBLE_READINGS)
    assert read_situation(site, FOUND, at=AT).label_noise == pytest.approx(0.5)
