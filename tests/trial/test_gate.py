"""A challenger passes only if its site gains and nobody else loses, on patients that no model has seen."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from platform_core.learn.registry import find
from platform_core.manifest.serving import change_serving, current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import record_row
from platform_core.trial.gate import judge
from platform_core.trial.weigh import GateVerdict
from tests.trial.conftest import AT
from tests.trial.test_rollout import add_version

PlantScores = Callable[..., list[str]]
TrainOn = Callable[[int, Sequence[tuple[str, str]]], None]


def verdict_on(workspace: Workspace, site: str, keys: Sequence[str]) -> GateVerdict:
    champion, challenger = find(workspace, "lesion@1"), find(workspace, "lesion@2")
    return judge(workspace, "lesion", champion=champion, challenger=challenger, site=site, keys=keys)


def outcomes(verdict: GateVerdict) -> dict[str, str]:
    return {site.site: site.outcome for site in verdict.sites}


BETTER, SAME, WORSE = ({"lesion@1": 1.5, "lesion@2": d} for d in (3.0, 1.5, 0.5))


def test_a_better_challenger_passes(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, BETTER)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, BETTER)
    verdict = verdict_on(served, "south", keys)
    assert verdict.passed
    assert outcomes(verdict) == {"north": "holds", "south": "gains", "east": "gains"}


def test_a_challenger_that_is_no_better_is_refused(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, SAME)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, SAME)
    verdict = verdict_on(served, "south", keys)
    assert not verdict.passed
    assert outcomes(verdict) == {"north": "holds", "south": "fails", "east": "holds"}
    assert "south" in verdict.because


def test_a_challenger_that_another_site_pays_for_is_refused(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, BETTER)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, WORSE)
    verdict = verdict_on(served, "south", keys)
    assert not verdict.passed
    assert outcomes(verdict)["east"] == "fails"
    assert "east" in verdict.because


def test_a_site_that_cannot_tell_stops_the_challenger(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, BETTER)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, SAME, n_positive=4)
    verdict = verdict_on(served, "south", keys)
    assert not verdict.passed
    assert outcomes(verdict)["east"] == "not_evaluable"
    assert "10 patients of each class" in verdict.because


def test_nothing_predicted_is_not_evaluable(served: Workspace) -> None:
    verdict = verdict_on(served, "south", [])
    assert not verdict.passed
    assert set(outcomes(verdict).values()) == {"not_evaluable"}


def test_only_the_named_series_of_the_asking_site_count(served: Workspace, plant_scores: PlantScores) -> None:
    plant_scores("south", 300, WORSE, period=0)
    keys = plant_scores("south", 200, BETTER, period=1)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, SAME)
    verdict = verdict_on(served, "south", keys)
    assert verdict.passed
    south = next(site for site in verdict.sites if site.site == "south")
    assert 150 < south.n_patients <= 200


def test_patients_that_a_model_was_trained_on_are_no_evidence(
    served: Workspace, plant_scores: PlantScores, train_on: TrainOn
) -> None:
    keys = plant_scores("south", 100, BETTER)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, SAME)
    train_on(2, [("south", key) for key in keys[:60]])
    train_on(1, [("south", key) for key in keys[60:75]])
    south = next(site for site in verdict_on(served, "south", keys).sites if site.site == "south")
    assert south.n_patients <= 25


def test_scans_of_unknown_patients_are_no_evidence(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, BETTER, patient_known=False)
    plant_scores("north", 200, SAME)
    plant_scores("east", 200, SAME)
    assert outcomes(verdict_on(served, "south", keys))["south"] == "not_evaluable"


def test_patients_of_the_train_part_are_no_evidence(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 1000, BETTER)
    south = next(site for site in verdict_on(served, "south", keys).sites if site.site == "south")
    assert 950 < south.n_patients < 1000


def test_a_site_without_a_serving_cannot_ask(served: Workspace, plant_scores: PlantScores) -> None:
    for site in ("north", "south", "east"):
        plant_scores(site, 200, SAME)
    verdict = verdict_on(served, "west", [])
    assert not verdict.passed
    assert "west is not served" in verdict.because


def test_a_verdict_is_json(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, BETTER)
    told = json.loads(json.dumps(verdict_on(served, "south", keys).to_json(), allow_nan=False))
    assert told["challenger"] == "lesion@2"
    south = next(site for site in told["sites"] if site["site"] == "south")
    assert south["log_loss_gain"]["low"] == pytest.approx(south["log_loss_gain"]["low"])
    assert south["log_loss_gain"]["low"] > 0


def test_a_person_whom_a_model_saw_under_another_key_is_no_evidence(
    served: Workspace, plant_scores: PlantScores, train_on: TrainOn
) -> None:
    """The same image lies under both keys, at two sites."""
    for site in ("north", "east"):
        plant_scores(site, 200, SAME)
    before = plant_scores("south", 100, BETTER, period=0, volume_sha256=None)
    assert evaluated_at(served, "south", before) > 95
    seen = plant_scores("north", 1, SAME, period=5, volume_sha256="same image")
    again = plant_scores("south", 1, BETTER, period=5, volume_sha256="same image")
    n = evaluated_at(served, "south", [*before, *again])
    train_on(2, [("north", key) for key in seen])
    assert evaluated_at(served, "south", [*before, *again]) == n - 1


def test_a_person_with_two_keys_is_one_patient(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 100, BETTER)
    alone = evaluated_at(served, "south", keys)
    twins = [
        *plant_scores("south", 1, BETTER, period=6, volume_sha256="one"),
        *plant_scores("south", 2, BETTER, period=7, volume_sha256="one"),
    ]
    assert evaluated_at(served, "south", [*keys, *twins]) == alone + 1


def test_a_site_is_compared_with_what_it_runs_now(served: Workspace, plant_scores: PlantScores) -> None:
    """South runs an adaptation that is better than the champion, and than the challenger."""
    add_version(served, 3, alias="adapted")
    scores = {"lesion@1": 0.5, "lesion@2": 1.5, "lesion@3": 3.0}
    keys = plant_scores("south", 200, scores)
    for site in ("north", "east"):
        plant_scores(site, 200, SAME)
    assert verdict_on(served, "south", keys).passed
    serving = current_serving(served, "south", "lesion")
    assert serving is not None
    change_serving(served, replace(serving, model="lesion@3"), decision_key=None, at=AT, run="run")
    verdict = verdict_on(served, "south", keys)
    assert not verdict.passed
    assert outcomes(verdict)["south"] == "fails"


def test_every_judged_challenger_makes_the_next_one_pay_more(served: Workspace, plant_scores: PlantScores) -> None:
    keys = plant_scores("south", 200, SAME)
    for site in ("north", "east"):
        plant_scores(site, 200, SAME)
    first = verdict_on(served, "south", keys)
    assert first.number == 1
    for challenger, alpha in (("lesion@7", 0.03), ("lesion@8", None), ("lesion@2", 0.01)):
        gate = {"gate": {"challenger": challenger, "alpha": alpha}}
        row = {"site": "south", "decision_key": challenger, "decided_at": AT, "target": "lesion", "action": "fine_tune"}
        row |= {"status": "refused", "evidence": json.dumps(gate), "run": "run"}
        record_row(served, row)
    assert verdict_on(served, "south", keys).number == 2  # one that was not evaluable, and this one, do not count


def evaluated_at(workspace: Workspace, site: str, keys: Sequence[str]) -> int:
    return next(v for v in verdict_on(workspace, site, keys).sites if v.site == site).n_patients
