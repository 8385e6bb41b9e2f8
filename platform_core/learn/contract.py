"""What a fine-tuning strategy is: a schedule as data; and what an adaptation without labels is: a function.

The loop that follows a strategy is in `fit.py`.

A network is a sequence of named blocks in depth order, the last of which is the head. A
choice picks, from those names, the blocks that a phase trains; all other blocks stay as
they are, parameters and buffers alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch is heavy, and strategies do without it
    from platform_core.learn.networks import Classifier

Blocks = tuple[str, ...]
Choice = Callable[[Blocks], Blocks]
Tell = Callable[[str, float], None]
"""Told what is being done, and which share of the work is behind, in [0, 1]."""


def untold(what: str, share: float) -> None:
    """Nobody listens."""


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


class Adapt(Protocol):
    """A network for one site's scans, made without a label."""

    def __call__(
        self,
        network: "Classifier",
        site_arrays: npt.NDArray[np.float32],
        reference_arrays: npt.NDArray[np.float32],
        *,
        seed: int,
    ) -> "Classifier":
        """Make a new network; the one that is given stays as it is.

        Args:
            network: What was trained on the reference.
            site_arrays: The site's scans, one per patient, (n, 1, z, y, x) or (n, 1, y, x), as the network sees them.
            reference_arrays: Scans of the reference, best those that the network has not learned from, the same axes.
            seed: Of whatever is drawn.

        Returns:
            The same architecture with other numbers in it, on the CPU in evaluation mode.

        Raises:
            EmptySample: If there are too few scans.
            NotAdaptable: If the network lacks what is moved, or what came of it cannot be trusted.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """One way to bring a network to a site's scans without labels.

    Contract: same architecture; whatever `moves` does not name comes out bit for bit as it went in;
    the same scans and seed give the same weights on a CPU; scans made like the reference's hardly move a score.
    """

    name: str
    place: int
    """In the order in which adaptations are tried: what moves less of what was trained comes first."""
    moves: Callable[["Classifier"], frozenset[str]]
    """Names of the tensors that it may change, as in `state_dict`."""
    adapt: Adapt
