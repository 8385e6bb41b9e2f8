"""A new site is held against the reference once, at numbers of patients that were fixed beforehand."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.manifest.workspace import Workspace
from platform_core.shift.newcomer import newcomer_sentences
from platform_core.shift.onboarding import LOOKS, onboarding_test, one_shot
from platform_core.shift.onboarding_arms import Arm
from platform_core.shift.risk import Reals
from platform_core.shift.scored_patients import ScoredPatients
from platform_core.shift.stage import measure_shift
from platform_core.storage.tables import rows_of
from tests.shift import planted
from tests.shift.planted import AT, MONDAY, Month, fill, prepare

N_FEATURES = 12
APART = 1.812
"""Of the classes' scores: AUROC .90."""
MIX = np.random.default_rng(5).normal(size=(4, N_FEATURES))


def draw(n: int, seed: int, *, prevalence: float = 0.3, known: float = 1.0) -> ScoredPatients:
    """Features that hang together, and a score."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(float)
    values = rng.normal(size=(n, 4)) @ MIX + 0.5 * rng.normal(size=(n, N_FEATURES))
    values[rng.random(n) > known, 0] = np.nan
    names = tuple(f"f{i:02d}" for i in range(N_FEATURES))
    return ScoredPatients(features=names, values=values, score=APART * (y - 0.5) + rng.normal(size=n), y=y)


def moved(patients: ScoredPatients, feature: int, by: float = 0.0, times: float = 1.0) -> ScoredPatients:
    values = patients.values.copy()
    values[:, feature] = times * values[:, feature] + by * values[:, feature].std()
    return replace(patients, values=values)


def rejected(n_worlds: int, n_reference: int, n: int, **site: Any) -> float:
    found = [
        one_shot(draw(n_reference, i), draw(n, 10_000 + i, **site), n_permutations=99, seed=i) for i in range(n_worlds)
    ]
    return float(np.mean([shot.is_different for shot in found]))


@pytest.mark.parametrize(("n_reference", "n", "known"), [(300, 25, 1.0), (150, 100, 1.0), (300, 60, 0.6)])
def test_false_alarms_keep_to_alpha_also_where_one_side_lacks_a_feature(n_reference: int, n: int, known: float) -> None:
    """At 5 %, 13 or more of 120 worlds would be a chance of 1 in 200."""
    assert rejected(120, n_reference, n, known=known) <= 13 / 120


def test_a_feature_that_moved_is_found_and_named() -> None:
    shot = one_shot(draw(500, 1), moved(draw(50, 2), 7, by=1.0))
    assert shot.is_different
    assert shot.carriers[0][0] == "f07"
    assert shot.carriers[0][1] > 4
    assert "f07 higher" in shot.sentence


def test_what_only_spreads_is_found() -> None:
    shot = one_shot(draw(500, 3), moved(draw(100, 4), 2, times=2.0))
    assert shot.is_different
    assert {arm.name: arm.p for arm in shot.arms}["spread"] <= 0.01


def test_a_feature_that_the_others_do_not_explain_is_found_where_it_alone_shows_nothing() -> None:
    """A quarter of its standard deviation, when the other features foretell it almost to that."""
    shot = one_shot(draw(1000, 5), moved(draw(100, 6), 4, by=0.25))
    p = {arm.name: arm.p for arm in shot.arms}
    assert p["relation"] <= 0.01 < p["place"]
    assert shot.is_different


def test_more_positives_show_in_the_score() -> None:
    shot = one_shot(draw(1500, 7), draw(250, 8, prevalence=0.5))
    assert shot.is_different
    assert shot.arm.name == "score"


def test_a_missing_tag_is_no_shift() -> None:
    bare = draw(100, 9)
    values = bare.values.copy()
    values[:, :3] = np.nan
    shot = one_shot(draw(500, 10), replace(bare, values=values))
    assert not shot.is_different
    assert {name for name, _ in shot.carriers}.isdisjoint({"f00", "f01", "f02"})


def test_a_protocol_that_never_varied_and_now_does_is_found() -> None:
    there, here = draw(300, 11), draw(25, 12)
    spacing = [np.full((len(side), 1), mm) for side, mm in ((there, 0.7), (here, 0.728))]
    sides = [
        replace(side, features=(*side.features, "spacing_x_mm"), values=np.hstack([side.values, mm]))
        for side, mm in zip((there, here), spacing, strict=True)
    ]
    assert one_shot(sides[0], sides[1]).carriers[0][0] == "spacing_x_mm"
    assert one_shot(sides[0], sides[1]).is_different
    assert not one_shot(sides[0], replace(sides[1], values=np.hstack([here.values, spacing[0][:25]]))).is_different


@pytest.mark.filterwarnings("error")
def test_numbers_that_cannot_be_are_no_reason_to_fall_over() -> None:
    broken = draw(60, 30)
    values = broken.values.copy()
    values[::7, 0], values[1::9, 1], values[:, 2] = 1e300, np.inf, 1e-300
    shot = one_shot(draw(300, 31), replace(broken, values=values))
    assert shot.is_different
    assert np.isfinite([z for _, z in shot.carriers]).all()
    assert all(0 < arm.p <= 1 and np.isfinite(arm.statistic) for arm in shot.arms)


def test_without_scores_or_without_features_it_goes_by_the_others() -> None:
    there, here = draw(500, 13), draw(200, 14, prevalence=0.7)
    assert "score" not in [arm.name for arm in one_shot(replace(there, score=None), here).arms]
    only = [replace(side, features=(), values=side.values[:, :0]) for side in (there, here)]
    shot = one_shot(only[0], only[1])
    assert [arm.name for arm in shot.arms] == ["score"]
    assert shot.is_different
    with pytest.raises(EmptySample):
        one_shot(replace(only[0], score=None), only[1])


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(EmptySample):
        one_shot(draw(500, 15), draw(9, 16))


def test_the_same_patients_give_the_same_answer() -> None:
    assert one_shot(draw(200, 17), draw(30, 18), seed=3) == one_shot(draw(200, 17), draw(30, 18), seed=3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 1000), st.floats(-100, 100))
def test_the_unit_of_a_feature_does_not_matter(seed: int, factor: float, offset: float) -> None:
    def told(side: ScoredPatients) -> ScoredPatients:
        return replace(side, values=side.values * factor + offset)

    there, here = draw(60, seed), draw(30, seed + 1)
    shots = [one_shot(*pair, n_permutations=49) for pair in ((there, here), (told(there), told(here)))]
    for first, second in zip(shots[0].carriers, shots[1].carriers, strict=True):
        assert first[1] == pytest.approx(second[1], abs=1e-3)


def test_a_difference_is_in_standard_errors_of_who_is_known() -> None:
    """The oracle: mean of the known less mean of the known, in pooled standard errors."""
    rng = np.random.default_rng(19)
    column = rng.normal(size=90)
    column[rng.random(90) < 0.3] = np.nan
    splits = np.vstack([np.arange(90) >= 60, rng.permuted(np.arange(90) >= 60)]).astype(np.float64)
    told = Arm("place", ("x",), column[:, None]).tell(splits)

    def oracle(split: Reals) -> float:
        here, there = column[(split == 1) & np.isfinite(column)], column[(split == 0) & np.isfinite(column)]
        return float(
            (here.mean() - there.mean()) / (np.nanstd(column, ddof=1) * np.sqrt(1 / len(here) + 1 / len(there)))
        )

    assert told.means[0] == pytest.approx(oracle(splits[0]), abs=1e-4)
    assert told.statistic == pytest.approx([abs(oracle(split)) for split in splits], abs=1e-4)


def test_each_look_has_a_third_of_alpha_and_the_first_patients_only() -> None:
    there, site = draw(400, 20), draw(260, 21)
    verdict = onboarding_test(there, site, n_permutations=99)
    assert [look.n_current for look in verdict.looks] == list(LOOKS) == [50, 100, 250]
    assert {look.alpha for look in verdict.looks} == {0.05 / 3}
    assert verdict.n_next is None
    assert onboarding_test(there, site.first(120), n_permutations=99).looks == verdict.looks[:2]


def test_before_the_first_look_it_says_when() -> None:
    verdict = onboarding_test(draw(400, 22), draw(30, 23))
    assert (verdict.looks, verdict.n_next, verdict.is_different) == ((), 50, False)
    assert "from 50 patients on" in verdict.sentence


def test_a_site_that_differs_from_its_first_scan_is_told() -> None:
    """The watch cannot: the site is its own past."""
    verdict = onboarding_test(draw(500, 24), moved(draw(120, 25), 1, by=0.8))
    assert verdict.is_different
    assert "differs from the reference" in verdict.sentence
    assert "f01 higher" in verdict.sentence


def onboarded(workspace: Workspace, **month: Any) -> list[str]:
    """What status says of site b, which runs the model of site a."""
    ready = prepare(workspace, "a", "b")
    fill(ready, Month(site="a", n=400), Month(site="b", n=120, **month))
    measure_shift(ready, "b", target="lesion", run="r", at=AT)
    return newcomer_sentences(ready, "b")


def test_a_new_site_s_finding_says_what_the_test_said(workspace: Workspace) -> None:
    (told,) = onboarded(workspace, noise_hu=11.0)
    assert "unlike the model's reference from the first scans on (50 patients against 400" in told
    assert told.endswith("noise_immerkaer_hu higher") or "noise_immerkaer_hu higher," in told


def test_a_new_site_like_the_reference_is_said_to_be_so(workspace: Workspace) -> None:
    (told,) = onboarded(workspace)
    assert "not told apart from the model's reference (100 patients against 400" in told


def test_the_reference_s_own_site_is_not_new(workspace: Workspace) -> None:
    ready = prepare(workspace, "a")
    fill(ready, Month(site="a", n=400))
    measure_shift(ready, "a", target="lesion", run="r", at=AT)
    assert newcomer_sentences(ready, "a") == []
    assert "onboarding" not in ready.lake.read(layout.SHIFT).column("statistic").to_pylist()


def test_a_look_that_was_had_is_not_had_again() -> None:
    there, site = draw(400, 20), draw(120, 21)
    (look,) = onboarding_test(there, site, had={50}, n_permutations=99).looks
    assert look == onboarding_test(there, site, n_permutations=99).looks[1]


FIRST = Month(site="b", n=60, first_day=10, days=10)
LATE = Month(site="b", n=30, first_day=1, days=5, noise_hu=20.0)
"""Of older scans that come after a night has looked at the first ones."""


def came_late(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *months: Month) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(planted, "AT", AT + timedelta(days=1))
        fill(workspace, *months)


def test_older_scans_that_come_late_make_no_second_test(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepare(workspace, "a", "b")
    fill(ready, Month(site="a", n=400), FIRST)
    measure_shift(ready, "b", target="lesion", run="r1", at=AT)
    told = newcomer_sentences(ready, "b")
    came_late(ready, monkeypatch, LATE)
    measure_shift(ready, "b", target="lesion", run="r2", at=AT)
    assert "not told apart" in told[0]
    assert newcomer_sentences(ready, "b") == told
    rows = ready.lake.read(layout.SHIFT, pc.field("statistic") == "onboarding").to_pylist()
    assert [(row["run"], row["n_current"]) for row in rows] == [("r1", 50)]


def test_the_first_patients_are_those_who_came_first(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepare(workspace, "a", "b")
    fill(ready, Month(site="a", n=400), FIRST)
    came_late(ready, monkeypatch, replace(LATE, n=60))
    measure_shift(ready, "b", target="lesion", run="r", at=AT)
    rows = ready.lake.read(layout.SHIFT, pc.field("statistic") == "onboarding").to_pylist()
    assert {row["n_current"] for row in rows if row["feature"] == "noise_immerkaer_hu"} == {100}


def test_the_sentence_is_of_one_run(workspace: Workspace) -> None:
    """Another night's carriers are of other patients."""
    ready = prepare(workspace, "a", "b")
    about = {"site": "b", "stratum": "ct", "period_start": MONDAY, "period_end": MONDAY, "recipe": "n"}
    about |= {"reference": "lesion@1", "statistic": "onboarding", "n_current": 50, "n_reference": 400}
    first = {"run": "r1", "feature": "all", "value": 1.0, "evidence": 0.4}
    second = [
        {"run": "r2", "feature": "all", "value": 9.0, "evidence": 0.001},
        {"run": "r2", "feature": "x", "value": 9.0},
    ]
    rows = rows_of(ready.lake.schemas[layout.SHIFT], [about | row for row in (first, *second)])
    ready.lake.append(layout.SHIFT, rows, transaction="shift")
    assert newcomer_sentences(ready, "b") == [
        "ct: not told apart from the model's reference (50 patients against 400, p 0.4)"
    ]
