"""One phase made ready to run: what it trains, how fast, on what, and where it is held to."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from platform_core.learn.contract import Blocks, Phase, Tell, untold
from platform_core.learn.device import is_out_of_memory
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.losses import scan_losses
from platform_core.learn.networks import Classifier
from platform_core.learn.together import from_first
from platform_core.settings import TrainSettings

RATE_BATCH = 8
"""Scans at once while gradients are only measured."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """All scans in memory at once."""

    x: torch.Tensor
    """(n, 1, z, y, x) or (n, 1, y, x), float32."""
    y: torch.Tensor
    """(n,), 0 or 1; of a segmentation the masks, uint8 of the shape of `x`."""
    weight: torch.Tensor
    """(n,), what each scan counts in the loss."""
    embedded: torch.Tensor | None = None
    """(n, channels), what goes into the head of the network that the training starts from, if it is known already."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """What stays the same during one training."""

    fabric: Fabric
    network: Classifier
    source: dict[str, torch.Tensor]
    """Parameters at the start."""
    data: TrainingSet
    held_out: TrainingSet | None
    settings: TrainSettings
    n_epochs: int = 0
    """Of all phases, if none ends early."""
    tell: Tell = untold

    def without_embeddings(self) -> "Course":
        """The same after a phase that may have moved features."""
        held_out = self.held_out and replace(self.held_out, embedded=None)
        return replace(self, data=replace(self.data, embedded=None), held_out=held_out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """One phase, ready to run."""

    phase: Phase
    trained: Blocks
    n_epochs: int
    module: nn.Module
    """The network, or its head alone."""
    moving: Any
    """The same as the fabric runs it."""
    optimizer: torch.optim.Optimizer
    stepper: Any
    """The same as the fabric runs it."""
    schedule: torch.optim.lr_scheduler.LRScheduler
    data: TrainingSet
    """For the head alone, `x` holds embeddings that are computed once."""
    held_out: TrainingSet | None
    anchors: list[tuple[nn.Parameter, torch.Tensor]]
    """Parameters that are pulled, and where to."""


def prepare(course: Course, phase: Phase) -> Stretch:
    """Freeze what the phase does not train and make its optimizer, schedule and data."""
    network, settings, fabric = course.network, course.settings, course.fabric
    trained = phase.trains(network.block_names)
    is_head = trained == network.block_names[-1:]
    data, held_out = (_ready(fabric, network, part, is_head=is_head) for part in (course.data, course.held_out))
    assert data is not None, "there is always something to train on"
    module = network.head if is_head else network
    freeze_all_but(network, trained)
    optimizer = torch.optim.AdamW(_groups(network, phase, settings, _rates(course, trained, phase)))
    n_epochs = n_epochs_of(phase, settings)
    n_steps = n_epochs * len(batches(len(data.y), settings.batch_size, torch.Generator()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    moving, stepper = fabric.setup(module, optimizer)
    return Stretch(
        phase=phase,
        trained=trained,
        n_epochs=n_epochs,
        module=module,
        moving=moving,
        optimizer=optimizer,
        stepper=stepper,
        schedule=schedule,
        data=data,
        held_out=held_out,
        anchors=_anchors(course, trained, phase),
    )


def n_epochs_of(phase: Phase, settings: TrainSettings) -> int:
    """Epochs of one phase, if it does not end early."""
    return max(1, round(settings.epochs * phase.share))


def _ready(fabric: Fabric, network: Classifier, data: TrainingSet | None, *, is_head: bool) -> TrainingSet | None:
    """On the device if it fits; for the head alone, as embeddings that are computed once."""
    if data is None:
        return None
    known = data.embedded if is_head else data.x
    x = logits_and_embeddings(network, data.x)[1].clone() if known is None else known
    try:
        x = fabric.to_device(x)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return TrainingSet(x=x, y=fabric.to_device(data.y), weight=fabric.to_device(data.weight))


def _groups(
    network: Classifier, phase: Phase, settings: TrainSettings, rates: dict[str, float]
) -> list[dict[str, Any]]:
    """Parameters of every trained block with its learning rate."""
    return [
        {
            "params": list(network.blocks[name].parameters()),
            "lr": settings.learning_rate * phase.lr_scale * rate,
            "weight_decay": 0.0 if phase.pull else settings.weight_decay,
        }
        for name, rate in rates.items()
    ]


def _rates(course: Course, trained: Blocks, phase: Phase) -> dict[str, float]:
    """Learning rate of each trained block as a share of the phase's."""
    if phase.by_gradient:
        course.fabric.to_device(course.network)
        return from_first(relative_gradients(course.network, trained, course.data))
    names = course.network.block_names
    return {name: phase.lr_decay ** (len(names) - 1 - names.index(name)) for name in trained}


def relative_gradients(network: Classifier, trained: Blocks, data: TrainingSet) -> dict[str, float]:
    """Norm of the gradient over norm of the weights of each trained block, as a share of the greatest, in [0, 1].

    Source:
        Lee et al. 2023, ICLR, arXiv:2210.11466, section 4, Auto-RGN; here per block and once, not per layer and epoch.
    """
    network.eval()
    device = next(network.parameters()).device
    for rows in torch.split(torch.arange(len(data.y)), RATE_BATCH):
        y, weight = data.y[rows].to(device), data.weight[rows].to(device)
        torch.autograd.backward((scan_losses(network(data.x[rows].to(device)), y) * weight).sum())
    ratios = {}
    for name in trained:
        pairs = [(p.grad, p.detach()) for p in network.blocks[name].parameters() if p.grad is not None]
        gradient, size = (sum(float(part.square().sum()) for part in parts) for parts in zip(*pairs, strict=True))
        ratios[name] = (gradient / size) ** 0.5 if size else 0.0
    network.zero_grad()
    freeze_all_but(network, trained)
    most = max(ratios.values())
    return {name: ratio / most if most else 1.0 for name, ratio in ratios.items()}


def _anchors(course: Course, trained: Blocks, phase: Phase) -> list[tuple[nn.Parameter, torch.Tensor]]:
    if not phase.pull:
        return []
    moved = [(n, p) for n, p in course.network.named_parameters() if n.split(".")[1] in trained]
    return [(p, course.source[n].to(p.device)) for n, p in moved]


def freeze_all_but(network: Classifier, trained: Blocks) -> None:
    """Blocks that are not trained keep parameters and, in evaluation mode, buffers."""
    network.eval().requires_grad_(requires_grad=False)
    for name in trained:
        network.blocks[name].train().requires_grad_(requires_grad=True)


def batches(n: int, batch_size: int, chance: torch.Generator) -> list[torch.Tensor]:
    """A new order of all rows in batches."""
    return split(torch.randperm(n, generator=chance), batch_size)


def split(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Parts of a size; a last one of one row joins the one before (BatchNorm needs two)."""
    parts = list(torch.split(rows, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return parts
