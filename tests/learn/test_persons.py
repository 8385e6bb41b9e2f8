"""Nobody is trained on who is evaluated on, under whatever identifiers the scans came."""

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import EmptySample
from platform_core.learn.data import find_scans, in_part
from platform_core.learn.persons import PARTS, find_persons, is_in_part, joined, person_of
from platform_core.learn.registry import trained_on
from platform_core.learn.train import train_source
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace
from platform_core.settings import SplitSettings

Plant = Callable[..., list[str]]
Choose = Callable[[str, int], list[str]]

AT = datetime(2026, 3, 1, tzinfo=UTC)
SPLIT = SplitSettings(evaluation=0.34, validation=0.33)
PATIENTS = st.integers(0, 14).map("p{}".format)
PLANTED = st.lists(st.tuples(PATIENTS, st.integers(0, 9)), min_size=1, max_size=40)
"""Patients, each with the number of an image: the same number is the same image."""


def pairs_of(planted: list[tuple[str, int]]) -> list[tuple[str, str]]:
    """As the query finds them."""
    return [(a, min(b for b, i in planted if i == image)) for a, image in planted]


@given(PLANTED)
def test_no_image_and_no_patient_is_in_two_parts(planted: list[tuple[str, int]]) -> None:
    persons = joined((a, b) for a, b in pairs_of(planted) if a != b)
    part_of_image: dict[int, set[str]] = {}
    part_of_patient: dict[str, set[str]] = {}
    for patient, image in planted:
        for part in PARTS:
            if is_in_part(person_of(patient, persons), patient, part, SPLIT):
                part_of_image.setdefault(image, set()).add(part)
                part_of_patient.setdefault(patient, set()).add(part)
    assert all(len(parts) == 1 for parts in (*part_of_image.values(), *part_of_patient.values()))


@given(PLANTED)
def test_what_is_evaluated_on_is_so_whoever_else_has_it(planted: list[tuple[str, int]]) -> None:
    """The gate goes by the patient's own key; a planted copy must take nobody away from it."""
    persons = joined((a, b) for a, b in pairs_of(planted) if a != b)
    for patient, _ in planted:
        is_evaluated = is_in_part(person_of(patient, persons), patient, "evaluation", SPLIT)
        assert is_evaluated == (part_of(patient, SPLIT) == "evaluation")


@given(PLANTED)
def test_persons_are_the_connected_groups(planted: list[tuple[str, int]]) -> None:
    """Against a search from every patient along shared images."""
    persons = joined((a, b) for a, b in pairs_of(planted) if a != b)
    for patient, _ in planted:
        reached, fresh = {patient}, {patient}
        while fresh:
            images = {image for who, image in planted if who in fresh}
            fresh = {who for who, image in planted if image in images} - reached
            reached |= fresh
        assert person_of(patient, persons) == reached


def test_a_copy_of_an_evaluated_scan_is_not_trained_on(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    train, (judged,) = patients_in("train", 25), patients_in("evaluation", 1)
    plant("north", 24, patients=train[:24])
    plant("north", 1, patients=train[24:], volume_sha256="same")  # e.g. sent again under a new pseudonym
    plant("south", 1, patients=[judged], volume_sha256="same")
    made = train_source(with_target, "lesion", run="run", at=AT, recipe="r1")
    assert {key for _, key in trained_on(with_target, made)} == {f"north-s{name}" for name in train[:24]}
    assert made.metrics["north"]["n_left_out"] == 1


def test_all_other_scans_of_such_a_patient_stay_out_too(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    """Along a chain: the first shares nothing with the evaluated one, but with one who does."""
    (a, b), (c,) = patients_in("train", 2), patients_in("evaluation", 1)
    plant("north", 1, patients=[a], series=["a1"], volume_sha256="one")
    plant("north", 1, patients=[a], series=["a2"], volume_sha256="another")
    plant("north", 1, patients=[b], series=["b1"], volume_sha256="one")
    plant("north", 1, patients=[b], series=["b2"], volume_sha256="two")
    plant("south", 1, patients=[c], series=["c"], volume_sha256="two")
    scans = find_scans(with_target, "lesion", "north", "r1")
    assert len(scans) == 4
    assert in_part(with_target, scans, "train") == []


def test_one_person_under_two_keys_of_one_part_is_one_patient(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    """So that folds do not divide them, and twenty copies are not twenty patients."""
    names = patients_in("train", 24)
    plant("north", 24, patients=names, volume_sha256="same")
    scans = in_part(with_target, find_scans(with_target, "lesion", "north", "r1"), "train")
    assert len(scans) == 24
    assert {scan.patient_key for scan in scans} == {min(names)}
    with pytest.raises(EmptySample, match="found 1"):
        train_source(with_target, "lesion", run="run", at=AT, recipe="r1")


def test_an_empty_image_that_quality_stopped_joins_nobody(
    with_target: Workspace, plant: Plant, patients_in: Choose
) -> None:
    for name in (*patients_in("train", 1), *patients_in("evaluation", 1)):
        (key,) = plant("north", 1, patients=[name], volume_sha256="blank", observed_on=date(2026, 1, 5))
        record_stage(with_target, "north", "quality", [Verdict(series_key=key, revision=1, reason="blank")], run="r2")
    assert find_persons(with_target) == {}


def test_scans_without_a_hash_or_with_their_own_join_nobody(with_target: Workspace, plant: Plant) -> None:
    plant("north", 3)
    for i in range(3):
        plant("south", 1, patients=[f"p{i}"], volume_sha256=f"own{i}")
    assert find_persons(with_target) == {}
