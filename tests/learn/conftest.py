"""A workspace with a site of tiny volumes whose brightness is the label."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core import layout
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.schemas import LABEL, SERIES, VOLUME
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.tables import rows_of

MONDAY = date(2026, 1, 5)
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
grid = [8, 8, 8]

[target.lesion.train]
epochs = 2
batch_size = 8

[[target.lesion.recipe]]
harmonizer = "clip_intensity"
low = 0.0
high = 100.0
"""

Plant = Callable[..., list[str]]


@pytest.fixture
def with_target(workspace: Workspace) -> Workspace:
    """Two sites and one target, no scans."""
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + TARGET, encoding="utf-8")
    here = open_workspace(workspace.uri)
    for site in ("north", "south"):
        add_site(here, site, SiteSettings(quiet_s=0, path="/nowhere"))
    return open_workspace(workspace.uri)


@pytest.fixture
def plant(with_target: Workspace) -> Plant:
    """Writes series with volumes, and labels: `plant(site, n)`; returns their keys."""

    def write(
        site: str,
        n: int,
        *,
        recipe: str = "r1",
        patients: Sequence[str] | None = None,
        series: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        shape: tuple[int, int, int] = (8, 10, 6),
        **facts: Any,
    ) -> list[str]:
        workspace, rng = with_target, np.random.default_rng(n)
        names = patients or [f"{site}-p{i}" for i in range(n)]
        values = labels or [("benign", "malignant")[i % 2] for i in range(n)]
        keys = list(series or [f"{site}-s{name}" for name in names])
        rows, volumes = [], []
        for i, (key, patient, value) in enumerate(zip(keys, names, values, strict=True)):
            level = 70.0 if value == "malignant" else 30.0
            volume = Volume(rng.normal(level, 5, shape).astype(np.float32), Geometry((1.0, 1.0, 1.0)))
            uri = layout.volume_path(site, recipe, key, 1)
            sha256 = workspace.write_volume(uri, volume)
            row = {
                "site": site,
                "series_key": key,
                "revision": 1,
                "patient_key": patient,
                "patient_known": True,
                "modality": "CT",
                "stratum": "CT",
                "observed_on": MONDAY + timedelta(days=i % 20),
                "volume_uri": uri,
                "run": "run",
            }
            rows.append(row | facts)
            made = {"site": site, "series_key": key, "revision": 1, "recipe": recipe}
            volumes.append(made | {"volume_uri": uri, "volume_sha256": sha256, "run": "run"})
        workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction=f"s/{keys}")
        workspace.lake.append(layout.VOLUME, rows_of(VOLUME, volumes), transaction=f"v/{keys}")
        told = [
            {"site": site, "target": "lesion", "series_key": key, "value": value, "run": "run"}
            for key, value in zip(keys, values, strict=True)
            if value is not None
        ]
        workspace.lake.append(layout.LABEL, rows_of(LABEL, told), transaction=f"l/{keys}")
        done = [Verdict(series_key=key, revision=1) for key in keys]
        record_stage(workspace, site, "quality", done, run="run")
        record_stage(workspace, site, "harmonize", done, run="run", recipe=recipe)
        return keys

    return write


@pytest.fixture
def patients_in(with_target: Workspace) -> Callable[[str, int], list[str]]:
    """`patients_in(part, n)`: names that the split puts into one part."""

    def choose(part: str, n: int) -> list[str]:
        split = with_target.settings.split
        return [name for i in range(60 * n) if part_of(name := f"{part}{i}", split) == part][:n]

    return choose
