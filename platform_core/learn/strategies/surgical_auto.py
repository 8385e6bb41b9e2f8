"""Every weight, each block as fast as the scans ask for it: where the kind of shift is not known.

Source:
    Lee et al. 2023, ICLR, arXiv:2210.11466, Auto-RGN.
"""

from platform_core.learn.contract import Phase, Strategy, everything

SURGICAL_AUTO = Strategy(
    name="surgical_auto",
    phases=(Phase(name="all", trains=everything, share=0.5, lr_scale=0.25, by_gradient=True),),
)
