"""The patients that every cell draws from: rendered, measured and scored once, then kept.

    python -m tests.benchmarks.detection.pool [--quick]

Patient i is row i everywhere. The untouched world holds every patient; an operator's world holds the first
`n_of(world)` of them, so a sample that was shifted is drawn from these and its reference from the others. Kept in
`.cache`, a file per operator and strength, under a name that changes with the code that made it; a build that was cut
off goes on where it stopped, and of several programs that ask one builds while the others wait.
"""

import argparse
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import numpy.typing as npt

from platform_core.features.measure import FEATURES, measure
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe, fit_recipe, parse_recipe
from platform_core.imaging.volume import Volume
from platform_core.settings import StepSettings
from tests.benchmarks.detection.operators import NONE, SCANNER_OPERATORS, STRENGTHS
from tests.benchmarks.detection.reader import HIGH_HU, LOW_HU, Reader, answers_of
from tests.benchmarks.detection.world import MODALITY, draw_patient, render

Reals = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
World = tuple[str, int]
"""Operator and strength; `("none", 0)` is the untouched one."""
MIXED_WITH = (("psf", 1), ("psf", 2), ("dose", 1), ("dose", 2))
"""Operators and strengths that come together with another prevalence, for which more patients are needed."""

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
SOURCES = ("operators.py", "world.py", "reader.py")
HARMONIZED_BY = ("axes", "clip_intensity", "oblique", "recipe", "resample", "taps")
RECIPE = (
    StepSettings.model_validate({"harmonizer": "resample", "spacing_mm": [1.5, 1.5, 3.0]}),
    StepSettings.model_validate({"harmonizer": "clip_intensity", "low": LOW_HU, "high": HIGH_HU}),
)
"""What the site serves: what the reader sees, and what harmonized features are measured on."""
FIRST_TRAINED = 1_000_000
"""Number of the first patient whom only the reader's training sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many patients of each sort."""

    name: str
    n_patients: int
    n_shifted: int
    """Whom every operator was applied to."""
    n_mixed: int
    """Whom the operators were applied to that come with another prevalence."""
    n_trained: int

    def of(self, world: World) -> int:
        """Patients of one world."""
        if world == NONE:
            return self.n_patients
        return self.n_mixed if world in MIXED_WITH else self.n_shifted


FULL = Size(name="full", n_patients=3200, n_shifted=640, n_mixed=1800, n_trained=1000)
QUICK = Size(name="quick", n_patients=1200, n_shifted=200, n_mixed=200, n_trained=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Everything that was measured; rows are patients."""

    size: Size
    features: tuple[str, ...]
    values: Mapping[World, Reals]
    """(patient, feature) as scanned; NaN where a feature could not be told."""
    harmonized: Mapping[World, Reals]
    """(patient, feature) after the recipe."""
    score: Mapping[World, Reals]
    """(patient,) logit of the positive class before calibration."""
    embedding: Mapping[World, Reals]
    """(patient, dimension)."""
    y: Reals
    """(patient,) 1 or 0."""
    severity: Reals
    """(patient,) in [0, 1]."""

    @property
    def n_shifted(self) -> int:
        """Patients whom every operator was applied to: 0 up to this."""
        return self.size.n_shifted

    def n_of(self, world: World) -> int:
        """Patients of one world: 0 up to this."""
        return self.size.of(world)

    def pick(self, rng: np.random.Generator, n: int, prevalence: float, among: Rows | None = None) -> Rows:
        """Draw `n` different patients among some, or among all, each positive with the chance `prevalence`.

        Raises:
            ValueError: If there are too few of a class.
        """
        among = np.arange(len(self.y)) if among is None else among
        n_positive = int(rng.binomial(n, prevalence))
        is_positive = self.y[among] == 1
        positive = rng.choice(among[is_positive], n_positive, replace=False)
        return rng.permutation(np.append(positive, rng.choice(among[~is_positive], n - n_positive, replace=False)))

    def without(self, *chosen: Rows) -> Rows:
        """Every patient but those."""
        return np.setdiff1d(np.arange(len(self.y)), np.concatenate(chosen))


def load_pool(*, quick: bool = False) -> Pool:
    """The pool, made where it is not there yet: minutes the first time."""
    size = QUICK if quick else FULL
    folder = CACHE / f"pool-{size.name}-{digest_of_sources(size)}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader = _reader(folder, size)
        worlds = {world: _world(folder, world, size, reader) for world in worlds_of_pool()}
    told = [
        np.isfinite(each["values"]).any(axis=0) | np.isfinite(each["harmonized"]).any(axis=0)
        for each in worlds.values()
    ]
    kept = np.logical_or.reduce(told)
    names = np.array(list(FEATURES))
    return Pool(
        size=size,
        features=tuple(names[kept].tolist()),
        values={world: each["values"][:, kept] for world, each in worlds.items()},
        harmonized={world: each["harmonized"][:, kept] for world, each in worlds.items()},
        score={world: each["score"] for world, each in worlds.items()},
        embedding={world: each["embedding"] for world, each in worlds.items()},
        y=worlds[NONE]["y"],
        severity=worlds[NONE]["severity"],
    )


def reader_of(*, quick: bool = False) -> Reader:
    """The reader that scored the pool, which must be there."""
    size = QUICK if quick else FULL
    return _reader(CACHE / f"pool-{size.name}-{digest_of_sources(size)}", size)


def worlds_of_pool() -> list[World]:
    """The untouched world, then every scanner operator at every strength."""
    return [NONE, *((name, strength) for name in SCANNER_OPERATORS for strength in STRENGTHS)]


def digest_of_sources(size: Size) -> str:
    """Of what decides what a pool holds."""
    core = Path(__file__).parents[3] / "platform_core"
    files = [HERE / name for name in SOURCES]
    for room in ("features", "phantom", "imaging"):
        files += sorted((core / room).glob("*.py"))
    files += [core / "harmonize" / f"{name}.py" for name in HARMONIZED_BY]
    found = hashlib.sha256(repr((size, RECIPE, FIRST_TRAINED)).encode())
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def fitted_recipe() -> FittedRecipe:
    """`RECIPE` as every site runs it; it learns nothing."""
    return fit_recipe(parse_recipe(RECIPE), [], None)


def _reader(folder: Path, size: Size) -> Reader:
    file = folder / "reader.npz"
    if not file.exists():
        recipe = fitted_recipe()
        patients = [draw_patient(FIRST_TRAINED + i) for i in range(size.n_trained)]
        answers = np.stack([answers_of(apply_recipe(recipe, render(patient)).volume) for patient in patients])
        reader = Reader.train(answers, np.array([patient.y for patient in patients]))
        _keep(file, {"mean": reader.mean, "sd": reader.sd, "weights": reader.weights})
    with np.load(file) as kept:
        return Reader(kept["mean"], kept["sd"], kept["weights"])


def _world(folder: Path, world: World, size: Size, reader: Reader) -> dict[str, Reals]:
    file = folder / f"{world[0]}-{world[1]}.npz"
    if not file.exists():
        started = time.process_time()
        n = size.of(world)
        _keep(file, _measured(world, n, reader))
        print(f"{world[0]} {world[1]}: {n} patients, {time.process_time() - started:.0f} s", flush=True)
    with np.load(file) as kept:
        return dict(kept)


def _measured(world: World, n: int, reader: Reader) -> dict[str, Reals]:
    recipe = fitted_recipe()
    patients = [draw_patient(i) for i in range(n)]
    scans = [_scan(render(patient, *world), recipe) for patient in patients]
    answers = np.stack([found for _, _, found in scans])
    return {
        "values": np.stack([native for native, _, _ in scans]),
        "harmonized": np.stack([harmonized for _, harmonized, _ in scans]),
        "score": reader.score(answers),
        "embedding": reader.embed(answers),
        "y": np.array([patient.y for patient in patients]),
        "severity": np.array([patient.severity for patient in patients]),
    }


def _scan(volume: Volume, recipe: FittedRecipe) -> tuple[Reals, Reals, Reals]:
    """Features as scanned, features after the recipe, and what the reader sees."""
    harmonized = apply_recipe(recipe, volume).volume
    return features_of(volume), features_of(harmonized), answers_of(harmonized)


def features_of(volume: Volume) -> Reals:
    """(feature,) in the order of `FEATURES`; NaN where one cannot be told."""
    told = measure(volume, MODALITY)
    return np.array([np.nan if told[name] is None else told[name] for name in FEATURES], dtype=np.float64)


def _keep(file: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write whole or not at all."""
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, allow_pickle=False, **arrays)
    part.replace(file)


def main() -> None:
    """Make the pool and say what the reader is worth on it."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true")
    pool = load_pool(quick=asked.parse_args().quick)
    print(f"{len(pool.y)} patients, {len(pool.features)} features")
    for world in worlds_of_pool():
        print(f"{world[0]:14}{world[1]}  AUROC {_auroc(pool.score[world], pool.y[: len(pool.score[world])]):.3f}")


def _auroc(score: Reals, y: Reals) -> float:
    from scipy.stats import rankdata

    n_positive = int(y.sum())
    ranks = rankdata(score)[y == 1].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(y) - n_positive)))


if __name__ == "__main__":
    main()
