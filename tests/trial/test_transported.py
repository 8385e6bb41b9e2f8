"""A site with another scanner AND another prevalence: the reference, shown through that scanner, tells both apart."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest
from scipy.ndimage import gaussian_filter

from platform_core import layout
from platform_core.features.stage import measure_shard
from platform_core.imaging.volume import Volume
from platform_core.learn.registry import ModelRef, register
from platform_core.manifest.door import create_key
from platform_core.manifest.schemas import LABEL, PREDICTION, SERIES
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.stages import Verdict, record_stage
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.phantom.acquire import Acquisition, acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.settings import SiteSettings
from platform_core.shift.inputs import Inputs, read_inputs
from platform_core.shift.labels.prevalence import PrevalenceEstimate, estimate_prevalence
from platform_core.shift.stage import measure_shift
from platform_core.storage.tables import rows_of
from platform_core.trial import transported

AT = datetime(2026, 3, 1, tzinfo=UTC)
MONDAY = date(2026, 1, 5)
NATIVE = layout.NATIVE
MODEL = "lesion@1"
SETTINGS = """
[shift]
min_scans = 60
n_transported = 200

[split]
evaluation = 0.9
validation = 0.05

[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]
"""
MM = 0.8
THERE, HERE = 0.3, 0.6
"""Prevalence at the reference, and at the site after its scanner was replaced."""


def see(volume: Volume) -> tuple[float, npt.NDArray[np.float64]]:
    """A model that looks for the brightest spot of the organ: noise makes brighter ones and blur darker ones."""
    organ = volume.voxels[:, 28:50, 27:54].astype(float)
    spots = gaussian_filter(organ, (0, 0.75, 0.75)) - gaussian_filter(organ, (0, 5, 5))
    return float(spots.max() + 0.3 * spots.min()) / 20, np.array([spots.max(), spots.min()])


@dataclass(frozen=True, kw_only=True)
class Month:
    """One period of one site."""

    site: str
    number: int
    n: int
    prevalence: float
    psf_mm: float = 0.7
    noise_hu: float = 8.0

    def names(self) -> list[str]:
        return [f"{self.site}-{self.number}-{i:03d}" for i in range(self.n)]

    def y(self) -> list[bool]:
        is_positive = np.arange(self.n) < round(self.n * self.prevalence)
        return [bool(y) for y in np.random.default_rng(self.number).permutation(is_positive)]

    def scan(self, i: int) -> Volume:
        seed = [ord(self.site[0]), self.number, i]
        n = round(72 / MM)
        acquisition = Acquisition(
            spacing_mm=(MM, MM, 5.0), size=(n, n, 4), psf_sigma_mm=self.psf_mm, noise_hu=self.noise_hu
        )
        anatomy = draw_anatomy("malignant" if self.y()[i] else "benign", np.random.default_rng(seed))
        return acquire(anatomy, acquisition, np.random.default_rng([*seed, 1]))


SOURCE = Month(site="north", number=0, n=260, prevalence=THERE)
BEFORE = Month(site="south", number=0, n=70, prevalence=THERE)
AFTER = Month(site="south", number=1, n=240, prevalence=HERE, psf_mm=0.6, noise_hu=16.0)
QUIET = Month(site="east", number=0, n=70, prevalence=THERE)


def fill(workspace: Workspace, month: Month) -> None:
    """Volumes, features and scores, and labels at the source alone."""
    about = {"site": month.site, "revision": 1, "run": "r"}
    series, labels, predictions = [], [], []
    for i, (key, y) in enumerate(zip(month.names(), month.y(), strict=True)):
        scan, uri = month.scan(i), layout.volume_path(month.site, NATIVE, key, 1)
        workspace.write_volume(uri, scan, durable=False)
        row = about | {"series_key": key}
        facts: dict[str, Any] = {"patient_key": f"p-{key}", "patient_known": True, "modality": "CT", "stratum": "ct"}
        day = MONDAY + timedelta(days=28 * month.number + i % 28)
        series.append(row | facts | {"observed_on": day, "ingested_at": AT, "volume_uri": uri})
        value = "malignant" if y else "benign"
        labels.append({"site": month.site, "target": "lesion", "series_key": key, "value": value, "run": "r"})
        score, embedding = see(scan)
        made = {"recipe": NATIVE, "model": MODEL, "target": "lesion", "score": score, "embedding": embedding.tolist()}
        predictions.append(row | made)
    name = f"{month.site}/{month.number}"
    workspace.lake.append(layout.SERIES, rows_of(SERIES, series), transaction=f"s/{name}")
    workspace.lake.append(layout.PREDICTION, rows_of(PREDICTION, predictions), transaction=f"p/{name}")
    if month.site == "north":
        workspace.lake.append(layout.LABEL, rows_of(LABEL, labels), transaction=f"l/{name}")
    done = [Verdict(series_key=key, revision=1) for key in month.names()]
    record_stage(workspace, month.site, "ingest", done, run="r")
    measure_shard(workspace, month.site, month.names(), recipe=NATIVE, run="r")


def register_model(workspace: Workspace) -> Calibration:
    calibration = Calibration(logit_offset=0.0, prevalence=THERE, threshold=0.5)
    made = ModelRef(
        model="lesion",
        version=1,
        alias="champion",
        parent=None,
        strategy="full",
        reference="abc",
        recipe=NATIVE,
        metrics={},
        calibration=calibration,
        bundle_uri="models/1",
        created_at=AT,
        since=AT,
        epoch=0,
    )
    register(workspace, made, run="r")
    return calibration


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A source with a model, and a site that was accepted with the same scanner and then got another one."""
    folder = tmp_path_factory.mktemp("transported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITEDRIFT_HOME", str(folder / "home"))
        workspace = create_workspace(folder / "w", key_fingerprint=create_key("w"))
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8").split("[shift]")[0] + SETTINGS, encoding="utf-8")
    for site in ("north", "south", "east"):
        add_site(workspace, site, SiteSettings(quiet_s=0, path="/nowhere"))
    here = open_workspace(workspace.uri)
    calibration = register_model(here)
    for site in here.sites:
        first = Serving(site=site, target="lesion", model=MODEL, recipe=NATIVE, calibration=calibration, epoch=-1)
        change_serving(here, first, decision_key=None, at=AT, run="r")
    for month in (SOURCE, BEFORE, AFTER, QUIET):
        fill(here, month)
    return here


@pytest.fixture(scope="module")
def shown(shifted: Workspace) -> Workspace:
    """The same, its reference shown through the new scanner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transported, "network_of", lambda *_: see)
        (found,) = transported.show_reference(shifted, "south", "lesion", run="r")
    assert (found.stratum, found.n_refused) == ("ct", 0)
    assert found.sentence == "ct: 200 labelled scans of the reference shown by the site's scanner"
    return shifted


def inputs_of(workspace: Workspace) -> Inputs:
    (inputs,) = read_inputs(workspace, "south", "lesion")
    return inputs


def naive(inputs: Inputs) -> PrevalenceEstimate:
    assert inputs.scores is not None
    assert inputs.reference_scores is not None
    known = inputs.reference_scores
    return estimate_prevalence(inputs.scores.score, known.score, known.y, assumed=THERE, n_simulated=1)


def through(inputs: Inputs) -> PrevalenceEstimate:
    assert inputs.scores is not None
    assert inputs.transported is not None
    reference = inputs.transported
    return estimate_prevalence(inputs.scores.score, reference.scores, reference.y, assumed=THERE, n_simulated=1)


def test_through_the_scanner_the_interval_holds_the_prevalence_that_scores_alone_miss(shown: Workspace) -> None:
    alone, estimate = naive(inputs_of(shown)), through(inputs_of(shown))
    assert not alone.low <= HERE <= alone.high
    assert estimate.low <= HERE <= estimate.high
    assert abs(estimate.value - HERE) < 0.08
    assert estimate.p_fit > 0.01


def test_the_finding_is_mixed_and_tells_the_change_of_prevalence(shown: Workspace) -> None:
    (found,) = measure_shift(shown, "south", target="lesion", run="r", at=AT)
    assert found.kind == "mixed"
    assert found.size == pytest.approx(HERE - THERE, abs=0.1)


def test_a_rerun_shows_nothing_again(shown: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transported, "network_of", lambda *_: pytest.fail("scored again"))
    version = shown.lake.version(layout.TRANSPORTED)
    assert transported.show_reference(shown, "south", "lesion", run="r2") == []
    assert shown.lake.version(layout.TRANSPORTED) == version


def test_only_labelled_patients_whom_the_model_has_not_learned_from_are_shown(shown: Workspace) -> None:
    rows = shown.lake.read(layout.TRANSPORTED, pc.field("site") == "south").to_pylist()
    y = dict(zip(SOURCE.names(), SOURCE.y(), strict=True))
    assert all(part_of(f"p-{row['series_key']}", shown.settings.split) == "evaluation" for row in rows)
    assert all(row["y"] == y[row["series_key"]] for row in rows)
    assert len({row["series_key"] for row in rows}) == len(rows) == 200


def test_shown_scans_have_the_noise_of_the_site(shown: Workspace) -> None:
    inputs = inputs_of(shown)
    assert inputs.transported is not None
    noise = np.median(inputs.transported.acquisition["noise_immerkaer_hu"])
    table = inputs.patients(inputs.current, NATIVE)
    at_site = np.median(table.values[:, table.features.index("noise_immerkaer_hu")])
    assert noise == pytest.approx(at_site, rel=0.1)
    assert inputs.transported.worst < 0.3


def test_another_transport_makes_another_finding(shown: Workspace) -> None:
    with_it = inputs_of(shown)
    without = inputs_of(shown)
    without.__dict__["transported"] = None
    assert with_it.key != without.key


def test_a_site_whose_scanner_is_as_it_was_needs_no_transport(shifted: Workspace) -> None:
    assert transported.show_reference(shifted, "east", "lesion", run="r") == []


def test_the_reference_is_not_shown_to_itself(shifted: Workspace) -> None:
    assert transported.show_reference(shifted, "north", "lesion", run="r") == []


def test_another_network_can_be_shown_what_was_shown(shown: Workspace) -> None:
    """The same scans with the same noise, so two networks can be compared patient by patient."""
    again = [(y, see(volume)[0]) for y, volume in transported.show_again(inputs_of(shown))]
    rows = shown.lake.read(layout.TRANSPORTED, pc.field("site") == "south").to_pylist()
    assert sorted(again) == sorted((row["y"], row["score"]) for row in rows)


def test_where_nothing_was_shown_there_is_nothing_to_show_again(shifted: Workspace) -> None:
    (inputs,) = read_inputs(shifted, "east", "lesion")
    assert list(transported.show_again(inputs)) == []
