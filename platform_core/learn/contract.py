"""What a fine-tuning strategy is: a schedule as data. The loop that follows it is in `fit.py`.

A network is a sequence of named blocks in depth order, the last of which is the head. A
choice picks, from those names, the blocks that a phase trains; all other blocks stay as
they are, parameters and buffers alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Blocks = tuple[str, ...]
Choice = Callable[[Blocks], Blocks]


def everything(blocks: Blocks) -> Blocks:
    """All blocks."""
    return blocks


def later_half(blocks: Blocks) -> Blocks:
    """The deeper half of the blocks, head included."""
    return blocks[len(blocks) // 2 :]


def first_two(blocks: Blocks) -> Blocks:
    """The stem and the block after it; never the head."""
    return blocks[:-1][:2]


def last_two(blocks: Blocks) -> Blocks:
    """The head and the block before it."""
    return blocks[-2:]


def head(blocks: Blocks) -> Blocks:
    """The last block alone."""
    return blocks[-1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of training."""

    name: str
    trains: Choice
    share: float = 1.0
    """Epochs, as a share of the target's `train.epochs`; at least one epoch is run."""
    lr_scale: float = 1.0
    """Learning rate at the start of the cosine, as a multiple of `train.learning_rate`."""
    lr_decay: float = 1.0
    """Learning rate of each block as a multiple of that of the block after it: geometric, the head the fastest."""
    by_gradient: bool = False
    """Learning rate of each block in proportion to what the scans ask of it: the norm of its gradient over that of
    its weights, when the phase begins; the block with most gets the whole rate."""
    pull: float = 0.0
    """Strength a of the penalty a/2 |w - w0|^2 that holds weights to where the training started (L2-SP), in place of
    weight decay. The head as well: a champion's classes stay the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to come from a network to a better one.

    Contract: blocks that no phase trains come out bit for bit as they went in; the same
    seed gives the same weights on a CPU.
    """

    name: str
    phases: tuple[Phase, ...]
    starts_from: Literal["champion", "nothing"] = "champion"
    """`nothing`: weights are drawn anew from the seed."""
