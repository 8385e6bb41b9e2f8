"""The first two blocks alone: for a shift of the input (blur, noise, another kernel), which they can undo.

Source:
    Lee et al. 2023, ICLR, arXiv:2210.11466: after an input-level shift the first block alone beats all weights.
"""

from platform_core.learn.contract import Phase, Strategy, first_two

SURGICAL_EARLY = Strategy(
    name="surgical_early",
    phases=(Phase(name="early", trains=first_two, share=0.5, lr_scale=0.25),),
)
