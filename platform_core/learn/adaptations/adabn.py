"""BatchNorm statistics of the site's scans, mixed with those of the training.

Cures what changes the mean and spread of what the network's own filters see: gain, offset, contrast, part of a blur.
It takes a site that has other patients for one that has another scanner, so prevalence must not have moved.
"""

from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch

from platform_core.errors import EmptySample
from platform_core.learn.batch_norm import mix_statistics, require_batch_norm, statistics_of
from platform_core.learn.contract import Adaptation
from platform_core.learn.networks import Classifier

N_PSEUDO = 32
"""Scans that the statistics of the training count for; Schneider et al. find 16 to 64 safe where scans are few."""
FEWEST_SCANS = 32
"""As many as the training's statistics count: with fewer, hardly anything would move."""


def adapt(
    network: Classifier,
    site_arrays: npt.NDArray[np.float32],
    reference_arrays: npt.NDArray[np.float32],  # noqa: ARG001 -- its statistics are in the network
    *,
    seed: int,  # noqa: ARG001 -- nothing is drawn
) -> Classifier:
    """Mix the site's statistics into every BatchNorm; weights stay.

    Source:
        Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift adaptation",
        arXiv:2006.16971.
    """
    require_batch_norm(network, "adabn")
    if len(site_arrays) < FEWEST_SCANS:
        raise EmptySample("unlabelled scans of the site for adabn", FEWEST_SCANS, len(site_arrays))
    adapted = deepcopy(network)
    mix_statistics(adapted, torch.from_numpy(site_arrays), n_pseudo=N_PSEUDO)
    return adapted


ADABN = Adaptation(name="adabn", place=1, moves=statistics_of, adapt=adapt)
