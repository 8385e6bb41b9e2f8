"""The leave-one-out experiment: nobody is on both sides, and what cannot be told is not told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from platform_core.harmonize.recipe import fit_recipe
from platform_core.settings import PolicySettings, TrainSettings
from platform_core.shift.risk import Estimate
from platform_core.trial.evaluation import Answers, evaluate
from tests.benchmarks import leave_one_out as experiment
from tests.benchmarks.leave_one_out import (
    Answer,
    Images,
    _one_each,
    answers_of,
    arms_of,
    halves_of,
    measured,
    parts_of,
    policy_of,
    read_images,
    source_of,
    table,
)

pytestmark = pytest.mark.usefixtures("one_thread")
COMMITTED = Path(__file__).parent / "data" / "cxr"
WEST, EAST, EAST_TOO, NORTH = "west", "east", "east_too", "north"


def images(n: int = 90) -> Images:
    """Noise with a bright spot in positives: two hospitals with both classes, one of them with two sites, one of
    positives only; two images of each patient, and five patients whom both sites of a hospital have seen."""
    rng = np.random.default_rng(0)
    site = np.repeat([WEST, EAST, EAST_TOO, NORTH], n)
    number = np.tile(np.arange(n) // 2, 4)
    patient = np.array([f"{where}{who}" for where, who in zip(site, number, strict=True)])
    patient[(site == EAST_TOO) & (number < 5)] = [f"{EAST}{who // 2}" for who in range(10)]
    y = np.where(site == NORTH, 1.0, number % 2)
    y[(site == EAST) & (number >= n // 2 - 3)] = np.nan
    pixels = rng.integers(0, 120, (4 * n, 16, 16)).astype(np.uint8)
    pixels[y == 1, 6:10, 6:10] += 100
    hospital = np.where(site == EAST_TOO, EAST, site)
    return Images(site=site, hospital=hospital, patient=patient, y=y, pixels=list(pixels))


@pytest.mark.parametrize("hospital", [WEST, EAST, NORTH])
@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_on_two_sides(hospital: str, seed: int) -> None:
    world = images()
    parts = parts_of(world, hospital, np.random.default_rng(seed))
    here = world.patient[world.hospital == hospital]
    sides = [set(here.tolist()), *(set(world.patient[rows].tolist()) for rows in parts)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert all(sides)
    assert np.isfinite(world.y[np.concatenate(parts)]).all(), "what is trained on has a label"
    for site in set(world.site[world.hospital == hospital].tolist()):
        known, judges = halves_of(world, site, seed)
        assert not set(world.patient[known].tolist()) & set(world.patient[judges].tolist())
        assert set(world.site[np.concatenate([known, judges])].tolist()) == {site}
        assert np.isfinite(world.y[judges]).all()


def test_a_patient_whom_two_hospitals_know_is_not_trained_on() -> None:
    world = images()
    shared = world.patient.copy()
    shared[:4] = shared[world.site == EAST][:4]
    both = replace(world, patient=shared)
    rows = np.concatenate(parts_of(both, EAST, np.random.default_rng(0)))
    assert not {0, 1, 2, 3} & set(rows.tolist())


def test_a_second_collection_of_a_hospital_leaves_with_it() -> None:
    world = images()
    rows = np.concatenate(parts_of(world, EAST, np.random.default_rng(0)))
    assert set(world.site[rows].tolist()) == {WEST, NORTH}


def answer(seed: int, y: np.ndarray, names: list[str]) -> Answer:
    p = np.clip(0.5 * y + np.random.default_rng(seed).uniform(0, 0.6, len(y)), 0.01, 0.99)
    return Answer(patients=tuple(names), y=y, p=p, none=np.full(len(y), 0.5))


def told(answers: list[Answer], name: str) -> Estimate:
    found = measured(answers)[name]
    assert found is not None
    return found


def test_one_seed_tells_what_the_platform_tells_of_a_model() -> None:
    y = np.tile([0.0, 1.0], 40)
    names = [f"p{place // 2}" for place in range(80)]
    one = answer(0, y, names)
    threshold, weight = np.full(80, experiment.THRESHOLD), np.ones(80)
    judged = evaluate(
        "here", Answers(patients=one.patients, y=y, p=one.p, threshold=threshold, weight=weight), experiment.RULES
    )
    found = measured([one])
    fields = {"AUROC": "auroc", "bal. accuracy": "balanced_accuracy", "cal. error": "calibration_error"}
    for name, field in {**fields, "Brier": "brier", "log-loss": "log_loss"}.items():
        assert found[name] == getattr(judged, field)


def test_seeds_are_averaged_and_a_patient_of_several_is_resampled_as_one() -> None:
    y = np.tile([0.0, 1.0], 40)
    names = [f"p{place}" for place in range(80)]
    one, other = answer(0, y, names), answer(1, y, names)
    for name in ("AUROC", "log-loss", "gain"):
        values = [told([each], name).value for each in (one, other)]
        assert told([one, other], name).value == pytest.approx(np.mean(values))
    assert measured([one, one]) == measured([one])


def test_a_site_of_one_class_has_no_auroc_and_still_a_log_loss() -> None:
    here = [answer(0, np.ones(30), [f"p{place}" for place in range(30)])]
    found = measured(here)
    assert [name for name, value in found.items() if value is None] == ["AUROC", "bal. accuracy", "cal. error"]
    log_loss = told(here, "log-loss")
    assert log_loss.low < log_loss.value < log_loss.high


def test_images_of_the_committed_subset_are_read_and_those_of_unknown_patients_told_apart() -> None:
    world = read_images(COMMITTED)
    names, n = np.unique(world.site, return_counts=True)
    assert dict(zip(names.tolist(), n.tolist(), strict=True)) == {
        "GUANGZHOU_GWCMC": 72,
        "HANNOVER_MHH": 1,
        "NIH_CC_tiny": 20,
    }
    assert len(set(world.patient[world.site == "GUANGZHOU_GWCMC"].tolist())) == 72
    assert world.arrays(np.array([0, 92]), fit_recipe(experiment.RECIPE, [], None)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(("only", "sites"), [("east", [EAST, EAST_TOO]), ("north", [NORTH])])
def test_every_arm_of_every_site_has_a_line_and_says_why_it_was_not_run(
    only: str, sites: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "BUDGETS", (14, 1000))
    monkeypatch.setattr(experiment, "CHEAPEST_FIRST", ("linear_probe",))
    monkeypatch.setattr(experiment, "RULES", PolicySettings(min_class_patients=5))
    text = "\n".join(table(images(64), [0], TrainSettings(epochs=1), only=only))
    assert [part.split(":")[0] for part in text.split("\n\n")] == [f"\n{sites[0]}", *sites[1:]]
    for site in sites:
        lines = text.split(f"\n{site}: ")[1].split("\n\n")[0].splitlines()
        rows = {line[2:16].strip(): line for line in lines if line[2:3].strip()}
        assert set(rows) == {
            "none",
            "harmonized",
            "recalibrated",
            "adabn",
            "coral",
            "14 labels",
            "1000 labels",
            "policy",
        }
        assert rows["none"].count("not evaluable") == (3 if site == NORTH else 0)
        for arm, why in {"coral": "needs at least 100", "1000 labels": "labelled patients are known"}.items():
            assert rows[arm].endswith("0 of 1  not run")
            assert why in lines[lines.index(rows[arm]) + 1]
        assert "found undetermined, asks for none" in lines[-1], "16 patients are no verdict"
        assert rows["14 labels"].endswith("not run") == (site == NORTH), "no race without negatives"


def test_what_needs_no_label_is_the_same_whatever_the_labels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "BUDGETS", ())
    world = images(64)
    turned = replace(world, y=np.where(world.site == EAST, 1 - world.y, world.y))
    source = source_of(world, EAST, 0, TrainSettings(epochs=1))
    said = []
    for each in (world, turned):
        known, judges = halves_of(each, EAST, 0)
        arms = arms_of(each, source, known, 0, TrainSettings()) | {
            "policy": policy_of(each, source, _one_each(each, known), 0).served
        }
        said.append(answers_of(each, judges, arms))
    assert said[0].keys() == {"none", "harmonized", "recalibrated", "adabn", "coral", "policy"}
    for one, other in zip(said[0].values(), said[1].values(), strict=True):
        if isinstance(one, Answer) and isinstance(other, Answer):
            assert one.p.tolist() == other.p.tolist()
            assert one.y.tolist() == (1 - other.y).tolist()
        else:
            assert one == other
