"""Makes the source weights that come with the platform: a small network that has read images of nothing.

    python -m platform_core.learn.pretrain 2 --images 32000 --epochs 14
    python -m platform_core.learn.pretrain 3 --images 16000 --epochs 6

made the files in `weights/`; about half an hour each on one core.

The network says of each procedural image whether there is a spot in it, its sign, size and contrast, and the image's
spectrum, blur and noise; its head is thrown away. `tests/benchmarks/source_model.py` says what that is worth.
"""

import argparse
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from platform_core.learn.augment import augment
from platform_core.learn.built_in import NETWORK, built_in_path
from platform_core.learn.networks import Classifier, build_network, public_names
from platform_core.learn.phases import batches
from platform_core.learn.procedural import Truth, draw

SHAPES = {2: (32, 32), 3: (12, 32, 32)}
BATCH, LEARNING_RATE, WEIGHT_DECAY = 32, 2e-3, 1e-2
N_EMBEDDED = 64
"""Channels that go into the head of the network."""
OF_SPOT = slice(1, 4)
"""Answers that mean something only where there is a spot: sign, size, contrast."""
OF_IMAGE = slice(4, len(fields(Truth)))


def main() -> None:
    """Draw, train, write."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("dimensions", type=int, choices=sorted(SHAPES))
    asked.add_argument("--images", type=int, default=16_000)
    asked.add_argument("--epochs", type=int, default=6)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--out", type=Path)
    options = asked.parse_args()
    torch.set_num_threads(1)
    network = pretrain(options.dimensions, options.images, options.epochs, options.seed)
    write(network, options.dimensions, options.out or built_in_path(NETWORK, options.dimensions))


def pretrain(dimensions: int, n_images: int, n_epochs: int, seed: int) -> Classifier:
    """A network that has learned to tell what is in procedural images; the same seed gives the same weights."""
    drawn = [draw(SHAPES[dimensions], np.random.default_rng([seed, number])) for number in range(n_images)]
    x = torch.from_numpy(np.stack([image for image, _ in drawn])[:, None])
    truth = torch.tensor([list(asdict(told).values()) for _, told in drawn], dtype=torch.float32)
    network, chance = build_network(NETWORK, dimensions, seed=seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        answers = nn.Linear(N_EMBEDDED, truth.shape[1])
    learned = [*network.parameters(), *answers.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    n_steps = n_epochs * (n_images // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=n_steps)
    network.train()
    for epoch in range(n_epochs):
        total = 0.0
        for rows in batches(n_images, BATCH, chance)[: n_images // BATCH]:
            seen, _ = augment(x[rows], truth[rows, 0], chance)
            loss = _loss(answers(network.embed(seen)), truth[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows) / n_images
        print(f"epoch {epoch + 1} of {n_epochs}: loss {total:.4f}", flush=True)  # noqa: T201 -- a script's progress
    return network.eval()


def _loss(said: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Is there a spot, then half of what it is like and half of what the image is like."""
    has_spot = truth[:, 0]
    n_spots = has_spot.sum().clamp(min=1)
    is_there = functional.binary_cross_entropy_with_logits(said[:, 0], has_spot)
    squared = (said - truth).square()
    sign = functional.binary_cross_entropy_with_logits(said[:, 1], truth[:, 1], reduction="none")
    spot = ((sign + squared[:, OF_SPOT][:, 1:].mean(1)) * has_spot).sum() / n_spots
    return is_there + 0.5 * spot + 0.5 * squared[:, OF_IMAGE].mean()


def write(network: Classifier, dimensions: int, file: Path) -> None:
    """The weights without the head, under the names of MONAI's network."""
    from safetensors.torch import save_file

    names, state = public_names(NETWORK, dimensions), network.state_dict()
    head = f"blocks.{network.block_names[-1]}."
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({public: state[ours] for public, ours in names.items() if not ours.startswith(head)}, file)


if __name__ == "__main__":
    main()
