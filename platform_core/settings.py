"""Settings, read once and checked whole: the workspace's `sitedrift.toml` and one file per site.

Unknown keys are refused, and an error names the file, the key and the remedy. What a
plug-in's own parameters may be is the plug-in's business, not this module's.
"""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from platform_core.errors import BadSetting

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("use lower-case letters, digits, '-' and '_', starting with a letter or digit")
    return name


Name = Annotated[str, AfterValidator(_valid_name)]
Task = Literal["classification", "segmentation"]


Model = TypeVar("Model", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(BaseSettings):
    """What this machine, not the workspace, decides."""

    model_config = SettingsConfigDict(env_prefix="SITEDRIFT_", extra="ignore")

    home: Path = Path("~/.sitedrift")
    """Keys and door books: readable by their owner only, never inside a workspace."""
    key: str | None = None
    """The pseudonym key itself (hexadecimal); overrides the key file."""
    n_workers: int = Field(default=2, ge=1)
    """Shards that one machine works on at the same time."""
    memory_gib: float = Field(default=4.0, gt=0)
    """GiB that the volumes which one process works on may take together; a scan that needs more is refused."""
    store_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds in which an S3 store must answer one request; a request is repeated a few times."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where volumes are harmonized: on a GPU if torch finds one; `auto` looks only where there is a driver."""


class StepSettings(BaseModel):
    """One harmonizer of a recipe; every other key is a parameter of that harmonizer."""

    model_config = ConfigDict(extra="allow", frozen=True)

    harmonizer: str

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as written, still unchecked."""
        return dict(self.model_extra or {})


class TrainSettings(_Section):
    """How a network is trained from nothing; strategies scale these."""

    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    seed: int = 0
    source_replay: float = Field(default=0.5, ge=0, le=1)
    """Share of source-domain scans mixed into a fine-tuning set, so that the source is not forgotten."""
    at_once: int | None = Field(default=None, ge=2)
    """Scans on the device at a time, by default a batch; with fewer, gradients are added up. Halved if it is full."""
    patience: int = Field(default=0, ge=0)
    """Epochs without a better loss on a seventh of the training patients, held out, after which a phase ends with
    its best weights; 0: train to the end, on all of them."""
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    """A training that is interrupted loses at most this much."""


class TargetSettings(_Section):
    """One task: a label, how it is read, and the network and recipe that serve it."""

    label: str
    """Name of the label, as `sitedrift label import --target` files it."""
    task: Task = "classification"
    """What the network says: one class per scan, or one per voxel (labels are then masks: `mask_file`)."""
    modality: str
    source_site: Name
    """The site whose labelled scans make the reference."""
    classes: tuple[str, str] = ("0", "1")
    """The negative class, then the positive one, as labels spell them."""
    dimensions: Literal[2, 3] = 3
    grid: tuple[int, ...] = (16, 48, 48)
    """Voxels that the network sees, (z, y, x) or (y, x); volumes are cropped or padded about their centre."""
    network: str = "resnet_tiny"
    source_weights: str | None = None
    """Weights that the source model starts from: a file or folder (relative to the workspace, or absolute), s3:// or
    https://; PyTorch, safetensors or a MONAI bundle; or `nothing`. None: those that come with the platform for the
    network (`resnet_tiny` has some, made from no scan), else nothing."""
    source_weights_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """What that file must hash to."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Calibrated probability from which a scan is called positive."""
    intended_use: str | None = None
    """What a model of this target is for, and for whom: as model cards and exported bundles state it."""
    out_of_scope: str | None = None
    """What it must not be used for, stated beside it."""
    recipe: tuple[StepSettings, ...] = ()
    refuse_harmful_steps: bool = True
    """Leave a step of the recipe out where its receipt says that it does harm; false: only say so."""
    strategies: tuple[str, ...] = Field(
        default=(
            "linear_probe", "surgical_late", "surgical_early", "partial", "discriminative", "lp_ft", "l2_sp", "full",
        ),
        min_length=1,
    )  # fmt: skip
    """What a fine-tuning may race, cheapest first; `from_scratch` and `surgical_auto` may be added."""
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _grid_fits_dimensions(self) -> Self:
        if len(self.grid) != self.dimensions:
            raise ValueError(f"a grid of {self.dimensions} numbers, as `dimensions` says")
        return self


class ShiftSettings(_Section):
    """The false-alarm promise and the sizes that make a verdict sound."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance of any false alarm per site, period and look, spent over all its tests; a period that grows is looked at
    on every night that brings scans or labels."""
    period_days: int = Field(default=28, ge=7)
    min_scans: int = Field(default=100, ge=10)
    """Fewer patients than this and the verdict is `undetermined`."""
    material_distance: float = Field(default=0.10, gt=0, lt=1)
    """Kolmogorov-Smirnov distance of an acquisition feature below which a difference is not acted upon."""
    material_prevalence: float = Field(default=0.05, gt=0, lt=1)
    """Change of prevalence below which it is not acted upon."""
    n_transported: int = Field(default=300, ge=0)
    """Labelled scans of the reference that are shown through a shifted site's scanner at most; 0: never."""


class PolicySettings(_Section):
    """When to act, and what a gate asks for."""

    min_labels: int = Field(default=60, ge=10)
    """Labelled patients at a site before weights may move."""
    non_inferiority_margin: float = Field(default=0.05, gt=0)
    """Log-loss that a site other than the target may lose at most (upper bound of the interval)."""
    min_class_patients: int = Field(default=10, ge=2)
    """Patients of each class without whom AUROC is `not evaluable`."""
    n_folds: int = Field(default=5, ge=2, le=20)
    """Folds of patients on which strategies are raced."""
    n_seeds: int = Field(default=3, ge=1, le=20)
    """Seeds that the winner of a race is trained with in all, to see whether one of them made the gain."""
    cool_down_days: int = Field(default=28, ge=0)
    """Days after a fine-tuning in which the same site is not fine-tuned again."""
    file: str | None = None
    """The policy's table, relative to the workspace; None: the built-in one (`sitedrift policy show`)."""
    approve: tuple[Literal["reharmonize", "recalibrate", "calibrate", "adapt", "fine_tune"], ...] = ()
    """Actions that wait for a person: `sitedrift decision list`."""
    approval_days: int = Field(default=14, ge=1)
    """Days after which an action that nobody has answered for counts as rejected."""
    gpu_hours_per_month: float | None = Field(default=None, ge=0)
    """Hours of training in any 30 days, all targets together, after which a person must decide; None: no limit."""
    days_without_labels: int = Field(default=90, ge=1)
    """Days that a change of a site's serving holds which no label has confirmed; quiet periods renew it. Proposed:
    three periods, in which a site that is watched at all has had time to be labelled."""
    promotion_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance that any challenger of a target that is no better is ever promoted; spent over its challengers."""
    forgetting_margin: float = Field(default=0.03, gt=0, lt=1)
    """AUROC that the source site may lose at most (lower bound of the interval). Somewhat stricter than the margin of
    log-loss: intervals of a change of AUROC are 0.7 to 0.9 times as wide as those of log-loss in nats, on simulated
    scores of AUROC 0.86. A bound of 0.005 would refuse equals: the interval of 400 patients reaches 0.01 to 0.03."""
    dice_margin: float = Field(default=0.02, gt=0, lt=1)
    """Dice that a site other than the target may lose at most (lower bound of the interval), of a segmentation.
    Proposed: readers of one region differ by more."""
    calibration_margin: float = Field(default=0.01, gt=0, lt=1)
    """Calibration error by which a challenger may be worse beyond chance. Proposed; what chance hides, the margins of
    log-loss and Brier score bound."""
    specificity: float = Field(default=0.90, gt=0, lt=1)
    """At which sensitivities are reported."""
    shadow_days: int = Field(default=0, ge=0)
    """Days that a challenger which passed is predicted beside the champion before it is judged again; 0: none."""
    shadow_scans: int = Field(default=200, ge=1)
    """Scans that it must have predicted by then, else it stays in the shadow."""


class SplitSettings(_Section):
    """Shares of patients; a patient's part never changes as data grow."""

    evaluation: float = Field(default=0.4, gt=0, lt=1)
    validation: float = Field(default=0.1, ge=0, lt=1)


class Settings(_Section):
    """A workspace's `sitedrift.toml`."""

    name: Name
    key_fingerprint: str
    shard_size: int = Field(default=64, ge=1)
    """Series per task."""
    mlflow_uri: str | None = None
    """Where MLflow keeps runs (a server, or sqlite:///file.db): each new model version is logged there. None:
    nowhere."""
    shift: ShiftSettings = ShiftSettings()
    policy: PolicySettings = PolicySettings()
    split: SplitSettings = SplitSettings()
    target: dict[Name, TargetSettings] = {}


class SiteSettings(_Section):
    """One hospital: `sites/<site>.toml`."""

    source: str = "folder"
    """The kind of place the scans come from: a plug-in of `platform_core/sources`."""
    path: str
    issuer: Name | None = None
    """Sites that share patients (one hospital, several folders) name the same issuer of patient IDs."""
    door: str = "local"
    """The only worker that may see this site's raw scans."""
    modality: str | None = None
    """Modality of plain images, which carry none; DICOM says its own."""
    body_part: str | None = None
    index: str | None = None
    """For plain images: a CSV at the door with columns file, patient_id and, if known, view and acquired_on."""
    quiet_s: float = Field(default=60.0, ge=0)
    """Seconds in which nothing of a series may have changed before it is taken in: it may still be arriving."""
    secret_env: str | None = None
    """Name of the environment variable that holds what the source asks for (`user:password`, or a token)."""
    endpoint: str | None = None
    """Address of an S3 server other than AWS, as https://host:port; default: what the environment says."""
    onboarded_on: date | None = None


def parse_settings(data: bytes, where: str) -> Settings:
    """Check the content of `sitedrift.toml`; `where` names it in errors.

    Raises:
        BadSetting: If it is no TOML, or a key is unknown, missing or out of range.
    """
    return _parse(data, where, Settings)


def site_settings(**facts: Any) -> SiteSettings:
    """Settings of a new hospital.

    Raises:
        BadSetting: If one cannot be used.
    """
    try:
        return SiteSettings.model_validate(facts)
    except ValidationError as error:
        raise _first_problem("site add", error) from error


def parse_site(data: bytes, where: str) -> SiteSettings:
    """Check the content of one `sites/<site>.toml`.

    Raises:
        BadSetting: As `parse_settings`.
    """
    return _parse(data, where, SiteSettings)


def _parse(data: bytes, where: str, model: type[Model]) -> Model:
    try:
        facts = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(where, "", f"is not valid TOML ({error})", "mend the line it names") from error
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        raise _first_problem(where, error) from error


def _first_problem(where: str, error: ValidationError) -> BadSetting:
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return BadSetting(where, key, "is not a setting", "remove it or correct its spelling")
    if problem["type"] == "missing":
        return BadSetting(where, key, "is missing", "add it")
    found = f"expected {problem['msg'].removeprefix('Value error, ')}, found {problem['input']!r}"
    return BadSetting(where, key, found, "correct the value")
