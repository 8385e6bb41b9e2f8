"""What no label has confirmed ends by itself; quiet periods renew it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from platform_core import layout
from platform_core.learn import registry
from platform_core.manifest.schemas import FINDING, SERIES
from platform_core.manifest.serving import Serving, change_serving, current_serving, serving_history
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions
from platform_core.storage.tables import rows_of
from platform_core.trial.expiry import renew_or_end, until
from platform_core.trial.rollout import promote_by_hand, restore_serving, with_model
from tests.trial.conftest import AT

OVER = AT + timedelta(days=90)
MOVED = timedelta(weeks=52)
"""What the door takes from every day of a site, at least."""


def now_at(workspace: Workspace, site: str = "south") -> Serving:
    found = current_serving(workspace, site, "lesion")
    assert found is not None
    return found


def give(workspace: Workspace, recipe: str, *, days: int = 0, limited: bool = True) -> Serving:
    """Another recipe, given for a time or for good."""
    at = AT + timedelta(days=days)
    ends = until(workspace, at, has_labels=not limited)
    wanted = replace(now_at(workspace), recipe=recipe, until=ends)
    return change_serving(workspace, wanted, decision_key=None, at=at, run="r")


def find(workspace: Workspace, kind: str, days: int, *, stratum: str = "ct", target: str = "lesion") -> None:
    """A finding on a period whose last scan came so many days after AT."""
    came = AT + timedelta(days=days)
    ends_on = came.date() - MOVED
    scan = {"site": "south", "series_key": f"{stratum}{ends_on}", "observed_on": ends_on, "ingested_at": came}
    workspace.lake.append(layout.SERIES, rows_of(SERIES, [scan]), transaction=f"s/{stratum}{ends_on}")
    row: dict[str, Any] = {
        "site": "south",
        "finding_key": f"{stratum}{ends_on}",
        "stratum": stratum,
        "target": target,
        "kind": kind,
    }
    row |= {"period_start": ends_on - timedelta(days=27), "period_end": ends_on, "run": f"r{ends_on}"}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row]), transaction=f"f/{stratum}{ends_on}")


def test_what_labels_have_confirmed_has_no_limit(served: Workspace) -> None:
    assert until(served, AT, has_labels=True) is None
    assert until(served, AT, has_labels=False) == OVER


def test_nothing_ends_before_its_time_and_what_has_no_limit_never(served: Workspace) -> None:
    assert renew_or_end(served, "south", "lesion", run="r9", at=AT + timedelta(days=9999)) is None
    give(served, "r2")
    assert renew_or_end(served, "south", "lesion", run="r9", at=OVER - timedelta(seconds=1)) is None
    assert now_at(served).recipe == "r2"


def test_it_ends_in_what_was_given_for_good_not_in_what_was_given_for_a_time(served: Workspace) -> None:
    give(served, "r2")
    give(served, "r3", days=10)
    told = renew_or_end(served, "south", "lesion", run="r9", at=OVER + timedelta(days=10))
    assert told is not None
    assert "r3" in told
    assert (now_at(served).recipe, now_at(served).until) == ("r1", None)
    assert now_at(served, "east").epoch == 0
    (row,) = decisions(served, "south").to_pylist()
    assert (row["action"], row["status"], row["because"], row["approved_by"]) == ("restore", "done", told, "policy")
    assert renew_or_end(served, "south", "lesion", run="r10", at=OVER + timedelta(days=11)) is None


def test_what_was_given_for_good_later_is_what_holds(served: Workspace) -> None:
    give(served, "r2", limited=False)
    give(served, "r3")
    renew_or_end(served, "south", "lesion", run="r9", at=OVER)
    assert now_at(served).recipe == "r2"


def test_a_quiet_period_since_renews_it_once_more(served: Workspace) -> None:
    give(served, "r2")
    find(served, "none", 30)
    told = renew_or_end(served, "south", "lesion", run="r9", at=OVER)
    assert told is not None
    assert "quiet" in told
    assert (now_at(served).recipe, now_at(served).until) == ("r2", OVER + timedelta(days=90))
    # that quiet period is older than the renewal: it does not count again
    renew_or_end(served, "south", "lesion", run="r10", at=OVER + timedelta(days=90))
    assert now_at(served).recipe == "r1"


@pytest.mark.parametrize(
    "findings",
    [
        [("none", -1, "ct", "lesion")],
        [("none", 30, "ct", "lesion"), ("label", 58, "ct", "lesion")],
        [("none", 30, "ct", "lesion"), ("undetermined", 30, "ct/sharp", "lesion")],
        [("none", 30, "ct", "nodule")],
    ],
    ids=["before it", "not quiet since", "another stratum is not", "another target"],
)
def test_anything_else_renews_nothing(served: Workspace, findings: list[tuple[str, int, str, str]]) -> None:
    give(served, "r2")
    for kind, days, stratum, target in findings:
        find(served, kind, days, stratum=stratum, target=target)
    renew_or_end(served, "south", "lesion", run="r9", at=OVER)
    assert now_at(served).recipe == "r1"


def test_a_person_goes_back_behind_a_renewal(served: Workspace) -> None:
    give(served, "r2")
    find(served, "none", 30)
    renew_or_end(served, "south", "lesion", run="r9", at=OVER)
    restore_serving(served, "south", "lesion", run="r10", at=OVER)
    assert (now_at(served).recipe, now_at(served).until) == ("r1", None)


@pytest.mark.parametrize("verb", ["renew", "restore"])
def test_a_change_that_was_killed_before_it_was_written_down_is_written_down_later(
    served: Workspace, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    give(served, "r2")
    if verb == "renew":
        find(served, "none", 30)
    append = type(served.lake).append

    def die_at_the_decision(self: Any, table: str, rows: pa.Table, *, transaction: str) -> int:
        if table == layout.DECISION:
            raise KeyboardInterrupt
        return append(self, table, rows, transaction=transaction)

    with monkeypatch.context() as killed:
        killed.setattr(type(served.lake), "append", die_at_the_decision)
        with pytest.raises(KeyboardInterrupt):
            renew_or_end(served, "south", "lesion", run="r9", at=OVER)
    changed = now_at(served)
    told = renew_or_end(served, "south", "lesion", run="r10", at=OVER + timedelta(days=1))
    (row,) = decisions(served, "south").to_pylist()
    assert (row["action"], row["because"], row["run"], row["decided_at"]) == (verb, told, "r9", OVER)
    assert row["serving_after"] == changed.to_json()
    assert renew_or_end(served, "south", "lesion", run="r11", at=OVER + timedelta(days=2)) is None
    assert now_at(served) == changed


def test_a_promotion_ends_the_limit(served: Workspace) -> None:
    assert with_model(give(served, "r2"), registry.find(served, "lesion@2")).until is None


def test_rows_from_before_the_column_have_no_limit(served: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    give(served, "r2")
    as_it_was = served.lake.read(layout.SERVING).drop_columns(["until"])
    monkeypatch.setattr(type(served.lake), "read", lambda *_: _of_south(as_it_was))
    assert [each.until for each in serving_history(served, "south", "lesion")] == [None, None]


def _of_south(rows: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([row for row in rows.to_pylist() if row["site"] == "south"])


def test_what_ends_under_a_new_champion_ends_without_its_predecessor_coming_back(served: Workspace) -> None:
    give(served, "r2")
    promote_by_hand(served, "lesion@2", run="p", at=AT + timedelta(days=10))
    assert (now_at(served).model, now_at(served).until) == ("lesion@2", OVER)
    assert renew_or_end(served, "south", "lesion", run="r9", at=OVER) is not None
    assert (now_at(served).model, now_at(served).recipe, now_at(served).until) == ("lesion@2", "r1", None)
