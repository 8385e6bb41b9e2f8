from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core import layout
from platform_core.errors import BadRequest, BadSetting, UnknownName
from platform_core.manifest.schemas import LABEL
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.table import policy_of
from platform_core.storage.tables import rows_of
from platform_core.trial.backtest import (
    Acted,
    Alarmed,
    Ending,
    Judged,
    Replay,
    Stopped,
    arrive,
    begin,
    ending,
    halts_of,
    judge,
)
from platform_core.trial.overlap import Overlaps

CALIBRATION = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
FIRST_DAY = date(2026, 1, 5)
CATCH_ALL = """
[[rule]]
name = "nothing"
when = {}
action = "none"
because = "nothing is tried"
rationale = "a policy that never acts"
"""
ENDED = Ending(
    policy="p",
    n_nights=9,
    every_days=7,
    n_patients={"east": 1, "west": 1},
    alarms=(Alarmed(site="east", night=3, days_of_delay=10), Alarmed(site="west", night=2, days_of_delay=20)),
    decisions=tuple(
        Acted(site=site, night=night, action=action, strategy=None, status="done", kind="label", because="")
        for site, night, action in (
            ("east", 4, "hold"),
            ("east", 5, "recalibrate"),
            ("west", 1, "reharmonize"),
            ("east", 6, "fine_tune"),
        )
    ),
    training_hours=0.0,
    risk={},
    risk_of_all=None,
)


@pytest.fixture
def past(served: Workspace, plant_scores: Callable[..., Any], train_on: Callable[..., Any]) -> Workspace:
    """Three months of three sites; the model has learned from the source's first month."""
    for site in served.sites:
        for period in range(3):
            plant_scores(site, 40, {"lesion@1": 2.0, "lesion@2": 2.0}, period=period)
    train_on(1, [("north", f"north-0-{i}") for i in range(20)])
    return served


def begun(workspace: Workspace, folder: Path, **asked: Any) -> Replay:
    return begin(workspace, folder / "replay", "lesion", policy=asked.pop("policy", None), every_days=28, **asked)


def days_there(replay: Replay, site: str) -> set[date]:
    rows = open_workspace(replay.uri).lake.read(layout.SERIES).to_pylist()
    return {row["observed_on"] for row in rows if row["site"] == site}


def test_a_replay_begins_with_the_first_champion_and_no_scan(past: Workspace, tmp_path: Path) -> None:
    lake = open_workspace(begun(past, tmp_path).uri).lake
    assert [(row["version"], row["alias"]) for row in lake.read(layout.MODEL).to_pylist()] == [(1, "champion")]
    assert lake.read(layout.SERIES).num_rows == lake.read(layout.SERVING).num_rows == 0


def test_every_scan_comes_once_and_none_before_its_day(past: Workspace, tmp_path: Path) -> None:
    replay = begun(past, tmp_path)
    assert replay.n_nights == 3
    for night in range(3):
        assert arrive(replay, night) == ["north", "east", "south"]
        assert days_there(replay, "east") == {FIRST_DAY + timedelta(days=28 * n) for n in range(night + 1)}
    original, replayed = (open_workspace(uri).lake.read(layout.SERIES) for uri in (past.uri, replay.uri))
    assert sorted(original["series_key"].to_pylist()) == sorted(replayed["series_key"].to_pylist())


def test_a_night_that_is_repeated_brings_nothing_twice(past: Workspace, tmp_path: Path) -> None:
    replay = begun(past, tmp_path)
    arrive(replay, 0)
    arrive(replay, 0)
    assert open_workspace(replay.uri).lake.read(layout.SERIES).num_rows == 3 * 40


def test_what_later_models_said_is_not_known_and_sites_wait_for_their_own_serving(
    past: Workspace, tmp_path: Path
) -> None:
    replay = begun(past, tmp_path)
    for night in range(3):
        arrive(replay, night)
    rows = open_workspace(replay.uri).lake.read(layout.PREDICTION).to_pylist()
    assert {(row["site"], row["model"]) for row in rows} == {("north", "lesion@1")}


def test_a_label_comes_when_it_was_given(past: Workspace, tmp_path: Path) -> None:
    given = {"site": "east", "target": "lesion", "series_key": "east-0-0", "value": "malignant", "run": "late"}
    late = given | {"labelled_on": FIRST_DAY + timedelta(days=30)}
    past.lake.append(layout.LABEL, rows_of(LABEL, [late]), transaction="late")
    replay = begun(past, tmp_path)
    seen = []
    for night in range(3):
        arrive(replay, night)
        rows = open_workspace(replay.uri).lake.read(layout.LABEL).to_pylist()
        seen.append(sum(row["run"] == "late" for row in rows))
    assert seen == [0, 0, 1]


def test_the_workspace_that_is_replayed_stays_as_it_was(past: Workspace, tmp_path: Path) -> None:
    before = past.lake.versions()
    replay = begun(past, tmp_path)
    for night in range(3):
        arrive(replay, night)
    assert past.lake.versions() == before


@pytest.mark.parametrize(
    "present",
    [
        "",
        "[policy]\nmin_labels = 50\n",
        '[policy]\nfile = "own.toml"\n',
        '[policy]\napprove = ["fine_tune"]\nfile = "own.toml"\n',
        'policy.approve = ["fine_tune"]\n',
    ],
)
def test_the_policy_to_try_takes_the_place_of_the_one_in_force(past: Workspace, tmp_path: Path, present: str) -> None:
    file = Path(past.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8").replace("[policy]\n", "" if present.startswith("policy.") else present)
    file.write_text(f"{present}\n{text}" if present.startswith("policy.") else text, encoding="utf-8")
    (Path(past.uri) / "own.toml").write_text(CATCH_ALL, encoding="utf-8")
    tried = tmp_path / "tried.toml"
    tried.write_text(CATCH_ALL.replace("nothing is tried", "another sentence"), encoding="utf-8")
    here = open_workspace(past.uri)
    replayed = open_workspace(begun(here, tmp_path, policy=tried).uri)
    assert [rule.because for rule in policy_of(replayed).rules] == ["another sentence"]
    assert replayed.settings.policy.min_labels == here.settings.policy.min_labels


def test_a_replay_is_logged_nowhere(past: Workspace, tmp_path: Path) -> None:
    file = Path(past.uri) / layout.SETTINGS
    line = 'mlflow_uri = "http://nowhere:5000"\n'
    file.write_text(line + file.read_text(encoding="utf-8"), encoding="utf-8")
    here = open_workspace(past.uri)
    assert here.settings.mlflow_uri is not None
    assert open_workspace(begun(here, tmp_path).uri).settings.mlflow_uri is None


def test_the_risk_is_that_of_what_was_served_when_a_patient_came(past: Workspace, tmp_path: Path) -> None:
    replay = begun(past, tmp_path, sites=["east"])
    for night in range(3):
        arrive(replay, night)
    here = open_workspace(replay.uri)
    _predict_as_planted(past, here)
    first = Serving(site="east", target="lesion", model="lesion@1", recipe="r1", calibration=CALIBRATION, epoch=-1)
    kept = change_serving(here, first, decision_key=None, at=replay.moment(0), run="run")
    moved = replace(kept, calibration=CALIBRATION.moved_to(0.8))
    change_serving(here, moved, decision_key="d", at=replay.moment(1), run="run")
    found = ending(replay, "mine", judge(replay)).risk["east"]
    assert found.loss.value == pytest.approx(_loss_by_hand(here, moved_from_period=2), rel=1e-6)
    assert found.loss.low < found.loss.value < found.loss.high
    assert found.excess is None


def _predict_as_planted(past: Workspace, here: Workspace) -> None:
    rows = past.lake.read(layout.PREDICTION)
    mine = [row for row in rows.to_pylist() if (row["site"], row["model"]) == ("east", "lesion@1")]
    here.lake.append(layout.PREDICTION, rows_of(rows.schema, mine), transaction="east")


def _loss_by_hand(here: Workspace, *, moved_from_period: int) -> float:
    score = {row["series_key"]: row["score"] for row in here.lake.read(layout.PREDICTION).to_pylist()}
    losses = []
    for row in here.lake.read(layout.LABEL).to_pylist():
        key = row["series_key"]
        if row["site"] != "east" or part_of(f"p-{key}", here.settings.split) != "evaluation":
            continue
        odds = score[key] + (np.log(0.8 / 0.2) if int(key.split("-")[1]) >= moved_from_period else 0.0)
        p = 1 / (1 + np.exp(-odds))
        losses.append(-np.log(p if row["value"] == "malignant" else 1 - p))
    return float(np.mean(losses))


def test_days_run_from_the_change_to_the_alarm_and_to_the_first_action_after_it() -> None:
    assert ENDED.days_to_alarm == 15
    assert ENDED.days_to_action == 10 + 2 * 7


def test_what_cannot_be_replayed_is_said(past: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        begun(past, tmp_path, sites=["nowhere"])
    bad = tmp_path / "bad.toml"
    bad.write_text("[[rule]]\nname = 1\n", encoding="utf-8")
    used = tmp_path / "replay"
    used.mkdir()
    (used / "mine").touch()
    with pytest.raises(BadRequest, match="not empty"):
        begun(past, tmp_path)
    with pytest.raises(BadSetting):
        begin(past, tmp_path / "other", "lesion", policy=bad)


def test_a_target_without_a_champion_has_nothing_to_replay(served: Workspace, tmp_path: Path) -> None:
    file = Path(served.uri) / layout.SETTINGS
    other = '\n[target.other]\nlabel = "x"\nmodality = "CT"\nsource_site = "north"\n'
    file.write_text(file.read_text(encoding="utf-8") + other, encoding="utf-8")
    with pytest.raises(BadRequest, match="never had a champion"):
        begin(open_workspace(served.uri), tmp_path / "replay", "other", policy=None)


def test_nights_are_dated_by_the_clock_of_the_replay(past: Workspace, tmp_path: Path) -> None:
    replay = begun(past, tmp_path)
    assert replay.moment(2) - replay.moment(0) == timedelta(days=56)
    assert replay.moment(0) == datetime(2026, 3, 1, tzinfo=UTC)


def judged(losses: dict[str, float]) -> Judged:
    keys = np.array(list(losses))
    values = np.array(list(losses.values()))
    return Judged(series=keys, patient=keys, loss=values, weight=np.ones(len(keys)))


def test_two_policies_are_set_against_each_other_on_the_same_scans() -> None:
    rng = np.random.default_rng(3)
    hard = {f"p{n}": float(loss) for n, loss in enumerate(rng.exponential(2.0, 60))}
    easier = {key: loss - 0.1 for key, loss in hard.items()}
    found = judged(easier | {"only here": 9.0}).less(judged(hard | {"only there": 5.0})).mean()
    assert found is not None
    assert found.value == pytest.approx(-0.1)
    assert found.high < 0
    assert judged({"a": 1.0}).less(judged({"b": 1.0})).mean() is None


def test_a_scan_stands_for_those_that_were_not_chosen_to_be_labelled() -> None:
    keys = np.array(["a", "b"])
    found = Judged(series=keys, patient=keys, loss=np.array([1.0, 2.0]), weight=np.array([3.0, 1.0])).mean()
    assert found is not None
    assert found.value == pytest.approx(1.25)


def test_nights_in_a_row_on_which_a_site_was_stopped_are_one_halt() -> None:
    nights = [("west", 2), ("east", 4), ("east", 1), ("east", 2), ("west", 5)]
    told = replace(ENDED, stopped=tuple(Stopped(site=site, night=n, because=f"{n}") for site, n in nights))
    spans = [(begun.site, begun.night, last.night, last.because) for begun, last in halts_of(told)]
    assert spans == [("east", 1, 2, "2"), ("east", 4, 4, "4"), ("west", 2, 2, "2"), ("west", 5, 5, "5")]


def test_masks_come_along_and_are_judged_by_their_overlap(past: Workspace, tmp_path: Path) -> None:
    uri = layout.mask_path("east", "lesion", "east-0-0", "0" * 64)
    past.objects.put(uri, b"drawn")
    assert open_workspace(begun(past, tmp_path).uri).objects.get(uri) == b"drawn"
    two = np.ones(2)
    found = Overlaps(series_key=("a", "b"), patients=("p", "q"), y=two, dice=np.array([0.9, 0.5]), weight=two)
    mean = Judged.of_overlaps(found).mean()
    assert mean is not None
    assert mean.value == pytest.approx(0.3)
