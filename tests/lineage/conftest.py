"""A small fleet that has seen everything: three sites, two of which share patients, with all that a run leaves."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from platform_core import layout
from platform_core.features.stage import measure_shard
from platform_core.harmonize.stage import fit_site_recipe, harmonize_shard
from platform_core.learn.registry import REFERENCE, ModelRef, next_epoch, register
from platform_core.manifest.copies import mark_copies
from platform_core.manifest.door import create_key
from platform_core.manifest.ingest import discover, ingest_shard
from platform_core.manifest.ledger import check_ledger
from platform_core.manifest.schemas import DECISION, FINDING, LABEL, PREDICTION, REQUEST
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.provenance import digest
from platform_core.quality.stage import check_quality
from platform_core.settings import SiteSettings
from platform_core.shift.sketch.patient_days import Basis
from platform_core.shift.sketch.references import freeze_reference
from platform_core.shift.sketch.sketches import sketch_shard
from platform_core.shift.watch import kept
from platform_core.shift.watch.alarms import open_watch
from platform_core.shift.watch.pools import Scope, pools_of, read_counts, write_pools
from platform_core.shift.watch.ranks import _read_ranks, features_of_days, open_reference, rank_new
from platform_core.storage.tables import rows_of
from tests.conftest import ct_slice, save

AT = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = bytes(range(32))
GONE = "HOSP-0007"
"""The patient who withdraws: at north and south, once in the training set."""
BASIS = Basis(reference="lesion@1")
EVEN = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
grid = [8, 16, 16]

[[target.lesion.recipe]]
harmonizer = "clip_intensity"
low = -1000.0
high = 1000.0

[split]
evaluation = 0.01
validation = 0.01
"""
N_PATIENTS = {"north": 22, "south": 5, "east": 2}


@dataclass(frozen=True)
class Fleet:
    """Where everything lies."""

    workspace: Workspace
    home: Path
    scans: Path


def patients_of(site: str, *, without: str | None = None) -> list[str]:
    """Identifiers in order; five of north are seen at south as well."""
    first = {"north": 0, "south": 4, "east": 100}[site]
    return [name for i in range(N_PATIENTS[site]) if (name := f"HOSP-{first + i:04d}") != without]


def send(scans: Path, site: str, patient: str, visit: int = 0) -> None:
    """Lay one CT series of eight slices where the site sends from."""
    number = int(patient[-4:])
    uid = f"1.2.826.0.1.{len(site)}{ord(site[0])}.{number + 1}.{visit + 1}"
    rng = np.random.default_rng([number, visit, ord(site[0])])
    body = np.full((24, 24), -1000.0)
    body[5:19, 5:19] = 40
    day = f"2026{1 + (number // 5) % 2:02d}{1 + 5 * (number % 5) + visit:02d}"
    for place in range(6):
        pixels = (body + rng.normal(0, 8 + number % 7, body.shape) + 1024).astype(np.int16)
        slice_ = ct_slice(
            place,
            (-10.0, 5.0, 2.0 * place),
            pixels,
            SeriesInstanceUID=uid,
            SOPInstanceUID=f"{uid}.{place + 1}",
            StudyInstanceUID=f"{uid}.99",
            PatientID=patient,
            StudyDate=day,
            AcquisitionDate=day,
        )
        save(scans / site / f"n{number}v{visit}" / f"IM{place}", slice_)


def take_in(workspace: Workspace, site: str, at: datetime = AT) -> int:
    """Ingest what is new; returns the files."""
    run = f"{at:%Y%m%dT%H%M%S}-{site}"
    found = discover(workspace, site, run=run, at=at)
    for shard in found.shards:
        ingest_shard(workspace, site, shard, run=run, at=at)
    check_ledger(workspace, site, run, found.n_new)
    return found.n_new


def work(workspace: Workspace, site: str, at: datetime = AT) -> None:
    """Everything that a night does, but the network; a second call writes nothing."""
    run = f"{at:%Y%m%dT%H%M%S}-{site}"
    keys = current_series(workspace, site).column("series_key").to_pylist()
    mark_copies(workspace, site, run=run)
    measure_shard(workspace, site, keys, recipe=layout.NATIVE, run=run)
    check_quality(workspace, site, run=run)
    recipe = fit_site_recipe(workspace, site, "lesion", keys, run=run, at=at, reference=None)
    harmonize_shard(workspace, site, keys, recipe=recipe, run=run)
    measure_shard(workspace, site, keys, recipe=recipe, run=run)
    label(workspace, site, keys, recipe)


def label(workspace: Workspace, site: str, keys: list[str], recipe: str) -> None:
    """A label and a prediction for every series, as its key decides."""
    rows: list[dict[str, Any]] = [{"site": site, "series_key": key, "run": "r"} for key in keys]
    values = [{"target": "lesion", "value": str(int(row["series_key"], 16) % 2)} for row in rows]
    told = [row | value for row, value in zip(rows, values, strict=True)]
    workspace.lake.append(layout.LABEL, rows_of(LABEL, told), transaction=f"label/{site}/{digest(keys)}")
    patients = {row["series_key"]: row["patient_key"] for row in current_series(workspace, site).to_pylist()}
    chance = {"target": "lesion", "drawn": "uniform", "random_number": 0.2, "sampling_probability": 0.5}
    asked = [row | chance | {"patient_key": patients[row["series_key"]], "requested_at": AT} for row in rows]
    workspace.lake.append(layout.REQUEST, rows_of(REQUEST, asked), transaction=f"request/{site}/{digest(keys)}")
    seen = {"revision": 1, "recipe": recipe, "model": "lesion@1", "target": "lesion", "probability": [0.5, 0.5]}
    scored = [
        row | seen | {"score": int(row["series_key"][:4], 16) / 65536, "embedding": [0.0, 1.0, 2.0]} for row in rows
    ]
    workspace.lake.append(layout.PREDICTION, rows_of(PREDICTION, scored), transaction=f"score/{site}/{digest(keys)}")


def make_model(workspace: Workspace, version: int, keys: list[str], parent: str | None = None) -> ModelRef:
    """A registered version with a frozen list and weights that are no network."""
    uri = f"{layout.model_path('lesion', version)}/{digest([version])}"
    list_ = rows_of(pq_schema(), [{"site": "north", "series_key": key, "revision": 1} for key in sorted(keys)])
    out = BytesIO()
    pq.write_table(list_, out)
    workspace.objects.put(f"{uri}/{REFERENCE}", out.getvalue())
    workspace.objects.put(f"{uri}/models/model.safetensors", b"weights")
    made = ModelRef(
        model="lesion",
        version=version,
        alias="champion" if version == 1 else "challenger",
        parent=parent,
        strategy="from_scratch" if parent is None else "full",
        reference=digest(list_.to_pylist()),
        recipe=layout.NATIVE,
        metrics={"north": {"auroc": 0.9}},
        calibration=EVEN,
        bundle_uri=uri,
        created_at=AT,
        since=AT,
        epoch=next_epoch(workspace, "lesion"),
    )
    return register(workspace, made, run="train")


def pq_schema() -> Any:
    """Columns of a frozen list."""
    import pyarrow as pa

    return pa.schema([("site", pa.string()), ("series_key", pa.string()), ("revision", pa.int64())])


def rank(workspace: Workspace, site: str, reference: list[str], later: list[str]) -> Scope:
    """Rank some series of a site among others, one after the other, and count the pool."""
    (stratum,) = set(current_series(workspace, site).column("stratum").to_pylist())
    scope = Scope(site=site, stratum=stratum, reference=f"{site}@2026-01-01")
    opening = features_of_days(workspace, site, stratum, reference, layout.NATIVE)
    open_reference(workspace, scope, opening.filter(_is_in(opening, reference)), run="r")
    for key in later:
        values = features_of_days(workspace, site, stratum, [key], layout.NATIVE)
        rank_new(workspace, scope, values.filter(_is_in(values, [key])), run="r")
    count_pool(workspace, scope, values)
    return scope


def count_pool(workspace: Workspace, scope: Scope, values: Any) -> None:
    """As `rank_new` does once in a while."""
    counts, last = read_counts(workspace.lake, scope)
    known = _read_ranks(workspace.lake, scope, values, last)
    batch = max(known.column("batch").to_pylist())
    write_pools(workspace.lake, scope, pools_of(counts, known, known), batch, "r")


def _is_in(values: Any, keys: list[str]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(values.column("series_key"), pa.array(keys, pa.string()))


def build(place: Path, *, without: str | None = None) -> Workspace:
    """The whole fleet in a folder; `without` leaves one patient out from the start."""
    workspace = create_workspace(place / "w", key_fingerprint=create_key("w", secret=SECRET))
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + TARGET, encoding="utf-8")
    for site in N_PATIENTS:
        issuer = None if site == "east" else "county"
        add_site(workspace, site, SiteSettings(quiet_s=0, path=str(place / "scans" / site), issuer=issuer))
        for patient in patients_of(site, without=without):
            send(place / "scans", site, patient)
    here = open_workspace(workspace.uri)
    for site in N_PATIENTS:
        take_in(here, site)
        work(here, site)
    north = sorted(keys_of(here, "north"))
    make_model(here, 1, north)
    make_model(here, 2, [key for key in north if key not in keys_of(here, "north", GONE)], parent="lesion@1")
    freeze_reference(here, "north", basis=BASIS, run="r")
    for site in N_PATIENTS:
        sketch_shard(here, site, keys_of(here, site), basis=BASIS, run="r")
        here.objects.put(layout.report_path(f"passport-{site}"), b"<html>a page</html>")
        serving = Serving(site=site, target="lesion", model="lesion@1", recipe="native", calibration=EVEN, epoch=-1)
        change_serving(here, serving, decision_key="d1" if site == "south" else None, at=AT, run="r")
    decide(here)
    order = [key for patient in patients_of("north", without=without) for key in keys_of(here, "north", patient)]
    scope = rank(here, "north", order[-12:], order[:-12])
    watch = open_watch(here, scope, alpha=0.05, n_opened=0)
    seen = tuple((key, AT.date()) for site in ("north", "south") for key in keys_of(here, site))
    kept.write_kept(here, kept.Kept(watch=watch, n_reference=12, until=AT, recent=seen))
    return here


def decide(workspace: Workspace) -> None:
    """A finding at south and what was decided about it."""
    serving = Serving(site="south", target="lesion", model="lesion@1", recipe="native", calibration=EVEN, epoch=0)
    (stratum,) = set(current_series(workspace, "south").column("stratum").to_pylist())
    days = sorted(current_series(workspace, "south").column("observed_on").to_pylist())
    finding = {"site": "south", "finding_key": "f1", "stratum": stratum, "target": "lesion", "model": "lesion@1",
               "period_start": days[0], "period_end": days[-1], "reference": "lesion@1", "kind": "label",
               "size": 0.2, "explained_by": "more sick patients", "run": "r"}  # fmt: skip
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction="f1")
    row = {"site": "south", "decision_key": "d1", "finding_key": "f1", "target": "lesion", "action": "recalibrate",
           "because": "the prior moved", "approved_by": "policy", "evidence": "{}", "step": 0,
           "serving_before": serving.to_json(), "serving_after": serving.to_json(), "run": "r"}  # fmt: skip
    for n, status in enumerate(("proposed", "done")):
        told = row | {"status": status, "decided_at": AT + timedelta(minutes=n)}
        workspace.lake.append(layout.DECISION, rows_of(DECISION, [told]), transaction=f"d1/{status}")


def keys_of(workspace: Workspace, site: str, patient: str | None = None) -> list[str]:
    """Series keys of a site, or of one patient there."""
    from platform_core.manifest.door import open_door

    rows = current_series(workspace, site).to_pylist()
    whose = patient and open_door(workspace).patient_key(workspace.site(site).issuer or site, patient)
    return [row["series_key"] for row in rows if whose in (None, row["patient_key"])]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once; never changed."""
    place = tmp_path_factory.mktemp("fleet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITEDRIFT_HOME", str(place / "home"))
        patch.delenv("SITEDRIFT_KEY", raising=False)
        build(place)
    return place


@pytest.fixture
def fleet(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A copy of the fleet that a test may change."""
    return copy_of(made, tmp_path / "copy", monkeypatch)


def copy_of(made: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Workspace and home copied; the scans stay where they are."""
    for name in ("w", "home"):
        shutil.copytree(made / name, place / name)
    monkeypatch.setenv("SITEDRIFT_HOME", str(place / "home"))
    monkeypatch.delenv("SITEDRIFT_KEY", raising=False)
    return Fleet(open_workspace(place / "w"), place / "home", made / "scans")


Copy = Callable[[], Fleet]
