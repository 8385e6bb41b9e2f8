"""What is counted: one row per patient and day of one site and stratum, never the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from platform_core import layout
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.workspace import Workspace
from platform_core.queries import Connection, load
from platform_core.shift.risk import Reals

HERE = "platform_core.shift.sketch"
WHOSE = ("stratum", "day", "patient_key")
MOST = 1e100
"""No measurement is so large; the square of one that is would be infinite in every sum from then on."""
EVER = (date(1900, 1, 1), date(9999, 12, 31))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What sketches are made against: one recipe's features and one model's scores, on one reference's edges."""

    reference: str
    """model@version, or site@period for a site's accepted state."""
    recipe: str = layout.NATIVE
    target: str | None = None
    """The task whose labels and scores are counted as well; None for features alone."""
    model: str | None = None
    """model@version whose scores by `recipe` are meant; None exactly where `target` is."""


@dataclass(frozen=True)
class PatientDays:
    """Rows of one site, in order of stratum, day and patient."""

    rows: pa.Table
    """stratum, day, patient_key, then what was measured."""
    names: tuple[str, ...]
    """Columns that are numbers."""
    classes: tuple[str, str] | None = None
    """Of the column `label`; None if there is none."""

    @property
    def stratum(self) -> npt.NDArray[np.str_]:
        """Of each row."""
        return np.asarray(self.rows.column("stratum").to_pylist(), dtype=np.str_)

    @property
    def day(self) -> npt.NDArray[np.datetime64]:
        """Of each row."""
        return np.asarray(self.rows.column("day").to_numpy(), dtype="datetime64[D]")

    def values(self, name: str) -> Reals:
        """One number of each row; NaN where it is not known, or no measurement at all."""
        found = np.asarray(self.rows.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)
        return np.where(np.abs(found) < MOST, found, np.nan)

    def matrix(self, names: Sequence[str]) -> Reals:
        """Several numbers of each row, (rows, names)."""
        return np.stack([self.values(name) for name in names], axis=1) if names else np.empty((len(self.rows), 0))

    def embedding(self) -> Reals:
        """(rows, dimensions) of the most frequent length; NaN where a row has none or another length."""
        lists = self.rows.column("embedding").to_pylist() if "embedding" in self.rows.column_names else []
        lengths = [len(each) for each in lists if each]
        width = max(sorted(set(lengths)), key=lengths.count, default=0)
        blank = [float("nan")] * width
        filled = [each if each and len(each) == width else blank for each in lists]
        return np.asarray(filled, dtype=np.float64).reshape(len(self.rows), width)


def feature_days(
    workspace: Workspace,
    site: str,
    recipe: str,
    *,
    days: tuple[date, date] = EVER,
    keys: Sequence[str] | None = None,
) -> PatientDays:
    """The features of every patient-day by one recipe.

    Args:
        workspace: Where they are read.
        site: Whose scans.
        recipe: `native`, or a fitted recipe.
        days: First and last day, inclusive.
        keys: Only these series; None for all.
    """
    tables = [layout.SERIES, layout.STAGE, layout.FEATURE]
    with workspace.lake.connect(tables) as db:
        if set(db.table(layout.FEATURE).columns) <= set(workspace.lake.schemas[layout.FEATURE].names):
            return PatientDays(_nobody(), ())
        db.register("usable", _usable(db, site, days, keys))
        rows = load(HERE, "patient_days").run(db, site=site, recipe=recipe, first_day=days[0], last_day=days[1])
    return PatientDays(rows, tuple(name for name in rows.column_names if name not in WHOSE))


def score_days(
    workspace: Workspace,
    site: str,
    basis: Basis,
    *,
    days: tuple[date, date] = EVER,
    keys: Sequence[str] | None = None,
) -> PatientDays:
    """Score, embedding and label of every patient-day that has a score or a label; arguments as `feature_days`.

    Raises:
        UnknownName: If there is no such target.
    """
    if basis.target is None:
        return PatientDays(_nobody(), ())
    classes = workspace.target(basis.target).classes
    with workspace.lake.connect([layout.SERIES, layout.STAGE, layout.PREDICTION]) as db:
        db.register("label_in_force", labels_in_force(workspace, basis.target))
        db.register("usable", _usable(db, site, days, keys))
        rows = load(HERE, "patient_day_scores").run(
            db, site=site, target=basis.target, model=basis.model, recipe=basis.recipe
        )
    return PatientDays(rows, ("score",), classes)


def _nobody() -> pa.Table:
    return pa.table({"stratum": pa.array([], pa.string()), "day": pa.array([], pa.date32()), "patient_key": []})


def _usable(db: Connection, site: str, days: tuple[date, date], keys: Sequence[str] | None) -> pa.Table:
    """Whose patient-days count."""
    listed = None if keys is None else list(keys)
    return load(HERE, "series").run(db, site=site, first_day=days[0], last_day=days[1], keys=listed)
