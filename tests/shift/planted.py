"""Hospitals with a planted truth, as rows in a lake: no volume, no network."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.schemas import DECISION
from platform_core.manifest.serving import Calibration, Serving, change_serving, current_serving
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)
MONDAY = date(2024, 1, 1)
MODEL, RECIPE = "lesion@1", "recipe-1"
STRATUM = "ct/chest/plain/smooth"
TARGET = """
[shift]
min_scans = 60

[target.lesion]
label = "lesion"
modality = "CT"
source_site = "a"
"""


@dataclass(frozen=True, kw_only=True)
class Month:
    """What one period of one hospital is like; the defaults are the source's."""

    site: str = "a"
    number: int = 0
    n: int = 150
    first_day: int = 0
    days: int = 28
    noise_hu: float = 10.0
    median_hu: float = 40.0
    prevalence: float = 0.4
    apart: float = 1.812
    """Distance of the classes' scores: AUROC .90."""
    spread: float = 1.0
    scanner_model: str = "S1"
    stratum: str = STRATUM
    recipe: str = RECIPE
    is_labelled: bool = True
    flips: float = 0.0
    """Share of labels that a reader gives the other way round."""
    missing: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return 1000 * self.number + ord(self.site[0]) + 100_000 * self.first_day


def prepare(workspace: Workspace, *sites: str) -> Workspace:
    """A workspace with a target, whose sites all run model 1 at the source's calibration."""
    file = Path(workspace.uri) / layout.SETTINGS
    kept = file.read_text(encoding="utf-8").split("[shift]")[0]
    file.write_text(kept + TARGET, encoding="utf-8")
    ready = Workspace(workspace.uri)
    calibration = Calibration(logit_offset=0.0, prevalence=0.4, threshold=0.5)
    for site in sites:
        first = Serving(site=site, target="lesion", model=MODEL, recipe=RECIPE, calibration=calibration, epoch=-1)
        change_serving(ready, first, decision_key=None, at=AT, run="r")
    return ready


def fill(workspace: Workspace, *months: Month) -> None:
    """Write the rows of every month."""
    for month in months:
        _fill(workspace, month)


def keys_of(month: Month) -> list[str]:
    part = f"-{month.first_day}-" if month.first_day else ""
    return [f"{month.site}{month.number}{part}{month.stratum[-2:]}{i:04d}" for i in range(month.n)]


def accept(workspace: Workspace, site: str, finding_key: str, action: str = "reharmonize") -> None:
    """Write that an action on a finding was carried out."""
    row = {"site": site, "decision_key": finding_key, "decided_at": AT, "finding_key": finding_key}
    rows = rows_of(DECISION, [row | {"target": "lesion", "action": action, "status": "done", "run": "r"}])
    workspace.lake.append(layout.DECISION, rows, transaction=f"accept/{finding_key}")


def serve(workspace: Workspace, site: str, model: str) -> None:
    """Let a site run another model on the same recipe."""
    present = current_serving(workspace, site, "lesion")
    assert present is not None
    change_serving(workspace, replace(present, model=model), decision_key=None, at=AT, run="r")


def score_again(workspace: Workspace, site: str, model: str) -> None:
    """Scores of another model: those of the first, and a little noise."""
    rows = workspace.lake.read(layout.PREDICTION, pc.field("site") == site).to_pylist()
    rng = np.random.default_rng(99)
    more = [row | {"model": model, "score": row["score"] + 0.1 * rng.normal()} for row in rows]
    _append(workspace, layout.PREDICTION, f"{site}/{model}", more)


def _fill(workspace: Workspace, month: Month) -> None:
    rng = np.random.default_rng(month.seed)
    start = MONDAY + timedelta(days=28 * month.number + month.first_day)
    days = [start + timedelta(days=int(day)) for day in np.sort(rng.integers(month.days, size=month.n))]
    days[0] = start
    y = (rng.random(month.n) < month.prevalence).astype(float)
    name = f"{month.site}/{month.number}/{month.first_day}/{month.stratum}"
    about = [{"site": month.site, "series_key": key, "revision": 1, "run": "r"} for key in keys_of(month)]
    features: dict[str, Any] = {
        "noise_immerkaer_hu": rng.normal(month.noise_hu, 1, month.n),
        "spacing_z_mm": np.full(month.n, 2.5),
        "q50_hu": rng.normal(month.median_hu, 5, month.n),
    }
    for feature in month.missing:
        features[feature] = np.full(month.n, np.nan)
    _append(workspace, layout.SERIES, name, [row | _series(month, i, days[i]) for i, row in enumerate(about)])
    for recipe in (layout.NATIVE, month.recipe):
        rows = [
            row | {"recipe": recipe, "stratum": month.stratum, "observed_on": day}
            for row, day in zip(about, days, strict=True)
        ]
        table = rows_of(workspace.lake.schemas[layout.FEATURE], rows)
        for feature, values in features.items():
            table = table.append_column(feature, pa.array(values, pa.float64()))
        workspace.lake.append(layout.FEATURE, table, transaction=f"feature/{name}/{recipe}")
    score = month.apart * (y - 0.5) + month.spread * rng.normal(size=month.n)
    embedding = rng.normal(size=(month.n, 4)) + (month.noise_hu - 10) / 5
    _append(
        workspace,
        layout.PREDICTION,
        name,
        [
            row | {"recipe": month.recipe, "model": MODEL, "target": "lesion", "score": float(s), "embedding": e}
            for row, s, e in zip(about, score, embedding.tolist(), strict=True)
        ],
    )
    if month.is_labelled:
        told = np.where(rng.random(month.n) < month.flips, 1 - y, y)
        labels = [
            {"site": month.site, "target": "lesion", "series_key": row["series_key"], "value": str(int(v)), "run": "r"}
            for row, v in zip(about, told, strict=True)
        ]
        _append(workspace, layout.LABEL, name, labels)


def _series(month: Month, i: int, day: date) -> dict[str, Any]:
    return {
        "patient_key": f"patient-{month.site}-{month.number}-{month.first_day}-{i}",
        "patient_known": True,
        "modality": "CT",
        "scanner_model": month.scanner_model,
        "stratum": month.stratum,
        "observed_on": day,
        "volume_uri": "v",
        "ingested_at": AT,
    }


def _append(workspace: Workspace, table: str, name: str, rows: list[dict[str, Any]]) -> None:
    workspace.lake.append(table, rows_of(workspace.lake.schemas[table], rows), transaction=f"{table}/{name}")
