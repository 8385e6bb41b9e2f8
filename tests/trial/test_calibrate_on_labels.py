"""Scale and offset are fitted to a site's labels, judged by patients who had no part in the fit, and served there."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core import layout
from platform_core.learn import registry
from platform_core.learn.calibrate import fit_calibration
from platform_core.manifest.schemas import FINDING, SERVING
from platform_core.manifest.serving import Calibration, Serving, change_serving, current_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import decisions, record_decision
from platform_core.settings import SplitSettings
from platform_core.shift.risk import Estimate, Reals, auroc, log_loss
from platform_core.shift.scores import ScoredScans
from platform_core.storage.tables import rows_of
from platform_core.trial.before_after import risk_at
from platform_core.trial.calibrate import calibrate, judging_pairs, too_few
from platform_core.trial.case import Case, finding_of
from platform_core.trial.expiry import renew_or_end
from platform_core.trial.paired import Pairs, Unseen
from platform_core.trial.recalibrate import Recalibration, by_labels_alone
from platform_core.trial.rollout import finish_rollouts, limit_of, with_model
from tests.trial.conftest import AT, EVEN

PlantScores = Callable[..., list[str]]


def scans(n: int, scale: float, prevalence: float, seed: int = 0) -> ScoredScans:
    """Scores that are `scale` times too sure of themselves: log likelihood ratios of N(+-1, 1), scaled."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(np.float64)
    score = scale * 2 * rng.normal(np.where(y == 1, 1.0, -1.0), 1.0)
    keys = np.array([f"{seed}-{i}" for i in range(n)])
    return ScoredScans(keys, keys, np.ones(n, dtype=bool), y, score, np.empty((n, 0)))


def judged_pairs(fitting: ScoredScans, held_out: ScoredScans) -> Pairs:
    fitted = fit_calibration(fitting.score, fitting.y, EVEN)
    return judging_pairs(fitting, held_out, EVEN, fitted, n_folds=5)


@pytest.mark.parametrize(("scale", "prevalence"), [(3.0, 0.5), (1.0, 0.15), (3.0, 0.8)])
def test_what_is_wrong_with_scores_is_found_and_passes(scale: float, prevalence: float) -> None:
    fitting, held_out = scans(1000, scale, prevalence), scans(1000, scale, prevalence, seed=1)
    fitted = fit_calibration(fitting.score, fitting.y, EVEN)
    assert fitted.scale == pytest.approx(1 / scale, rel=0.2)
    assert fitted.logit_offset == pytest.approx(np.log(prevalence / (1 - prevalence)), abs=0.25)
    assert fitted.prevalence == pytest.approx(prevalence, abs=0.04)
    judged = by_labels_alone(judged_pairs(fitting, held_out))
    assert judged.passed
    assert judged.has_labels


def test_where_nothing_is_wrong_it_seldom_passes_and_never_does_harm() -> None:
    n_passed, rises = 0, []
    for seed in range(60):
        fitting, held_out, others = (scans(n, 1.0, 0.5, seed=3 * seed + k) for k, n in enumerate((60, 40, 2000)))
        judged = by_labels_alone(judged_pairs(fitting, held_out))
        n_passed += judged.passed
        fitted = fit_calibration(fitting.score, fitting.y, EVEN)
        rises.append(judged.passed * (loss(others, fitted) - loss(others, EVEN)))
    assert n_passed <= 0.25 * 60  # a gain of a standard error: 16 % where there is none
    assert np.mean(rises) < 0.005
    assert max(rises) < 0.05


def loss(part: ScoredScans, calibration: Calibration) -> float:
    return log_loss(part.y, calibration.probability(part.score))


def test_nobody_is_judged_by_a_calibration_that_was_fitted_to_him() -> None:
    """Turning one patient's label turns his own loss alone: nothing else about his judgement may move."""
    fitting, held_out = scans(60, 2.0, 0.5), scans(40, 2.0, 0.5, seed=1)
    before = judged_pairs(fitting, held_out)
    turned = fitting.y.copy()
    turned[7] = 1 - turned[7]
    after = judged_pairs(replace(fitting, y=turned), held_out)
    assert after.after[7] == before.after[7]
    assert not np.array_equal(after.after, before.after)


def test_ranks_stay_even_where_scores_are_upside_down() -> None:
    found = scans(200, 1.0, 0.3)
    fitted = fit_calibration(-found.score, found.y, EVEN)
    assert auroc(found.y, fitted.probability(-found.score)) == auroc(found.y, -found.score) < 0.2


def test_labels_count_by_the_inverse_of_their_chance() -> None:
    found = scans(4000, 1.0, 0.3)
    is_asked = (found.y == 1) | (np.arange(4000) % 4 == 0)
    asked, weight = found.where(is_asked), np.where(found.y == 1, 1.0, 4.0)[is_asked]
    plain, weighed = (fit_calibration(asked.score, asked.y, EVEN, each) for each in (None, weight))
    assert weighed.prevalence == pytest.approx(0.3, abs=0.03)
    assert weighed.logit_offset == pytest.approx(np.log(3 / 7), abs=0.2)
    assert plain.prevalence > 0.5


@pytest.mark.parametrize(("n", "n_positive", "is_few"), [(20, 5, False), (19, 9, True), (60, 4, True), (60, 57, True)])
def test_few_labels_fit_nothing(n: int, n_positive: int, *, is_few: bool) -> None:
    y = (np.arange(n) < n_positive).astype(np.float64)
    assert (too_few(y, np.array([str(i) for i in range(n)])) is not None) == is_few


@pytest.fixture
def half_kept(served: Workspace) -> Workspace:
    """Half of the patients are for evaluation."""
    file = Path(served.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8").replace("evaluation = 0.98", "evaluation = 0.5"), encoding="utf-8")
    return open_workspace(served.uri)


def case_of(workspace: Workspace, keys: list[str]) -> Case:
    days = {"period_start": AT.date(), "period_end": AT.date()}
    finding = {"site": "south", "finding_key": "f", "stratum": "CT", "target": "lesion", "model": "lesion@1"}
    row = finding | days | {"kind": "covariate_acquisition", "explained_by": "noise", "size": 0.3, "run": "run"}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction="f")
    return Case(
        uri=workspace.uri,
        site="south",
        target="lesion",
        finding_key="f",
        headline="",
        keys=tuple(keys),
        run="run",
        at=AT,
    )


CALIBRATE = Decision(action="calibrate", because="labels can say how far scores are to be believed", rule="scores")


def test_a_site_s_scores_are_believed_as_far_as_its_labels_say(half_kept: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 300, {"lesion@1": 2.0}, n_positive=60)
    case = case_of(half_kept, keys)
    others = {site: current_serving(half_kept, site, "lesion") for site in ("north", "east")}
    calibrate(case, CALIBRATE)
    (told,) = decisions(half_kept).to_pylist()
    assert told["status"] == "done"
    assert "log-loss falls by" in told["because"]
    assert case.serving.calibration.prevalence == pytest.approx(0.2, abs=0.05)
    assert case.serving.until is None
    assert {site: current_serving(half_kept, site, "lesion") for site in others} == others


def test_a_site_whose_labels_show_no_gain_keeps_what_it_runs(half_kept: Workspace, plant_scores: PlantScores) -> None:
    case = case_of(half_kept, plant_scores("south", 300, {"lesion@1": 2.0}))
    before = case.serving
    calibrate(case, CALIBRATE)
    (told,) = decisions(half_kept).to_pylist()
    assert told["status"] == "refused"
    assert "standard error" in told["because"] or "gets worse" in told["because"]
    assert case.serving == before


def test_a_model_that_has_learned_from_all_labels_is_fitted_to_none(
    half_kept: Workspace, plant_scores: PlantScores, train_on: Callable[..., None]
) -> None:
    keys = plant_scores("south", 300, {"lesion@1": 2.0}, n_positive=60)
    train_on(1, [("south", key) for key in keys])
    case = case_of(half_kept, keys)
    calibrate(case, CALIBRATE)
    (told,) = decisions(half_kept).to_pylist()
    assert told["status"] == "refused"
    assert "0 labelled patients outside the evaluation part" in told["because"]


FIT = Calibration(logit_offset=-2.0, prevalence=0.2, threshold=0.5, scale=0.4)


def serving_now(workspace: Workspace, site: str = "south") -> Serving:
    found = current_serving(workspace, site, "lesion")
    assert found is not None
    return found


def serve(workspace: Workspace, **news: Any) -> Serving:
    wanted = replace(serving_now(workspace), **news)
    return change_serving(workspace, wanted, decision_key=None, at=AT, run="run")


def test_what_labels_said_of_scores_goes_on_under_a_model_that_was_not_made_for_the_site(served: Workspace) -> None:
    champion, other = (registry.find(served, f"lesion@{version}") for version in (1, 2))
    fitted = replace(serving_now(served), calibration=FIT)
    for_east, for_south = (replace(other, training={"site": site}) for site in ("east", "south"))
    assert with_model(fitted, other).calibration == with_model(fitted, for_east).calibration == FIT
    assert with_model(fitted, for_south).calibration == champion.calibration.moved_to(0.2)


def test_a_fit_that_labels_confirmed_outlives_a_recipe_that_was_served_for_a_time(served: Workspace) -> None:
    serve(served, calibration=FIT, until=None)
    serve(served, recipe="r2", until=AT)
    assert renew_or_end(served, "south", "lesion", run="r", at=AT + timedelta(days=1)) is not None
    after = serving_now(served)
    assert (after.recipe, after.calibration, after.until) == ("r1", FIT, None)


def test_labels_that_confirm_a_fit_confirm_nothing_beside_it(served: Workspace) -> None:
    ends, kept = AT + timedelta(days=30), ("model", "recipe")
    assert limit_of(served, serving_now(served), AT, has_labels=True, kept=kept) is None
    on_trial = serve(served, recipe="r2", until=ends)
    assert limit_of(served, on_trial, AT, has_labels=True, kept=kept) == ends
    assert limit_of(served, on_trial, AT, has_labels=False, kept=kept) == ends
    own = serve(served, recipe="r1", calibration=FIT, until=ends)
    assert limit_of(served, own, AT, has_labels=True, kept=kept) is None
    assert limit_of(served, own, AT, has_labels=False, kept=kept) == AT + timedelta(days=90)


def test_a_fit_that_may_be_chance_is_served_for_a_time(
    half_kept: Workspace, plant_scores: PlantScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(half_kept, plant_scores("south", 300, {"lesion@1": 2.0}))
    chance = Recalibration(passed=True, because="perhaps", log_loss_gain=Estimate(0.02, -0.01, 0.05))
    monkeypatch.setattr("platform_core.trial.calibrate.by_labels_alone", lambda _: chance)
    calibrate(case, CALIBRATE)
    assert case.serving.until == AT + timedelta(days=90)


def test_a_fit_that_was_served_and_not_written_down_is_told_by_the_next_run(
    half_kept: Workspace, plant_scores: PlantScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(half_kept, plant_scores("south", 300, {"lesion@1": 2.0}, n_positive=60))
    row = finding_of(case)
    record_decision(
        half_kept,
        CALIBRATE,
        finding=row,
        status="proposed",
        serving_before=case.serving,
        serving_after=None,
        evidence=None,
        run="run",
        at=AT,
    )
    monkeypatch.setattr("platform_core.trial.calibrate.settle", killed)
    with pytest.raises(KeyboardInterrupt):
        calibrate(case, CALIBRATE)
    (told,) = finish_rollouts(half_kept, "lesion", run="next", at=AT)
    assert told.startswith("south: calibrate was cut off")
    (row,) = decisions(half_kept).to_pylist()
    assert (row["status"], row["serving_after"]) == ("done", case.serving.to_json())
    assert finish_rollouts(half_kept, "lesion", run="again", at=AT) == []


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_person_with_a_key_in_either_part_neither_fits_nor_judges() -> None:
    split = SplitSettings()
    keys = [f"p{i}" for i in range(60)]
    kept = [key for key in keys if part_of(key, split) == "evaluation"]
    free = [key for key in keys if key not in kept]
    both = frozenset({kept[0], free[0]})
    unseen = Unseen(seen=frozenset({free[1]}), persons=dict.fromkeys(both, both), split=split)
    assert [unseen.name_of(key) for key in (kept[0], free[0], free[1], kept[1])] == [None, None, None, kept[1]]
    assert [unseen.name_to_fit(key) for key in (kept[0], free[0], free[1], free[2])] == [None, None, None, free[2]]


def test_a_serving_of_an_older_workspace_believes_scores_as_they_come(served: Workspace) -> None:
    row = served.lake.read(layout.SERVING).to_pylist()[0]
    calibration = json.loads(row["calibration"])
    del calibration["scale"]
    news = {"epoch": row["epoch"] + 1, "calibration": json.dumps(calibration)}
    served.lake.append(layout.SERVING, rows_of(SERVING, [row | news]), transaction="old")
    assert serving_now(served, row["site"]).calibration == EVEN


def test_two_hospitals_are_compared_at_one_mix() -> None:
    """Where classes score as in the reference, risk at any prevalence is the reference's at that prevalence."""
    reference = scans(4000, 1.0, 0.3)
    for prevalence in (0.1, 0.6):
        site = scans(4000, 1.0, prevalence, seed=1)
        there = EVEN.moved_to(prevalence)
        found = risk_at(reference.score, reference.y, EVEN, prevalence)
        assert found is not None
        assert found.low < loss(site, there) < found.high
        assert not found.low < loss(reference, EVEN.moved_to(0.3)) < found.high


def brute(score: Reals, y: Reals) -> tuple[float, float]:
    """Scale and offset by trying."""
    scales, offsets = np.exp(np.linspace(-2, 2, 161)), np.linspace(-3, 3, 241)
    z = scales[:, None, None] * score + offsets[None, :, None]
    cost = np.logaddexp(0, -np.where(y == 1, z, -z)).sum(axis=2)
    cost += 0.5 * np.log(scales)[:, None] ** 2 + 0.5 * offsets[None] ** 2
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    return float(scales[i]), float(offsets[j])


def test_the_fit_is_the_likeliest_under_its_prior() -> None:
    found = scans(80, 2.0, 0.3)
    fitted = fit_calibration(found.score, found.y, EVEN)
    scale, offset = brute(found.score, found.y)
    assert fitted.scale == pytest.approx(scale, rel=0.03)
    assert fitted.logit_offset == pytest.approx(offset, abs=0.03)


def test_a_gain_that_may_be_chance_must_not_cost_decisions() -> None:
    """Log-loss falls by more than its standard error, and one more patient is called wrongly."""
    y = np.tile([1.0, 0.0], 30)
    before, after = np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.79, 0.21)
    before[50:55:2], after[50:55:2] = 0.05, 0.4
    before[58], after[58] = 0.52, 0.48  # a positive that is no longer called
    pairs = Pairs(patients=tuple(map(str, range(60))), y=y, before=before, after=after)
    judged = by_labels_alone(pairs)
    assert judged.log_loss_gain is not None
    assert judged.log_loss_gain.low < 0 < judged.log_loss_gain.value
    assert not judged.passed
    assert "net benefit falls by 0.017" in judged.because
    after[58] = 0.51
    assert by_labels_alone(replace(pairs, after=after)).passed
