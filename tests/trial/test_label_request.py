"""What is asked for is drawn once, recorded with its chance, and asked for again until it is answered."""

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from platform_core import layout
from platform_core.errors import EmptySample
from platform_core.learn.data import find_scans, in_part
from platform_core.manifest.labels import labels_in_force, requested
from platform_core.manifest.requests import asked_scans, request_counts
from platform_core.manifest.schemas import FINDING, LABEL, PREDICTION, SERIES, VOLUME
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.record import decisions
from platform_core.shift.scores import score_rows
from platform_core.storage.tables import rows_of
from platform_core.trial.case import Case, decide_next
from platform_core.trial.label_request import Request, request_by_hand, request_labels

AT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = date(2026, 1, 5)
SITE = "south"


@pytest.fixture
def come(served: Workspace) -> Callable[..., list[str]]:
    """`come(n, period)`: patients of `south` with one scan each, a score and an embedding, and no label."""

    def come(n: int, period: int = 0, *, site: str = SITE, first: int = 0) -> list[str]:
        rng = np.random.default_rng(n + 10 * period + first)
        keys = [f"{site}-{period}-{i}" for i in range(first, first + n)]
        series: list[dict[str, Any]] = []
        predictions: list[dict[str, Any]] = []
        volumes: list[dict[str, Any]] = []
        for key in keys:
            place = {"site": site, "series_key": key, "revision": 1, "run": "run"}
            about = {"patient_key": f"p-{key}", "patient_known": True, "modality": "CT", "stratum": "CT"}
            day = DAY + timedelta(days=28 * period + len(series) % 20)
            series.append({**place, **about, "observed_on": day, "ingested_at": AT, "volume_uri": "v"})
            named = {"recipe": "r1", "model": "lesion@1", "target": "lesion"}
            seen = {"score": float(rng.normal(0, 3)), "embedding": rng.normal(size=4).tolist()}
            predictions.append({**place, **named, **seen})
            volumes.append({**place, "recipe": "r1", "volume_uri": "v"})
        name = f"{site}/{period}/{first}/{n}"
        served.lake.append(layout.VOLUME, rows_of(VOLUME, volumes), transaction=f"v/{name}")
        served.lake.append(layout.SERIES, rows_of(SERIES, series), transaction=f"s/{name}")
        served.lake.append(layout.PREDICTION, rows_of(PREDICTION, predictions), transaction=f"p/{name}")
        return keys

    return come


Come = Callable[..., list[str]]


def copied(workspace: Workspace, folder: Path) -> Workspace:
    return open_workspace(str(shutil.copytree(workspace.uri, folder / "copy")))


def ask(workspace: Workspace, wanted: int, *, finding: str = "f1", period: int = 0, at: datetime = AT) -> Request:
    row = {
        "site": SITE,
        "target": "lesion",
        "stratum": "CT",
        "period_start": DAY + timedelta(days=28 * period),
        "finding_key": finding,
    }
    return request_labels(workspace, row, wanted=wanted, run=f"run-{finding}", at=at)


def answer(
    workspace: Workspace,
    keys: Sequence[str],
    run: str = "r1",
    chance: float | None = None,
    site: str = SITE,
) -> None:
    rows = [
        {"site": site, "target": "lesion", "series_key": key, "value": "benign", "run": run,
         "sampling_probability": chance}
        for key in keys
    ]  # fmt: skip
    workspace.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction=f"l/{site}/{run}/{len(rows)}/{keys[:1]}")


def asked(workspace: Workspace, *, is_open: bool | None = None) -> list[str]:
    rows = asked_scans(workspace, "lesion", SITE)
    return [row["series_key"] for row in rows if is_open is None or row["is_open"] == is_open]


def chances(workspace: Workspace) -> dict[str, Any]:
    return {row["series_key"]: row["sampling_probability"] for row in requested(workspace, "lesion").to_pylist()}


def test_the_first_request_is_uniform_among_all_patients_without_a_label(served: Workspace, come: Come) -> None:
    keys = come(150)
    answer(served, keys[:30])
    found = ask(served, 60)
    assert (found.n_patients, found.n_open, found.n_new, found.drawn) == (120, 60, 60, "uniform")
    assert set(asked(served)) < set(keys[30:])
    assert set(chances(served)) == set(keys[30:])
    assert list(chances(served).values()) == pytest.approx([0.5] * 120)
    assert found.n_for_evaluation > 50
    assert "`sitedrift label request south --target lesion`" in found.sentence


def test_the_same_finding_asks_for_the_same_and_writes_nothing(served: Workspace, come: Come) -> None:
    come(150)
    ask(served, 60)
    before, version = asked(served), served.lake.version(layout.REQUEST)
    again = ask(served, 60)
    assert (again.n_open, again.n_new) == (60, 0)
    assert asked(served) == before
    assert served.lake.version(layout.REQUEST) == version


def test_a_drawing_hangs_on_the_finding_and_not_on_the_clock(served: Workspace, come: Come, tmp_path: Path) -> None:
    come(150)
    other = copied(served, tmp_path)
    ask(served, 60)
    ask(other, 60, at=AT + timedelta(hours=7))
    assert asked(other) == asked(served)


def test_what_is_open_counts_for_what_is_wanted_next(served: Workspace, come: Come) -> None:
    come(150)
    ask(served, 60)
    first = set(asked(served))
    answer(served, sorted(first)[:20])
    found = ask(served, 50, finding="f2")
    assert found.n_open == pytest.approx(50, abs=1)
    assert found.n_answered == 20
    assert first < set(asked(served))


def test_after_fifty_labels_at_random_what_the_model_says_has_half_a_say(served: Workspace, come: Come) -> None:
    come(300)
    ask(served, 60)
    before = chances(served)
    answer(served, asked(served))
    found = ask(served, 50, finding="f2")
    assert found.drawn == "informed"
    assert found.n_open == pytest.approx(50, abs=5)
    now = chances(served)
    assert all(now[key] >= before[key] > 0 for key in before)
    assert len(set(now.values())) > 100
    rows = requested(served, "lesion").to_pylist()
    assert all((row["drawn"] is not None) == (row["random_number"] < row["sampling_probability"]) for row in rows)
    assert sum(now.values()) == pytest.approx(60 + 50)
    version = served.lake.version(layout.REQUEST)
    assert ask(served, 50, finding="f2").n_open == found.n_open
    assert served.lake.version(layout.REQUEST) == version


def test_a_label_counts_by_the_chance_of_having_been_asked_by_now(served: Workspace, come: Come) -> None:
    come(300)
    ask(served, 60)
    first = asked(served)
    answer(served, first, chance=0.2)
    ask(served, 50, finding="f2")
    now = chances(served)
    told = {row["series_key"]: row["sampling_probability"] for row in labels_in_force(served, "lesion").to_pylist()}
    assert told == {key: now[key] for key in first}
    scans = score_rows(served, SITE, "lesion", "lesion@1", "r1")
    known = scans.where(scans.is_labelled)
    assert known.weight == pytest.approx([1 / now[key] for key in known.series_key.tolist()])


def test_a_hospital_that_labels_all_says_so_and_that_counts(served: Workspace, come: Come) -> None:
    keys = come(150)
    ask(served, 60)
    answer(served, keys, chance=1.0)
    told = labels_in_force(served, "lesion").column("sampling_probability").to_pylist()
    assert told == [1.0] * 150


def test_chances_do_not_hang_on_who_was_drawn_before(served: Workspace, come: Come, tmp_path: Path) -> None:
    """Else the recorded chance would not be that of having been drawn, and weighing by it would be wrong."""
    come(300)
    answer(served, come(40, site="north"), site="north")
    first, second = served, copied(served, tmp_path)
    for here, finding in ((first, "f1"), (second, "another")):
        ask(here, 60, finding=finding)
        answer(here, asked(here), run="r2")
        assert ask(here, 50, finding="f2").drawn == "informed"
    assert asked(first) != asked(second)
    assert chances(first) == pytest.approx(chances(second))


def test_patients_who_come_later_have_a_chance_too(served: Workspace, come: Come) -> None:
    come(100)
    ask(served, 50)
    later = come(100, first=100)
    answer(served, asked(served)[:30])
    ask(served, 50, finding="f2")
    assert set(asked(served)) & set(later)
    assert min(chances(served).values()) > 0


def test_more_than_there_are_asks_for_all_with_certainty(served: Workspace, come: Come) -> None:
    come(30)
    found = ask(served, 60)
    assert (found.n_open, found.n_patients) == (30, 30)
    assert set(chances(served).values()) == {1.0}
    answer(served, asked(served))
    assert "none of 30 patients is left" in ask(served, 60, finding="f2").sentence


def test_another_period_is_drawn_by_itself(served: Workspace, come: Come) -> None:
    come(100)
    come(100, period=1)
    ask(served, 20)
    found = ask(served, 20, period=1, finding="f2")
    assert (found.n_open, found.n_patients) == (20, 100)
    counts = request_counts(served)
    assert [(row["asked"], row["open"], row["undecided"]) for row in counts] == [(20, 20, 0)] * 2


def test_a_person_asks_of_the_latest_period_that_has_so_many(served: Workspace, come: Come) -> None:
    come(100)
    come(12, period=1)
    options: dict[str, Any] = {"run": "r", "at": AT}
    assert request_by_hand(served, SITE, "lesion", wanted=40, **options).period_start == DAY
    assert request_by_hand(served, SITE, "lesion", wanted=12, **options).n_open == 12
    assert request_by_hand(served, SITE, "lesion", wanted=40, **options).n_new == 0
    with pytest.raises(EmptySample):
        request_by_hand(served, "east", "lesion", wanted=40, **options)


def test_both_parts_are_asked_in_the_shares_of_the_split_and_what_is_for_evaluation_never_trains(
    served: Workspace, come: Come
) -> None:
    file = Path(served.uri) / layout.SETTINGS
    file.write_text(file.read_text().replace("evaluation = 0.98", "evaluation = 0.4"))
    here = open_workspace(served.uri)
    come(300)
    found = ask(here, 100)
    assert 25 < found.n_for_evaluation < 55
    answer(here, asked(here))
    labelled = [scan for scan in find_scans(here, "lesion", SITE, "r1") if scan.y is not None]
    train, held_out = (in_part(here, labelled, part) for part in ("train", "evaluation"))
    assert len(labelled) == 100
    assert len(train) + len(held_out) >= 95
    assert len(held_out) == found.n_for_evaluation
    assert not {scan.patient_key for scan in train} & {scan.patient_key for scan in held_out}
    assert set(score_rows(here, SITE, "lesion", "lesion@1", "r1", part="evaluation").series_key) >= {
        scan.series_key for scan in held_out
    }


def test_readings_that_contradict_one_another_stay_open(served: Workspace, come: Come) -> None:
    come(100)
    ask(served, 20)
    key = asked(served)[0]
    rows = [
        {"site": SITE, "target": "lesion", "series_key": key, "value": value, "reader": value, "run": "r"}
        for value in ("benign", "malignant")
    ]
    served.lake.append(layout.LABEL, rows_of(LABEL, rows), transaction="two readers")
    (counts,) = request_counts(served, SITE)
    assert (counts["open"], counts["undecided"]) == (20, 1)


def test_a_withdrawn_patient_is_in_no_request(served: Workspace, come: Come) -> None:
    come(100)
    ask(served, 20)
    (first, *_) = asked(served)
    served.lake.erase(layout.REQUEST, [{"patient_key": [f"p-{first}"]}])
    assert first not in asked(served)
    table = served.lake.read(layout.REQUEST, pc.field("series_key") == first)
    assert table.num_rows == 0


def test_a_decision_for_labels_draws_them_and_says_how_to_get_the_list(served: Workspace, come: Come) -> None:
    keys = come(150)
    row = {
        "site": SITE,
        "finding_key": "f1",
        "stratum": "CT",
        "target": "lesion",
        "model": "lesion@1",
        "period_start": DAY,
        "period_end": DAY + timedelta(days=27),
        "reference": "lesion@1",
        "kind": "covariate_case_mix",
        "explained_by": "other patients",
        "run": "r1",
    }
    served.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction="f1")
    case = Case(
        uri=served.uri, site=SITE, target="lesion", finding_key="f1", headline="h", keys=tuple(keys), run="r1", at=AT
    )
    decided = decide_next(case)
    assert decided.act is None
    assert "60 scans are asked for, 60 of them anew, drawn uniformly at random" in decided.decision.because
    (decision,) = decisions(served, SITE).to_pylist()
    assert decision["because"] == decided.decision.because
    assert json.loads(decision["evidence"])["request"]["n_open"] == len(asked(served)) == 60
    decide_next(case)
    assert len(asked(served)) == 60
