"""What an alarm does: it begins a period, it is followed up once, and it is paid for."""

from datetime import date, timedelta
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core import layout
from platform_core.manifest.schemas import ALARM, DECISION, FINDING
from platform_core.manifest.workspace import Workspace
from platform_core.shift.samples import Sample, accepted_days, period_samples
from platform_core.shift.stage import Finding, measure_shift
from platform_core.shift.watch import vigil
from platform_core.shift.watch.raised import alarm_behind, alarms, first_day
from platform_core.shift.watch.vigil import alarms_tonight, keep_watch, kept_watches
from platform_core.shift.watch.wealth import share
from platform_core.storage.tables import rows_of
from tests.shift.planted import AT, MODEL, MONDAY, STRATUM, Month, accept, fill, prepare, score_again, serve

ALPHA = 0.05
NEW_SCANNER = MONDAY + timedelta(days=28 + 14)
"""In the middle of the second period."""


def night(workspace: Workspace, run: str) -> list[str]:
    return [alarm.sentence for alarm in alarms_tonight(workspace, "a", "lesion", run=run, at=AT)]


def found(workspace: Workspace, run: str) -> Finding:
    (finding,) = measure_shift(workspace, "a", target="lesion", run=run, at=AT)
    return finding


@pytest.fixture
def quiet(workspace: Workspace) -> Workspace:
    """The accepted month, and half a month like it; noise and score are watched by the patient."""
    ready = prepare(workspace, "a")
    fill(ready, Month(number=0, n=170), Month(number=1, n=80, days=14))
    assert night(ready, "r0") == []
    return ready


@pytest.fixture
def alarmed(quiet: Workspace) -> Workspace:
    """A noisier scanner since the middle of the second month, seen on the night after its first 60 patients."""
    fill(quiet, Month(number=1, first_day=14, n=60, days=10, noise_hu=13.0))
    (told,) = night(quiet, "r1")
    assert "noise_immerkaer_hu higher" in told
    return quiet


def test_an_alarm_begins_a_period_on_the_day_of_the_change(alarmed: Workspace) -> None:
    (alarm,) = alarms(alarmed, "a")
    assert abs((alarm.changed_on - NEW_SCANNER).days) <= 3
    assert alarm.period_start == alarm.changed_on
    assert (alarm.feature, alarm.meaning, alarm.reference) == ("noise_immerkaer_hu", "higher", f"a@{MONDAY}")
    first, before, since = period_samples(alarmed, "a", "CT")[STRATUM]
    assert first.period_end + timedelta(days=1) == before.period_start
    assert before.period_end + timedelta(days=1) == since.period_start == alarm.period_start
    assert before.n + since.n == 140


def test_that_night_s_finding_is_about_the_patients_since_the_change(alarmed: Workspace) -> None:
    finding = found(alarmed, "r1")
    (alarm,) = alarms(alarmed, "a")
    assert finding.period_start == alarm.period_start
    assert alarm_behind(alarmed, {"site": "a", "stratum": STRATUM, "period_start": finding.period_start}) == alarm


def test_with_enough_patients_since_the_change_its_kind_is_told(alarmed: Workspace) -> None:
    fill(alarmed, Month(number=1, first_day=24, n=60, days=14, noise_hu=13.0))
    night(alarmed, "r2")
    assert found(alarmed, "r2").kind == "covariate_acquisition"


def test_a_known_shift_that_persists_alarms_once(alarmed: Workspace) -> None:
    for i in range(3):
        fill(alarmed, Month(number=2 + i, n=100, noise_hu=13.0))
        assert night(alarmed, f"later{i}") == []
    assert len(alarms(alarmed, "a")) == 1
    assert alarmed.lake.read(layout.ALARM).num_rows == 1


def test_a_night_that_was_cut_short_loses_no_alarm(quiet: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(quiet, Month(number=1, first_day=14, n=60, days=10, noise_hu=13.0))
    with monkeypatch.context() as cut:
        cut.setattr(vigil, "raise_alarm", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            night(quiet, "r1")
    assert alarms(quiet, "a") == []
    (told,) = night(quiet, "r2")
    assert "noise_immerkaer_hu higher" in told


def test_an_accepted_action_restarts_the_streams_and_spends_alpha(alarmed: Workspace) -> None:
    before, _ = kept_watches(alarmed, "a")
    accept(alarmed, "a", found(alarmed, "r1").finding_key)
    fill(alarmed, Month(number=2, n=100, noise_hu=13.0))
    assert night(alarmed, "r2") == []
    after, _ = kept_watches(alarmed, "a")
    assert after.since == alarms(alarmed, "a")[0].period_start
    assert (before.watch.n_opened, after.watch.n_opened) == (0, 2)  # the score has watches of its own: 1 and 3
    n = len(after.watch.streams)
    assert before.watch.threshold == pytest.approx(n / (ALPHA * share(0)))
    assert after.watch.threshold == pytest.approx(n / (ALPHA * share(2)))
    assert sum(share(i) for i in range(1000)) < 1


def test_a_second_change_alarms_against_the_accepted_state(alarmed: Workspace) -> None:
    accept(alarmed, "a", found(alarmed, "r1").finding_key)
    fill(alarmed, Month(number=2, n=100, noise_hu=13.0))
    night(alarmed, "r2")
    fill(alarmed, Month(number=3, n=200, noise_hu=9.0), Month(number=4, n=200, noise_hu=9.0))
    (told,) = night(alarmed, "r3")
    assert "noise_immerkaer_hu lower" in told
    assert [alarm.reference for alarm in alarms(alarmed, "a")] == [
        f"a@{MONDAY}",
        f"a@{alarms(alarmed, 'a')[0].period_start}",
    ]


def test_a_new_reference_restates_ranks_once(alarmed: Workspace) -> None:
    accept(alarmed, "a", found(alarmed, "r1").finding_key)
    fill(alarmed, Month(number=2, n=100, noise_hu=13.0))
    night(alarmed, "r2")
    kept, _ = kept_watches(alarmed, "a")
    ranks = alarmed.lake.read(layout.RANK, kept.watch.scope.rows)
    assert set(ranks.column("batch").to_pylist()) == {-1, 0}
    night(alarmed, "r3")
    assert alarmed.lake.read(layout.RANK, kept.watch.scope.rows).num_rows == ranks.num_rows > 0


def test_what_turns_out_not_to_matter_is_accepted_as_it_is(alarmed: Workspace) -> None:
    """The watch is dead after its alarm; without another the site would go unwatched for ever."""
    fill(alarmed, Month(number=1, first_day=24, n=60, days=14, noise_hu=13.0))
    night(alarmed, "r2")
    finding = found(alarmed, "r2")
    about = {"site": "a", "decision_key": "d", "decided_at": AT, "finding_key": finding.finding_key, "target": "lesion"}
    quiet = alarmed.lake.read(layout.FINDING, pc.field("finding_key") == finding.finding_key)
    kinds = ["none" if key == finding.finding_key else "" for key in quiet.column("finding_key").to_pylist()]
    place = quiet.column_names.index("kind")
    alarmed.lake.append(layout.FINDING, quiet.set_column(place, "kind", [kinds]), transaction="none")
    alarmed.lake.append(
        layout.DECISION, rows_of(DECISION, [about | {"action": "none", "status": "done", "run": "r"}]), transaction="d"
    )
    night(alarmed, "r3")
    kept, _ = kept_watches(alarmed, "a")
    assert kept.since == finding.period_start
    assert not kept.watch.is_closed


def test_more_positives_alarm_in_the_score_alone(quiet: Workspace) -> None:
    fill(quiet, Month(number=1, first_day=14, n=500, prevalence=0.9), Month(number=2, n=500, prevalence=0.9))
    (told,) = night(quiet, "r1")
    assert told.startswith("score ")
    features, score = kept_watches(quiet, "a")
    assert (features.watch.is_closed, score.watch.is_closed) == (False, True)
    assert score.name == f"{STRATUM}, score of {MODEL}"
    assert alarms(quiet, "a")[0].reference == f"{MODEL}/a@{MONDAY}"


def test_a_recalibration_accepts_scores_and_not_images(quiet: Workspace) -> None:
    fill(quiet, Month(number=1, first_day=14, n=500, prevalence=0.9), Month(number=2, n=500, prevalence=0.9))
    night(quiet, "r1")
    finding = found(quiet, "r1")
    accept(quiet, "a", finding.finding_key, action="recalibrate")
    assert night(quiet, "r2") == []
    features, score = kept_watches(quiet, "a")
    assert features.since == MONDAY
    assert score.since == finding.period_start
    assert not score.watch.is_closed


def test_another_model_is_a_generation_of_its_own_that_is_ranked_once(quiet: Workspace) -> None:
    features, score = kept_watches(quiet, "a")
    serve(quiet, "a", "lesion@2")
    score_again(quiet, "a", "lesion@2")
    night(quiet, "r1")
    same, other = kept_watches(quiet, "a")
    assert same.watch.streams == features.watch.streams
    assert (score.watch.n_opened, other.watch.n_opened) == (1, 2)
    assert other.watch.scope.reference == f"lesion@2/a@{MONDAY}"
    ranks = quiet.lake.read(layout.RANK, other.watch.scope.rows)
    assert set(ranks.column("batch").to_pylist()) == {-1, 0}
    night(quiet, "r2")
    assert quiet.lake.read(layout.RANK, other.watch.scope.rows).num_rows == ranks.num_rows


def test_a_late_scan_after_weeks_is_still_ranked(quiet: Workspace) -> None:
    before, _ = kept_watches(quiet, "a")
    fill(quiet, Month(number=1, first_day=3, n=12, days=2))
    night(quiet, "r1")
    after, _ = kept_watches(quiet, "a")
    assert after.n_seen == before.n_seen + 12


def test_what_was_looked_at_is_not_looked_at_again(quiet: Workspace) -> None:
    kept, _ = keep_watch(quiet, "a", "lesion", run="r1")
    n = quiet.lake.version(layout.RANK)
    assert keep_watch(quiet, "a", "lesion", run="r2")[0] == kept
    assert quiet.lake.version(layout.RANK) == n


def day(n: int) -> date:
    return MONDAY + timedelta(days=n)


def raised(workspace: Workspace, start: int, night: int, reference: str = "a@2024-01-01") -> str:
    """An alarm of a night about a change on a day, as a row."""
    dates = dict.fromkeys(("changed_on", "period_start"), day(start)) | {"alarmed_on": day(night)}
    texts = dict.fromkeys(("recipe", "feature", "meaning", "sentence"), "t")
    key = f"{reference}/{start}"
    row = {"site": "a", "alarm_key": key, "stratum": STRATUM, "reference": reference, "log_e": 9.0, "threshold": 9.0}
    row |= dates | texts | {"raised_at": AT + timedelta(days=night), "run": "r"}
    workspace.lake.append(layout.ALARM, rows_of(ALARM, [row]), transaction=key)
    return key


def decided(workspace: Workspace, start: int, night: int, action: str = "none", kind: str = "none") -> None:
    """A decision of a night about the period that begins on a day, with its finding."""
    name = f"{start}/{night}/{action}"
    about = {"site": "a", "finding_key": name, "target": "lesion", "run": "r"}
    finding = about | {"stratum": STRATUM, "period_start": day(start), "period_end": day(start + 27), "kind": kind}
    decision = about | {"decision_key": name, "action": action, "status": "done", "decided_at": AT + timedelta(night)}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction=name)
    workspace.lake.append(layout.DECISION, rows_of(DECISION, [decision]), transaction=name)


def behind(workspace: Workspace, start: int) -> str | None:
    finding = {"site": "a", "stratum": STRATUM, "target": "lesion", "period_start": day(start)}
    alarm = alarm_behind(workspace, finding)
    return None if alarm is None else alarm.alarm_key


def test_an_alarm_waits_until_a_state_is_accepted_however_old_its_change(workspace: Workspace) -> None:
    key = raised(workspace, start=45, night=80)
    assert [behind(workspace, start) for start in (28, 45, 73, 101)] == [None, key, key, key]
    decided(workspace, start=73, night=81, action="hold", kind="mixed")
    assert behind(workspace, 101) == key
    decided(workspace, start=101, night=102, action="reharmonize", kind="covariate_acquisition")
    assert [behind(workspace, start) for start in (101, 129)] == [None, None]


def test_of_two_alarms_the_later_change_is_told_of(workspace: Workspace) -> None:
    prepare(workspace, "a")
    _, later = (
        raised(workspace, start=45, night=50),
        raised(workspace, start=60, night=70, reference=f"{MODEL}/a@2024-01-01"),
    )
    assert behind(workspace, 88) == later


def test_the_first_quiet_period_since_an_unanswered_alarm_is_accepted(workspace: Workspace) -> None:
    """Holding, asking for labels and refusing accept nothing: without this the watch would stay closed for ever."""
    decided(workspace, start=28, night=40)
    decided(workspace, start=56, night=60)
    raised(workspace, start=45, night=80)
    decided(workspace, start=45, night=80, action="request_labels", kind="covariate_case_mix")
    assert accepted_days(workspace, "a", "lesion").images == {}
    decided(workspace, start=73, night=90)
    decided(workspace, start=101, night=120)
    assert accepted_days(workspace, "a", "lesion").images == {STRATUM: day(73)}


def test_quiet_periods_after_an_action_accept_nothing_more(workspace: Workspace) -> None:
    raised(workspace, start=45, night=80)
    decided(workspace, start=45, night=80, action="adapt", kind="covariate_acquisition")
    decided(workspace, start=73, night=90)
    assert accepted_days(workspace, "a", "lesion").images == {STRATUM: day(45)}


def test_an_alarm_of_scores_is_about_the_target_of_its_model_alone(workspace: Workspace) -> None:
    ready = prepare(workspace, "a")
    fill(ready, Month(number=1, n=20), Month(number=2, n=20))
    raised(ready, start=45, night=50, reference="another@1/a@2024-01-01")
    assert [behind(ready, start) for start in (45, 73)] == [None, None]
    assert [p.period_start for p in period_samples(ready, "a", "CT", "lesion")[STRATUM]] == [day(28), day(56)]
    key = raised(ready, start=45, night=50, reference=f"{MODEL}/a@2024-01-01")
    assert [behind(ready, start) for start in (45, 73)] == [key, key]
    assert [p.period_start for p in period_samples(ready, "a", "CT", "lesion")[STRATUM]] == [day(28), day(45), day(73)]


@pytest.mark.parametrize("action", ["recalibrate", "calibrate"])
def test_a_new_calibration_answers_an_alarm_of_scores_alone(workspace: Workspace, action: str) -> None:
    prepare(workspace, "a")
    raised(workspace, start=45, night=80, reference="lesion@1/a@2024-01-01")
    decided(workspace, start=45, night=80, action=action, kind="label")
    decided(workspace, start=73, night=90)
    assert accepted_days(workspace, "a", "lesion").images == {}
    raised(workspace, start=45, night=91)
    decided(workspace, start=101, night=120)
    assert accepted_days(workspace, "a", "lesion").images == {STRATUM: day(101)}


def put_back(workspace: Workspace, night: int, action: str, site: str) -> None:
    """What no finding asked for: a person, or the end of its time, undid what a site ran."""
    about = {"site": site, "decision_key": f"{action}/{night}", "target": "lesion", "action": action, "run": "r"}
    row = {**about, "status": "done", "decided_at": AT + timedelta(night)}
    workspace.lake.append(layout.DECISION, rows_of(DECISION, [row]), transaction=f"{action}/{night}")


@pytest.mark.parametrize(
    ("action", "site", "is_undone"),
    [
        ("restore", "a", True),
        ("rollback", "b", True),
        ("restore", "b", False),
        ("renew", "a", False),
        ("promote", "b", False),
    ],
)
def test_what_was_put_back_is_accepted_no_longer(workspace: Workspace, action: str, site: str, is_undone: bool) -> None:
    raised(workspace, start=45, night=50)
    decided(workspace, start=45, night=60, action="adapt", kind="covariate_acquisition")
    put_back(workspace, 70, action, site)
    assert accepted_days(workspace, "a", "lesion").images == ({} if is_undone else {STRATUM: day(45)})
    decided(workspace, start=73, night=80, action="adapt", kind="covariate_acquisition")
    assert accepted_days(workspace, "a", "lesion").images == {STRATUM: day(73)}


def sample(first: int, last: int) -> Sample:
    return Sample("a", STRATUM, MONDAY + timedelta(days=first), MONDAY + timedelta(days=last), pa.table({}))


@pytest.mark.parametrize(
    ("changed", "crossed", "begins"),
    [
        (45, 50, 45),  # in the middle of a period
        (58, 60, 56),  # so soon after a period began that it began with it
        (10, 12, 10),  # within the accepted period, after the watch was opened
        (0, 50, 50),  # dated by a scan that came late: the day of the alarm counts
        (0, 0, 28),  # all of it came late: the day after the accepted state
    ],
)
def test_the_first_day_of_an_alarm_s_period(changed: int, crossed: int, begins: int) -> None:
    periods = [sample(0, 27), sample(28, 55), sample(56, 83)]
    days = [MONDAY + timedelta(days=n) for n in (changed, crossed, begins)]
    assert first_day(days[0], days[1], periods, periods[0]) == days[2]
