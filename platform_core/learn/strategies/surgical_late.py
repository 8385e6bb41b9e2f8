"""The last block and the head: for a shift of what the labels mean, which the early blocks know nothing of.

Source:
    Lee et al. 2023, ICLR, arXiv:2210.11466: after an output-level shift the last blocks are the ones to train.
"""

from platform_core.learn.contract import Phase, Strategy, last_two

SURGICAL_LATE = Strategy(
    name="surgical_late",
    phases=(Phase(name="late", trains=last_two, share=0.5, lr_scale=0.25),),
)
