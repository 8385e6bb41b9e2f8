"""A site is watched night by night against its accepted state, and a change is told at once."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from platform_core import layout
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.settings import ShiftSettings
from platform_core.shift.samples import period_samples
from platform_core.shift.watch import vigil
from platform_core.shift.watch.kept import Kept
from platform_core.shift.watch.vigil import keep_watch, kept_watches, promise_of, unwatched_sentences
from tests.shift.planted import STRATUM, Month, fill, keys_of, prepare


@pytest.fixture
def quiet(workspace: Workspace) -> Workspace:
    """A site with its accepted month and a month like it."""
    ready = prepare(workspace, "a")
    fill(ready, Month(number=0, n=200), Month(number=1, n=150))
    return ready


def test_a_quiet_site_does_not_alarm_and_says_what_would(quiet: Workspace) -> None:
    kept, _ = keep_watch(quiet, "a", "lesion", run="r1")
    assert not kept.verdict.is_alarm
    assert kept.n_seen == 150
    assert "no change" in kept.sentence
    assert "100 patient-days would reveal a shift of" in kept.sentence


def test_a_noisier_scanner_alarms_and_is_named(quiet: Workspace) -> None:
    keep_watch(quiet, "a", "lesion", run="r1")
    fill(quiet, Month(number=2, n=150, noise_hu=13.0))
    kept, _ = keep_watch(quiet, "a", "lesion", run="r2")
    assert kept.verdict.is_alarm
    assert "noise" in kept.sentence
    again, _ = keep_watch(quiet, "a", "lesion", run="r3")
    assert again == kept


def test_a_night_without_news_ranks_nothing(quiet: Workspace) -> None:
    keep_watch(quiet, "a", "lesion", run="r1")
    n = quiet.lake.read(layout.RANK).num_rows
    keep_watch(quiet, "a", "lesion", run="r2")
    assert quiet.lake.read(layout.RANK).num_rows == n > 0


def test_night_by_night_is_as_all_at_once(quiet: Workspace) -> None:
    keep_watch(quiet, "a", "lesion", run="r1")
    fill(quiet, Month(number=2, n=120))
    kept, _ = keep_watch(quiet, "a", "lesion", run="r2")
    assert kept.n_seen == 270
    assert kept_watches(quiet, "a")[0] == kept


def test_too_few_patients_are_not_watched(workspace: Workspace) -> None:
    ready = prepare(workspace, "a")
    fill(ready, Month(number=0, n=40))
    assert keep_watch(ready, "a", "lesion", run="r1") == []
    assert kept_watches(ready, "a") == []
    assert unwatched_sentences(ready, "a", kept_watches(ready, "a")) == [
        f"{STRATUM}: none yet: at most 40 of 60 patients in a period"
    ]
    fill(ready, Month(number=1, n=70))
    keep_watch(ready, "a", "lesion", run="r2")
    assert unwatched_sentences(ready, "a", kept_watches(ready, "a")) == []


def test_a_night_without_cause_does_not_read_the_periods(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a watch that rests, nor a stratum that has too few patients to be watched, is a cause."""
    ready = prepare(workspace, "a")
    fill(ready, Month(number=0, n=70), Month(number=0, n=20, stratum="ct/chest/plain/sharp"))
    keep_watch(ready, "a", "lesion", run="r1")
    read = Mock(wraps=period_samples)
    monkeypatch.setattr(vigil, "period_samples", read)
    keep_watch(ready, "a", "lesion", run="r2")
    fill(ready, Month(number=1, n=20, stratum="ct/chest/plain/sharp"))
    assert len(keep_watch(ready, "a", "lesion", run="r3")) == 2
    assert not read.called
    fill(ready, Month(number=2, n=70, stratum="ct/chest/plain/sharp"))
    assert len(keep_watch(ready, "a", "lesion", run="r4")) == 4
    assert read.call_count == 1


def test_an_open_watch_is_looked_through_after_seven_batches(quiet: Workspace) -> None:
    keep_watch(quiet, "a", "lesion", run="r1")
    kept, _ = kept_watches(quiet, "a")
    later = replace(kept, watch=replace(kept.watch, n_batches=20))
    assert [replace(later, n_looked=looked).is_due for looked in (-1, 13, 14, 20)] == [True, True, False, False]
    fill(quiet, Month(number=2, n=150, noise_hu=13.0))
    closed, _ = keep_watch(quiet, "a", "lesion", run="r2")
    assert closed.watch.is_closed
    assert not replace(closed, n_looked=-1).is_due


def test_a_model_s_scores_are_ranked_among_patients_it_has_not_learned_from(workspace: Workspace) -> None:
    ready = prepare(workspace, "a", "b")
    for site in ("a", "b"):
        fill(ready, Month(site=site, number=0, n=120), Month(site=site, number=1, n=30))
    _, source = keep_watch(ready, "a", "lesion", run="r1")
    _, elsewhere = keep_watch(ready, "b", "lesion", run="r1")
    rows = ready.lake.read(layout.SERIES, columns=["series_key", "patient_key"]).to_pylist()
    part = {row["series_key"]: part_of(row["patient_key"], ready.settings.split) for row in rows}

    def ranked(kept: Kept) -> list[str]:
        keys = ready.lake.read(layout.RANK, kept.watch.scope.rows).column("series_key").to_pylist()
        return [part[key] for key in keys]

    assert set(ranked(source)) == {"evaluation"}
    assert len(ranked(source)) == [part[key] for key in part if key.startswith("a")].count("evaluation")
    assert len(ranked(elsewhere)) == 150


def test_old_scans_that_come_late_open_no_second_watch(quiet: Workspace) -> None:
    """They move the borders of periods and make an earlier one sound; the accepted state stays what it was."""
    before = keep_watch(quiet, "a", "lesion", run="r1")
    old = Month(number=-2, first_day=8, n=150, days=40)
    fill(quiet, old, Month(number=1, n=70, stratum="ct/chest/plain/sharp"))
    mine = [one for one in keep_watch(quiet, "a", "lesion", run="r2") if one.watch.scope.stratum == STRATUM]
    assert [one.watch for one in mine] == [one.watch for one in before]
    ranked = quiet.lake.read(layout.RANK).column("series_key").to_pylist()
    assert not set(ranked) & set(keys_of(old))


def test_the_fleet_s_promise_is_a_sentence() -> None:
    told = promise_of(ShiftSettings(), 8)
    assert told == "at most 5% of sites ever raise a false alarm: of 8, 0.4 a year at most"
    assert np.isclose(ShiftSettings().alpha * 8, 0.4)
