"""Every weight, gently, from the champion."""

from platform_core.learn.contract import Phase, Strategy, everything

FULL = Strategy(
    name="full",
    phases=(Phase(name="all", trains=everything, share=0.5, lr_scale=0.25),),
)
