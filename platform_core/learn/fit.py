"""The one training loop. Strategies are data; nothing here knows their names.

Loss is binary cross-entropy with a weight per scan (`data.even_weights` makes them).
Frozen blocks keep their buffers too: they stay in evaluation mode, so that BatchNorm
neither uses nor updates statistics of the batch. One GPU is used if there is one, in
bfloat16; on a CPU the same seed and number of threads give the same weights.
"""

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from platform_core.learn.contract import Blocks, Phase, Strategy
from platform_core.learn.networks import Classifier
from platform_core.settings import TrainSettings

GAIN_SD, OFFSET_SD = 0.1, 0.05
"""Intensity jitter per scan, relative to the unit range that networks see."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """All scans in memory at once."""

    x: torch.Tensor
    """(n, 1, z, y, x) or (n, 1, y, x), float32."""
    y: torch.Tensor
    """(n,), 0 or 1."""
    weight: torch.Tensor
    """(n,), what each scan counts in the loss."""


def fit(network: Classifier, data: TrainingSet, strategy: Strategy, settings: TrainSettings) -> list[float]:
    """Train `network` in place through every phase; it ends on the CPU in evaluation mode.

    Returns:
        Mean training loss of each epoch, all phases in order, nats.
    """
    fabric = _fabric()
    chance = torch.Generator().manual_seed(settings.seed)
    losses: list[float] = []
    for phase in strategy.phases:
        losses += _run_phase(fabric, network, data, phase, settings, chance)
    network.cpu().eval().requires_grad_(requires_grad=True)
    return losses


def logits_and_embeddings(
    network: Classifier, x: torch.Tensor, *, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n,) and embeddings (n, channels) in evaluation mode, on the CPU, float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).eval()
    with torch.inference_mode():
        embedded = torch.cat([network.embed(part.to(device)) for part in torch.split(x, batch_size)])
        logits = network.head(embedded).squeeze(1)
    network.cpu()
    return logits.cpu(), embedded.cpu()


def _fabric() -> Fabric:
    has_gpu = torch.cuda.is_available()
    return Fabric(accelerator="cuda" if has_gpu else "cpu", devices=1, precision="bf16-mixed" if has_gpu else "32-true")


def _run_phase(
    fabric: Fabric,
    network: Classifier,
    data: TrainingSet,
    phase: Phase,
    settings: TrainSettings,
    chance: torch.Generator,
) -> list[float]:
    trained = phase.trains(network.block_names)
    module, x = _what_moves(network, data.x, trained)
    _freeze_all_but(network, trained)
    x, y, weight = (fabric.to_device(part) for part in (x, data.y, data.weight))
    n_epochs = max(1, round(settings.epochs * phase.share))
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=settings.learning_rate * phase.lr_scale,
        weight_decay=settings.weight_decay,
    )
    n_steps = n_epochs * len(_batches(len(y), settings.batch_size, torch.Generator()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    moving, stepper = fabric.setup(module, optimizer)
    losses = []
    for _ in range(n_epochs):
        total = 0.0
        for rows in _batches(len(y), settings.batch_size, chance):
            batch = x[rows] if module is not network else augment(x[rows], chance)
            loss = functional.binary_cross_entropy_with_logits(moving(batch).squeeze(1), y[rows], weight=weight[rows])
            stepper.zero_grad()
            fabric.backward(loss)
            stepper.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(y))
    return losses


def _what_moves(network: Classifier, x: torch.Tensor, trained: Blocks) -> tuple[nn.Module, torch.Tensor]:
    """The module to train and its input: for the head alone, embeddings that are computed once."""
    if trained != network.block_names[-1:]:
        return network, x
    return network.head, logits_and_embeddings(network, x)[1].clone()


def _freeze_all_but(network: Classifier, trained: Blocks) -> None:
    network.eval().requires_grad_(requires_grad=False)
    for name in trained:
        network.blocks[name].train().requires_grad_(requires_grad=True)


def _batches(n: int, batch_size: int, chance: torch.Generator) -> list[torch.Tensor]:
    """A new order of all rows in batches; a last batch of one row joins the one before (BatchNorm needs two)."""
    parts = list(torch.split(torch.randperm(n, generator=chance), batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return parts


def augment(x: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Flip and jitter each scan of a batch on its own.

    Volumes are flipped along z, y and x, images along x only: a projection has an up and a down.
    """
    spatial = range(2, x.ndim) if x.ndim == 5 else (x.ndim - 1,)
    for axis in spatial:
        flipped = _per_scan(torch.rand(len(x), generator=chance) < 0.5, x)
        x = torch.where(flipped, x.flip(axis), x)
    gain = _per_scan(1 + GAIN_SD * torch.randn(len(x), generator=chance), x)
    offset = _per_scan(OFFSET_SD * torch.randn(len(x), generator=chance), x)
    return x * gain + offset


def _per_scan(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.to(x.device).reshape(-1, *[1] * (x.ndim - 1))
