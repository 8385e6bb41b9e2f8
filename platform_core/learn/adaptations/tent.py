"""A few steps of entropy minimisation on BatchNorm's scale and shift, after its statistics were mixed.

The surest of the site's scans pull, the others do not; whatever moves is held to where it was. A network that begins
to call most scans alike minimises entropy too: that is found and refused.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from platform_core.errors import EmptySample, NotAdaptable
from platform_core.learn.batch_norm import batch_norms, mix_statistics, require_batch_norm, statistics_of
from platform_core.learn.contract import Adaptation
from platform_core.learn.device import change_in_place, gpu_or_cpu
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.networks import Classifier

N_PSEUDO = 32
"""As in adaptations by statistics alone: scans that those of the training count for."""
FEWEST_SCANS = 64
"""One batch; smaller batches are where entropy minimisation fails (Niu et al. 2023)."""
SUREST = 0.4 * float(np.log(2))
"""Nats of entropy below which a scan pulls: 0.4 ln(classes), from Niu et al. 2022."""
FEWEST_SURE = 16
N_STEPS, BATCH, LEARNING_RATE = 20, 64, 2e-3
"""Adam moves a number by about its rate at each step, so by 0.04 at most, where a scale is about 1."""
ANCHOR = 10.0
"""Strength a of the penalty a/2 |w - w0|^2 on scales and shifts. Measured on images of 16 x 16, three networks: with 1
scores became surer than they were right (log-loss 0.02 to 0.08 above that of mixed statistics alone), with 10 at most
0.016 above; AUROC is 0 to 0.006 better either way."""
MOST_TURNED = 0.10
"""Change of the share of scans that are called positive from which on the network counts as collapsing. Proposed: a
change of scanner that the statistics have already followed leaves fewer calls to turn."""


def adapt(
    network: Classifier,
    site_arrays: npt.NDArray[np.float32],
    reference_arrays: npt.NDArray[np.float32],  # noqa: ARG001 -- its statistics are in the network
    *,
    seed: int,
) -> Classifier:
    """Mix statistics, then let the sure scans sharpen the calls of the network.

    Source:
        Wang et al. 2021, "Tent", arXiv:2006.10726 (entropy, scale and shift); Niu et al. 2022, "EATA",
        arXiv:2204.02610 (only sure scans, weighted, anchored); Niu et al. 2023, "SAR", arXiv:2302.12400 (collapse).
    """
    require_batch_norm(network, "tent")
    if len(site_arrays) < FEWEST_SCANS:
        raise EmptySample("unlabelled scans of the site for tent", FEWEST_SCANS, len(site_arrays))
    x = torch.from_numpy(site_arrays)
    adapted = deepcopy(network)
    mix_statistics(adapted, x, n_pseudo=N_PSEUDO)
    before, _ = logits_and_embeddings(adapted, x)
    sure = _sure(before, x)
    change_in_place(adapted, lambda at_once: _sharpen(adapted, sure, seed, at_once), BATCH)
    after, _ = logits_and_embeddings(adapted, x)
    _refuse_collapse(before, after)
    return adapted


def _sure(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    is_sure = _entropy(logits) < SUREST
    n_sure = int(is_sure.sum())
    if n_sure < FEWEST_SURE:
        raise NotAdaptable("tent", f"the network is sure of {n_sure} of {len(x)} scans; it takes {FEWEST_SURE}")
    return x[is_sure]


def _sharpen(network: Classifier, x: torch.Tensor, seed: int, at_once: int) -> None:
    """As many scans on the device as are said; gradients are added up over a batch."""
    device = gpu_or_cpu()
    network.to(device).eval().requires_grad_(requires_grad=False)
    moving = [tensor.requires_grad_() for tensor in _scales_and_shifts(network)]
    anchors = [tensor.detach().clone() for tensor in moving]
    stepper = torch.optim.Adam(moving, lr=LEARNING_RATE)
    for rows in _batches(len(x), seed):
        stepper.zero_grad()
        for part in torch.split(rows, at_once):
            entropy = _entropy(network(x[part].to(device)).squeeze(1))
            weight = torch.exp(SUREST - entropy.detach()) * (entropy.detach() < SUREST)
            torch.autograd.backward((weight * entropy).sum() / len(rows))
        held = [((tensor - anchor) ** 2).sum() for tensor, anchor in zip(moving, anchors, strict=True)]
        torch.autograd.backward(0.5 * ANCHOR * torch.stack(held).sum())
        stepper.step()
    stepper.zero_grad()
    network.cpu().requires_grad_()


def _batches(n: int, seed: int) -> Iterator[torch.Tensor]:
    """Row numbers of every step; each scan comes once before any comes again."""
    chance = torch.Generator().manual_seed(seed)
    n_rounds = -(-N_STEPS * min(BATCH, n) // n)
    order = torch.cat([torch.randperm(n, generator=chance) for _ in range(n_rounds)])
    yield from torch.split(order, min(BATCH, n))[:N_STEPS]


def _refuse_collapse(before: torch.Tensor, after: torch.Tensor) -> None:
    was, now = (float((logits > 0).double().mean()) for logits in (before, after))
    if abs(now - was) > MOST_TURNED or not bool(torch.isfinite(after).all()):
        raise NotAdaptable("tent", f"its calls collapse: {was:.0%} of the scans were called positive, now {now:.0%}")


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of the call at even odds, nats, [0, ln 2]."""
    p = torch.sigmoid(logits)
    return functional.softplus(-logits) * p + functional.softplus(logits) * (1 - p)


def _scales_and_shifts(network: nn.Module) -> list[nn.Parameter]:
    return [tensor for layer in batch_norms(network).values() for tensor in (layer.weight, layer.bias) if layer.affine]


def _moved(network: Classifier) -> frozenset[str]:
    layers = [name for name, layer in batch_norms(network).items() if layer.affine]
    return statistics_of(network) | frozenset(f"{name}.{part}" for name in layers for part in ("weight", "bias"))


TENT = Adaptation(name="tent", place=3, moves=_moved, adapt=adapt)
