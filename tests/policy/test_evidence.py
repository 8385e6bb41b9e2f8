"""The facts of a situation, against tables that were written by hand."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.manifest.schemas import FINDING, LABEL, SERIES
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.evidence import read_situation
from platform_core.policy.record import record_decision
from platform_core.shift.risk import Estimate
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
START = date(2026, 1, 5)
FOUND: dict[str, Any] = {
    "site": "east",
    "finding_key": "f1",
    "stratum": "CT",
    "target": "lesion",
    "period_start": START,
    "period_end": START + timedelta(days=27),
    "kind": "covariate_acquisition",
    "size": 0.4,
    "low": 0.3,
    "high": 0.5,
    "source_risk": 0.4,
    "source_risk_low": 0.35,
    "source_risk_high": 0.45,
}


@pytest.fixture
def site(workspace: Workspace) -> Workspace:
    """20 patients in the period of whom 8 are labelled, one before it and one of another stratum, both labelled."""
    with (Path(workspace.uri) / layout.SETTINGS).open("a") as file:
        file.write('\n[target.lesion]\nlabel = "lesion"\nmodality = "CT"\nsource_site = "north"\n')
    workspace = open_workspace(workspace.uri)
    days = {f"s{n:02d}": ("CT", START + timedelta(days=n)) for n in range(20)}
    days |= {"before": ("CT", START - timedelta(days=1)), "other": ("MR", START)}
    rows = [
        {"site": "east", "series_key": key, "revision": 1, "patient_key": f"p-{key}", "stratum": stratum,
         "observed_on": day, "volume_uri": "v"}
        for key, (stratum, day) in days.items()
    ]  # fmt: skip
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction="s")
    labelled = [*(f"s{n:02d}" for n in range(12, 20)), "before", "other"]
    labels = [{"site": "east", "target": "lesion", "series_key": key, "value": "1", "run": "r"} for key in labelled]
    workspace.lake.append(layout.LABEL, rows_of(LABEL, labels), transaction="l")
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [FOUND]), transaction="f")
    return workspace


def act(workspace: Workspace, action: Any, status: Any, at: datetime) -> None:
    decision = Decision(action=action, because="b", rule="r")
    record_decision(
        workspace, decision, finding=FOUND, status=status, serving_before=None, serving_after=None, evidence=None,
        run="r", at=at,
    )  # fmt: skip


def test_patients_and_labels_are_those_of_the_stratum_and_period(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert (situation.n_patients, situation.n_labels) == (20, 8)
    labelled = [f"p-s{n:02d}" for n in range(12, 20)]
    in_training = [key for key in labelled if part_of(key, site.settings.split) == "train"]
    assert situation.n_train_labels == len(in_training)


def test_risks_come_from_the_finding_unless_measured_again(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert situation.accepted_risk == Estimate(0.4, 0.35, 0.45)
    assert situation.target_risk is None
    again = Estimate(0.6, 0.5, 0.7)
    assert read_situation(site, FOUND, at=AT, target_risk=again).target_risk == again


def test_an_interval_that_is_not_a_number_is_no_evidence(site: Workspace) -> None:
    assert read_situation(site, {**FOUND, "low": float("nan")}, at=AT).size is None


def test_actions_of_the_period_are_remembered_refused_ones_too_and_proposals_not(site: Workspace) -> None:
    act(site, "reharmonize", "refused", AT)
    act(site, "fine_tune", "proposed", AT + timedelta(minutes=1))
    assert read_situation(site, FOUND, at=AT).taken == ("reharmonize",)


def test_the_cool_down_counts_from_the_last_challenger(site: Workspace) -> None:
    assert read_situation(site, FOUND, at=AT).days_since_fine_tune is None
    act(site, "fine_tune", "refused", AT - timedelta(days=9))
    assert read_situation(site, FOUND, at=AT).days_since_fine_tune == 9


def test_rules_come_from_the_settings(site: Workspace) -> None:
    situation = read_situation(site, FOUND, at=AT)
    assert (situation.min_patients, situation.min_labels, situation.cool_down_days) == (100, 60, 28)
    assert situation.strategies == site.settings.target["lesion"].strategies
