"""The fleet in rows, against what was written."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from platform_core.manifest.workspace import Workspace
from platform_core.report.fleet_rows import SiteSummary, decisions_of, findings_of, fleet_rows
from platform_core.shift.risk import Estimate


@pytest.fixture(scope="module")
def rows(fleet: Workspace) -> dict[str, SiteSummary]:
    return {row.site: row for row in fleet_rows(fleet)}


def test_every_site_has_its_row_and_state(rows: dict[str, SiteSummary]) -> None:
    states = {site: row.state for site, row in rows.items()}
    assert states == {"east": "needs a person", "north": "quiet", "south": "acted", "west": "undetermined"}


def test_scans_patients_and_ledger_are_counted(rows: dict[str, SiteSummary]) -> None:
    east = rows["east"]
    assert (east.n_series, east.n_patients, east.n_warned, east.n_refused) == (400, 400, 2, 0)
    assert dict(east.ledger) == {"accepted": 400, "duplicate": 3, "quarantined": 2}


def test_risk_goes_from_before_the_first_action_to_what_is_served(rows: dict[str, SiteSummary]) -> None:
    before, after = rows["south"].before, rows["south"].after
    assert before is not None
    assert after is not None
    assert (before.log_loss, after.log_loss) == (Estimate(0.56, 0.47, 0.65), Estimate(0.41, 0.33, 0.49))


def test_a_refused_challenger_does_not_count_as_what_is_served(rows: dict[str, SiteSummary]) -> None:
    """East was harmonized again (0.71 to 0.58); the challenger that would have reached 0.44 was refused."""
    before, after = rows["east"].before, rows["east"].after
    assert before is not None
    assert after is not None
    assert before.log_loss == Estimate(0.71, 0.6, 0.83)
    assert after.log_loss == Estimate(0.58, 0.49, 0.67)


def test_an_untouched_site_shows_the_risk_that_its_finding_states(rows: dict[str, SiteSummary]) -> None:
    north = rows["north"]
    assert north.before is not None
    assert north.before.log_loss == Estimate(0.39, 0.31, 0.47)
    assert north.after is None


def test_actions_come_in_their_order(rows: dict[str, SiteSummary]) -> None:
    taken = [(one.action, one.strategy, one.status) for one in rows["east"].actions]
    assert taken == [("reharmonize", None, "done"), ("fine_tune", "partial", "refused")]


def test_a_site_that_sent_nothing_has_a_row(workspace: Workspace) -> None:
    from platform_core.manifest.workspace import add_site, open_workspace
    from platform_core.settings import SiteSettings

    add_site(workspace, "empty", SiteSettings(quiet_s=0, path="/nowhere"))
    (row,) = fleet_rows(open_workspace(workspace.uri))
    assert (row.site, row.state, row.n_series) == ("empty", "not measured", 0)


def test_an_empty_workspace_has_no_rows(workspace: Workspace) -> None:
    assert fleet_rows(workspace) == []


def test_findings_and_decisions_of_a_site_are_told_oldest_first(fleet: Workspace) -> None:
    assert [finding.kind for finding in findings_of(fleet, "east")] == ["none", "covariate_acquisition"]
    assert [taken.action for taken in decisions_of(fleet, "east")] == ["reharmonize", "fine_tune"]


def test_rows_can_be_written_as_json(rows: dict[str, SiteSummary]) -> None:
    facts = json.loads(json.dumps(asdict(rows["east"]), default=str))
    assert facts["finding"]["size"] == {"value": 0.97, "low": 0.94, "high": 0.99}


def test_rows_need_no_plotting_library() -> None:
    code = "import sys, platform_core.report.fleet_rows; assert not {'plotly', 'jinja2', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
