"""What each harmonizer removes between scanners that all saw the same object: the ACR phantom.

    python -m tests.benchmarks.acr DATA

DATA is a folder that holds `dicom/acr_phantom`. Every series is taken in as a hospital's would be, and fitted as a site
of its own against one scanner of the same weighting. For each family of features the distance to that scanner is the
mean of |difference| in units of the spread between the scanners as they came. Printed is the median over scanners of
distance after less distance before: below 0 the scanners came nearer. One scan per scanner allows no
intervals: this describes, it proves nothing.
"""

import argparse
import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.errors import UnreadableScan
from platform_core.features import FAMILIES
from platform_core.features.measure import FEATURES, measure
from platform_core.harmonize.recipe import apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Volume
from platform_core.manifest.door import create_key
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings, StepSettings

AT, RUN = datetime(2026, 3, 1, 6, tzinfo=UTC), "20260301T060000-bench"
T2_FROM_MS = 60.0
"""Echo time that parts the two series of the ACR protocol (20 and 80 ms)."""
GRID: dict[str, Any] = {"harmonizer": "resample", "spacing_mm": [1.0, 1.0, 5.0]}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "resample to 1 x 1 x 5 mm": [GRID],
    "bias_field": [{"harmonizer": "bias_field"}],
    "zscore": [{"harmonizer": "zscore"}],
    "foreground_scale": [{"harmonizer": "foreground_scale"}],
    "histogram_match": [{"harmonizer": "histogram_match"}],
    "nyul": [{"harmonizer": "nyul"}],
    "band_gain": [{"harmonizer": "band_gain"}],
    "bias_field, resample, nyul": [{"harmonizer": "bias_field"}, GRID, {"harmonizer": "nyul"}],
}
SHOWN = ("geometry", "intensity", "noise", "sharpness", "spectrum", "contrast", "bias_field")

Reals = npt.NDArray[np.float64]


def main() -> None:
    """Read the scans, try every recipe, print one table per weighting."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", type=Path)
    scans = read_scans(asked.parse_args().data / "dicom" / "acr_phantom")
    for weighting in ("T1", "T2"):
        names = [name for name in scans if name[0] == weighting]
        print(f"\n{weighting}: {', '.join(name[1] for name in names)}; distances to the first")
        print(f"  {'':28s}" + "".join(f"{family:>11s}" for family in SHOWN))
        for title, steps in RECIPES.items():
            report(title, [scans[name] for name in names], steps)


def report(title: str, volumes: Sequence[Volume], steps: Iterable[dict[str, Any]]) -> None:
    """One row: the median change of distance, family by family."""
    before = np.array([values(volume) for volume in volumes])
    after, refused = [before[0]], 0
    recipe = parse_recipe([StepSettings(**step) for step in steps])
    at_reference = fit_recipe(recipe, volumes[:1], None)
    reference = values(apply_recipe(at_reference, volumes[0]).volume)
    for place, volume in enumerate(volumes[1:], start=1):
        try:
            fitted = fit_recipe(recipe, [volume], at_reference)
            after.append(values(apply_recipe(fitted, volume).volume))
        except UnreadableScan as error:
            refused += 1
            after.append(np.full_like(before[place], np.nan))
            print(f"  {title}: one scan refused, {error.reason}")
    spread = np.nanstd(before, axis=0)
    spread[~(spread > 0)] = np.nan
    was = np.abs(before[1:] - before[0]) / spread
    now = np.abs(np.array(after[1:]) - reference) / spread
    cells = [change(was[:, columns], now[:, columns]) for columns in map(columns_of, SHOWN)]
    print(f"  {title:28s}" + "".join(f"{cell:>11s}" for cell in cells))


def change(was: Reals, now: Reals) -> str:
    """Median over scanners of the mean change of distance over the features that both states tell."""
    known = np.isfinite(was) & np.isfinite(now)
    if not known.any():
        return "-"
    rows = [float((now[row] - was[row])[known[row]].mean()) for row in range(len(was)) if known[row].any()]
    return f"{np.median(rows):+.2f}"


def columns_of(family: str) -> list[int]:
    """Places of a family's features."""
    names = list(FEATURES)
    return [names.index(feature.name) for feature in FAMILIES[family].features]


def values(volume: Volume) -> Reals:
    """Every feature, NaN where it cannot be told."""
    told = measure(volume, "MR")
    return np.array([np.nan if told[name] is None else told[name] for name in FEATURES], dtype=np.float64)


def read_scans(folder: Path) -> dict[tuple[str, str], Volume]:
    """Each series as ingest makes a volume of it, by weighting and scanner, in name order."""
    with tempfile.TemporaryDirectory(prefix="sitedrift-bench-") as temporary:
        os.environ["SITEDRIFT_HOME"] = f"{temporary}/home"
        workspace = create_workspace(Path(temporary) / "w", key_fingerprint=create_key("w"))
        add_site(workspace, "acr", SiteSettings(path=str(folder), quiet_s=0))
        workspace = open_workspace(workspace.uri)
        for shard in discover(workspace, "acr", run=RUN, at=AT).shards:
            ingest_shard(workspace, "acr", shard, run=RUN, at=AT)
        found: dict[tuple[str, str], Volume] = {}
        for row in current_series(workspace, "acr").to_pylist():
            if row["volume_uri"] is None or row["n_z"] < 3:
                continue
            weighting = "T2" if (row["echo_time_ms"] or 0) >= T2_FROM_MS else "T1"
            scanner = f"{row['manufacturer'].split()[0].title()} {row['scanner_model']} {row['field_strength_t']:g} T"
            found.setdefault((weighting, scanner), workspace.read_volume(row["volume_uri"]).first())
        return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
