"""The labelled reference as a site's scanner would have shown it: what a finding reads of `core__transported`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow.dataset as ds

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Reals

KNOWN = ("site", "stratum", "target", "model", "recipe")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transported:
    """One row per labelled patient of the reference, whom the model has not learned from, in key order."""

    transport: str
    """Names all that the rows were made from."""
    scores: Reals
    """Logit of the positive class before calibration, as the site's scores are."""
    y: Reals
    """1 positive, 0 negative."""
    acquisition: Mapping[str, Reals]
    """Every feature of the shown scans, as the site's recipe leaves them, in the order of `scores`; NaN where unknown.
    To be held against the site's features by the same recipe."""
    worst: float
    """ln of noise power shown over the site's, the largest by size, [0, inf): from .3 on do not trust the scores."""

    @property
    def n(self) -> int:
        """Patients."""
        return len(self.scores)


def read_transported(
    workspace: Workspace, *, site: str, stratum: str, target: str, model: str, recipe: str, period_start: date
) -> Transported | None:
    """The reference as the site's scanner showed it in a period, as the latest run has learned it.

    None if nobody has shown it, or it could not be shown.
    """
    named = dict(zip(KNOWN, (site, stratum, target, model, recipe), strict=True))
    where = ds.field("period_start") == period_start
    for column, value in named.items():
        where &= ds.field(column) == value
    rows = workspace.lake.read(layout.TRANSPORTED, where).to_pylist()
    if not rows:
        return None
    *_, transport = max((row["run"], row["n_site"], row["transport"]) for row in rows)  # runs sort by time
    shown = sorted(
        (row for row in rows if row["transport"] == transport and row["reason"] is None),
        key=lambda row: str(row["series_key"]),
    )
    if not shown:
        return None
    names = sorted(set(shown[0]) - set(workspace.lake.schemas[layout.TRANSPORTED].names))
    return Transported(
        transport=transport,
        scores=np.array([row["score"] for row in shown], dtype=np.float64),
        y=np.array([row["y"] for row in shown], dtype=np.float64),
        acquisition={name: np.array([row[name] for row in shown], dtype=np.float64) for name in names},
        worst=float(shown[0]["worst"]),
    )
