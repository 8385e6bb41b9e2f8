"""Every weight, held to where it started: what few labels do not contradict stays as it was.

Source:
    Li, Grandvalet & Davoine 2018, ICML, arXiv:1802.01483, strength 0.1; there the head is another task's and held to 0.
"""

from platform_core.learn.contract import Phase, Strategy, everything

L2_SP = Strategy(
    name="l2_sp",
    phases=(Phase(name="all", trains=everything, share=0.5, lr_scale=0.25, pull=0.1),),
)
