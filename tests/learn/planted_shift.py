"""A small problem in two dimensions, a network that has learned it, and scanners that shift it."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.fit import fit
from platform_core.learn.networks import Classifier, build_network
from platform_core.learn.phases import TrainingSet
from platform_core.learn.strategies import STRATEGIES
from platform_core.settings import TrainSettings

Arrays = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]
SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What it does to intensities, and blur and noise of its images."""

    gain: float = 1.0
    offset: float = 0.0
    blur: float = 0.0
    noise: float = 0.05


def scans(
    n: int, seed: int, scanner: Scanner | None = None, *, share: float = 0.5, spot: float = 0.9
) -> tuple[Arrays, Reals]:
    """(n, 1, y, x) of texture, the positive ones with a spot as bright as `spot` in it, and who is positive."""
    made_by, rng = scanner or Scanner(), np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) < round(n * share)).astype(np.float64)
    return np.stack([_scan(made_by, rng, spot if each else 0.0) for each in y])[:, None], y


def _scan(scanner: Scanner, rng: np.random.Generator, spot: float) -> Arrays:
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.0)
    image = 0.5 + 0.25 * texture / texture.std()
    if spot:
        rows, columns = np.mgrid[:SIDE, :SIDE]
        row, column = rng.integers(4, 12, 2)
        shape = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 1.5**2))
        image += spot * rng.uniform(0.6, 1.2) * shape
    image = gaussian_filter(image, scanner.blur) if scanner.blur else image
    image = scanner.gain * image + scanner.offset + rng.normal(0, scanner.noise, image.shape)
    return np.asarray(image, dtype=np.float32)


@cache
def learned(seed: int = 0, window: tuple[float, float] = (0.0, 1.0), spot: float = 0.9) -> Classifier:
    """A network that has learned the problem, as a window shows it; not to be changed."""
    x, y = scans(400, seed, spot=spot)
    x = framed(x, window)
    network = build_network("resnet_tiny", 2, seed=seed)
    data = TrainingSet(x=torch.from_numpy(x), y=torch.from_numpy(y).float(), weight=torch.ones(len(y)))
    fit(network, data, STRATEGIES["from_scratch"], TrainSettings(epochs=10, seed=seed))
    return network.eval()


def framed(x: Arrays, window: tuple[float, float]) -> Arrays:
    """Brought to 0 and 1 at the ends of a window, nothing cut off."""
    low, high = window
    return np.asarray((x - low) / (high - low), dtype=np.float32)


def logits(network: Classifier, x: Arrays) -> Reals:
    """(n,)."""
    return np.asarray(logits_and_embeddings(network, torch.from_numpy(x))[0].numpy(), dtype=np.float64)


def loss(network: Classifier, x: Arrays, y: Reals) -> float:
    """Log-loss at even odds, nats."""
    return float(np.logaddexp(0, -(2 * y - 1) * logits(network, x)).mean())
