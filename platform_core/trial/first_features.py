"""Features of patients' first scans as a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.shift.risk import Reals


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Features of some patients' first scans by one recipe; NaN where a feature could not be told."""

    names: tuple[str, ...]
    values: Reals
    """(patients, features)."""


def first_of_each_patient(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of every patient, in the order of their days."""
    first: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["observed_on"], row["series_key"])):
        first.setdefault(row["patient_key"], row)
    return list(first.values())


def features_of(workspace: Workspace, site: str, recipe: str, keys: Sequence[str]) -> Matrix:
    """Rows in the order of `keys`."""
    where = (ds.field("site") == site) & (ds.field("recipe") == recipe)
    table = workspace.lake.read(layout.FEATURE, where)
    names = tuple(sorted(set(table.column_names) - set(workspace.lake.schemas[layout.FEATURE].names)))
    rows = {row["series_key"]: row for row in table.sort_by("revision").to_pylist()}
    values = [[np.nan if rows.get(key, {}).get(name) is None else rows[key][name] for name in names] for key in keys]
    return Matrix(names, np.array(values, dtype=np.float64).reshape(len(keys), len(names)))


def columns_of(matrix: Matrix, names: Sequence[str]) -> Reals:
    """The named features, (patients, names)."""
    return matrix.values[:, [matrix.names.index(name) for name in names]]
