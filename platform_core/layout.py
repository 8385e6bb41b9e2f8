"""Every path and table name of a workspace, in one place.

A workspace is one URI: a folder, or `s3://bucket/prefix`. Paths here are relative to it.
"""

from pathlib import Path

from platform_core.errors import BadRequest

SETTINGS = "sitedrift.toml"
SITES = "sites"
LAKE = "lake"
VOLUMES = "volumes"
MODELS = "models"
REPORTS = "reports"

NATIVE = "native"
"""The empty recipe: a volume as it came."""
MASKS = "masks"
"""Beside the recipes of a site's volumes."""

ARRIVAL = "raw__arrival"
SERIES = "core__series"
PATIENT_MERGE = "core__patient_merge"
WITHDRAWN = "core__withdrawn"
STAGE = "core__stage"
LABEL = "core__label"
RECIPE = "core__recipe"
VOLUME = "core__volume"
FEATURE = "core__feature"
PREDICTION = "core__prediction"
TRANSPORTED = "core__transported"
RANK = "core__rank"
POOL = "core__pool"
REFERENCE = "core__reference"
QUALITY = "out__quality"
SKETCH = "out__sketch"
SHIFT = "out__shift"
FINDING = "out__finding"
ALARM = "out__alarm"
EPISODE = "out__episode"
DECISION = "out__decision"
REQUEST = "out__request"
RACE = "out__race"
MODEL = "out__model"
SERVING = "out__serving"
WITHDRAWAL = "out__withdrawal"


def is_remote(uri: str) -> bool:
    """Whether a URI is of S3; anything else is a folder of this machine."""
    return uri.startswith("s3://")


def workspace_uri(place: str | Path) -> str:
    """The one spelling of a workspace's address: an absolute path, or `s3://bucket/prefix` without a slash at its end.

    Raises:
        BadRequest: If it is neither.
    """
    if not is_remote(str(place)):
        if "://" in str(place):
            raise BadRequest(f"{place}: a workspace is a folder or s3://bucket/prefix")
        return str(Path(place).resolve())
    parts = [part for part in str(place).removeprefix("s3://").split("/") if part]
    if not parts:
        raise BadRequest(f"{place} names no bucket; a workspace on S3 is s3://bucket/prefix")
    return "s3://" + "/".join(parts)


def site_file(site: str) -> str:
    """The settings of one hospital."""
    return f"{SITES}/{site}.toml"


def site_of(path: str) -> str | None:
    """The hospital whose settings lie at a path; None if it is no such file."""
    parts = path.split("/")
    is_settings = len(parts) == 2 and parts[0] == SITES and parts[1].endswith(".toml")
    return parts[1].removesuffix(".toml") if is_settings else None


def table_path(table: str) -> str:
    """The folder of one Delta table."""
    return f"{LAKE}/{table}"


def volume_path(site: str, recipe: str, series_key: str, revision: int) -> str:
    """One stored volume; `recipe` is `native` for the volume as it came."""
    return f"{VOLUMES}/{site}/{recipe}/{series_key}-r{revision}.nii.gz"


def mask_path(site: str, target: str, series_key: str, sha256: str) -> str:
    """One mask on the grid of its series as it came, named by its content."""
    return f"{VOLUMES}/{site}/{MASKS}/{target}/{series_key}-{sha256[:12]}.nii.gz"


def model_path(model: str, version: int) -> str:
    """The folder of one model version."""
    return f"{MODELS}/{model}/{version:04d}"


def unfinished_path(model: str) -> str:
    """The folder of a target's unfinished trainings and races."""
    return f"{MODELS}/{model}/unfinished"


def training_path(model: str, training: str) -> str:
    """The folder in which an unfinished training keeps how far it has come."""
    return f"{unfinished_path(model)}/{training}"


def by_hand_path(model: str) -> str:
    """The folder in which a training that a person has started says that it runs."""
    return f"{MODELS}/{model}/by_hand"


def report_path(name: str) -> str:
    """One page."""
    return f"{REPORTS}/{name}.html"
