"""The samples that plots compare: one row per patient and period, the reference beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core import layout
from platform_core.manifest.serving import current_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.report.fleet_rows import Finding, Taken

HERE = "platform_core.report"
MOST_POINTS = 201
"""A sample is drawn from at most this many evenly spaced quantiles: the shape stays, the file stays small."""
MOST_PERIODS = 5

Role = Literal["reference", "accepted", "earlier", "latest"]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a plot: the values of one feature among the patients of one period."""

    label: str
    role: Role
    values: Reals
    """Evenly spaced quantiles, in the unit of the feature; empty if nothing is known."""
    n: int
    """Patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """One period of a site and how it is named."""

    number: int
    start: date
    end: date
    role: Role

    @property
    def label(self) -> str:
        """`period 2, accepted`."""
        return f"period {self.number + 1}" + {"accepted": ", accepted", "latest": ", latest"}.get(self.role, "")


def periods_of(workspace: Workspace, site: str, finding: Finding, actions: Sequence[Taken]) -> list[Period]:
    """The periods to show, oldest first: the accepted one, the latest, and the last few between.

    The accepted state is the period of the last reharmonize or fine_tune that was carried out BEFORE the latest
    period, else the first period.
    """
    with workspace.lake.connect([layout.SERIES]) as db:
        days = workspace.settings.shift.period_days
        seen = load(HERE, "periods").run(db, site=site, stratum=finding.stratum, period_days=days).to_pylist()
    seen = [row for row in seen if row["period_start"] <= finding.period_start]
    if not seen:
        return []
    moved = [
        taken.period_start
        for taken in actions
        if taken.action in ("reharmonize", "fine_tune") and taken.status == "done" and taken.period_start
    ]
    accepted = max([day for day in moved if day < finding.period_start], default=seen[0]["period_start"])
    kept = [row for row in seen[-MOST_PERIODS:] if row["period_start"] > accepted]
    base = [row for row in seen if row["period_start"] == accepted]
    return [_period(row, accepted, finding.period_start, days) for row in [*base, *kept]]


def feature_samples(
    workspace: Workspace, site: str, source_site: str, finding: Finding, periods: Sequence[Period], *, recipe: str
) -> dict[str, list[Sample]]:
    """Samples of every feature: the reference, then the periods. `recipe` is `native`, or a recipe to prefer."""
    own = _features(workspace, site, finding.stratum, recipe)
    serving = current_serving(workspace, source_site, finding.target)
    wanted = recipe if recipe == layout.NATIVE or serving is None else serving.recipe
    reference = own if source_site == site else _features(workspace, source_site, finding.stratum, wanted)
    names = [name for name in own.column_names if name not in ("patient_key", "number")]
    return {name: _rows(name, own, reference, source_site, periods) for name in names if _is_real(own, name)}


def score_samples(
    workspace: Workspace, site: str, source_site: str, finding: Finding, periods: Sequence[Period]
) -> list[Sample]:
    """Samples of the raw score (logit) of the model that the finding is about.

    The reference is held-out patients only: scores of patients that were trained on are too good.
    """
    own = _scores(workspace, site, finding)
    reference = _held_out(workspace, own if source_site == site else _scores(workspace, source_site, finding))
    return _rows("score", own, reference, source_site, periods)


def thin(values: Reals) -> Reals:
    """At most `MOST_POINTS` evenly spaced quantiles of the finite values, increasing."""
    known = np.sort(values[np.isfinite(values)])
    if known.size <= MOST_POINTS:
        return known
    return np.asarray(np.quantile(known, (np.arange(MOST_POINTS) + 0.5) / MOST_POINTS), dtype=np.float64)


def _rows(name: str, own: pa.Table, reference: pa.Table, source_site: str, periods: Sequence[Period]) -> list[Sample]:
    first = _column(reference, name, None)
    samples = [Sample(label=f"reference, {source_site}", role="reference", values=thin(first), n=first.size)]
    for period in periods:
        values = _column(own, name, period.number)
        samples.append(Sample(label=period.label, role=period.role, values=thin(values), n=values.size))
    return samples


def _column(table: pa.Table, name: str, number: int | None) -> Reals:
    """Known values of one period; of the first period, which the model was trained on, if `number` is None."""
    if name not in table.column_names or not table.num_rows:
        return np.empty(0)
    periods = table.column("number").to_numpy()
    values = np.asarray(table.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
    chosen = values[periods == (periods.min() if number is None else number)]
    return chosen[np.isfinite(chosen)]


def _features(workspace: Workspace, site: str, stratum: str, recipe: str) -> pa.Table:
    with workspace.lake.connect([layout.SERIES, layout.FEATURE]) as db:
        params = {"site": site, "stratum": stratum, "recipe": recipe}
        return load(HERE, "first_features").run(db, period_days=workspace.settings.shift.period_days, **params)


def _scores(workspace: Workspace, site: str, finding: Finding) -> pa.Table:
    with workspace.lake.connect([layout.SERIES, layout.PREDICTION]) as db:
        params = {"site": site, "stratum": finding.stratum, "model": finding.model}
        return load(HERE, "first_scores").run(db, period_days=workspace.settings.shift.period_days, **params)


def _held_out(workspace: Workspace, table: pa.Table) -> pa.Table:
    keys = table.column("patient_key").to_pylist()
    return table.filter(pa.array([part_of(key, workspace.settings.split) == "evaluation" for key in keys], pa.bool_()))


def _is_real(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _period(row: dict[str, Any], accepted: date, latest: date, days: int) -> Period:
    start = row["period_start"]
    role: Role = "latest" if start == latest else "accepted" if start == accepted else "earlier"
    return Period(number=row["number"], start=start, end=start + timedelta(days=days - 1), role=role)
