"""The model card: whole, self-contained, true to the tables, and without anything about fewer than ten patients."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.learn.registry import REFERENCE, ModelRef, find, next_epoch, promote, register
from platform_core.manifest import schemas
from platform_core.manifest.serving import Calibration
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import record_decision
from platform_core.report.card import _shown, card_markdown, write_card
from platform_core.report.card_facts import calibration_bins, card_of
from platform_core.report.page import render
from platform_core.shift.risk import auroc
from platform_core.shift.scores import label_and_score_rows
from platform_core.trial.evaluation import Answers
from tests.conftest import new_workspace
from tests.report.conftest import AT, MADE_AT, TARGET, Month, add_month, append, serve
from tests.report.test_pages import Page

MONTHS = (
    Month(site="north", period=0, n=300),
    Month(site="east", period=0, n=220, lost=0.8, scanner="Gamma 32"),
    Month(site="west", period=0, n=14, scanner="Beta 16"),
)
USE = 'intended_use = "To order a reading list.\\nNever alone."\nout_of_scope = "Children <b>under</b> 16."\n'
GATE = {
    "target": "lesion", "champion": "lesion@1", "challenger": "lesion@2", "site": "east", "passed": True,
    "because": "lesion@2 passes: log-loss changes by -0.140 nats per scan", "number": 2, "alpha": 0.0076,
    "sites": [
        {"site": "east", "outcome": "gains", "because": "a gain beyond chance", "n_patients": 82, "n_positive": 30,
         "log_loss_gain": {"value": 0.14, "low": 0.07, "high": 0.21}, "brier_gain": None,
         "auroc_gain": {"value": 0.031, "low": 0.002, "high": 0.06}},
        {"site": "west", "outcome": "not_evaluable", "because": "4 labelled patients", "n_patients": 4,
         "n_positive": 1, "log_loss_gain": None, "brier_gain": None},
    ],
}  # fmt: skip
RACE = [
    {"strategy": "none", "step": 0, "outcome": "lost", "because": "nothing moves", "curve": None,
     "log_loss": 0.61, "log_loss_low": 0.52, "log_loss_high": 0.7, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0},
    {"strategy": "linear_probe", "step": 1, "outcome": "won", "because": "better by 0.13",
     "curve": [0.7, 0.55, 0.5, 0.48],
     "log_loss": 0.48, "log_loss_low": 0.4, "log_loss_high": 0.56, "gain": 0.13, "gain_low": 0.07, "gain_high": 0.19},
    {"strategy": "full", "step": 2, "outcome": "not_run", "log_loss": None, "because": "no budget", "curve": None},
]  # fmt: skip


def bundled(workspace: Workspace, version: int, keys: Mapping[str, list[str]]) -> str:
    uri = f"models/lesion/{version:04d}/abc"
    rows = [(site, key) for site, listed in keys.items() for key in listed]
    table = pa.table({"site": [s for s, _ in rows], "series_key": [k for _, k in rows], "revision": [1] * len(rows)})
    out = BytesIO()
    pq.write_table(table, out)
    workspace.objects.put(f"{uri}/{REFERENCE}", out.getvalue())
    facts = {"code_version": "0.1+abc", "monai_version": "1.6", "pytorch_version": "2.13", "network": "resnet_tiny",
             "weights_sha256": "f" * 64,
             "source_weights": {"where": "/home/erika/tiny.pt", "sha256": "aa", "share": 1.0}}  # fmt: skip
    workspace.objects.put(f"{uri}/configs/metadata.json", json.dumps(facts).encode())
    return uri


def made(workspace: Workspace, version: int, keys: Mapping[str, list[str]], **facts: Any) -> ModelRef:
    ref = ModelRef(
        model="lesion", version=version, alias="champion" if version == 1 else "challenger", parent=None,
        strategy="from_scratch", reference="0123456789ab", recipe="harmonized-1", metrics={},
        calibration=Calibration(logit_offset=0.0, prevalence=0.3, threshold=0.5),
        bundle_uri=bundled(workspace, version, keys), created_at=MADE_AT, since=MADE_AT,
        epoch=next_epoch(workspace, "lesion"),
    )  # fmt: skip
    return register(workspace, replace(ref, **facts), run=f"r{version}")


def decided(workspace: Workspace, model: ModelRef) -> None:
    """East's fine-tuning that the gate let pass."""
    finding = {"site": "east", "target": "lesion", "finding_key": "f-east"}
    before = serve(workspace, "east", "harmonized-1", 0.3, "lesion@1", MADE_AT)
    after = serve(workspace, "east", "harmonized-1", 0.3, model.name, AT)
    record_decision(
        workspace, Decision(action="fine_tune", because="risk is higher", rule="x", approved_by="Dr. Gate"),
        finding=finding, status="done",
        strategy="linear_probe", serving_before=before, serving_after=after,
        evidence={"gate": GATE, "policy": "p0"}, run="r2", at=AT,
    )  # fmt: skip
    race = [{"site": "east", "race_key": "k", "target": "lesion", "parent": "lesion@1", "run": "r2", "device": "cpu",
             "n_patients": 98, "n_scans": 121, "n_folds": 5, "seconds": 2.5,
             "n_scan_passes": 1200.0, **row} for row in RACE]  # fmt: skip
    append(workspace, layout.RACE, schemas.RACE, race, "race")


def train_part(workspace: Workspace, month: Month) -> list[str]:
    keys = [f"{month.site}-0-{n:04d}" for n in range(month.n)]
    return [key for key in keys if part_of(f"p-{key}", workspace.settings.split) == "train"]


def fill(workspace: Workspace) -> Workspace:
    root = Path(workspace.uri)
    with (root / layout.SETTINGS).open("a") as file:
        file.write(TARGET + USE)
    for site in ("north", "east", "west", "south"):
        (root / layout.site_file(site)).write_text(f'path = "{root}/scans/{site}"\n')
    workspace = open_workspace(root)
    for month in MONTHS:
        add_month(workspace, month)
    split = workspace.settings.split
    keys = {
        m.site: [k for n in range(m.n) if part_of(f"p-{(k := f'{m.site}-0-{n:04d}')}", split) == "train"]
        for m in MONTHS
    }
    first = made(workspace, 1, {"north": keys["north"]})
    training = {"seconds": 4.0, "device": "cpu", "n_scan_passes": 1200, "race_key": "k"}
    second = made(
        workspace, 2, {"east": keys["east"], "west": keys["west"], "gone": ["g"]}, parent="lesion@1",
        strategy="linear_probe", training=training, created_at=AT, since=AT,
    )  # fmt: skip
    rows = workspace.lake.read(layout.PREDICTION).to_pylist()
    append(workspace, layout.PREDICTION, schemas.PREDICTION, [row | {"model": "lesion@2"} for row in rows], "p2")
    for site in ("north", "west"):
        serve(workspace, site, "harmonized-1", 0.3, "lesion@1", MADE_AT)
    decided(workspace, second)
    promote(workspace, find(workspace, "lesion@2"), over=first, run="r2", at=AT + timedelta(hours=1))
    return workspace


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two versions of one target at three sites; it is only read."""
    with new_workspace(tmp_path_factory.mktemp("card")) as empty:
        return fill(empty)


@pytest.fixture(scope="module")
def html(carded: Workspace) -> str:
    path = write_card(carded, "lesion@2", at=AT)
    assert path == "reports/model-lesion-2.html"
    return carded.objects.get(path).decode()


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_the_page_is_well_formed_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert (page.loads, page.open, page.wrong) == ([], [], [])
    assert len(html) < 60_000


def test_the_intended_use_is_told_as_it_was_written(html: str, carded: Workspace) -> None:
    assert "To order a reading list. Never alone." in words(html)
    assert "Children <b>under</b> 16." in words(html)
    assert "<b>under</b>" not in html
    assert "Children <b>under</b> 16." in card_markdown(carded, "lesion@2")


def test_every_site_s_training_scans_are_counted_and_small_cells_are_not_told(carded: Workspace) -> None:
    card = card_of(carded, "lesion@2")
    east, west = card.trained
    assert (east.site, west.site, card.n_missing) == ("east", "west", 1)
    assert east.n_patients == east.n_scans > 80
    assert east.manufacturers == {"Gamma": east.n_patients}
    assert 0 < west.n_patients < 10
    text = card_markdown(carded, "lesion@2")
    assert "| west | fewer than 10 | fewer than 10 | too few to tell | January 2024 | others fewer than 10 |" in text
    assert f"| east | {east.n_patients} | {east.n_patients} | 0." in text


def test_the_prevalence_is_that_of_the_labels(carded: Workspace) -> None:
    east = card_of(carded, "lesion@2").trained[0]
    rows = carded.lake.read(layout.LABEL).to_pylist()
    value = {row["series_key"]: row["value"] == "malignant" for row in rows if row["site"] == "east"}
    split = carded.settings.split
    mine = [is_positive for key, is_positive in value.items() if part_of(f"p-{key}", split) == "train"]
    assert east.prevalence == pytest.approx(np.mean(mine))


def test_metrics_are_of_evaluation_patients_by_the_site_s_serving(carded: Workspace) -> None:
    card = card_of(carded, "lesion@2")
    east = next(one for one in card.evaluated if one.site == "east")
    scans = label_and_score_rows(carded, "east", "lesion", "lesion@2", "harmonized-1", part="evaluation")
    assert [serving.site for serving in card.record.run_by] == ["east"]
    assert east.auroc is not None
    assert east.auroc.value == pytest.approx(auroc(scans.y, scans.score))
    assert east.n_patients == len(scans)
    told = sum(one.n_scans for one in card.evaluated if one.site in ("north", "east"))
    assert sum(one.n for one in card.bins) == told < card.evaluated[-1].n_scans
    assert f"| east | {len(scans)} | {int(scans.y.sum())} | {east.auroc.value:.2f} [" in card_markdown(
        carded, "lesion@2"
    )


def test_scale_and_offset_are_told_where_a_site_s_labels_set_them_and_nowhere_else(carded: Workspace) -> None:
    card = card_of(carded, "lesion@2")
    (east,) = card.record.run_by
    by_labels = replace(east, calibration=replace(east.calibration, scale=0.4, logit_offset=-2.0))
    told = replace(card, record=replace(card.record, run_by=(by_labels,)))
    for template, mark in (("card.md.j2", "yes"), ("card.html.j2", "runs it")):
        before, after = (render(template, at=AT, **_shown(carded, each)) for each in (card, told))
        assert "scale 0.40" not in before
        assert after == before.replace(mark, f"{mark}, scale 0.40, offset \N{MINUS SIGN}2.00")
        for option in ("--scale", "--logit_offset"):
            assert option in before


def test_a_site_with_too_few_patients_is_named_among_the_limits(html: str, carded: Workspace) -> None:
    limits = card_of(carded, "lesion@2").limits
    assert "west: fewer than 10 held-out patients of a class; nothing could be evaluated there." in limits
    text = card_markdown(carded, "lesion@2")
    assert "| west | fewer than 10 | fewer than 10 | not evaluable |" in text
    told = [one for one in card_of(carded, "lesion@2").evaluated if one.site in ("north", "east")]
    assert f"| all sites | at least {sum(one.n_patients for one in told)} | at least " in text
    assert "south: nothing is served there, and nothing was evaluated." in limits
    assert "west: the gate could not tell (fewer than 10 labelled patients)." in limits
    assert all(one in words(html) for one in limits)


def test_the_gate_and_the_race_are_told_with_their_numbers(html: str, carded: Workspace) -> None:
    text = words(html)
    assert "Passed, lesion@2 against lesion@1, asked for by east, at a chance of 0.0076" in text
    assert "0.140 [0.070, 0.210]" in text
    assert "linear probe won 0.480 [0.400, 0.560] 0.130 [0.070, 0.190]" in text
    assert "Began with lesion@1; 98 patients, 121 scans, 5 folds" in text
    assert "Dr. Gate" in text
    assert html.count("<polyline") == 1
    line = "| linear_probe | won | 0.480 [0.400, 0.560] | 0.130 [0.070, 0.190] | 1200 | 2.5 | Better by 0.13. |"
    assert line in card_markdown(carded, "lesion@2")


def test_a_model_without_a_race_or_gate_says_so(carded: Workspace) -> None:
    text = card_markdown(carded, "lesion@1")
    assert "Not recorded: from scratch ran without a race." in text
    assert "There was none: it is the first model of its target" in text
    assert "No gate has judged it against another model." in text


def test_no_key_or_place_is_on_the_card(html: str, carded: Workspace) -> None:
    for text in (html, card_markdown(carded, "lesion@2")):
        assert "tiny.pt" in text
        for word in ("/home/erika", "east-0-0", "p-east", carded.uri, carded.settings.key_fingerprint):
            assert word not in text


def test_the_card_is_the_readme_of_the_bundle(html: str, carded: Workspace) -> None:
    uri = find(carded, "lesion@2").bundle_uri
    assert carded.objects.get(f"{uri}/docs/README.md").decode() == card_markdown(carded, "lesion@2")


def test_equal_facts_give_equal_text(carded: Workspace) -> None:
    assert card_markdown(carded, "lesion@2") == card_markdown(carded, "lesion@2")


def test_an_unknown_model_is_named_with_those_that_exist(carded: Workspace) -> None:
    with pytest.raises(UnknownName, match="lesion@1, lesion@2"):
        card_markdown(carded, "lesion@7")


def answers(rows: list[tuple[float, bool]], weight: float = 1.0) -> Answers:
    p, y = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    half, each = np.full(len(rows), 0.5), np.full(len(rows), weight)
    return Answers(patients=tuple(map(str, range(len(rows)))), y=y, p=p, threshold=half, weight=each)


def test_in_a_bin_a_scan_counts_its_weight() -> None:
    same = answers([(0.4, True)] * 5 + [(0.4, False)] * 5)
    (one,) = calibration_bins(replace(same, weight=np.where(same.y == 1, 3.0, 1.0)))
    assert one.found.value == pytest.approx(0.75)
    assert one.n == 10


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), max_size=150))
def test_calibration_bins_hold_every_scan_once_and_agree_with_scipy(rows: list[tuple[float, bool]]) -> None:
    bins = calibration_bins(answers(rows, weight=2.5))
    assert sum(one.n for one in bins) == (len(rows) if len(rows) >= 10 else 0)
    assert all(one.n >= 10 for one in bins)
    assert [one.foretold for one in bins] == pytest.approx(sorted(one.foretold for one in bins))
    for one in bins:
        low, high = binomtest(round(one.found.value * one.n), one.n).proportion_ci(method="wilson")
        assert (one.found.low, one.found.high) == pytest.approx((low, high), abs=1e-4)
