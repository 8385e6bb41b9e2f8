"""Every weight from nothing: how source models are made, and the yardstick of what transfer is worth."""

from platform_core.learn.contract import Phase, Strategy, everything

FROM_SCRATCH = Strategy(
    name="from_scratch",
    phases=(Phase(name="all", trains=everything),),
    starts_from="nothing",
)
