"""Sites with planted scores: what two models say of scans whose labels are known."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core import layout
from platform_core.learn.registry import REFERENCE, ModelRef, next_epoch, register
from platform_core.manifest.schemas import LABEL, PREDICTION, SERIES
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 1, tzinfo=UTC)
EVEN = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]

[split]
evaluation = 0.98
validation = 0.01
"""


@pytest.fixture
def served(workspace: Workspace) -> Workspace:
    """Three sites that run lesion@1, and a challenger lesion@2; neither has been trained on anything."""
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + TARGET, encoding="utf-8")
    for site in ("north", "south", "east"):
        add_site(workspace, site, SiteSettings(quiet_s=0, path="/nowhere"))
    here = open_workspace(workspace.uri)
    for version, alias in ((1, "champion"), (2, "challenger")):
        _register(here, version, alias)
    for site in here.sites:
        serving = Serving(site=site, target="lesion", model="lesion@1", recipe="r1", calibration=EVEN, epoch=-1)
        change_serving(here, serving, decision_key=None, at=AT, run="run")
    return here


def _register(workspace: Workspace, version: int, alias: Any) -> None:
    made = ModelRef(
        model="lesion",
        version=version,
        alias=alias,
        parent="lesion@1" if version > 1 else None,
        strategy="full",
        reference="abc",
        recipe="r1",
        metrics={},
        calibration=EVEN,
        bundle_uri=f"models/{version}",
        created_at=AT,
        since=AT,
        epoch=next_epoch(workspace, "lesion"),
    )
    register(workspace, made, run="run")
    write_reference(workspace, version, [])


def write_reference(workspace: Workspace, version: int, series: Sequence[tuple[str, str]]) -> None:
    rows = [{"site": site, "series_key": key, "revision": 1} for site, key in series]
    schema = pa.schema([("site", pa.string()), ("series_key", pa.string()), ("revision", pa.int64())])
    data = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), data)
    workspace.objects.put(f"models/{version}/{REFERENCE}", data.getvalue())


@pytest.fixture
def train_on(served: Workspace) -> Callable[[int, Sequence[tuple[str, str]]], None]:
    """Says of which (site, series_key) a version was made."""
    return lambda version, series: write_reference(served, version, series)


@pytest.fixture
def plant_scores(served: Workspace) -> Callable[..., list[str]]:
    """`plant_scores(site, n, {"lesion@1": 1.0})`: labelled scans, and scores of that separation; returns their keys."""

    def write(
        site: str,
        n: int,
        separation: Mapping[str, float],
        *,
        recipe: str = "r1",
        n_positive: int | None = None,
        period: int = 0,
        **facts: Any,
    ) -> list[str]:
        rng = np.random.default_rng(n + period)
        y = np.arange(n) < (n // 2 if n_positive is None else n_positive)
        keys = [f"{site}-{period}-{i}" for i in range(n)]
        noise = rng.normal(0, 1, n)
        series, labels, predictions = [], [], []
        for i, key in enumerate(keys):
            place = {"site": site, "series_key": key, "revision": 1, "run": "run"}
            day = date(2026, 1, 5) + timedelta(days=28 * period)
            about = {"patient_key": f"p-{key}", "patient_known": True, "modality": "CT", "stratum": "CT"}
            series.append({**place, **about, "observed_on": day, "ingested_at": AT, "volume_uri": "v", **facts})
            value = ("benign", "malignant")[int(y[i])]
            labels.append({"site": site, "target": "lesion", "series_key": key, "value": value, "run": "run"})
            for model, d in separation.items():
                # x is N(+-d/2, 1), so d x is the log likelihood ratio: calibrated whatever d is
                score = d * (noise[i] + (d / 2 if y[i] else -d / 2))
                named = {"recipe": recipe, "model": model, "target": "lesion", "score": float(score)}
                predictions.append({**place, **named})
        lake, name = served.lake, f"{site}/{period}/{recipe}/{sorted(separation)}"
        lake.append(layout.SERIES, rows_of(SERIES, series), transaction=f"s/{site}/{period}")
        lake.append(layout.LABEL, rows_of(LABEL, labels), transaction=f"l/{site}/{period}")
        lake.append(layout.PREDICTION, rows_of(PREDICTION, predictions), transaction=f"p/{name}")
        return keys

    return write
