"""Leave one hospital out: what a model of the others is worth there, on real chest X-rays, and what remedies change.

    python -m tests.benchmarks.leave_one_out DATA [--seeds 3] [--only HANNOVER]

DATA is a folder that holds `cxr/labels.csv`; the label is pneumonia or COVID-19. Two collections of one hospital are
two sites that are left out together: nothing of a hospital that is left out is trained on, and no patient is on both
sides.

The model is `resnet_tiny` trained from scratch, as `sitedrift train` does without source weights, on the labelled
images of the other hospitals; images have no spacing and are resized to 32 x 32, each to mean 0 and deviation 1, as
targets without a window are. At the hospital that is left out, half of the patients are known: their images without
labels, to `harmonized`, `recalibrated`, `adabn` and `coral`; some of them with labels, drawn uniformly, to the race
(on images that are not harmonized). The other half judges. A seed draws the patients who train, who calibrate and who
are the reference, the first weights, the half that is known and those that are labelled.

Printed: mean over seeds, with a 95 % interval that resamples the patients who judge, not seeds; `gain` is the log-loss
of `none` less that of the arm, on the same images. Patients are unknown at Guangzhou: each image counts as one there.

Nothing was tuned to these data. `policy` is what the platform does by itself without a label, from its own finding,
with all its gates. Apart from it, `recalibrated` asks its own gate and nothing else, and the other arms ask none: they
tell what a remedy does where it is applied.
"""

import argparse
import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import numpy.typing as npt
import torch

from platform_core.errors import EmptySample, NotAdaptable, UnreadableScan
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.harmonize.stage import N_SAMPLE
from platform_core.imaging.plain import decode_image
from platform_core.imaging.volume import Volume
from platform_core.learn.adaptations import ADAPTATIONS
from platform_core.learn.calibrate import fit_platt, smoothed_share
from platform_core.learn.cross_validate import race
from platform_core.learn.data import Framing, Loaded, Scan, frame
from platform_core.learn.judging import NONE
from platform_core.learn.networks import build_network
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.trained import joined, labels_of, some, train_copy
from platform_core.manifest.serving import Calibration, log_odds
from platform_core.policy.candidates import CHEAPEST_FIRST, candidates
from platform_core.settings import PolicySettings, StepSettings, TrainSettings
from platform_core.shift.resampled import (
    Metric,
    auroc_of,
    balanced_accuracy_of,
    calibration_error_of,
    mean_of,
    resampled,
)
from platform_core.shift.risk import Estimate, Reals, log_loss, log_losses
from platform_core.trial.outlook import look
from platform_core.trial.paired import Pairs
from platform_core.trial.recalibrate import capped, weigh_recalibration
from tests.benchmarks.adaptation.responder import Case
from tests.benchmarks.adaptation.source import Served, logits_of
from tests.benchmarks.leave_one_out_policy import Pictures, answer_of

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

NETWORK = "resnet_tiny"
SIDE = 32
"""Guangzhou's images have 28 pixels a side; those of the others are brought down to about as many."""
FRAMING = Framing(grid=(SIDE, SIDE), window=None)
RECIPE = parse_recipe([StepSettings(harmonizer="histogram_match")])
SETTINGS = TrainSettings(epochs=20)
MOST_OF_A_SITE = 600
"""Images of one site that a source model may use, drawn by the seed, so that it is trained in seconds."""
SHARES = (0.60, 0.75)
"""Of the source's patients: up to here they train, up to here they calibrate, the others are the reference."""
BUDGETS = (20, 100)
POLICY = "policy"
N_FOLDS, N_SEEDS = 3, 1
"""Of a race: fewer than the platform's 5 and 3, so that it is affordable."""
THRESHOLD = 0.5
RULES = PolicySettings()
COLUMNS = ("AUROC", "bal. accuracy", "cal. error", "Brier", "log-loss", "gain")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Radiographs of several sites, one row each."""

    site: npt.NDArray[np.str_]
    hospital: npt.NDArray[np.str_]
    patient: npt.NDArray[np.str_]
    y: Reals
    """1 pneumonia or COVID-19, 0 neither, NaN not stated."""
    pixels: Sequence[npt.NDArray[np.generic]]
    """(y, x) each."""
    measured: dict[int, Reals] = field(default_factory=dict)
    """Features of the images that were asked for so far."""

    def arrays(self, rows: Rows, recipe: FittedRecipe) -> Array:
        """(n, 1, y, x), what a network sees by a recipe."""
        seen = [frame(apply_recipe(recipe, volume).volume, FRAMING) for volume in self.volumes(rows)]
        return np.stack(seen)[:, None]

    def volumes(self, rows: Rows) -> list[Volume]:
        """As the recipe takes them."""
        return [Volume(self.pixels[row][None]) for row in rows]

    def loaded(self, rows: Rows, recipe: FittedRecipe) -> Loaded:
        """Labelled images as the platform's trainings take them."""
        scans = tuple(_scan(self, int(row)) for row in rows)
        return Loaded(scans, self.arrays(rows, recipe), {})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """The other hospitals together, and their model."""

    served: Served
    train: Loaded
    validation: Loaded
    reference: Loaded
    """Whom the model has not seen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What one arm says under one seed, one row per image that judges."""

    patients: tuple[str, ...]
    y: Reals
    p: Reals
    none: Reals
    """Of the same images, by the source model as it is."""


Arm = Served | str
"""What would be served, or why there is nothing."""


def main() -> None:
    """Leave every hospital out, and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("data", type=Path)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--only", default="", metavar="TEXT", help="sites whose name begins with it")
    options = asked.parse_args()
    torch.set_num_threads(1)
    images = read_images(options.data / "cxr")
    for line in table(images, range(options.seeds), SETTINGS, only=options.only):
        print(line, flush=True)


def read_images(folder: Path) -> Images:
    """Every image of `labels.csv` that is there and that the platform can read."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    pixels = list(_pixels(folder, rows))
    kept = [place for place, image in enumerate(pixels) if image is not None]

    def column(name: str) -> npt.NDArray[np.str_]:
        return np.array([rows[place][name] for place in kept])

    patient, labels = column("patient_id"), column("label_pneumonia_or_covid")
    return Images(
        site=column("site"),
        hospital=column("hospital"),
        patient=np.where(patient == "", column("sha256"), patient),
        y=np.array([float(label or "nan") for label in labels]),
        pixels=[image for image in pixels if image is not None],
    )


def _pixels(folder: Path, rows: Iterable[Mapping[str, str]]) -> Iterable[npt.NDArray[np.generic] | None]:
    stacks: dict[str, npt.NDArray[np.generic]] = {}
    for row in rows:
        name, _, place = row["file"].partition("#")
        if place:
            split, index = place.split("/")
            if split not in stacks:
                with np.load(folder / name) as arrays:
                    stacks[split] = arrays[f"{split}_images"]
            yield stacks[split][int(index)]
        else:
            try:
                yield decode_image((folder / name).read_bytes()).voxels[0]
            except UnreadableScan:
                yield None


def table(images: Images, seeds: Sequence[int], settings: TrainSettings, *, only: str = "") -> Iterable[str]:
    """Lines of the table, hospital by hospital."""
    for hospital in sorted(set(images.hospital.tolist())):
        sites = sorted({site for site in images.site[images.hospital == hospital].tolist() if site.startswith(only)})
        sources = {seed: source_of(images, hospital, seed, settings) for seed in seeds if sites}
        for site in sites:
            yield from _lines_of(images, site, sources, settings)


def source_of(images: Images, hospital: str, seed: int, settings: TrainSettings) -> Source:
    """A model of all hospitals but one."""
    rng = np.random.default_rng([seed, *hospital.encode()])
    train, validation, reference = parts_of(images, hospital, rng)
    recipe = fit_recipe(RECIPE, images.volumes(_evenly(images, train)), None)
    parts = [images.loaded(rows, recipe) for rows in (train, validation, reference)]
    start = build_network(NETWORK, 2, seed=seed)
    own = settings.model_copy(update={"seed": seed})
    network = train_copy(start, parts[0], STRATEGIES["from_scratch"], own).network
    scans = parts[1].scans
    platt = fit_platt(logits_of(network, parts[1].arrays), labels_of(scans), [scan.site for scan in scans])
    calibration = _calibration(smoothed_share(images.y[train]))
    served = Served(network=network, platt=platt, recipe=recipe, calibration=calibration)
    return Source(served=served, train=parts[0], validation=parts[1], reference=parts[2])


def parts_of(images: Images, hospital: str, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Labelled images of the other hospitals: who train, who calibrate, who are the reference; by patient."""
    there = np.isfinite(images.y) & (images.hospital != hospital)
    there &= ~np.isin(images.patient, images.patient[images.hospital == hospital])
    mine = [rng.permutation(np.flatnonzero(there & (images.site == site))) for site in np.unique(images.site[there])]
    rows = np.concatenate([part[:MOST_OF_A_SITE] for part in mine])
    names, patient = np.unique(images.patient[rows], return_inverse=True)
    place = rng.permutation(len(names))[patient] / len(names)
    part = np.searchsorted(SHARES, place, side="right")
    return rows[part == 0], rows[part == 1], rows[part == 2]


def halves_of(images: Images, site: str, seed: int) -> tuple[Rows, Rows]:
    """Images of the patients who are known to a site, and labelled ones of those who judge."""
    rng = np.random.default_rng([seed, *site.encode()])
    rows = np.flatnonzero(images.site == site)
    names, patient = np.unique(images.patient[rows], return_inverse=True)
    is_known = (rng.permutation(len(names)) < len(names) // 2)[patient]
    judges = rows[~is_known]
    return rng.permutation(rows[is_known]), judges[np.isfinite(images.y[judges])]


def arms_of(images: Images, source: Source, known: Rows, seed: int, settings: TrainSettings) -> dict[str, Arm]:
    """What every remedy would serve; `known` is in random order."""
    one_each = _one_each(images, known)
    arrays = images.arrays(one_each, source.served.recipe)
    near = fit_recipe(RECIPE, images.volumes(one_each[:N_SAMPLE]), source.served.recipe)
    found: dict[str, Arm] = {
        "none": source.served,
        "harmonized": replace(source.served, recipe=near),
        "recalibrated": _recalibrated(source, arrays),
    }
    for name in ("adabn", "coral"):
        found[name] = _adapted(source, arrays, name, seed)
    labelled = one_each[np.isfinite(images.y[one_each])]
    own = settings.model_copy(update={"seed": seed})
    for n in BUDGETS:
        found[f"{n} labels"] = _fine_tuned(images, source, labelled, n, own)
    return found


def policy_of(images: Images, source: Source, period: Rows, seed: int) -> Case:
    """What the platform would do by itself without a label; `period` has one image of each patient."""
    reference = np.array([int(scan.series_key) for scan in source.reference.scans])
    return answer_of(
        Pictures(pixels=images.pixels, y=images.y, measured=images.measured),
        images.arrays,
        recipe=RECIPE,
        served=source.served,
        train=source.train,
        validation=source.validation,
        reference=_one_each(images, reference),
        period=period,
        seed=seed,
    )


def story_of(case: Case) -> str:
    """What was found, done and asked for at the end, in one line."""
    acts = [
        f"{act.action} {act.what + ' ' * bool(act.what)}{'done' if act.passed else 'refused'}" for act in case.acted
    ]
    asked = case.asked_for.action if case.asked_for else "nothing"
    return ", ".join([f"found {case.verdict.kind}", *acts, f"asks for {asked}"])


def _one_each(images: Images, rows: Rows) -> Rows:
    """The first image of every patient, in order."""
    _, first = np.unique(images.patient[rows], return_index=True)
    return rows[np.sort(first)]


def _recalibrated(source: Source, arrays: Array) -> Arm:
    """The prevalence that scores tell, if its own gate lets it in; whether acquisition has moved is not asked."""
    served = source.served
    scores, there, y = (
        served.score(arrays)[0],
        served.score(source.reference.arrays)[0],
        labels_of(source.reference.scans),
    )
    before = look(scores, there, y, served.calibration)
    if before is None:
        return "the reference has too few of a class"
    moved = served.calibration.moved_to(capped(served.calibration.prevalence, before.prevalence.value))
    nobody = Pairs(patients=(), y=np.empty(0), before=np.empty(0), after=np.empty(0))
    judged = weigh_recalibration(nobody, before, look(scores, there, y, moved))
    return replace(served, calibration=moved) if judged.passed else f"refused: {judged.because}"


def _adapted(source: Source, arrays: Array, name: str, seed: int) -> Arm:
    try:
        network = ADAPTATIONS[name].adapt(source.served.network, arrays, source.reference.arrays, seed=seed)
    except (EmptySample, NotAdaptable) as error:
        return str(error)
    return replace(source.served, network=network)


def _fine_tuned(images: Images, source: Source, labelled: Rows, n: int, settings: TrainSettings) -> Arm:
    """The winner of a race on the first `n` labelled patients, calibrated by its folds, at the labels' prevalence."""
    if len(labelled) < n:
        return f"{len(labelled)} labelled patients are known"
    served, own = source.served, images.loaded(labelled[:n], source.served.recipe)
    rng = np.random.default_rng(settings.seed)
    replayed = some(source.train, rng.random(len(source.train.scans)) < settings.source_replay)
    offered = candidates("undetermined", n, CHEAPEST_FIRST)
    try:
        raced = race(served.network, own, replayed, offered, settings, n_folds=N_FOLDS, n_seeds=N_SEEDS)
    except EmptySample as error:
        return str(error)
    y, network = labels_of(own.scans), served.network
    if raced.winner != NONE:
        network = train_copy(network, joined(own, replayed), STRATEGIES[raced.winner], settings).network
    platt = fit_platt(np.asarray(raced.logits), y, [scan.site for scan in own.scans])
    return replace(served, network=network, platt=platt, calibration=_calibration(smoothed_share(y)))


def answers_of(images: Images, judges: Rows, arms: Mapping[str, Arm]) -> dict[str, Answer | str]:
    """What every arm says of the images that judge, or why it says nothing."""
    recipes = {arm.recipe.name: arm.recipe for arm in arms.values() if not isinstance(arm, str)}
    arrays = {name: images.arrays(judges, recipe) for name, recipe in recipes.items()}
    said = {
        name: arm if isinstance(arm, str) else arm.calibration.probability(arm.score(arrays[arm.recipe.name])[0])
        for name, arm in arms.items()
    }
    patients, none = tuple(images.patient[judges].tolist()), said["none"]
    assert not isinstance(none, str), "the source model always answers"
    return {
        name: p if isinstance(p, str) else Answer(patients=patients, y=images.y[judges], p=p, none=none)
        for name, p in said.items()
    }


def measured(answers: Sequence[Answer]) -> dict[str, Estimate | None]:
    """Every metric as the mean over seeds, with its patient-bootstrap interval.

    None where not evaluable: with fewer than ten patients of a class, all but log-loss, Brier score and gain.
    """
    keys = np.array([key for each in answers for key in each.patients])
    y = np.concatenate([each.y for each in answers])
    has_both = min(len(set(keys[y == value])) for value in (0, 1)) >= RULES.min_class_patients

    def mean(of: Callable[[Answer], Metric], resamples: Callable[[Answer], Metric] | None = None) -> Estimate:
        second = None if resamples is None else _over_seeds(answers, resamples)
        return resampled(_over_seeds(answers, of), keys.tolist(), of_resamples=second)

    def calibration_error(a: Answer, times: int = 1) -> Metric:
        return calibration_error_of(a.y, a.p, times=times)

    return {
        "AUROC": mean(lambda a: auroc_of(a.y, a.p)) if has_both else None,
        "bal. accuracy": mean(lambda a: balanced_accuracy_of(a.y, a.p >= THRESHOLD)) if has_both else None,
        "cal. error": mean(calibration_error, partial(calibration_error, times=2)) if has_both else None,
        "Brier": mean(lambda a: mean_of((a.p - a.y) ** 2)),
        "log-loss": mean(lambda a: mean_of(log_losses(a.y, a.p))),
        "gain": mean(lambda a: mean_of(log_losses(a.y, a.none) - log_losses(a.y, a.p))),
    }


def _over_seeds(answers: Sequence[Answer], of: Callable[[Answer], Metric]) -> Metric:
    """The mean of a metric over seeds, each on its own rows."""
    ends = np.cumsum([len(each.y) for each in answers])
    parts = [(of(each), slice(end - len(each.y), end)) for each, end in zip(answers, ends, strict=True)]
    return lambda weights: np.asarray(np.mean([metric(weights[:, rows]) for metric, rows in parts], axis=0))


def _lines_of(images: Images, site: str, sources: Mapping[int, Source], settings: TrainSettings) -> Iterable[str]:
    found: dict[str, list[Answer | str]] = {}
    cases = []
    for seed, source in sources.items():
        known, judges = halves_of(images, site, seed)
        cases.append(policy_of(images, source, _one_each(images, known), seed))
        arms = arms_of(images, source, known, seed, settings) | {POLICY: cases[-1].served}
        for name, answer in answers_of(images, judges, arms).items():
            found.setdefault(name, []).append(answer)
    rows = np.flatnonzero((images.site == site) & np.isfinite(images.y))
    n_patients, share = len(set(images.patient[rows].tolist())), images.y[rows].mean()
    there = np.mean([source.served.calibration.prevalence for source in sources.values()])
    yield f"\n{site}: {len(rows)} labelled images of {n_patients} patients, {share:.0%} positive; source {there:.0%}"
    yield f"  {'':<14} seeds" + "".join(f"  {name:<20}" for name in COLUMNS) + "  log-loss by seed"
    for name, each in found.items():
        yield from _line(name, each)
    for told in dict.fromkeys(map(story_of, cases)):
        yield f"  {'':<14}        {told}"


def _line(name: str, found: Sequence[Answer | str]) -> Iterable[str]:
    answers = [each for each in found if isinstance(each, Answer)]
    cells = "  not run"
    if answers:
        told = measured(answers)
        by_seed = " ".join(f"{log_loss(each.y, each.p):.2f}" for each in answers)
        cells = "".join(f"  {_spelt(told[column]):<20}" for column in COLUMNS) + f"  {by_seed}"
    yield f"  {name:<14}{len(answers)} of {len(found)}{cells}"
    for because in sorted({each for each in found if isinstance(each, str)}):
        yield f"  {'':<14}        {because}"


def _spelt(found: Estimate | None) -> str:
    return "not evaluable" if found is None else f"{found.value:5.2f} [{found.low:.2f}, {found.high:.2f}]"


def _calibration(prevalence: float) -> Calibration:
    return Calibration(logit_offset=log_odds(prevalence), prevalence=prevalence, threshold=THRESHOLD)


def _evenly(images: Images, rows: Rows) -> Rows:
    """At most as many as a recipe is fitted on, as many of one class as of the other."""
    y = images.y[rows]
    half = min(N_SAMPLE // 2, int((y == 1).sum()), int((y == 0).sum()))
    return np.concatenate([rows[y == value][:half] for value in (0, 1)])


def _scan(images: Images, row: int) -> Scan:
    return Scan(
        site=str(images.site[row]),
        series_key=f"{row:05d}",
        revision=1,
        patient_key=str(images.patient[row]),
        patient_known=True,
        modality="DX",
        observed_on=date(2026, 1, 5),
        volume_uri="",
        y=int(images.y[row]),
    )


if __name__ == "__main__":
    main()
