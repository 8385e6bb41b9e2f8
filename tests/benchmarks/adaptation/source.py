"""The source hospital, its model, and what a site runs.

One network per seed: who is trained on, who is held out and the first weights vary with it.
"""

from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Volume
from platform_core.learn.calibrate import Platt, fit_platt
from platform_core.learn.contract import Strategy
from platform_core.learn.data import Loaded, Scan, even_weights
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.phases import TrainingSet
from platform_core.learn.strategies import STRATEGIES
from platform_core.manifest.serving import Calibration, log_odds
from platform_core.settings import StepSettings, TrainSettings
from platform_core.shift.risk import Reals
from tests.benchmarks.adaptation.sizes import FROZEN, sizes
from tests.benchmarks.adaptation.slabs import FULL, QUICK, Rows, Size, Slabs, slabs_of
from tests.benchmarks.detection.operators import NONE, PREVALENCE

Array = npt.NDArray[np.float32]

SPACING_MM = 1.5
LOW_HU, HIGH_HU = -20.0, 140.0
"""An organ's window (width 160, level 60). In development, with -150 to 250 HU, no scanner harmed a network that is
trained with the product's jitter of intensities (error .17 wherever it was), and nothing could have been told apart."""
SIDE = 24
"""Pixels of the square about the mark that the network sees, of the middle slice."""
RECIPE = (
    {"harmonizer": "resample", "spacing_mm": [SPACING_MM] * 3},
    {"harmonizer": "histogram_match", "foreground_above": -140.0},
    {"harmonizer": "band_gain", "foreground_above": -140.0},
    {"harmonizer": "clip_intensity", "low": LOW_HU, "high": HIGH_HU},
)
"""The window comes last: clipped first, what the learned steps move lies off its ends, and every feature of the site
moved away from the reference's (mean distance .38 to .72 under gamma .65 in development, .38 to .11 this way round)."""
TRAIN = FROZEN["train"]
SETTINGS = TrainSettings(epochs=TRAIN["epochs"])
THRESHOLD = 0.5
SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What one site runs."""

    network: Classifier
    platt: Platt
    recipe: FittedRecipe
    calibration: Calibration

    def score(self, arrays: Array) -> tuple[Reals, Reals]:
        """Scores before calibration (n,), and embeddings (n, channels), of what the network sees."""
        logits, embeddings = logits_and_embeddings(self.network, torch.from_numpy(arrays), batch_size=256)
        score = self.platt.score(np.asarray(logits.numpy(), dtype=np.float64))
        return score, np.asarray(embeddings.numpy(), dtype=np.float64)

    def at(self, prevalence: float) -> "Served":
        """The same at another assumed prevalence."""
        return replace(self, calibration=self.calibration.moved_to(prevalence))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One source hospital with its champion."""

    seed: int
    slabs: Slabs
    train: Loaded
    validation: Loaded
    reference: Rows
    """Patients whom the network has not seen, labelled; a sound model's accepted state."""
    reference_arrays: Array
    reference_values: Reals
    """(patient, feature) of their slabs by the source's recipe."""
    served: Served
    fitted_even: FittedRecipe
    """The recipe as fitted on as many positives as negatives: what a site with labels is brought onto."""

    @property
    def reference_y(self) -> Reals:
        """1 or 0."""
        return self.slabs.y[self.reference]


@lru_cache(maxsize=1)
def source_of(seed: int, *, is_quick: bool) -> Source:
    """The source hospital of a seed; its network is trained here, which takes a quarter of a minute."""
    slabs, n = slabs_of(NONE, size_of(is_quick=is_quick), is_source=True), sizes(is_quick=is_quick)
    rng = np.random.default_rng([seed, 0])
    drawn = slabs.draw(rng, n["n_train"] + n["n_validation"] + n["n_reference"], PREVALENCE)
    train, validation, reference = np.split(drawn, np.cumsum([n["n_train"], n["n_validation"]]))
    recipe = fitted(slabs, train[: TRAIN["n_fit"]], None)
    parts = [loaded(SOURCE, rows, arrays_of(slabs, rows, recipe), slabs.y[rows]) for rows in (train, validation)]
    network = build_network("resnet_tiny", 2, seed=seed)
    trained(network, parts[0], STRATEGIES["from_scratch"], seed)
    platt = fit_platt(logits_of(network, parts[1].arrays), labels_of(parts[1]), [SOURCE] * len(validation))
    calibration = Calibration(logit_offset=log_odds(PREVALENCE), prevalence=PREVALENCE, threshold=THRESHOLD)
    return Source(
        seed=seed,
        slabs=slabs,
        train=parts[0],
        validation=parts[1],
        reference=reference,
        reference_arrays=arrays_of(slabs, reference, recipe),
        reference_values=values_of(slabs, reference, recipe),
        served=Served(network=network, platt=platt, recipe=recipe, calibration=calibration),
        fitted_even=fitted(slabs, evenly(train, slabs.y[train], TRAIN["n_fit"]), None),
    )


def size_of(*, is_quick: bool) -> Size:
    """How many patients are rendered."""
    return QUICK if is_quick else FULL


def trained(network: Classifier, data: Loaded, strategy: Strategy, seed: int) -> Classifier:
    """Train the network in place."""
    fit(network, tensors(data), strategy, SETTINGS.model_copy(update={"seed": seed}))
    return network


def tensors(data: Loaded) -> TrainingSet:
    """As the product weighs scans: at every site its classes weigh the same."""
    return TrainingSet(
        x=torch.from_numpy(data.arrays),
        y=torch.from_numpy(labels_of(data)).float(),
        weight=torch.from_numpy(even_weights(data.scans)),
    )


def logits_of(network: Classifier, arrays: Array) -> Reals:
    """(n,), raw."""
    logits, _ = logits_and_embeddings(network, torch.from_numpy(arrays), batch_size=256)
    return np.asarray(logits.numpy(), dtype=np.float64)


def labels_of(data: Loaded) -> Reals:
    """(n,), 1 or 0."""
    return np.array([scan.y for scan in data.scans], dtype=np.float64)


def loaded(site: str, rows: Rows, arrays: Array, y: Reals) -> Loaded:
    """Labelled scans as the product's trainings take them; one scan per patient."""
    return Loaded(tuple(_scan(site, int(row), label) for row, label in zip(rows, y, strict=True)), arrays, {})


def joined(*parts: Loaded) -> Loaded:
    """One set of several."""
    scans = tuple(scan for part in parts for scan in part.scans)
    return Loaded(scans, np.concatenate([part.arrays for part in parts]), {})


def some(data: Loaded, rows: Rows) -> Loaded:
    """Some rows of a set."""
    return Loaded(tuple(data.scans[row] for row in rows), data.arrays[rows], {})


def patient_key(site: str, row: int) -> str:
    """A name for a patient."""
    return f"{site}{row:05d}"


def _scan(site: str, row: int, y: float) -> Scan:
    key = patient_key(site, row)
    return Scan(
        site=site,
        series_key=key,
        revision=1,
        patient_key=key,
        patient_known=True,
        modality="CT",
        observed_on=date(2026, 1, 5),
        volume_uri="",
        y=int(y),
    )


def fitted(slabs: Slabs, rows: Rows, reference: FittedRecipe | None) -> FittedRecipe:
    """The recipe as fitted to some scans, onto a reference or as one."""
    recipe = parse_recipe([StepSettings.model_validate(step) for step in RECIPE])
    return fit_recipe(recipe, [slabs[int(row)] for row in rows], reference)


def evenly(rows: Rows, y: Reals, n: int) -> Rows:
    """The first `n` rows with as many of one class as of the other, or as many as there are."""
    half = min(n // 2, int((y == 1).sum()), int((y == 0).sum()))
    return np.concatenate([rows[y == value][:half] for value in (0, 1)])


def arrays_of(slabs: Slabs, rows: Rows, recipe: FittedRecipe) -> Array:
    """(n, 1, y, x), what the network sees of scans by a recipe: the marked square of the middle slice, in [0, 1]."""
    seen = [_framed(apply_recipe(recipe, slabs[int(row)]).volume, slabs.mark_mm[row]) for row in rows]
    return np.stack(seen)[:, None]


def _framed(volume: Volume, mark_mm: Reals) -> Array:
    assert volume.geometry is not None, "slabs know where they lie"
    x0, y0, _ = volume.geometry.origin_mm
    x, y = (round((mm - mm0) / SPACING_MM) + SIDE for mm, mm0 in zip(mark_mm, (x0, y0), strict=True))
    plane = np.pad(volume.voxels[len(volume.voxels) // 2], SIDE, mode="edge")
    half = SIDE // 2
    square = plane[y - half : y + half, x - half : x + half]
    return np.clip((square - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1).astype(np.float32)


def values_of(slabs: Slabs, rows: Rows, recipe: FittedRecipe) -> Reals:
    """(n, feature) of slabs by a recipe."""
    from tests.benchmarks.detection.pool import features_of

    return np.stack([features_of(apply_recipe(recipe, slabs[int(row)]).volume) for row in rows])
