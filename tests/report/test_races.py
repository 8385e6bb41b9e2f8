"""Races on the pages of a site: who won, what each candidate cost, and how it learned."""

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core import layout
from platform_core.learn import judging
from platform_core.manifest import schemas
from platform_core.manifest.workspace import Workspace
from platform_core.report.curves import BOTTOM_PX, LEFT_PX, RIGHT_PX, TOP_PX, drawing_of, ticks
from platform_core.report.fleet import write_fleet_report
from platform_core.report.passport import write_passport
from platform_core.report.races import NONE, races_of
from platform_core.report.spelling import duration
from platform_core.shift.risk import Estimate, columns_of
from tests.conftest import configured, new_workspace
from tests.report.conftest import append, fill
from tests.report.test_pages import Page, read

ORGAN = """
[target.organ]
label = "organ"
modality = "CT"
source_site = "north"
classes = ["background", "organ"]
task = "segmentation"
network = "unet_tiny"
"""


def curve(first: float, last: float, n: int) -> list[float]:
    return [last + (first - last) * 0.85**epoch for epoch in range(n)]


def entry(strategy: str, outcome: str, loss: float | None, **facts: Any) -> dict[str, Any]:
    """One candidate; `none` costs 0.61."""
    known = None if loss is None else Estimate(loss, loss - 0.1, loss + 0.1)
    gain = None if loss is None else Estimate(0.61 - loss, 0.61 - loss - 0.06, 0.61 - loss + 0.06)
    return {"strategy": strategy, "outcome": outcome, "because": f"{strategy} was {outcome}", "n_seeds": 0,
            "seconds": 0.0, "n_scan_passes": 0.0, "curve": []} | facts | columns_of("log_loss", known) \
        | columns_of("gain", gain)  # fmt: skip


WON = (
    entry("none", "lost", 0.61, seconds=0.47, n_scan_passes=102.3),
    entry("linear_probe", "lost", 0.6, seconds=4.13, curve=curve(0.62, 0.41, 40)),
    entry("partial", "won", 0.44, seconds=659.0, n_scan_passes=83_250.0, curve=curve(0.6, 0.21, 20), n_seeds=3,
          seed_gain=0.163, seed_sd=0.012),
    entry("full", "lost", None, because="could not be trained: <b>no memory"),
)  # fmt: skip
LOST = (
    entry("none", "won", 0.61, seconds=0.5, because="no weight moves"),
    entry("surgical_early", "lost", 0.62, seconds=220.0, n_scan_passes=27_750.0, curve=curve(0.55, 0.3, 20)),
    entry("lp_ft", "not_run", None, because="4 labelled patients were no help"),
)


def rows_of_race(site: str, race_key: str, entries: Sequence[dict[str, Any]], **facts: Any) -> list[dict[str, Any]]:
    about = {"site": site, "race_key": race_key, "finding_key": "gone", "target": "lesion", "recipe": "harmonized-2",
             "parent": "lesion@1", "n_patients": 98, "n_scans": 121, "n_folds": 5, "device": "cpu", "seed_gain": None,
             "seed_sd": None, "run": "r1", **facts}  # fmt: skip
    return [about | one | {"step": step} for step, one in enumerate(entries)]


def add_races(workspace: Workspace) -> Workspace:
    """East raced twice, the second time for nothing; south a segmentation."""
    workspace = configured(workspace, ORGAN)
    races = [
        rows_of_race("east", "k1", WON, finding_key="f-east-1"),
        rows_of_race("east", "k2", LOST, finding_key="f-east-0", run="r2", n_patients=7),
        rows_of_race("south", "k3", LOST, target="organ"),
    ]
    for rows in races:
        append(workspace, layout.RACE, schemas.RACE, rows[::-1], f"race/{rows[0]['race_key']}")
    return workspace


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    with new_workspace(tmp_path_factory.mktemp("raced")) as empty:
        return add_races(fill(empty))


@pytest.fixture(scope="module")
def passport(raced: Workspace, at: datetime) -> str:
    return read(raced, write_passport(raced, "east", at=at))


@pytest.fixture(scope="module")
def fleet_html(raced: Workspace, at: datetime) -> str:
    return read(raced, write_fleet_report(raced, at=at))


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_every_race_of_a_site_is_on_its_passport_the_latest_first(passport: str) -> None:
    text = words(passport)
    told = text[text.index("Races") :]
    assert "Run r2: no gradient was worth its cost" in told
    assert told.index("no gradient was worth its cost") < told.index("partial won")
    assert "2 Mar 2026: partial won" in told


def test_the_pages_are_well_formed_and_load_nothing(passport: str, fleet_html: str) -> None:
    for html in (passport, fleet_html):
        page = Page(html)
        assert (page.loads, page.open, page.wrong) == ([], [], [])
        assert len(page.ids) == len(set(page.ids))


def test_a_site_without_a_race_has_no_such_section(raced: Workspace, at: datetime) -> None:
    assert "Races" not in words(read(raced, write_passport(raced, "north", at=at)))
    assert races_of(raced, "north") == []


def test_the_fleet_page_tells_the_races_of_the_site_and_scope_that_it_shows(fleet_html: str) -> None:
    text = words(fleet_html)
    assert text.count("2 Mar 2026: partial won") == 1
    assert "1 - Dice" not in text


def test_each_candidate_has_its_loss_gain_seeds_and_cost(passport: str) -> None:
    text = words(passport)
    assert "partial won 0.440 [0.340, 0.540] 0.170 [0.110, 0.230] 3 mean gain 0.163, SD 0.012 11 min 83" in text
    assert "linear probe lost 0.600 [0.500, 0.700] 0.010 [\N{MINUS SIGN}0.050, 0.070] 1 4.13 s 0" in text
    assert "full lost not known" in text
    assert "lp ft not run" in text


def test_the_winner_is_told_with_what_it_gained_and_what_called_for_the_race(raced: Workspace, passport: str) -> None:
    lost, won = races_of(raced, "east")
    assert won.verdict == (
        "3 candidates were tried; "
        "the log-loss of partial is lower than that of none by 0.170 [0.110, 0.230] nats per scan"
    )
    assert won.seconds == pytest.approx(0.47 + 4.13 + 659)
    assert won.decision is not None
    assert "98 labelled patients may be trained on." in words(passport)
    assert (lost.is_lost, lost.decision, won.is_lost) == (True, None, False)
    assert lost.verdict == "1 candidate was tried, none better than no training by more than one standard error"


def test_a_race_keeps_its_period_and_its_order_of_candidates(raced: Workspace) -> None:
    won = races_of(raced, "east")[1]
    assert [one.strategy for one in won.candidates] == ["none", "linear_probe", "partial", "full"]
    assert (str(won.period_start), str(won.period_end)) == ("2024-01-29", "2024-02-25")
    (gone,) = races_of(raced, "south")
    assert gone.period_start is None


def test_a_segmentation_is_judged_by_dice(raced: Workspace, at: datetime) -> None:
    html = read(raced, write_passport(raced, "south", at=at))
    told = words(html)[words(html).index("Races") :]
    assert "1 - Dice" in told
    assert "nats per scan" not in told
    assert "og-loss" not in told


def test_few_people_are_not_counted(passport: str) -> None:
    text = words(passport)
    assert "Patients fewer than 10 Scans 121" in text
    assert "Fewer than 10 labelled patients were no help." in text


def test_every_curve_has_its_line_and_its_name(passport: str) -> None:
    drawings = re.findall(r'<figure class="curves">.*?</figure>', passport, re.DOTALL)
    assert [one.count("<polyline") for one in drawings] == [1, 2]
    for one in drawings:
        text = words(one)
        assert "epoch" in text
        assert "nats per scan" in text
    assert "linear probe partial" in words(drawings[1])


def test_no_key_of_a_person_is_on_the_page(passport: str, raced: Workspace) -> None:
    told = passport[passport.index('id="races"') :]
    assert not re.search(r"\bp-|east-\d-\d{4}", told)
    assert raced.settings.key_fingerprint not in told


def test_what_went_wrong_cannot_be_markup(passport: str) -> None:
    assert "Could not be trained: <b>no memory." in words(passport)
    assert "<b>no" not in passport


def test_none_is_named_as_the_race_names_it() -> None:
    assert NONE == judging.NONE


def test_a_race_without_curves_has_no_drawing() -> None:
    assert drawing_of({"none": (), "full": (nan,)}) is None


def test_a_curve_of_one_epoch_is_a_mark() -> None:
    found = drawing_of({"full": [0.5]})
    assert found is not None
    assert found.lines[0].points == "{},{}".format(*found.lines[0].end)


LOSSES = st.lists(st.floats(0, 1e4), min_size=1, max_size=60)


@given(st.lists(LOSSES, min_size=1, max_size=8))
def test_curves_stay_in_their_frame_and_fall_where_the_loss_does(curves: list[list[float]]) -> None:
    found = drawing_of({str(n): losses for n, losses in enumerate(curves)})
    assert found is not None
    for line, losses in zip(found.lines, curves, strict=True):
        at = [tuple(map(float, point.split(","))) for point in line.points.split(" ")]
        assert len(at) == len(losses)
        assert all(LEFT_PX < x <= RIGHT_PX and TOP_PX <= y <= BOTTOM_PX for x, y in at)
        order = sorted(range(len(at)), key=lambda n: losses[n])
        assert all(at[a][1] >= at[b][1] for a, b in pairwise(order))


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_even_and_hold_what_is_drawn(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-9
    assert found[-1] >= high * (1 - 1e-9)


def test_durations_are_in_the_unit_that_reads_best() -> None:
    assert [duration(s) for s in (0.0, 4.128, 220, 7560, 360_000)] == ["0 s", "4.13 s", "3.67 min", "2.1 h", "100.0 h"]
