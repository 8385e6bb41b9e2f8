"""A site whose scanner was turned up, without a label: adapted, served there alone, ended by itself, and back."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.imaging.volume import Geometry, Volume
from platform_core.learn import registry
from platform_core.learn.bundle import Bundle, read_bundle, write_bundle
from platform_core.learn.calibrate import Platt
from platform_core.learn.data import Framing
from platform_core.learn.networks import Classifier
from platform_core.learn.predict import predict_shard
from platform_core.learn.registry import ModelRef
from platform_core.lineage.seen import seen_by
from platform_core.manifest.door import create_key
from platform_core.manifest.schemas import FINDING, LABEL, SERIES, TRANSPORTED
from platform_core.manifest.serving import Calibration, Serving, change_serving, current_serving, serving_history
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import decisions
from platform_core.settings import SiteSettings
from platform_core.shift.inputs import read_inputs
from platform_core.storage.tables import rows_of
from platform_core.trial.adapt import adapt_model, settle_adapted
from platform_core.trial.case import Case
from platform_core.trial.expiry import renew_or_end
from platform_core.trial.rollout import restore_serving
from tests.learn.planted_shift import Arrays, Scanner, framed, learned, logits, loss, scans

AT = datetime(2026, 3, 1, tzinfo=UTC)
MONDAY = date(2026, 1, 5)
NATIVE, MODEL = layout.NATIVE, "lesion@1"
WINDOW, SPOT = (-2.0, 6.0), 1.5
BRIGHTER = Scanner(gain=1.5)
N = {"north": 300, "south": 260}
EVEN = Calibration(logit_offset=0.0, prevalence=0.5, threshold=0.5)
DECISION = Decision(action="adapt", because="the site stays apart", rule="still_apart")
SETTINGS = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
dimensions = 2
grid = [16, 16]

[[target.lesion.recipe]]
harmonizer = "clip_intensity"
low = -2.0
high = 6.0
"""


def seen_at(site: str) -> tuple[Arrays, Any]:
    return scans(N[site], 50 + len(site) + (site == "south"), BRIGHTER if site == "south" else None, spot=SPOT)


def keys_at(site: str) -> list[str]:
    return [f"{site}-{i:03d}" for i in range(N[site])]


def make(folder: Path) -> Workspace:
    """A source with a model that has learned it, and a site that runs it on another scanner, all by native volumes."""
    workspace = create_workspace(folder / "w", key_fingerprint=create_key("w"))
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + SETTINGS, encoding="utf-8")
    for site in N:
        add_site(workspace, site, SiteSettings(quiet_s=0, path="/nowhere"))
    here = open_workspace(workspace.uri)
    register_champion(here)
    for site in N:
        fill(here, site)
        first = Serving(site=site, target="lesion", model=MODEL, recipe=NATIVE, calibration=EVEN, epoch=-1)
        change_serving(here, first, decision_key=None, at=AT, run="r0")
        predict_shard(here, site, keys_at(site), target="lesion", model=MODEL, recipe=NATIVE, run="r0")
    return here


def register_champion(workspace: Workspace) -> None:
    empty = pa.schema([("site", pa.string()), ("series_key", pa.string()), ("revision", pa.int64())]).empty_table()
    bundle = Bundle(
        network_name="resnet_tiny",
        network=learned(0, WINDOW, SPOT),
        framing=Framing(grid=(16, 16), window=WINDOW),
        platt=Platt(slope=0.5, intercept=0.1),
        reference=empty,
    )
    made = ModelRef(
        model="lesion",
        version=1,
        alias="champion",
        parent=None,
        strategy="from_scratch",
        reference="abc",
        recipe=NATIVE,
        metrics={},
        calibration=EVEN,
        bundle_uri=write_bundle(workspace, bundle, layout.model_path("lesion", 1)),
        created_at=AT,
        since=AT,
        epoch=0,
    )
    registry.register(workspace, made, run="r0")


def fill(workspace: Workspace, site: str) -> None:
    """Volumes, and labels at the source alone."""
    arrays, y = seen_at(site)
    series, labels = [], []
    for i, key in enumerate(keys_at(site)):
        uri = layout.volume_path(site, NATIVE, key, 1)
        workspace.write_volume(uri, Volume(arrays[i], Geometry((1.0, 1.0, 1.0))), durable=False)
        about = {"site": site, "series_key": key, "revision": 1, "run": "r0"}
        patient = {"patient_key": f"p-{key}", "patient_known": True, "modality": "CT", "stratum": "ct"}
        day = MONDAY + timedelta(days=i % 20)
        series.append(about | patient | {"observed_on": day, "ingested_at": AT, "volume_uri": uri})
        told = {"target": "lesion", "value": "malignant" if y[i] else "benign"}
        labels.append({"site": site, "series_key": key, "run": "r0"} | told)
    workspace.lake.append(layout.SERIES, rows_of(SERIES, series), transaction=f"s/{site}")
    if site == "north":
        workspace.lake.append(layout.LABEL, rows_of(LABEL, labels), transaction=f"l/{site}")
    done = [Verdict(series_key=key, revision=1) for key in keys_at(site)]
    for stage in ("ingest", "quality", "feature"):
        record_stage(workspace, site, stage, done, run="r0", recipe=NATIVE)


def show_reference(workspace: Workspace) -> None:
    """Held-out patients of the source, as the site's scanner makes them, scored by the model."""
    (inputs,) = read_inputs(workspace, "south", "lesion")
    x, y = scans(N["north"], 77, BRIGHTER, spot=SPOT)
    score = 0.5 * logits(learned(0, WINDOW, SPOT), framed(x, WINDOW)) + 0.1
    about: dict[str, Any] = {
        "site": "south",
        "stratum": "ct",
        "target": "lesion",
        "model": MODEL,
        "recipe": NATIVE,
        "run": "r0",
    }
    about |= {"transport": "planted", "n_site": 100, "worst": 0.1, "period_start": inputs.current.period_start}
    rows = [
        about | {"series_key": key, "revision": 1, "reference_site": "north", "y": float(is_sick), "score": float(s)}
        for key, is_sick, s in zip(keys_at("north"), y, score, strict=True)
        if part_of(f"p-{key}", workspace.settings.split) == "evaluation"
    ]
    workspace.lake.append(layout.TRANSPORTED, rows_of(TRANSPORTED, rows), transaction="transported")


def case_of(workspace: Workspace, key: str = "f1", run: str = "r1") -> Case:
    (inputs,) = read_inputs(workspace, "south", "lesion")
    write_finding(workspace, key, "covariate_acquisition", inputs.current.period_start, run)
    keys = tuple(keys_at("south"))
    return Case(
        uri=workspace.uri, site="south", target="lesion", finding_key=key, headline="", keys=keys, run=run, at=AT
    )


def write_finding(workspace: Workspace, key: str, kind: str, start: date, run: str) -> None:
    row: dict[str, Any] = {
        "site": "south",
        "finding_key": key,
        "stratum": "ct",
        "target": "lesion",
        "model": MODEL,
        "kind": kind,
    }
    row |= {"period_start": start, "period_end": start + timedelta(days=27), "size": 0.4, "low": 0.3, "high": 0.5}
    workspace.lake.append(layout.FINDING, rows_of(FINDING, [row | {"run": run}]), transaction=f"f/{key}")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SITEDRIFT_HOME", str(tmp_path / "home"))
    return make(tmp_path)


def test_where_nothing_tells_the_prevalence_every_adaptation_is_refused_with_its_numbers(workspace: Workspace) -> None:
    assert adapt_model(case_of(workspace), DECISION) is None
    (row,) = decisions(workspace, "south").to_pylist()
    tried = json.loads(row["evidence"])["adaptations"]
    assert (row["action"], row["status"], row["serving_after"]) == ("adapt", "refused", None)
    assert [each["adaptation"] for each in tried] == ["adabn", "coral", "tent"]
    assert "nothing tells whether the share of positives has moved" in tried[0]["because"], tried
    assert tried[0]["fit_after"] > 0.01
    assert [ref.name for ref in registry.models(workspace)] == [MODEL]
    assert len(serving_history(workspace, "south", "lesion")) == 1


@pytest.mark.parametrize(
    ("failure", "told"),
    [(torch.OutOfMemoryError("CUDA out of memory"), "too little memory"), (ValueError("odd"), "ValueError")],
    ids=["a device that is too small", "a network that breaks"],
)
def test_whatever_fails_is_a_refusal_with_its_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, failure: Exception, told: str
) -> None:
    monkeypatch.setattr(Classifier, "embed", Mock(side_effect=failure))
    assert adapt_model(case_of(workspace), DECISION) is None
    (row,) = decisions(workspace, "south").to_pylist()
    assert (row["action"], row["status"]) == ("adapt", "refused")
    assert told in json.loads(row["evidence"])["refused"]
    assert len(serving_history(workspace, "south", "lesion")) == 1


def test_a_turned_up_scanner_is_adapted_to_served_there_for_a_time_and_given_up_again(workspace: Workspace) -> None:
    show_reference(workspace)
    case = case_of(workspace)
    adapted = adapt_model(case, DECISION)
    assert adapted is not None
    predict_shard(
        workspace, "south", keys_at("south"), target="lesion", model=adapted.model, recipe=NATIVE, run=case.run
    )
    settle_adapted(case, DECISION, adapted)
    assert_served(workspace, adapted.model)
    assert_registered(workspace, adapted.model)
    assert_it_helps(workspace, adapted.model)
    assert_it_ends(workspace, adapted.model)


def assert_served(workspace: Workspace, model: str) -> None:
    """At that site alone, for ninety days, with the decision that says so."""
    (row,) = decisions(workspace, "south").to_pylist()
    assert (row["status"], row["strategy"]) == ("done", "adabn")
    served = current_serving(workspace, "south", "lesion")
    assert served is not None
    assert (served.model, served.until) == (model, AT + timedelta(days=90))
    elsewhere = current_serving(workspace, "north", "lesion")
    assert elsewhere is not None
    assert (elsewhere.model, elsewhere.until) == (MODEL, None)
    champion = registry.champion(workspace, "lesion")
    assert champion is not None
    assert champion.name == MODEL


def assert_registered(workspace: Workspace, model: str) -> None:
    """For one site and nothing else, with the scans whose statistics are in it."""
    made = registry.find(workspace, model)
    assert (made.alias, made.parent, made.strategy) == ("adapted", MODEL, "adabn")
    listed = registry.read_reference(workspace, made.bundle_uri).to_pylist()
    split = workspace.settings.split
    assert {row["site"] for row in listed} == {"north", "south"}
    assert all(part_of(f"p-{row['series_key']}", split) != "evaluation" for row in listed)
    mine = next(row["series_key"] for row in listed if row["site"] == "south")
    assert [(seen.model, seen.how) for seen in seen_by(workspace, [mine], [f"p-{mine}"])] == [(model, "trained")]
    with pytest.raises(BadRequest, match="adapted to one site"):
        registry.promote(workspace, made, over=registry.champion(workspace, "lesion"), run="r", at=AT)
    with pytest.raises(BadRequest, match="for no other"):
        registry.alias(workspace, made, "challenger", run="r", at=AT)
    (inputs,) = read_inputs(workspace, "south", "lesion")
    assert inputs.reference_scores is not None
    assert len(inputs.reference_scores) > 50  # of the model that was trained: nobody shows the reference to this one


def assert_it_helps(workspace: Workspace, model: str) -> None:
    """On patients whom nobody has seen, whose labels nobody has read."""
    x, y = scans(300, 99, BRIGHTER, spot=SPOT)
    before, after = (
        loss(read_bundle(workspace, registry.find(workspace, name).bundle_uri).network, framed(x, WINDOW), y)
        for name in (MODEL, model)
    )
    assert after < before - 0.1


def assert_it_ends(workspace: Workspace, model: str) -> None:
    """After its time, but not before; a person can give it another time."""
    assert renew_or_end(workspace, "south", "lesion", run="r2", at=AT + timedelta(days=89)) is None
    told = renew_or_end(workspace, "south", "lesion", run="r3", at=AT + timedelta(days=90))
    assert told is not None
    assert "neither labels nor a quiet period" in told
    now = current_serving(workspace, "south", "lesion")
    assert now is not None
    assert (now.model, now.until) == (MODEL, None)
    (ended,) = [row for row in decisions(workspace, "south").to_pylist() if row["action"] == "restore"]
    assert ended["because"] == told
    later = AT + timedelta(days=91)
    restore_serving(workspace, "south", "lesion", run="r4", at=later)
    again = current_serving(workspace, "south", "lesion")
    assert again is not None
    assert (again.model, again.until) == (model, later + timedelta(days=90))


def test_an_adaptation_of_a_champion_that_is_none_any_more_is_refused(workspace: Workspace) -> None:
    show_reference(workspace)
    case = case_of(workspace)
    adapted = adapt_model(case, DECISION)
    assert adapted is not None
    champion = registry.champion(workspace, "lesion")
    assert champion is not None
    epoch = registry.next_epoch(workspace, "lesion")
    other = replace(champion, version=9, alias="challenger", parent=MODEL, epoch=epoch)
    registry.register(workspace, other, run="r")
    registry.promote(workspace, other, over=champion, run="r", at=AT)
    settle_adapted(case, DECISION, adapted)
    assert decisions(workspace, "south").to_pylist()[0]["status"] == "refused"
    assert registry.find(workspace, adapted.model).alias == "refused"
    assert len(serving_history(workspace, "south", "lesion")) == 1
    assert not workspace.lake.read(layout.SERVING, pc.field("model") == adapted.model).num_rows
    assert np.isfinite(adapted.tried[-1].fit_after or np.nan)
