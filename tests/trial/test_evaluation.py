"""How good a model is, per site and pooled: against formulas, with what cannot be told left out."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from platform_core.manifest.workspace import Workspace
from platform_core.settings import PolicySettings
from platform_core.shift.risk import auroc, balanced_error, brier, log_loss
from platform_core.trial.evaluation import METRICS, POOLED, Answers, evaluate, evaluate_model, joined

PlantScores = Callable[..., list[str]]
TrainOn = Callable[[int, Sequence[tuple[str, str]]], None]
RULES = PolicySettings()


def answers(n: int = 200, seed: int = 0, threshold: float = 0.4) -> Answers:
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 3 == 0).astype(np.float64)
    p = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, 1, n))))
    return Answers(
        patients=tuple(f"{seed}-{i // 2}" for i in range(n)),
        y=y,
        p=p,
        threshold=np.full(n, threshold),
        weight=np.ones(n),
    )


def test_every_metric_is_its_formula() -> None:
    some = answers()
    found = evaluate("south", some, RULES)
    y, p = some.y, some.p
    called = p >= 0.4
    cut = np.sort(p[y == 0])
    n_below = int(np.ceil(0.9 * len(cut)))
    threshold = p[p > cut[n_below - 1]].min()  # the least value above nine tenths of the negatives
    expected = {
        "auroc": auroc(y, p),
        "balanced_accuracy": 1 - balanced_error(y, p, 0.4),
        "sensitivity": called[y == 1].mean(),
        "specificity": (~called)[y == 0].mean(),
        "sensitivity_at_specificity": (p[y == 1] >= threshold).mean(),
        "brier": brier(y, p),
        "log_loss": log_loss(y, p),
    }
    for name, value in expected.items():
        told = getattr(found, name)
        assert told.value == pytest.approx(value)
        assert told.low < told.value < told.high
    assert (found.n_scans, found.n_patients, found.n_positive) == (200, 100, 67)


def test_the_calibration_error_of_a_skewed_model_is_found_and_of_a_right_one_may_be_nothing() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, 2000)
    y = (rng.random(2000) < p).astype(np.float64)
    for shift, low, high in ((0.0, 0.0, 0.03), (0.15, 0.10, 0.20)):
        some = Answers(
            patients=tuple(map(str, range(2000))),
            y=y,
            p=np.clip(p + shift, 0, 1),
            threshold=np.full(2000, 0.5),
            weight=np.ones(2000),
        )
        found = evaluate("south", some, RULES).calibration_error
        assert found is not None
        assert low <= found.low <= found.value <= found.high
        assert found.value <= high


def test_too_few_of_a_class_is_not_evaluable() -> None:
    some = answers(27)  # 9 positive scans
    found = evaluate("south", some, RULES)
    assert all(getattr(found, name) is None for name in METRICS)
    assert set(found.told.values()) >= {"not evaluable", 27}
    assert evaluate("south", answers(0), RULES).n_scans == 0


def test_pooled_a_patient_of_two_sites_is_one() -> None:
    pooled = evaluate(POOLED, joined([answers(60), answers(60), answers(60, seed=1)]), RULES)
    assert (pooled.n_scans, pooled.n_patients) == (180, 60)


def test_every_site_keeps_its_own_threshold_when_pooled() -> None:
    parts = [answers(90, threshold=0.2), answers(90, seed=1, threshold=0.8)]
    pooled = evaluate(POOLED, joined(parts), RULES)
    right = [((part.p >= part.threshold)[part.y == 1]) for part in parts]
    assert pooled.sensitivity is not None
    assert pooled.sensitivity.value == pytest.approx(np.concatenate(right).mean())


def test_a_model_is_told_at_every_site_that_is_served_and_pooled(
    served: Workspace, plant_scores: PlantScores, train_on: TrainOn
) -> None:
    keys = plant_scores("south", 200, {"lesion@1": 2.0})
    plant_scores("north", 200, {"lesion@1": 2.0})
    train_on(1, [("south", key) for key in keys[:100]])
    found = {each.site: each for each in evaluate_model(served, "lesion@1")}
    assert list(found) == ["east", "north", "south", POOLED]
    assert found["east"].n_patients == 0
    assert found["east"].auroc is None
    assert 190 < found["north"].n_patients <= 200
    assert found["south"].n_patients <= 100
    assert found[POOLED].n_patients == sum(found[site].n_patients for site in ("north", "south"))
    area = found["north"].auroc
    assert area is not None
    assert area.low < 0.921 < area.high  # the area of two normals 2 apart is Phi(2 / sqrt 2)


def test_an_evaluation_is_json(served: Workspace, plant_scores: PlantScores) -> None:
    plant_scores("south", 200, {"lesion@1": 2.0})
    told = json.loads(json.dumps([each.facts for each in evaluate_model(served, "lesion@1")], allow_nan=False))
    south = next(each for each in told if each["site"] == "south")
    assert len(south["auroc"]) == 3
    assert next(each for each in told if each["site"] == "east")["auroc"] is None
