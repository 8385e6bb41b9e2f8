"""Every weight, held to where it started: what few labels do not contradict stays as it was.

Source:
    Li, Grandvalet & Davoine 2018, ICML, arXiv:1802.01483: alpha 0.1 or 0.01, beta 0.01.
"""

from platform_core.learn.contract import Phase, Strategy, everything

L2_SP = Strategy(
    name="l2_sp",
    phases=(Phase(name="all", trains=everything, share=0.5, lr_scale=0.25, pull=0.1),),
)
