"""What a training costs, in passes of one scan: forward and backward through the whole network is 1.

A backward pass takes twice the work of a forward one (the gradient of the activations and that of the weights), so a
forward pass alone is a third. Blocks count alike, whatever their size: a gradient goes back to the first block that
is trained and no further. The head on embeddings that are at hand counts nothing.

Source:
    Kaplan et al. 2020, arXiv:2001.08361, section 2.1 (1 to 2 for forward and backward).
"""

from platform_core.learn.contract import Blocks, Phase, Strategy
from platform_core.learn.phases import n_epochs_of
from platform_core.settings import TrainSettings

FORWARD = 1 / 3
"""Of a pass."""


def n_passes_to_embed(n_scans: int) -> float:
    """Passes that a look at scans without a gradient costs."""
    return n_scans * FORWARD


def n_passes_to_train(
    strategy: Strategy, blocks: Blocks, n_scans: int, settings: TrainSettings, *, is_embedded: bool = False
) -> float:
    """Passes that a training costs if no phase ends early.

    Args:
        strategy: Its phases.
        blocks: Names of the network's blocks in depth order.
        n_scans: Scans that move weights.
        settings: Epochs.
        is_embedded: The embeddings of the network that it starts from are at hand.
    """
    total = 0.0
    for number, phase in enumerate(strategy.phases):
        if is_head(phase, blocks):
            total += 0.0 if is_embedded and number == 0 else n_passes_to_embed(n_scans)
        else:
            deep = len(blocks) - blocks.index(phase.trains(blocks)[0])
            total += n_scans * n_epochs_of(phase, settings) * (FORWARD + (1 - FORWARD) * deep / len(blocks))
    return total


def is_head(phase: Phase, blocks: Blocks) -> bool:
    """Whether a phase trains the last block alone."""
    return phase.trains(blocks) == blocks[-1:]


def is_head_alone(strategy: Strategy, blocks: Blocks) -> bool:
    """Whether a strategy moves no feature."""
    return all(is_head(phase, blocks) for phase in strategy.phases)
