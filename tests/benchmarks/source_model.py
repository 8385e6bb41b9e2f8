"""Are the source weights that come with the platform worth anything? They, against a network of new weights.

    python -m tests.benchmarks.source_model [DATA] [--budgets 50 200] [--seeds 10]

For each number of labelled scans and each seed, the same scans train `resnet_tiny` twice, as `sitedrift train` does:
`from_scratch`, and `from_weights` from the built-in ones; both are asked about the same other scans. Prints AUROC as
mean over seeds, and the mean of the paired differences with its 95 % interval (Student's t). Seeds draw other scans
and other initial weights.

- `lesions`: patients of the detection benchmark's world on its untouched scanner (3-D). Simulated: their lesions are
  soft spots, and so are those that the weights have learned to find.
- `pneumonia`: DATA/cxr/src_guangzhou_mnist, train split, real chest X-rays of 28 pixels (2-D); only if DATA is given.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student
from torch.nn import functional

from platform_core.harmonize.recipe import apply_recipe, fit_recipe, parse_recipe
from platform_core.learn.built_in import NETWORK, built_in_path
from platform_core.learn.checkpoints import Checkpoint, read_checkpoint
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.phases import TrainingSet
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.transplant import transplant
from platform_core.settings import TrainSettings
from platform_core.shift.risk import auroc
from tests.benchmarks.detection.pool import RECIPE
from tests.benchmarks.detection.reader import GRID, HIGH_HU, LOW_HU
from tests.benchmarks.detection.world import draw_patient, render

Array = npt.NDArray[np.float32]
Scans = tuple[Array, Array]
"""(n, 1, ...) in [0, 1], and (n,) 1 or 0."""

FIRST_PATIENT = 3_000_000
"""Nobody whom another benchmark draws."""
N_ASKED = 1000
N_LESIONS = 1300
SIDE = 32


def main() -> None:
    """Train pairs of networks and print what they know."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", type=Path, nargs="?")
    asked.add_argument("--budgets", type=int, nargs="+", default=[50, 200])
    asked.add_argument("--seeds", type=int, default=10)
    options = asked.parse_args()
    torch.set_num_threads(1)
    worlds = {"lesions": lesions()}
    if options.data is not None:
        worlds["pneumonia"] = pneumonia(options.data)
    for name, scans in worlds.items():
        for n in options.budgets:
            pairs = np.array([compare(scans, n, seed) for seed in range(options.seeds)])
            report(name, n, pairs)


def lesions() -> Scans:
    """Middle of the harmonized volume, as the network sees it."""
    recipe = fit_recipe(parse_recipe(RECIPE), [], None)
    patients = [draw_patient(FIRST_PATIENT + number) for number in range(N_LESIONS)]
    volumes = [apply_recipe(recipe, render(patient)).volume.voxels for patient in patients]
    return np.stack([middle(v) for v in volumes])[:, None], np.array([p.y for p in patients], dtype=np.float32)


def middle(voxels: npt.NDArray[np.generic]) -> Array:
    """(z, y, x) of `GRID`, the window as 0 to 1; air where the volume ends."""
    scaled = np.clip((voxels.astype(np.float32) - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
    padded = np.pad(scaled, [(max(0, (w - h + 1) // 2),) * 2 for h, w in zip(scaled.shape, GRID, strict=True)])
    cut = tuple(slice((h - w) // 2, (h - w) // 2 + w) for h, w in zip(padded.shape, GRID, strict=True))
    return np.asarray(padded[cut], dtype=np.float32)


def pneumonia(data: Path) -> Scans:
    """The train split, resized to the pixels that the weights were made at."""
    file = next((data / "cxr" / "src_guangzhou_mnist").rglob("pneumoniamnist.npz"))
    with np.load(file) as arrays:
        images, y = arrays["train_images"].astype(np.float32) / 255, arrays["train_labels"][:, 0].astype(np.float32)
    resized = functional.interpolate(torch.from_numpy(images)[:, None], size=(SIDE, SIDE), mode="bilinear")
    return np.asarray(resized.numpy(), dtype=np.float32), y


def compare(scans: Scans, n: int, seed: int) -> tuple[float, float]:
    """AUROC from new weights, and from the built-in ones."""
    x, y = scans
    order = np.random.default_rng(seed).permutation(len(y))
    learned, others = order[:n], order[-min(N_ASKED, len(y) - n) :]
    found = []
    for strategy in ("from_scratch", "from_weights"):
        network = build_network(NETWORK, x.ndim - 2, seed=seed)
        if strategy == "from_weights":
            give(network, x.ndim - 2)
        data = TrainingSet(
            x=torch.from_numpy(x[learned]), y=torch.from_numpy(y[learned]), weight=torch.from_numpy(even(y[learned]))
        )
        fit(network, data, STRATEGIES[strategy], TrainSettings(batch_size=16, seed=seed))
        logits, _ = logits_and_embeddings(network, torch.from_numpy(x[others]))
        found.append(auroc(y[others].astype(np.float64), logits.double().numpy()))
    return found[0], found[1]


def give(network: Classifier, dimensions: int) -> None:
    """Put the built-in weights in, as training does."""
    file = built_in_path(NETWORK, dimensions)
    found = Checkpoint(where=file.name, sha256="", tensors=read_checkpoint(file.read_bytes(), file.name))
    transplant(found, network, NETWORK, dimensions)


def even(y: Array) -> Array:
    """Both classes weigh the same."""
    return np.asarray(np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean())), dtype=np.float32)


def report(name: str, n: int, pairs: npt.NDArray[np.float64]) -> None:
    """One line."""
    gain = pairs[:, 1] - pairs[:, 0]
    half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    scratch, given = pairs.mean(axis=0)
    print(
        f"  {name:<10} {n:4d} labelled scans: AUROC {scratch:.3f} from scratch, {given:.3f} from the built-in weights; "
        f"gain {gain.mean():+.3f} [{gain.mean() - half:+.3f}, {gain.mean() + half:+.3f}], better in "
        f"{int((gain > 0).sum())} of {len(gain)} seeds"
    )


if __name__ == "__main__":
    main()
