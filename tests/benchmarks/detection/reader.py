"""The model whose scores are watched: it looks for a bright spot and says how sure it is.

A spot is what is brighter than its neighbours along each of three axes; of that the largest answers at four sizes,
and a logistic regression, trained once on patients that nobody else sees and on the untouched scanner alone. Blur
lowers an answer and noise raises it, as they do with any detector, so another scanner moves the scores.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from platform_core.imaging.volume import Volume

Reals = npt.NDArray[np.float64]

GRID, SPACING_MM = (12, 32, 32), (3.0, 1.5, 1.5)
"""(z, y, x) of the middle of the harmonized volume."""
LOW_HU, HIGH_HU = -150.0, 250.0
SIZES_MM = (1.8, 2.4, 3.2, 4.2)
"""Standard deviation of the smoothing before a spot is looked for."""
N_LARGEST = 2
"""Answers kept per size, from different voxels."""
RIDGE = 1.0


def answers_of(volume: Volume) -> Reals:
    """The largest answers per size in a harmonized volume, (answer,), in HU; what the last line sees."""
    image = _middle(volume)
    found = []
    for size in SIZES_MM:
        smooth = [size / mm for mm in SPACING_MM]
        blurred = _smoothed(image, smooth)
        bright = np.min([-(sigma**2) * _bent(blurred, axis) for axis, sigma in enumerate(smooth)], axis=0)
        inner = bright[:, 3:-3, 3:-3].ravel()
        found.append(np.sort(np.partition(inner, -N_LARGEST)[-N_LARGEST:]))
    return np.concatenate(found)


def _smoothed(image: Reals, smooth: list[float]) -> Reals:
    for axis, sigma in enumerate(smooth):
        image = gaussian_filter1d(image, sigma, axis=axis, truncate=3.0)
    return image


def _bent(image: Reals, axis: int) -> Reals:
    """Second difference along one axis, per squared voxel; the outermost voxels of every axis are left out."""
    inner = [slice(1, -1)] * 3
    before, after = list(inner), list(inner)
    before[axis], after[axis] = slice(None, -2), slice(2, None)
    bent: Reals = image[tuple(before)] + image[tuple(after)] - 2 * image[tuple(inner)]
    return bent


def _middle(volume: Volume) -> Reals:
    """(z, y, x) of `GRID`; what is missing is the window's lower end."""
    middle = np.full(GRID, LOW_HU)
    cuts = [_cut(have, want) for have, want in zip(volume.voxels.shape, GRID, strict=True)]
    middle[tuple(there for _, there in cuts)] = volume.voxels[tuple(here for here, _ in cuts)]
    return middle


def _cut(have: int, want: int) -> tuple[slice, slice]:
    n = min(have, want)
    here, there = (have - n) // 2, (want - n) // 2
    return slice(here, here + n), slice(there, there + n)


@dataclass(frozen=True, slots=True)
class Reader:
    """A trained reader."""

    mean: Reals
    sd: Reals
    weights: Reals
    """Constant first."""

    def embed(self, answers: Reals) -> Reals:
        """(scan, dimension): answers as the last line sees them."""
        standard = (answers - self.mean) / self.sd
        return np.hstack([standard, np.minimum(standard, 0) ** 2, np.maximum(standard, 0) ** 2])

    def score(self, answers: Reals) -> Reals:
        """(scan,): logit of the positive class before calibration."""
        scores: Reals = self.weights[0] + self.embed(answers) @ self.weights[1:]
        return scores

    @classmethod
    def train(cls, answers: Reals, y: Reals) -> "Reader":
        """Logistic regression with a ridge, by Newton's steps."""
        mean, sd = answers.mean(axis=0), answers.std(axis=0)
        untrained = cls(mean, sd, np.zeros(0))
        design = np.hstack([np.ones((len(y), 1)), untrained.embed(answers)])
        penalty = RIDGE * np.diag(np.arange(design.shape[1]) > 0)
        weights = np.zeros(design.shape[1])
        for _ in range(30):
            p = 1 / (1 + np.exp(-design @ weights))
            slope = design.T @ (y - p) - penalty @ weights
            bend = (design * (p * (1 - p))[:, None]).T @ design + penalty
            weights = weights + np.linalg.solve(bend, slope)
        return cls(mean, sd, weights)
