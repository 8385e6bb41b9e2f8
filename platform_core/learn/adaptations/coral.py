"""The site's embeddings brought to the mean and covariance of the reference's, folded into the head.

The map is affine and the head linear, so the adapted network is the same network with another head: nothing is to be
served beside it. It takes a site that has other patients for one that has another scanner, so prevalence must not have
moved.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from platform_core.errors import EmptySample, NotAdaptable
from platform_core.learn.contract import Adaptation
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.networks import Classifier

Reals = npt.NDArray[np.float64]

SCANS_PER_DIRECTION = 10
"""Scans of either side per direction that is aligned: a covariance of d directions from n scans errs by about
sqrt(d/n) of itself. Directions of the reference's embeddings are taken in order of their variance, as many as that
allows; across the others only the mean is moved."""
FEWEST_SCANS = 100
"""Ten directions. With 50 of the reference, log-loss on scans made like its own rose by 0.06 to 0.15 nats, with 200 by
0.01 (a network of 64 embedding dimensions on images of 16 x 16)."""
SHRUNK = 0.1
"""Of either covariance, the share that is replaced by its mean variance in all directions, so that a direction which a
blur has emptied is not blown up. Proposed, not measured."""


@dataclass(frozen=True, slots=True)
class Affine:
    """z becomes matrix @ z + offset."""

    matrix: Reals
    """(d, d)."""
    offset: Reals
    """(d,)."""


def adapt(
    network: Classifier,
    site_arrays: npt.NDArray[np.float32],
    reference_arrays: npt.NDArray[np.float32],
    *,
    seed: int,  # noqa: ARG001 -- nothing is drawn
) -> Classifier:
    """Align what goes into the head; only the head changes.

    Source:
        Sun & Saenko 2016, "Deep CORAL", arXiv:1607.01719, and Sun, Feng & Saenko 2016, "Return of frustratingly easy
        domain adaptation", arXiv:1511.05547, algorithm 1, here from the site to the reference and with the means.
    """
    n = min(len(site_arrays), len(reference_arrays))
    if n < FEWEST_SCANS:
        raise EmptySample("unlabelled scans of the site, and of the reference, for coral", FEWEST_SCANS, n)
    adapted = deepcopy(network)
    head = _linear_head(adapted)
    site, reference = (_embedded(adapted, arrays) for arrays in (site_arrays, reference_arrays))
    _fold(head, align(site, reference))
    return adapted


def align(site: Reals, reference: Reals) -> Affine:
    """The map to the reference's mean and, along its leading directions, covariance; both samples (n, d).

    Raises:
        NotAdaptable: If the reference's embeddings are all alike.
    """
    mean_t, mean_s = site.mean(axis=0), reference.mean(axis=0)
    directions = _leading(reference - mean_s, min(len(site), len(reference)) // SCANS_PER_DIRECTION)
    covariance_t, covariance_s = (_shrunk_covariance(rows @ directions) for rows in (site - mean_t, reference - mean_s))
    inner = _power(covariance_s, 0.5) @ _power(covariance_t, -0.5)
    matrix = np.eye(site.shape[1]) + directions @ (inner - np.eye(len(inner))) @ directions.T
    return Affine(matrix, mean_s - matrix @ mean_t)


def _leading(centred: Reals, n_most: int) -> Reals:
    """Orthonormal directions of most variance, (d, k), those without any left out."""
    _, spread, rows = np.linalg.svd(centred, full_matrices=False)
    n_spread = int(np.sum(spread > 1e-6 * spread[0])) if spread[0] > 0 else 0
    if not n_spread:
        raise NotAdaptable("coral", "all scans of the reference have the same embedding")
    return np.asarray(rows[: min(n_most, n_spread)].T, dtype=np.float64)


def _shrunk_covariance(centred: Reals) -> Reals:
    covariance = centred.T @ centred / len(centred)
    mean_variance = np.trace(covariance) / len(covariance)
    if mean_variance <= 0:
        raise NotAdaptable("coral", "all scans of the site have the same embedding")
    return np.asarray((1 - SHRUNK) * covariance + SHRUNK * mean_variance * np.eye(len(covariance)), dtype=np.float64)


def _power(covariance: Reals, exponent: float) -> Reals:
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray(axes @ np.diag(variances**exponent) @ axes.T, dtype=np.float64)


def _linear_head(network: Classifier) -> nn.Linear:
    if not isinstance(network.head, nn.Linear):
        raise NotAdaptable("coral", "the head is not linear, so an affine map cannot be folded into it")
    return network.head


def _fold(head: nn.Linear, affine: Affine) -> None:
    weight = head.weight.detach().double().numpy()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight @ affine.matrix))
        if head.bias is not None:
            head.bias.add_(torch.from_numpy(weight @ affine.offset))


def _embedded(network: Classifier, arrays: npt.NDArray[np.float32]) -> Reals:
    _, embeddings = logits_and_embeddings(network, torch.from_numpy(arrays))
    return np.asarray(embeddings.numpy(), dtype=np.float64)


def _head_tensors(network: Classifier) -> frozenset[str]:
    name = f"blocks.{network.block_names[-1]}."
    return frozenset(key for key in network.state_dict() if key.startswith(name))


CORAL = Adaptation(name="coral", place=2, moves=_head_tensors, adapt=adapt)
