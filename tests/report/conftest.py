"""A fleet with known truth, written straight into the tables.

`north` is the source and quiet; `south` has more positives in its second period; `east` gets a
noisier, blurrier scanner; `west` has just begun.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from platform_core import layout
from platform_core.manifest import schemas
from platform_core.manifest.serving import Calibration, Serving, change_serving, current_serving
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import record_decision
from platform_core.storage.tables import rows_of
from tests.conftest import new_workspace

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
MADE_AT = datetime(2026, 2, 2, 6, tzinfo=UTC)
FIRST = date(2024, 1, 1)
STRATUM = "CT/CHEST/plain/soft"
FEATURES = ("noise_immerkaer_hu", "sharpness_f50_per_mm", "spectrum_slope", "spacing_z_mm", "q50_hu")
WIDE = pa.schema([*schemas.FEATURE, *(pa.field(name, pa.float64()) for name in FEATURES)])
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
"""


@dataclass(frozen=True, kw_only=True)
class Month:
    """One period of one site, as it truly is."""

    site: str
    period: int
    n: int = 200
    prevalence: float = 0.3
    noise_hu: float = 12.0
    sharpness_per_mm: float = 0.34
    lost: float = 1.0
    """Factor on the separation of the scores."""
    scanner: str = "Alpha 64"


MONTHS = (
    Month(site="north", period=0, n=260),
    Month(site="north", period=1, n=210),
    Month(site="south", period=0, noise_hu=13.5, scanner="Beta 16"),
    Month(site="south", period=1, prevalence=0.62, noise_hu=13.5, scanner="Beta 16"),
    Month(site="east", period=0, noise_hu=11.0, scanner="Gamma 32"),
    Month(site="east", period=1, noise_hu=21.0, sharpness_per_mm=0.26, lost=0.45, scanner="Gamma 128"),
    Month(site="west", period=0, n=38, scanner="Alpha 64"),
)
GATE = {
    "passed": False,
    "because": "south may lose 0.09 nats per scan, at most 0.05 is allowed",
    "sites": [
        {"site": "east", "outcome": "gains", "n_patients": 82,
         "log_loss_gain": {"value": 0.14, "low": 0.07, "high": 0.21}},
        {"site": "south", "outcome": "fails", "n_patients": 80,
         "log_loss_gain": {"value": -0.04, "low": -0.09, "high": 0.01}},
        {"site": "west", "outcome": "not_evaluable", "n_patients": 15, "log_loss_gain": None},
    ],
}  # fmt: skip
RECEIPT = {"distance_before": 0.49, "distance_after": 0.14, "reduction": {"value": 0.71, "low": 0.62, "high": 0.79},
           "n_patients": 200}  # fmt: skip
SITES = ("north", "south", "east", "west")


def fill(workspace: Workspace) -> Workspace:
    """The workspace with the fleet in it."""
    root = Path(workspace.uri)
    with (root / layout.SETTINGS).open("a") as file:
        file.write(TARGET)
    for site in SITES:
        (root / layout.site_file(site)).write_text(f'path = "{root}/scans/{site}"\n')
    workspace = open_workspace(root)
    for month in MONTHS:
        add_month(workspace, month)
    add_model(workspace)
    for site in SITES:
        serve(workspace, site, "harmonized-1", 0.3, "lesion@1", MADE_AT)
        add_ledger(workspace, site)
    add_quality(workspace)
    add_story(workspace)
    return workspace


def append(workspace: Workspace, table: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    workspace.lake.append(table, rows_of(schema, [dict(row) for row in rows]), transaction=name)


def add_month(workspace: Workspace, month: Month) -> None:
    rng = np.random.default_rng([month.period, *month.site.encode()])
    name = f"{month.site}/{month.period}"
    keys = [f"{month.site}-{month.period}-{n:04d}" for n in range(month.n)]
    day = [FIRST + timedelta(days=28 * month.period + int(d)) for d in np.sort(rng.integers(0, 28, month.n))]
    day[0] = FIRST + timedelta(days=28 * month.period)
    positive = rng.random(month.n) < month.prevalence
    ids = [{"site": month.site, "series_key": key, "revision": 1, "run": "r0"} for key in keys]
    scans = [
        {**one, "patient_key": f"p-{one['series_key']}", "patient_known": True, "modality": "CT", "stratum": STRATUM,
         "manufacturer": month.scanner.split()[0], "scanner_model": month.scanner, "kernel": "B30f", "kvp": 120.0,
         "body_part": "CHEST", "n_x": 96, "n_y": 96, "n_z": 24, "n_t": 1, "spacing_x_mm": 0.8, "spacing_y_mm": 0.8,
         "spacing_z_mm": 2.5, "orientation": "LPS", "transfer_syntax": "1.2.840.10008.1.2.1", "geometry": "regular",
         "acquired_on": observed, "observed_on": observed, "n_files": 1, "volume_uri": "v",
         "volume_sha256": one["series_key"],
         "ingested_at": MADE_AT - timedelta(hours=2) if month.period == 0 else AT}
        for one, observed in zip(ids, day, strict=True)
    ]  # fmt: skip
    append(workspace, layout.SERIES, schemas.SERIES, scans, f"series/{name}")
    append(workspace, layout.FEATURE, WIDE, _features(month, ids, day, rng, layout.NATIVE), f"native/{name}")
    recipe = "harmonized-2" if month.noise_hu > 20 else "harmonized-1"
    append(workspace, layout.FEATURE, WIDE, _features(month, ids, day, rng, recipe), f"harmonized/{name}")
    score = rng.normal(np.where(positive, 1.6, -1.4) * month.lost, 1.1)
    predictions = [
        {**one, "recipe": "harmonized-1", "model": "lesion@1", "target": "lesion", "score": float(s),
         "probability": [0.5, 0.5], "embedding": [0.0, 1.0]}
        for one, s in zip(ids, score, strict=True)
    ]  # fmt: skip
    append(workspace, layout.PREDICTION, schemas.PREDICTION, predictions, f"prediction/{name}")
    labels = [
        {"site": month.site, "target": "lesion", "series_key": key, "value": "malignant" if y else "benign",
         "sampling_probability": 1.0, "run": "r0"}
        for key, y in zip(keys, positive, strict=True)
    ]  # fmt: skip
    append(workspace, layout.LABEL, schemas.LABEL, labels, f"label/{name}")


def _features(
    month: Month, ids: Sequence[Mapping[str, Any]], days: Sequence[date], rng: np.random.Generator, recipe: str
) -> list[dict[str, Any]]:
    """Harmonizing brings a feature most of the way to the reference."""
    kept = 1.0 if recipe == layout.NATIVE else 0.15
    centres = {
        "noise_immerkaer_hu": 12.0 + kept * (month.noise_hu - 12.0),
        "sharpness_f50_per_mm": 0.34 + kept * (month.sharpness_per_mm - 0.34),
        "spectrum_slope": 2.4 + kept * (month.noise_hu - 12.0) / 40,
        "spacing_z_mm": 2.5,
        "q50_hu": 40.0,
    }
    spread = {"noise_immerkaer_hu": 1.6, "sharpness_f50_per_mm": 0.02, "spectrum_slope": 0.12, "q50_hu": 6.0}
    return [
        {**one, "recipe": recipe, "stratum": STRATUM, "observed_on": day}
        | {name: float(rng.normal(centre, spread.get(name, 0.0))) for name, centre in centres.items()}
        for one, day in zip(ids, days, strict=True)
    ]


def add_model(workspace: Workspace) -> None:
    row = {"model": "lesion", "version": 1, "alias": "champion", "strategy": "from_scratch", "created_at": MADE_AT}
    append(workspace, layout.MODEL, schemas.MODEL, [{**row, "run": "r0"}], "model/1")


def serve(workspace: Workspace, site: str, recipe: str, prevalence: float, model: str, at: datetime) -> Serving:
    present = current_serving(workspace, site, "lesion")
    wanted = Serving(
        site=site,
        target="lesion",
        model=model,
        recipe=recipe,
        calibration=Calibration(logit_offset=0.0, prevalence=prevalence, threshold=0.5),
        epoch=-1 if present is None else present.epoch,
    )
    return change_serving(workspace, wanted, decision_key=None, at=at, run="r0")


def add_ledger(workspace: Workspace, site: str) -> None:
    n = {
        "accepted": sum(m.n for m in MONTHS if m.site == site),
        "duplicate": 3,
        "quarantined": 2 if site == "east" else 0,
    }
    reasons = {"accepted": None, "duplicate": "same_content", "quarantined": "missing_slice"}
    rows = [
        {"site": site, "arrival_key": f"{site}-{outcome}-{k}", "run": "r0", "arrived_at": AT, "n_bytes": 1,
         "outcome": outcome, "reason": reasons[outcome]}
        for outcome, count in n.items()
        for k in range(count)
    ]  # fmt: skip
    append(workspace, layout.ARRIVAL, schemas.ARRIVAL, rows, f"ledger/{site}")


def add_quality(workspace: Workspace) -> None:
    about = {"site": "east", "run": "r0", "rule": "kernel_stated", "severity": "warn", "because": "it names the cause"}
    rows: list[dict[str, Any]] = [
        {**about, "series_key": None, "passed": False, "observed": "2 of 400 scans fail"},
        {**about, "series_key": "east-0-0001", "passed": False, "observed": "kernel missing"},
        {**about, "series_key": "east-0-0002", "passed": False, "observed": "kernel missing"},
        {**about, "series_key": None, "rule": "contrast_relative", "passed": None, "severity": "error"},
    ]
    append(workspace, layout.QUALITY, schemas.QUALITY, rows, "quality")


def finding(site: str, period: int, kind: str, **facts: Any) -> dict[str, Any]:
    start = FIRST + timedelta(days=28 * period)
    terms = ("size", "source_risk", "divergence", "joint_risk", "target_risk", "expected_risk")
    sizes = {name: facts.pop(name, None) for name in terms}
    row = {"site": site, "finding_key": f"f-{site}-{period}", "stratum": STRATUM, "target": "lesion",
           "model": "lesion@1", "period_start": start, "period_end": start + timedelta(days=27),
           "reference": "lesion@1", "kind": kind, "run": f"r{period}", **facts}  # fmt: skip
    for name, triple in sizes.items():
        low, high = ("low", "high") if name == "size" else (f"{name}_low", f"{name}_high")
        row |= dict(zip((name, low, high), triple or (None, None, None), strict=True))
    return row


def add_story(workspace: Workspace) -> None:
    source = (0.38, 0.32, 0.44)
    quiet = {"explained_by": "nothing moved beyond chance since the accepted state: 41 features of 200 patients",
             "source_risk": source, "divergence": (0.12, 0.0, 0.31), "target_risk": (0.39, 0.31, 0.47)}  # fmt: skip
    found = [
        finding("north", 0, "none", **quiet),
        finding("north", 1, "none", **quiet),
        finding("south", 0, "none", **{**quiet, "target_risk": (0.41, 0.33, 0.49)}),
        finding("south", 1, "label", size=(0.31, 0.24, 0.38), source_risk=source, divergence=(0.35, 0.12, 0.58),
                target_risk=(0.56, 0.47, 0.65), joint_risk=(0.41, 0.35, 0.47), expected_risk=(0.53, 0.46, 0.6),
                explained_by="prevalence 0.61 (0.54 to 0.68) where 0.30 is assumed (p < 0.001; fit p 0.412); "
                             "acquisition is as before"),
        finding("east", 0, "none", **quiet),
        finding("east", 1, "covariate_acquisition", size=(0.97, 0.94, 0.99), source_risk=source,
                divergence=(1.21, 0.98, 1.44), target_risk=(0.71, 0.6, 0.83),
                explained_by="noise_immerkaer_hu rose from 11 to 20.9 (KS 0.97, p < 0.001) with scanner_model "
                             "'Gamma 128' unseen before (100% of patients); label status not determined while "
                             "acquisition differs"),
        finding("west", 0, "undetermined", n_needed=62, source_risk=source,
                explained_by="the period has 38 patients; a verdict needs 100"),
    ]  # fmt: skip
    append(workspace, layout.FINDING, schemas.FINDING, found, "findings")
    by_key = {row["finding_key"]: row for row in found}
    _decide(
        workspace,
        by_key["f-south-1"],
        "recalibrate",
        "done",
        "the share of positives moved by 0.31 [0.24, 0.38]; logits move, no weight does",
        before=(0.56, 0.47, 0.65),
        after=(0.41, 0.33, 0.49),
        error=(0.24, 0.2),
        auroc=(0.91, 0.91),
    )
    _decide(
        workspace,
        by_key["f-east-1"],
        "reharmonize",
        "done",
        "scans are made differently (distance 0.97 [0.94, 0.99]); the recipe is fitted again first",
        before=(0.71, 0.6, 0.83),
        after=(0.58, 0.49, 0.67),
        error=(0.36, 0.3),
        auroc=(0.72, 0.77),
        receipt=RECEIPT,
    )
    _decide(
        workspace,
        by_key["f-east-1"],
        "fine_tune",
        "refused",
        "harmonized again, and risk is still higher by 0.20 [0.09, 0.31] nats per scan; 98 labelled patients may "
        "be trained on",
        before=(0.58, 0.49, 0.67),
        after=(0.44, 0.36, 0.53),
        error=(0.3, 0.24),
        auroc=(0.77, 0.86),
        strategy="partial",
        gate=GATE,
    )
    serve(workspace, "east", "harmonized-2", 0.3, "lesion@1", AT)
    serve(workspace, "south", "harmonized-1", 0.61, "lesion@1", AT)
    _shifts(workspace)


def _decide(
    workspace: Workspace, about: Mapping[str, Any], action: Any, status: Any, because: str, *,
    before: Sequence[float], after: Sequence[float], error: tuple[float, float], auroc: tuple[float, float],
    strategy: str | None = None, gate: Mapping[str, Any] | None = None, receipt: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    def around(value: float) -> list[float]:
        return [value, value - 0.05, value + 0.05]

    sides = [
        {"log_loss": list(loss), "balanced_error": around(e), "auroc": around(a), "n": 82}
        for loss, e, a in zip((before, after), error, auroc, strict=True)
    ]
    evidence = {"before": sides[0], "after": sides[1], "gate": gate, "receipt": receipt}
    record_decision(
        workspace, Decision(action=action, because=because, rule="x"), finding=about, status=status, strategy=strategy,
        serving_before=None, serving_after=None, evidence=json.loads(json.dumps(evidence)), run="r1",
        at=AT + timedelta(minutes=1 if action == "fine_tune" else 0),
    )  # fmt: skip


def _shifts(workspace: Workspace) -> None:
    start = FIRST + timedelta(days=28)
    distances = {"noise_immerkaer_hu": 0.97, "sharpness_f50_per_mm": 0.88, "spectrum_slope": 0.61, "q50_hu": 0.05}
    rows = []
    for site, factor in (("east", 1.0), ("south", 0.08), ("north", 0.06)):
        for recipe, reference, kept in ((layout.NATIVE, "east@2024-01-01", 1.0), ("harmonized-2", "lesion@1", 0.2)):
            for feature, distance in distances.items():
                d = distance * factor * kept
                about = {"site": site, "stratum": STRATUM, "period_start": start, "recipe": recipe, "feature": feature,
                         "period_end": start + timedelta(days=27), "reference": reference.replace("east", site),
                         "n_current": 200, "n_reference": 260, "run": "r1"}  # fmt: skip
                rows.append({**about, "statistic": "ks", "value": d, "low": max(d - 0.04, 0), "high": min(d + 0.04, 1),
                             "evidence": 1e-9 if d > 0.2 else 0.4})  # fmt: skip
                rows += [
                    {**about, "statistic": statistic, "value": d * scale}
                    for statistic, scale in (("wasserstein", 4.1), ("psi", 6.2), ("jensen_shannon", 0.8))
                ]
    append(workspace, layout.SHIFT, schemas.SHIFT, rows, "shifts")


@pytest.fixture(scope="session")
def at() -> datetime:
    """The moment that the pages state."""
    return AT


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The example fleet, made once: it is only read."""
    with new_workspace(tmp_path_factory.mktemp("fleet")) as empty:
        return fill(empty)
