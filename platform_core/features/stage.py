"""Measure a shard of series, as they came or by a recipe."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from platform_core import layout
from platform_core.errors import UnreadableScan
from platform_core.features import measure  # the module: it looks for families in this one too while it is imported
from platform_core.features.acquisition import STATED
from platform_core.imaging.memory import budget
from platform_core.imaging.usable import check_usable
from platform_core.manifest.schemas import FEATURE
from platform_core.manifest.stages import StageCount, Verdict, pending, record_stage, series_rows, transaction
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

KEPT = ("site", "series_key", "revision", "stratum", "observed_on")

Row = dict[str, Any]


def feature_schema() -> pa.Schema:
    """`core__feature` as this version writes it: the promised columns, then one per feature."""
    columns = [
        pa.field(feature.name, pa.float64(), metadata={"description": f"{feature.meaning} [{feature.unit}]"})
        for feature in measure.FEATURES.values()
    ]
    return pa.schema([*FEATURE, *columns], metadata=FEATURE.metadata)


def measure_shard(workspace: Workspace, site: str, keys: Sequence[str], *, recipe: str, run: str) -> StageCount:
    """Write one row of features per series that has no answer yet.

    A series without a volume by this recipe is not counted: it is not yet due. Refused with a reason: a volume
    that is missing, damaged, constant, too small, not finite, without a positive spacing, or whose axes are
    not at right angles.
    """
    owed = set(pending(workspace, site, "feature", recipe=recipe))
    due = [key for key in keys if key in owed]
    volumes = _volumes(workspace, site, due, recipe)
    rows, verdicts = [], []
    for series in series_rows(workspace, site, due):
        uri = volumes.get((series["series_key"], series["revision"]))
        if uri is None:
            continue
        features, reason = _measure(workspace, uri, series, is_native=recipe == layout.NATIVE)
        if reason is None:
            rows.append({key: series[key] for key in KEPT} | {"recipe": recipe, "run": run} | features)
        verdicts.append(Verdict(series_key=series["series_key"], revision=series["revision"], reason=reason))
    name = transaction("feature", recipe, [(v.series_key, v.revision, v.reason) for v in verdicts])
    workspace.lake.append(layout.FEATURE, rows_of(feature_schema(), rows), transaction=name)
    return record_stage(workspace, site, "feature", verdicts, run=run, recipe=recipe)


def _measure(workspace: Workspace, uri: str, series: Row, *, is_native: bool) -> tuple[Row, str | None]:
    """The features, or none and the reason.

    The header says how the native volume was made. No recipe moves it, and told again it would be a
    distance between sites that no recipe could close.
    """
    header = {name: series.get(name) for name in STATED} if is_native else {}
    try:
        with budget().room(_bytes_needed(series)):
            volume = workspace.read_volume(uri).first()
            check_usable(volume)
            return dict(measure.measure(volume, str(series["modality"] or ""), header)), None
    except UnreadableScan as error:
        return {}, error.reason
    except FileNotFoundError:
        return {}, "volume_missing"


def _bytes_needed(series: Row) -> int:
    """The stored voxels, as bytes and as numbers; what is measured beside them are a few slices."""
    n = (series["n_x"] or 1) * (series["n_y"] or 1) * (series["n_z"] or 1) * (series["n_t"] or 1)
    return int(8 * n)


def _volumes(workspace: Workspace, site: str, keys: Sequence[str], recipe: str) -> dict[tuple[str, int], str]:
    """Where the volume of each series and revision lies, by recipe."""
    table = layout.SERIES if recipe == layout.NATIVE else layout.VOLUME
    chosen = (ds.field("site") == site) & ds.field("series_key").isin(pa.array(keys, pa.string()))
    if recipe != layout.NATIVE:
        chosen &= ds.field("recipe") == recipe
    rows = workspace.lake.read(table, chosen, ["series_key", "revision", "volume_uri"]).to_pylist()
    return {(row["series_key"], row["revision"]): row["volume_uri"] for row in rows if row["volume_uri"]}
