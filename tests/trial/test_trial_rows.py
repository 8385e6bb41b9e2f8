"""A recipe trial is rows of `out__shift`, and its page says what they say."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from platform_core import layout
from platform_core.harmonize.recipe import fit_recipe, parse_recipe
from platform_core.manifest.schemas import FITTED_RECIPE
from platform_core.manifest.workspace import Workspace
from platform_core.report.receipt import write_receipt
from platform_core.settings import StepSettings
from platform_core.shift.risk import Estimate
from platform_core.storage.tables import rows_of
from platform_core.trial.recipe_trial import RecipeTrial
from platform_core.trial.steps import EMBEDDING, EVERY, FIT, SIGNAL_HERE, VOLUME_ERROR, Named, StepReceipt
from platform_core.trial.trial_rows import keep_trial, kept_trials

AT = datetime(2026, 3, 1, tzinfo=UTC)
RECIPE = "lesion-south-abc"


def state(move: float) -> dict[Named, Estimate]:
    named = [("noise_haar_hu", "ks"), EVERY, EMBEDDING, SIGNAL_HERE, FIT]
    return {
        name: Estimate(0.1 * n + move, 0.1 * n + move - 0.05, 0.1 * n + move + 0.05) for n, name in enumerate(named)
    }


def receipt(number: int, harmonizer: str, *, change: float = -0.1) -> StepReceipt:
    return StepReceipt(
        number=number,
        harmonizer=harmonizer,
        before=state(-0.1 * (number - 1)),
        after=state(-0.1 * number),
        change={EVERY: Estimate(change, change - 0.01, change + 0.01)},
        n_patients=40,
        n_reference=50,
    )


TRIAL = RecipeTrial(
    run="run-1",
    site="south",
    recipe=RECIPE,
    model="lesion@1",
    stratum="CT/CHEST",
    period_start=date(2026, 1, 5),
    period_end=date(2026, 2, 1),
    receipts=(receipt(1, "clip_intensity"), receipt(2, "histogram_match")),
)


@pytest.fixture
def fitted(served: Workspace) -> Workspace:
    """A workspace that knows the recipe of the trial."""
    written: list[dict[str, Any]] = [
        {"harmonizer": "clip_intensity", "low": -150.0, "high": 250.0},
        {"harmonizer": "histogram_match"},
    ]
    steps = [StepSettings(**step) for step in written]
    text = fit_recipe(parse_recipe(steps), [], None).to_json()
    row = {"site": "south", "target": "lesion", "recipe": RECIPE, "steps": text, "created_at": AT, "n_fitted": 1,
           "fitted_on": "x", "run": "r"}  # fmt: skip
    served.lake.append(layout.RECIPE, rows_of(FITTED_RECIPE, [row]), transaction="r")
    return served


def test_what_was_kept_is_what_was_tried(fitted: Workspace) -> None:
    keep_trial(fitted, TRIAL)
    (kept,) = kept_trials(fitted, "south")
    assert kept == TRIAL
    assert kept_trials(fitted, "east") == []


def test_the_same_trial_of_one_run_is_kept_once(fitted: Workspace) -> None:
    keep_trial(fitted, TRIAL)
    n = fitted.lake.read(layout.SHIFT).num_rows
    keep_trial(fitted, TRIAL)
    assert fitted.lake.read(layout.SHIFT).num_rows == n


def test_the_latest_run_comes_first(fitted: Workspace) -> None:
    keep_trial(fitted, replace(TRIAL, run="20260301T000000-a"))
    worse = replace(
        TRIAL, run="20260302T000000-a", receipts=(receipt(1, "clip_intensity", change=0.3), TRIAL.receipts[1])
    )
    keep_trial(fitted, worse)
    assert [len(tried.refused) for tried in kept_trials(fitted, "south")] == [1, 0]


def test_a_state_without_an_interval_keeps_its_value(fitted: Workspace) -> None:
    nan = float("nan")
    one = replace(TRIAL.receipts[0], after=state(0.1) | {VOLUME_ERROR: Estimate(0.01, nan, nan)})
    keep_trial(fitted, replace(TRIAL, receipts=(one, replace(TRIAL.receipts[1], before=one.after))))
    (kept,) = kept_trials(fitted, "south")
    assert kept.receipts[0].after[VOLUME_ERROR].value == 0.01
    assert {"low": None, "high": None}.items() <= next(
        row for row in fitted.lake.read(layout.SHIFT).to_pylist() if row["statistic"] == "volume_error"
    ).items()


def test_the_page_names_every_step_and_what_is_refused(fitted: Workspace) -> None:
    refused = replace(TRIAL, receipts=(TRIAL.receipts[0], receipt(2, "histogram_match", change=0.3)))
    keep_trial(fitted, refused)
    path = write_receipt(fitted, "south", at=AT)
    assert path is not None
    html = fitted.objects.get(path).decode()
    for told in ("clip intensity", "low -150.0", "histogram match", "the distance to the reference rises by 0.30",
                 "noise_haar_hu", "40 patients here, 50 of the reference"):  # fmt: skip
        assert told in html


def test_without_a_trial_there_is_no_page(fitted: Workspace) -> None:
    assert write_receipt(fitted, "south", at=AT) is None
