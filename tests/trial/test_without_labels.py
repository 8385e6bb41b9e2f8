"""When an adaptation may be served: scores and embeddings of two Gaussian classes, seen by two scanners."""

from dataclasses import replace

import numpy as np
import pytest

from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.paired import Pairs
from platform_core.trial.without_labels import Scene, Told, View, weigh

UNMOVED = Told(by="labels", share=Estimate(0.5, 0.42, 0.58), p_changed=0.9)


def view(n: int, seed: int, *, gain: float = 1.0, offset: float = 0.0, share: float = 0.5) -> tuple[View, Reals]:
    """Classes 2.5 apart in the first of five dimensions; a scanner scales and moves all of them."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(np.float64)
    embeddings = rng.normal(size=(n, 5))
    embeddings[:, 0] += 2.5 * (y - 0.5)
    embeddings = gain * embeddings + offset
    return View(scores=2.5 * embeddings[:, 0], embeddings=embeddings), y


@pytest.fixture
def scene() -> Scene:
    """A site whose scanner moves what a network sees by one standard deviation."""
    reference, y = view(300, 1)
    return Scene(
        reference=reference,
        reference_y=y,
        before=view(250, 2, offset=1.0)[0],
        is_held_out=np.arange(250) < 100,
        assumed=0.5,
        material_prevalence=0.05,
        told=(UNMOVED,),
    )


CURED = view(250, 2)[0]


def pairs(before: float, after: float, n: int = 40) -> Pairs:
    """Probabilities of the true class, the same for all."""
    y = np.tile([0.0, 1.0], n // 2)
    return Pairs(
        patients=tuple(map(str, range(n))),
        y=y,
        before=np.where(y == 1, before, 1 - before),
        after=np.where(y == 1, after, 1 - after),
    )


def test_a_cure_passes_and_says_why(scene: Scene) -> None:
    found = weigh(scene, "adabn", CURED)
    assert found.passed
    assert found.fit_after is not None
    assert f"p {found.fit_after:.2f}" in found.because
    assert "0.50 [0.42, 0.58] by labels" in found.because
    assert not found.is_confirmed


def test_what_moves_nothing_is_refused(scene: Scene) -> None:
    found = weigh(scene, "adabn", scene.before)
    assert not found.passed
    assert "do not come nearer" in found.because


def test_scores_that_no_mixture_explains_are_refused(scene: Scene) -> None:
    split = replace(CURED, scores=np.where(CURED.scores > 0, 40.0, 0.0) + CURED.scores)
    found = weigh(scene, "tent", split)
    assert not found.passed
    assert "no mixture of the reference's classes fits" in found.because


def test_a_head_alone_is_judged_by_scores(scene: Scene) -> None:
    folded = View(scores=CURED.scores, embeddings=scene.before.embeddings)
    assert weigh(scene, "coral", folded).passed
    assert not weigh(scene, "coral", scene.before).passed


@pytest.mark.parametrize(
    "told",
    [(), (replace(UNMOVED, share=Estimate(0.5, 0.3, 0.7)),), (replace(UNMOVED, share=Estimate(0.6, 0.52, 0.66)),)],
    ids=["nobody", "too wide", "too far"],
)
def test_without_knowing_the_prevalence_nothing_passes(scene: Scene, told: tuple[Told, ...]) -> None:
    found = weigh(replace(scene, told=told), "adabn", CURED)
    assert not found.passed
    assert found.because.startswith("nothing tells whether the share of positives has moved")


def test_a_prevalence_that_moved_stops_it_even_if_something_else_says_not(scene: Scene) -> None:
    moved = Told(by="the scanner", share=Estimate(0.3, 0.2, 0.4), p_changed=0.01)
    found = weigh(replace(scene, told=(UNMOVED, moved)), "adabn", CURED)
    assert not found.passed
    assert "the scanner say that the share of positives moved from 0.50 to 0.30 [0.20, 0.40]" in found.because


def test_harm_on_the_shown_reference_or_by_labels_stops_it(scene: Scene) -> None:
    worse, better = pairs(0.8, 0.7), pairs(0.7, 0.8)
    assert not weigh(scene, "adabn", CURED, expected=worse).passed
    assert not weigh(scene, "adabn", CURED, labelled=worse).passed
    assert weigh(scene, "adabn", CURED, expected=better).passed


def test_labels_confirm_it_only_if_they_are_enough(scene: Scene) -> None:
    assert weigh(scene, "adabn", CURED, labelled=pairs(0.7, 0.8)).is_confirmed
    assert not weigh(scene, "adabn", CURED, labelled=pairs(0.7, 0.8, n=10)).is_confirmed


def test_too_few_held_out_patients_are_no_receipt(scene: Scene) -> None:
    found = weigh(replace(scene, is_held_out=np.arange(250) < 10), "adabn", CURED)
    assert "fewer than 20 patients are left" in found.because


def test_a_verdict_is_json(scene: Scene) -> None:
    told = weigh(scene, "adabn", CURED).to_json()
    assert told["nearer"]["low"] > 0
    assert told["gain"] is None
