"""A segmentation from masks to a champion: trained, predicted, fine-tuned for another site, judged by Dice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from platform_core import layout
from platform_core.learn.predict import predict_shard
from platform_core.learn.registry import champion, promote
from platform_core.learn.train import fine_tune, gather, train_source
from platform_core.manifest.serving import Serving, change_serving
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.policy.decide import Decision
from platform_core.policy.situation import Situation
from platform_core.settings import PolicySettings
from platform_core.shift.risk import Estimate
from platform_core.shift.scores import score_rows
from platform_core.trial.gate import judge
from platform_core.trial.masked import in_overlap, overlap_risk, with_overlap
from platform_core.trial.overlap import OverlapPairs, judge_overlaps, overlaps_of
from platform_core.trial.weigh import Seeds
from tests.trial.planted_masks import AT, make_workspace, mask, plant

RULES = PolicySettings()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_segmentation_is_trained_adapted_to_a_second_site_and_promoted(workspace: Workspace, tmp_path: Path) -> None:
    here = make_workspace(workspace)
    recipes = {"north": plant(here, "north", 64, tmp_path / "n", disc_hu=80.0)}
    recipes["south"] = plant(here, "south", 64, tmp_path / "s", disc_hu=20.0, recipe=recipes["north"])
    for site, folder in (("north", "n"), ("south", "s")):
        count = mask(here, site, tmp_path / folder)
        assert (count.n_taken, count.n_empty, count.refused) == (64, 6, ())
    first = train_source(here, "disc", run="r1", at=AT)
    assert (first.alias, first.metrics["north"]["n_left_out"]) == ("champion", 0)
    servings = {site: _serve(here, site, first.name, recipe) for site, recipe in recipes.items()}
    _assert_marks_well(here, servings["north"])
    assert overlaps_of(here, servings["south"]).dice.mean() < 0.3
    _assert_predicted(here, servings["north"])

    keys = current_series(here, "south").column("series_key").to_pylist()
    material = gather(here, "disc", "south", keys=keys, recipe=recipes["south"])
    partial = fine_tune(here, material, "partial", run="r2", at=AT)
    refused = judge(here, "disc", champion=first, challenger=first, site="south", keys=keys)
    assert not refused.passed
    assert "no gain beyond chance" in refused.because
    passed = judge(here, "disc", champion=first, challenger=partial, site="south", keys=keys)
    assert passed.passed, passed.because
    assert {verdict.site for verdict in passed.sites} == {"north", "south"}
    south = next(verdict for verdict in passed.sites if verdict.site == "south")
    assert south.dice_gain is not None
    assert south.dice_gain.low > 0.3
    promote(here, partial, over=first, run="r2", at=AT)
    assert champion(here, "disc").name == partial.name  # type: ignore[union-attr]
    before, after = (overlap_risk(here, replace(servings["south"], model=m.name), keys) for m in (first, partial))
    assert before is not None
    assert after is not None
    assert before.overlap_loss.low > after.overlap_loss.high  # type: ignore[union-attr]
    assert after.log_loss is None
    _assert_decided_by_dice(here, servings["south"], keys)


def _serve(workspace: Workspace, site: str, model: str, recipe: str) -> Serving:
    ref = champion(workspace, "disc")
    assert ref is not None
    serving = Serving(site=site, target="disc", model=model, recipe=recipe, calibration=ref.calibration, epoch=-1)
    return change_serving(workspace, serving, decision_key=None, at=AT, run="run")


def _assert_marks_well(workspace: Workspace, serving: Serving) -> None:
    """Far better than marking every voxel: a disc of 6 mm fills 26 % of 22 x 20 mm, so that gives at most 0.41."""
    found = overlaps_of(workspace, serving)
    assert len(found.dice) >= 15
    assert found.dice[found.y == 1].mean() > 0.7


def _assert_predicted(workspace: Workspace, serving: Serving) -> None:
    """Scores of whole scans tell those with a disc from those without, and embeddings are there."""
    keys = current_series(workspace, serving.site).column("series_key").to_pylist()
    count = predict_shard(
        workspace, serving.site, keys, target="disc", model=serving.model, recipe=serving.recipe, run="r"
    )
    assert (count.n_done, count.n_refused) == (64, 0)
    scans = score_rows(workspace, serving.site, "disc", serving.model, serving.recipe)
    assert scans.embedding.shape == (64, 64)
    assert scans.score[scans.y == 1].mean() > scans.score[scans.y == 0].mean() + 1
    row = workspace.lake.read(layout.PREDICTION).to_pylist()[0]
    assert sum(row["probability"]) == pytest.approx(1)


def _assert_decided_by_dice(workspace: Workspace, serving: Serving, keys: list[str]) -> None:
    """The source's own Dice is what is accepted; a site where nothing is found does harm, and scores do not matter."""
    seen = Situation(
        kind="covariate_acquisition",
        n_patients=64,
        min_patients=60,
        n_labels=64,
        min_labels=60,
        cool_down_days=28,
        target_risk=Estimate(0.1, 0.0, 0.2),
        accepted_risk=Estimate(9.0, 8.0, 9.9),
    )
    told = with_overlap(workspace, "disc", seen, overlap_risk(workspace, serving, keys))
    assert told.accepted_risk is not None
    assert told.accepted_risk.high < 0.3
    assert told.is_worse


def pairs(before: float, after: float, n: int = 40, n_empty: int = 0) -> OverlapPairs:
    """Patients whose Dice lies about two values."""
    noise = np.random.default_rng(0).normal(0, 0.05, (2, n))
    y = np.arange(n) >= n_empty
    return OverlapPairs(
        tuple(f"p{i}" for i in range(n)), y.astype(float), before + noise[0], after + noise[1], np.ones(n)
    )


def test_who_gains_dice_passes_if_no_other_site_loses_more_than_the_margin() -> None:
    verdict = judge_overlaps({"south": pairs(0.5, 0.7), "north": pairs(0.8, 0.8, n=400)}, "south", RULES)
    assert verdict.passed
    assert {site.site: site.outcome for site in verdict.sites} == {"south": "gains", "north": "holds"}


def test_a_source_that_forgets_stops_the_challenger() -> None:
    verdict = judge_overlaps({"south": pairs(0.5, 0.7), "north": pairs(0.8, 0.6)}, "south", RULES)
    assert not verdict.passed
    assert "north: Dice changes by -0.18" in verdict.because


@pytest.mark.parametrize("where", ["south", "north"])
def test_a_dice_that_is_not_a_number_refuses_at_every_site(where: str) -> None:
    whole = {"south": pairs(0.5, 0.7), "north": pairs(0.8, 0.8, n=400)}
    after = whole[where].after.copy()
    after[0] = np.nan
    assert judge_overlaps(whole, "south", RULES).passed
    assert not judge_overlaps(whole | {where: replace(whole[where], after=after)}, "south", RULES).passed


def test_a_site_without_enough_marked_patients_cannot_tell() -> None:
    verdict = judge_overlaps({"south": pairs(0.5, 0.7, n_empty=31)}, "south", RULES)
    assert not verdict.passed
    assert verdict.alpha is None
    assert "masks of 9 patients" in verdict.because


def test_later_challengers_must_gain_more_surely_and_a_seed_may_not_make_the_gain() -> None:
    few = {"south": pairs(0.5, 0.56, n=12)}
    assert judge_overlaps(few, "south", RULES).passed
    assert not judge_overlaps(few, "south", RULES, n_challenges=30).passed
    lucky = judge_overlaps({"south": pairs(0.5, 0.7)}, "south", RULES, seeds=Seeds(gain=0.1, sd=0.2))
    assert not lucky.passed
    assert "the seed alone" in lucky.because


def test_a_site_that_is_not_served_cannot_ask() -> None:
    assert "not served" in judge_overlaps({"north": pairs(0.5, 0.7)}, "south", RULES).because


@pytest.mark.parametrize("action", ["recalibrate", "adapt"])
def test_what_trusts_scores_of_whole_scans_is_not_done_and_says_why(action: str) -> None:
    asked = Decision(action=action, because="the share of positives moved", rule="x")  # type: ignore[arg-type]
    told = in_overlap(asked)
    assert told.action == "none"
    assert told.because.startswith("the share of positives moved; but ")


def test_risk_is_told_in_dice() -> None:
    asked = Decision(action="fine_tune", because="excess risk 0.30 nats per scan", rule="x", candidates=("full",))
    assert in_overlap(asked) == replace(asked, because="excess risk 0.30 of 1 - Dice")


def test_scans_that_were_asked_for_more_often_count_less() -> None:
    """Half of the scans, those that gain, were three times as likely to be asked for."""
    gains = np.tile([0.3, 0.0], 50)
    chance = np.tile([0.9, 0.3], 50)
    patients = tuple(f"p{i}" for i in range(100))
    before = np.full(100, 0.5)
    pairs = OverlapPairs(patients, np.ones(100), before, before + gains, 1 / chance)
    assert pairs.gain().value == pytest.approx(0.3 * 0.25)
    even = OverlapPairs(patients, np.ones(100), before, before + gains, np.ones(100))
    assert even.gain().value == pytest.approx(0.15)
    assert pairs.chance_of_no_gain() > even.chance_of_no_gain()
