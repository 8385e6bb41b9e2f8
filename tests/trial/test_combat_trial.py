"""ComBat at a site that it has never seen, judged by patients that it has not learned from."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from platform_core import layout
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of
from platform_core.trial.combat_trial import try_combat
from platform_core.trial.steps import EVERY, FAR
from platform_core.trial.trial_rows import keep_trial, kept_trials

AT = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = ("noise_hu", "q50_hu", "edge_width_mm")


def plant(workspace: Workspace, site: str, n: int, *, move: float = 0.0, stretch: float = 1.0) -> None:
    """Patients whose features are normal, with the site's own location and scale."""
    rng = np.random.default_rng(len(site) + n)
    keys = [f"{site}-{i:03}" for i in range(n)]
    place = {"site": site, "revision": 1, "stratum": "CT", "run": "r"}
    series = [
        place | {"series_key": key, "patient_key": f"p-{key}", "modality": "CT", "volume_uri": "v",
                 "observed_on": date(2026, 1, 5) + timedelta(days=i)}
        for i, key in enumerate(keys)
    ]  # fmt: skip
    workspace.lake.append(layout.SERIES, rows_of(SERIES, series), transaction=f"s-{site}")
    schema = workspace.lake.schemas[layout.FEATURE].remove_metadata()
    constant = {**place, "recipe": layout.NATIVE}
    columns = {
        name: pa.array([constant.get(name)] * n, kind) for name, kind in zip(schema.names, schema.types, strict=True)
    }
    columns |= {"series_key": pa.array(keys), "observed_on": pa.array([row["observed_on"] for row in series])}
    columns |= {name: pa.array(move + stretch * rng.normal(10, 1, n)) for name in FEATURES}
    workspace.lake.append(layout.FEATURE, pa.table(columns), transaction=f"f-{site}")


def sound(workspace: Workspace) -> dict[str, list[str]]:
    """Every planted series of every site."""
    found: dict[str, list[str]] = {site: [] for site in workspace.sites}
    for row in workspace.lake.read(layout.SERIES).to_pylist():
        found[row["site"]].append(row["series_key"])
    return found


@pytest.fixture
def fleet(served: Workspace) -> Workspace:
    plant(served, "north", 80)
    plant(served, "south", 60, move=0.5)
    return served


def test_a_site_that_was_never_seen_is_brought_near_and_says_how_far_it_lay(fleet: Workspace) -> None:
    plant(fleet, "east", 80, move=4.0, stretch=1.4)
    tried = try_combat(fleet, "east", "lesion", sound(fleet), run="run-1", at=AT)
    assert tried is not None
    (one,) = tried.receipts
    assert one.n_patients == 40
    assert one.before[EVERY].value > 0.8
    assert one.after[EVERY].value < 0.35
    assert one.change[EVERY].high < 0
    assert one.after[FAR].value == 1
    assert "100% of features lie beyond 2 SD of the known sites" in one.because


def test_a_site_like_the_others_is_not_far(fleet: Workspace) -> None:
    plant(fleet, "east", 80, move=0.25)
    tried = try_combat(fleet, "east", "lesion", sound(fleet), run="run-1", at=AT)
    assert tried is not None
    assert tried.receipts[0].after[FAR].value == 0
    assert tried.receipts[0].refusals == ()


def test_its_parameters_and_its_receipt_are_kept(fleet: Workspace) -> None:
    plant(fleet, "east", 80, move=4.0)
    tried = try_combat(fleet, "east", "lesion", sound(fleet), run="run-1", at=AT)
    assert tried is not None
    keep_trial(fleet, tried)
    (kept,) = kept_trials(fleet, "east")
    assert (kept.recipe, kept.receipts[0].because) == (tried.recipe, tried.receipts[0].because)
    (row,) = fleet.lake.read(layout.RECIPE).to_pylist()
    assert row["recipe"] == tried.recipe
    assert row["n_fitted"] == 40


def test_with_one_other_site_nobody_can_say_how_sites_lie(served: Workspace) -> None:
    plant(served, "north", 80)
    plant(served, "east", 80)
    assert try_combat(served, "east", "lesion", sound(served), run="run-1", at=AT) is None
