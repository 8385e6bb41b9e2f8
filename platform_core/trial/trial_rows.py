"""Recipe trials as rows of `out__shift`, and back.

`recipe` is the recipe's name, `#` and the state: 0 as the scans came, i after step i; `reference` begins with
`receipt/`.
A statistic that ends with `_change` tells the state less the one before it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from platform_core import layout
from platform_core.harmonize.stage import written_recipe
from platform_core.manifest.schemas import SHIFT
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Estimate
from platform_core.storage.tables import rows_of
from platform_core.trial.recipe_trial import RecipeTrial
from platform_core.trial.steps import Named, StepReceipt

MARK = "receipt/"
CHANGE = "_change"

Row = dict[str, Any]


def keep_trial(workspace: Workspace, tried: RecipeTrial) -> None:
    """Write what was measured; a trial that measured nothing leaves no row."""
    about = {
        "site": tried.site,
        "stratum": tried.stratum,
        "period_start": tried.period_start,
        "period_end": tried.period_end,
        "reference": MARK + tried.model,
        "run": tried.run,
    }
    rows = [about | row for receipt in tried.receipts for row in _rows(tried.recipe, receipt)]
    name = transaction("receipt", tried.run, tried.recipe, tried.stratum)
    workspace.lake.append(layout.SHIFT, rows_of(SHIFT, rows), transaction=name)


def kept_trials(workspace: Workspace, site: str) -> list[RecipeTrial]:
    """Every trial of a site, the latest run first; of several trials in one run, in the order of their recipes."""
    where = (pc.field("site") == site) & pc.starts_with(pc.field("reference"), MARK)
    trials: dict[tuple[str, str, str], list[Row]] = {}
    for row in workspace.lake.read(layout.SHIFT, where).to_pylist():
        trials.setdefault((row["run"], row["recipe"].partition("#")[0], row["stratum"]), []).append(row)
    return [_trial(workspace, recipe, rows) for (_, recipe, _), rows in sorted(trials.items(), reverse=True)]


def _rows(recipe: str, receipt: StepReceipt) -> list[Row]:
    states = [(receipt.number, receipt.after, ""), (receipt.number, receipt.change, CHANGE)]
    if receipt.number == 1:
        states.insert(0, (0, receipt.before, ""))
    return [
        {
            "recipe": f"{recipe}#{state}",
            "feature": feature,
            "statistic": statistic + suffix,
            "value": _known(estimate.value),
            "low": _known(estimate.low),
            "high": _known(estimate.high),
            "n_current": receipt.n_patients,
            "n_reference": receipt.n_reference,
        }
        for state, told, suffix in states
        for (feature, statistic), estimate in told.items()
    ]


def _trial(workspace: Workspace, recipe: str, rows: list[Row]) -> RecipeTrial:
    states: dict[int, dict[Named, Estimate]] = {}
    changes: dict[int, dict[Named, Estimate]] = {}
    for row in rows:
        kind = changes if row["statistic"].endswith(CHANGE) else states
        named = row["feature"], row["statistic"].removesuffix(CHANGE)
        kind.setdefault(int(row["recipe"].partition("#")[2]), {})[named] = _estimate(row)
    first = rows[0]
    steps = [one["harmonizer"] for one in json.loads(written_recipe(workspace, recipe))]
    return RecipeTrial(
        run=first["run"],
        site=first["site"],
        recipe=recipe,
        model=first["reference"].removeprefix(MARK),
        stratum=first["stratum"],
        period_start=first["period_start"],
        period_end=first["period_end"],
        receipts=tuple(
            StepReceipt(
                number=number,
                harmonizer=name,
                before=states.get(number - 1, {}),
                after=states.get(number, {}),
                change=changes.get(number, {}),
                n_patients=first["n_current"],
                n_reference=first["n_reference"],
            )
            for number, name in enumerate(steps, start=1)
        ),
    )


def _estimate(row: Mapping[str, Any]) -> Estimate:
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
