"""The head first, on embeddings that are computed once; then every weight, so that a raw head does not drag them.

Source:
    Kumar et al. 2022, ICLR, arXiv:2202.10054.
"""

from platform_core.learn.contract import Phase, Strategy, everything, head

LP_FT = Strategy(
    name="lp_ft",
    phases=(
        Phase(name="head", trains=head, share=0.3),
        Phase(name="all", trains=everything, share=0.7, lr_scale=0.1),
    ),
)
