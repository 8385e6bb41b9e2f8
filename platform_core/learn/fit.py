"""The one training loop. Strategies are data; nothing here knows their names.

Loss is what `losses.py` says that a scan costs, with a weight per scan (`data.even_weights` makes them).
Frozen blocks keep their buffers too: they stay in evaluation mode, so that BatchNorm
neither uses nor updates statistics of the batch. One GPU is used if there is one, in
bfloat16; on a CPU the same seed and number of threads give the same weights, also after
any number of interruptions.
"""

from math import isfinite
from typing import Any

import torch
from lightning_fabric import Fabric

from platform_core.errors import BadRequest
from platform_core.learn.augment import augment
from platform_core.learn.contract import Phase, Strategy, Tell, untold
from platform_core.learn.device import fewer, is_out_of_memory, open_fabric, told_apart
from platform_core.learn.losses import mean_loss
from platform_core.learn.networks import Classifier
from platform_core.learn.phases import (
    Course,
    Stretch,
    TrainingSet,
    batches,
    freeze_all_but,
    n_epochs_of,
    prepare,
    split,
)
from platform_core.learn.resume import Bookmark, Progress, unpack
from platform_core.learn.together import added_up, average_statistics, from_first, is_first, my_rows
from platform_core.settings import TrainSettings

Tensors = dict[str, torch.Tensor]


def fit(
    network: Classifier,
    data: TrainingSet,
    strategy: Strategy,
    settings: TrainSettings,
    *,
    bookmark: Bookmark | None = None,
    held_out: TrainingSet | None = None,
    tell: Tell = untold,
) -> list[float]:
    """Train `network` in place through every phase; it ends on the CPU in evaluation mode.

    Args:
        network: Where to start.
        data: What moves the weights.
        strategy: Which blocks, how fast, in which order.
        settings: Epochs, batches, learning rate, seed.
        bookmark: Where the training keeps how far it has come; it goes on from there. The caller sees to it that a
            bookmark belongs to this training (`fit_key`), and deletes it.
        held_out: Scans whose loss ends a phase early (`settings.patience`), at the weights where it was least.
        tell: Told how far it is, after every epoch.

    Returns:
        Mean training loss of each epoch, all phases in order, nats.

    Raises:
        BadRequest: If the loss is no number any more.
        TooLittleMemory: If not even two scans fit the device.
        DeviceLost: If a GPU fails.
    """
    source = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    course = Course(
        fabric=open_fabric(),
        network=network,
        source=source,
        data=data,
        held_out=held_out if settings.patience else None,
        settings=settings,
        n_epochs=sum(n_epochs_of(phase, settings) for phase in strategy.phases),
        tell=tell,
    )
    kept = from_first((bookmark and bookmark.read()) or {})
    progress = unpack(kept["progress"]) if kept else _beginning(settings)
    if kept:
        network.load_state_dict(kept["weights"])
    with told_apart():
        for phase in strategy.phases[progress.phase :]:
            course = course if progress.phase == 0 else course.without_embeddings()
            _run_phase(course, phase, progress, bookmark, kept.pop("tools", None))
    network.cpu().eval().requires_grad_(requires_grad=True)
    if bookmark and is_first():
        bookmark.write(_state(course, progress))
    return progress.losses


def _beginning(settings: TrainSettings) -> Progress:
    at_once = settings.at_once or settings.batch_size + 1  # a last batch may have one more
    return Progress(chance=torch.Generator().manual_seed(settings.seed), at_once=at_once)


def _run_phase(
    course: Course, phase: Phase, progress: Progress, bookmark: Bookmark | None, tools: dict[str, Any] | None
) -> None:
    """Run a phase from where it is to its end; `tools` is the kept state of optimizer and schedule."""
    stretch = prepare(course, phase)
    if tools:
        stretch.optimizer.load_state_dict(tools["optimizer"])
        stretch.schedule.load_state_dict(tools["schedule"])
    while progress.epoch < stretch.n_epochs and not (stretch.held_out and progress.n_worse >= course.settings.patience):
        if not progress.batches:
            progress.batches = batches(len(course.data.y), course.settings.batch_size, progress.chance)
            progress.total = 0.0
        rows = progress.batches.pop(0)
        progress.total += _step(course.fabric, stretch, rows, progress) * len(rows)
        if not progress.batches:
            _end_epoch(course, stretch, progress)
        if bookmark and is_first() and bookmark.is_due():
            bookmark.write(_state(course, progress, stretch))
    if progress.best_weights is not None:
        course.network.load_state_dict(progress.best_weights)
    progress.next_phase()


def _step(fabric: Fabric, stretch: Stretch, rows: torch.Tensor, progress: Progress) -> torch.Tensor:
    """One update; returns the mean loss of its scans before it."""
    x, y = stretch.data.x[rows], stretch.data.y[rows]
    if isinstance(stretch.module, Classifier):
        x, y = augment(x, y, progress.chance)
    batch = TrainingSet(x=x, y=y, weight=stretch.data.weight[rows])
    loss = None
    while loss is None:
        loss = _gradients(fabric, stretch, batch, progress.at_once)
        if loss is None:
            progress.at_once = fewer(min(progress.at_once, len(rows)))
    for parameter, anchor in stretch.anchors:
        assert parameter.grad is not None, "every trained parameter has a gradient"
        parameter.grad.add_(parameter.detach() - anchor, alpha=stretch.phase.pull)
    stretch.stepper.step()
    stretch.schedule.step()
    return loss


def _gradients(fabric: Fabric, stretch: Stretch, batch: TrainingSet, at_once: int) -> torch.Tensor | None:
    """Add up gradients of the mean loss over parts of a batch; None, with nothing changed, if a part does not fit."""
    stretch.stepper.zero_grad()
    before = [buffer.clone() for buffer in stretch.module.buffers()]
    total = added_up(fabric, stretch.module, _own_gradients(fabric, stretch, batch, at_once))
    if total is None:
        with torch.no_grad():
            for buffer, old in zip(stretch.module.buffers(), before, strict=True):
                buffer.copy_(old)
    return total


def _own_gradients(fabric: Fabric, stretch: Stretch, batch: TrainingSet, at_once: int) -> torch.Tensor | None:
    """The same for this process's scans of the batch alone."""
    total = fabric.to_device(torch.zeros((), dtype=torch.float64))  # a float would wait for the device at every step
    mine = my_rows(fabric, len(batch.y))
    try:
        for part in split(mine, at_once) if len(mine) else []:
            with fabric.no_backward_sync(stretch.moving, enabled=fabric.world_size > 1):
                logits = stretch.moving(fabric.to_device(batch.x[part]))
                loss = mean_loss(logits, batch.y[part], batch.weight[part]) * (len(part) / len(batch.y))
                fabric.backward(loss)
            total += loss.detach()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return total
    torch.cuda.empty_cache()
    return None


def _end_epoch(course: Course, stretch: Stretch, progress: Progress) -> None:
    average_statistics(course.fabric, (course.network.blocks[name] for name in stretch.trained))
    loss = float(progress.total) / len(stretch.data.y)
    if not isfinite(loss):
        raise BadRequest(
            f"the training loss is {loss} after {len(progress.losses) + 1} epochs; lower train.learning_rate"
        )
    progress.losses.append(loss)
    progress.epoch += 1
    n_done = len(progress.losses)
    course.tell(f"epoch {n_done} of {course.n_epochs}", min(n_done / course.n_epochs, 1.0))
    if stretch.held_out is None:
        return
    held_out_loss = from_first(_loss_of(course, stretch, stretch.held_out))
    progress.n_worse += 1
    if held_out_loss < progress.best_loss:
        progress.best_loss, progress.n_worse = held_out_loss, 0
        progress.best_weights = _on_cpu(course.network.state_dict())


def _loss_of(course: Course, stretch: Stretch, data: TrainingSet) -> float:
    """Mean loss in evaluation mode, nats."""
    stretch.module.eval()
    total = 0.0
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(data.y)), course.settings.batch_size):
            logits = stretch.moving(course.fabric.to_device(data.x[rows]))
            total += float(mean_loss(logits, data.y[rows], data.weight[rows])) * len(rows)
    freeze_all_but(course.network, stretch.trained)
    return total / len(data.y)


def _state(course: Course, progress: Progress, stretch: Stretch | None = None) -> dict[str, Any]:
    """All that a bookmark holds; without a stretch, that of a training between phases."""
    tools = stretch and {"optimizer": stretch.optimizer.state_dict(), "schedule": stretch.schedule.state_dict()}
    return {"weights": _on_cpu(course.network.state_dict()), "progress": progress.pack(), "tools": tools}


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
