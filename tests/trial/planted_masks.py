"""Two sites of CT slices with a disc to be marked; at the second one the disc is dark instead of bright."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from platform_core import layout
from platform_core.harmonize.stage import fit_site_recipe, harmonize_shard
from platform_core.imaging.nifti import encode_volume
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest.masks import MaskCount, import_masks
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from platform_core.storage.tables import rows_of

AT = datetime(2026, 3, 1, tzinfo=UTC)
MONDAY = date(2026, 1, 5)
GEOMETRY = Geometry((2.0, 2.0, 2.0), (-9.0, -11.0, 4.0))
SIZE = (1, 11, 10)
"""(z, y, x) as it comes: 22 x 20 mm, which the recipe brings to 1.25 mm and the framing to 16 x 16."""
TARGET = """
[target.disc]
label = "disc"
task = "segmentation"
modality = "CT"
source_site = "north"
classes = ["nothing", "disc"]
network = "unet_tiny"
dimensions = 2
grid = [16, 16]

[target.disc.train]
epochs = 24
batch_size = 8
learning_rate = 4e-3
source_replay = 1.0

[[target.disc.recipe]]
harmonizer = "resample"
spacing_mm = [1.25, 1.25, 2.0]

[[target.disc.recipe]]
harmonizer = "clip_intensity"
low = 0.0
high = 100.0
"""


def make_workspace(workspace: Workspace) -> Workspace:
    """The two sites and the target, no scans."""
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + TARGET, encoding="utf-8")
    for site in ("north", "south"):
        add_site(workspace, site, SiteSettings(quiet_s=0, path="/nowhere"))
    return open_workspace(workspace.uri)


def disc(rng: np.random.Generator, *, is_empty: bool, disc_hu: float) -> tuple[Volume, Volume]:
    """A scan of noise with a disc of 4 to 6 mm radius in it, and where the disc is."""
    _, y, x = np.indices(SIZE) * 2.0
    row, column = (rng.uniform(7, 2 * n - 9) for n in SIZE[1:])
    inside = (y - row) ** 2 + (x - column) ** 2 <= rng.uniform(4, 6) ** 2
    marked = inside & (not is_empty)
    voxels = rng.normal(50, 6, SIZE) + np.where(marked, disc_hu - 50, 0)
    return Volume(voxels.astype(np.float32), GEOMETRY), Volume(marked.astype(np.uint8), GEOMETRY)


def plant(workspace: Workspace, site: str, n: int, folder: Path, *, disc_hu: float, recipe: str | None = None) -> str:
    """Scans of n patients, every tenth without a disc, harmonized, and a CSV of their masks in `folder`.

    Returns:
        The recipe.
    """
    rng = np.random.default_rng(sum(site.encode()))
    folder.mkdir()
    rows, lines = [], ["series_key,mask_file,reader"]
    for i in range(n):
        scan, mask = disc(rng, is_empty=i % 10 == 9, disc_hu=disc_hu)
        rows.append(_row(workspace, site, f"{site}{i:03d}", i, scan))
        (folder / f"{i}.nii.gz").write_bytes(encode_volume(mask))
        lines.append(f"{site}{i:03d},{i}.nii.gz,reader one")
    (folder / "masks.csv").write_text("\n".join(lines))
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction=f"s/{site}")
    done = [Verdict(series_key=row["series_key"], revision=1) for row in rows]
    for stage in ("ingest", "quality"):
        record_stage(workspace, site, stage, done, run="run")
    keys = [row["series_key"] for row in rows]
    made = fit_site_recipe(workspace, site, "disc", keys, run="run", at=AT, reference=recipe)
    harmonize_shard(workspace, site, keys, recipe=made, run="run")
    return made


def mask(workspace: Workspace, site: str, folder: Path) -> MaskCount:
    """Import the masks that `plant` has left."""
    return import_masks(workspace, site, "disc", folder / "masks.csv", run="run")


def _row(workspace: Workspace, site: str, key: str, number: int, scan: Volume) -> dict[str, Any]:
    uri = layout.volume_path(site, layout.NATIVE, key, 1)
    sha256 = workspace.write_volume(uri, scan)
    return {
        "site": site,
        "series_key": key,
        "revision": 1,
        "part": 0,
        "n_parts": 1,
        "study_key": f"study-{key}",
        "patient_key": f"patient-{key}",
        "patient_known": True,
        "modality": "CT",
        "stratum": "CT",
        "n_x": SIZE[2],
        "n_y": SIZE[1],
        "n_z": SIZE[0],
        "spacing_x_mm": 2.0,
        "spacing_y_mm": 2.0,
        "spacing_z_mm": 2.0,
        "observed_on": MONDAY + timedelta(days=number % 20),
        "ingested_at": AT,
        "volume_uri": uri,
        "volume_sha256": sha256,
        "run": "run",
    }
