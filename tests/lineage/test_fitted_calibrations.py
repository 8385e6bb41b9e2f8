"""A withdrawal tells which sites run a calibration that the patient's labels may have set, and how it is taken back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from flows.lineage import ended
from platform_core import layout
from platform_core.lineage.plan import plan_withdrawal
from platform_core.lineage.seen import Seen
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.serving import Serving, change_serving, current_serving
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision, Status
from platform_core.policy.record import record_decision
from platform_core.storage.tables import rows_of
from platform_core.trial.rollout import restore_serving
from tests.lineage.conftest import AT, GONE, Fleet, keys_of

LATER = AT + timedelta(days=3)
SOUTH = Seen(model="south/lesion", alias="served", how="fitted", rebuild="sitedrift model rollback lesion --site south")


def serving_of(workspace: Workspace, site: str) -> Serving:
    found = current_serving(workspace, site, "lesion")
    assert found is not None
    return found


def calibrate(workspace: Workspace, site: str, days: Sequence[date], status: Status = "done") -> None:
    """Leave what the action `calibrate` leaves behind it, of a finding on these days."""
    (stratum,) = set(current_series(workspace, site).column("stratum").to_pylist())
    finding = {"site": site, "finding_key": f"fit-{site}", "stratum": stratum, "target": "lesion",
               "model": "lesion@1", "period_start": days[0], "period_end": days[-1], "reference": "lesion@1",
               "kind": "covariate_acquisition", "size": 0.2, "explained_by": "noise", "run": "r"}  # fmt: skip
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction=f"fit/{site}")
    before = serving_of(workspace, site)
    fitted = replace(before, calibration=replace(before.calibration, scale=0.4, logit_offset=-2.0))
    record_decision(
        workspace, Decision(action="calibrate", because="labels say so", rule="scores"), finding=finding,
        status=status, serving_before=before, serving_after=change_serving(workspace, fitted, decision_key="d", at=AT,
        run="r") if status == "done" else None, evidence={"fitted_to": {"n": 5, "series": "0"}}, run="r", at=AT,
    )  # fmt: skip


def days_of(workspace: Workspace, site: str, patient: str | None = None) -> list[date]:
    keys = keys_of(workspace, site, patient)
    rows = current_series(workspace, site).to_pylist()
    return sorted(row["observed_on"] for row in rows if row["series_key"] in keys)


def fitted(workspace: Workspace, patient: str = GONE, site: str = "south") -> list[Seen]:
    """What a withdrawal of the patient would say of sites' calibrations."""
    plan = plan_withdrawal(workspace, site, patient, run="20260304T000000-gone", at=LATER)
    return [seen for seen in plan.models if seen.how == "fitted"]


def test_a_calibration_fitted_in_the_patient_s_period_is_named_with_the_way_back(fleet: Fleet) -> None:
    here = fleet.workspace
    calibrate(here, "south", days_of(here, "south", GONE))
    plan = plan_withdrawal(here, "north", GONE, run="20260304T000000-gone", at=LATER)
    done = withdraw(here, plan, at=LATER)
    assert [seen for seen in done.models if seen.how == "fitted"] == [SOUTH]
    assert (
        "south/lesion (served) runs a calibration that may have been fitted to its labels; the next finding that asks "
        "for one fits it anew, or: sitedrift model rollback lesion --site south"
    ) in list(ended(done))
    (audit,) = here.lake.read(layout.WITHDRAWAL).column("models").to_pylist()
    assert '"south/lesion"' in audit


def test_the_way_back_leads_to_a_calibration_that_is_named_no_more(fleet: Fleet) -> None:
    here = fleet.workspace
    calibrate(here, "south", days_of(here, "south"))
    assert fitted(here) == [SOUTH]
    restore_serving(here, "south", "lesion", run="r", at=LATER)
    assert serving_of(here, "south").calibration.scale == 1
    assert fitted(here) == []


def test_other_periods_sites_and_patients_are_not_named(fleet: Fleet) -> None:
    here = fleet.workspace
    last = days_of(here, "south", GONE)[-1]
    later = [day for day in days_of(here, "south") if day > last]
    calibrate(here, "south", later)
    calibrate(here, "east", days_of(here, "east"))
    assert fitted(here) == []
    assert [seen.model for seen in fitted(here, "HOSP-0100", "east")] == ["east/lesion"]


def test_a_calibration_that_was_refused_is_not_named(fleet: Fleet) -> None:
    calibrate(fleet.workspace, "south", days_of(fleet.workspace, "south"), "refused")
    assert fitted(fleet.workspace) == []


def test_a_patient_without_a_label_is_in_no_calibration(fleet: Fleet) -> None:
    here = fleet.workspace
    calibrate(here, "south", days_of(here, "south"))
    here.lake.erase(layout.LABEL, [{"series_key": keys_of(here, "south", GONE)}])
    assert here.lake.read(layout.LABEL, pc.field("site") == "south").num_rows > 0
    assert fitted(here) == []


@pytest.mark.parametrize(("shares", "n_named"), [((0.999, 0.0), 0), ((0.001, 0.998), 1), ((0.001, 0.0), 1)])
def test_patients_who_are_kept_for_evaluation_are_in_no_calibration(
    fleet: Fleet, shares: tuple[float, float], n_named: int
) -> None:
    here = fleet.workspace
    calibrate(here, "south", days_of(here, "south"))
    file = Path(here.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8")
    for name, share in zip(("evaluation", "validation"), shares, strict=True):
        assert f"{name} = 0.01" in text
        text = text.replace(f"{name} = 0.01", f"{name} = {share}")
    file.write_text(text, encoding="utf-8")
    assert len(fitted(open_workspace(here.uri))) == n_named
