"""Every weight, the deeper the faster: early blocks, which know of edges and texture, hardly move.

Source:
    Howard & Ruder 2018, ACL, doi:10.18653/v1/P18-1031, section 3.2: each layer at 1/2.6 of the
    rate of the one after it.
"""

from platform_core.learn.contract import Phase, Strategy, everything

DISCRIMINATIVE = Strategy(
    name="discriminative",
    phases=(Phase(name="all", trains=everything, share=0.5, lr_scale=0.25, lr_decay=1 / 2.6),),
)
