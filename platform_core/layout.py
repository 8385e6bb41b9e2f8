"""Every path and table name of a workspace, in one place.

A workspace is one URI: a folder (`s3://bucket/prefix` is planned for). Paths here are relative to it.
"""

SETTINGS = "sitedrift.toml"
SITES = "sites"
LAKE = "lake"
VOLUMES = "volumes"
MODELS = "models"
REPORTS = "reports"

NATIVE = "native"
"""The empty recipe: a volume as it came."""

ARRIVAL = "raw__arrival"
SERIES = "core__series"
PATIENT_MERGE = "core__patient_merge"
STAGE = "core__stage"
LABEL = "core__label"
RECIPE = "core__recipe"
VOLUME = "core__volume"
FEATURE = "core__feature"
PREDICTION = "core__prediction"
QUALITY = "out__quality"
SHIFT = "out__shift"
FINDING = "out__finding"
EPISODE = "out__episode"
DECISION = "out__decision"
MODEL = "out__model"
SERVING = "out__serving"


def site_file(site: str) -> str:
    """The settings of one hospital."""
    return f"{SITES}/{site}.toml"


def table_path(table: str) -> str:
    """The folder of one Delta table."""
    return f"{LAKE}/{table}"


def volume_path(site: str, recipe: str, series_key: str, revision: int) -> str:
    """One stored volume; `recipe` is `native` for the volume as it came."""
    return f"{VOLUMES}/{site}/{recipe}/{series_key}-r{revision}.nii.gz"


def model_path(model: str, version: int) -> str:
    """The folder of one model version."""
    return f"{MODELS}/{model}/{version:04d}"


def report_path(name: str) -> str:
    """One page."""
    return f"{REPORTS}/{name}.html"
