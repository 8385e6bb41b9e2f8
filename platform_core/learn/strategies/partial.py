"""The deeper half; the early blocks stay, and with them what they know of edges and texture."""

from platform_core.learn.contract import Phase, Strategy, later_half

PARTIAL = Strategy(
    name="partial",
    phases=(Phase(name="later_half", trains=later_half, share=0.5, lr_scale=0.25),),
)
