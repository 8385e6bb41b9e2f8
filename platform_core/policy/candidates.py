"""Which strategies are worth racing, by what is known of labels and shift; names only, nothing is trained here.

The number of labels does not choose the winner: on 20 labels a linear probe did worse than every other strategy in
the toy world of this project (mean regret 0.052 of balanced error, against 0.017 of L2-SP). It only bounds what a
race may cost. The race chooses, by cross-validated log-loss.
"""

from collections.abc import Mapping, Sequence

from platform_core.errors import UnknownName

CHEAPEST_FIRST = (
    "linear_probe",
    "surgical_late",
    "surgical_early",
    "partial",
    "discriminative",
    "lp_ft",
    "l2_sp",
    "full",
)
"""Every strategy that starts from the champion and whose order of cost is known, cheapest first."""

MOST = 4
"""Candidates of one race: enough to choose among, few enough that the choice is not noise."""

FITTING: Mapping[str, str] = {
    "covariate_acquisition": "surgical_early",
    "mixed": "surgical_early",
    "concept": "surgical_late",
}
"""The blocks that a shift of this kind asks for: the first for the input, the last for the meaning of labels.

Source: Lee et al. 2023, arXiv:2210.11466 (first block +3 points over full after an input-level shift)."""

SOME, MANY, PLENTY = 100, 500, 5000
"""Labelled training patients. With 100, L2-SP and full fine-tuning cost 0.010 of regret and a linear probe 0.028
(measured in the toy world). 500: proposed. 5000: there, transfer gains 2.4 points of AUC and at 250,000 only 0.3
(Raghu et al. 2019, arXiv:1902.07208), so training from nothing may join."""

NOISY = 0.1
"""Share of double readings that disagree from which only the last layers are trained: deeper training distorts
features under noise (TURN, 2023: about 0.2; half of it for safety, proposed)."""


def candidates(
    kind: str, n_train_labels: int, allowed: Sequence[str], label_noise: float | None = None
) -> tuple[str, ...]:
    """Strategies worth racing, cheapest first, four at most; the first that are allowed if none of the worthy are.

    Args:
        kind: Of the finding.
        n_train_labels: Labelled patients that training may use.
        allowed: Strategies of the target, cheapest first.
        label_noise: Share of double readings that disagree, [0, 1]; None if nobody knows.

    Raises:
        UnknownName: If the target allows none.
    """
    if not allowed:
        raise UnknownName("strategy allowed by the target", "", CHEAPEST_FIRST)
    worthy = _worthy(kind, n_train_labels, label_noise or 0.0)
    return tuple(name for name in allowed if name in worthy) or tuple(allowed[:MOST])


def _worthy(kind: str, n_train_labels: int, label_noise: float) -> tuple[str, ...]:
    fitting = FITTING.get(kind, "discriminative")
    if label_noise >= NOISY:
        return ("linear_probe", "surgical_late")
    if n_train_labels < SOME:
        return ("linear_probe", fitting, "partial", "l2_sp")
    if n_train_labels < MANY:
        return ("linear_probe", fitting, "lp_ft", "l2_sp")
    if n_train_labels < PLENTY:
        return ("linear_probe", "lp_ft", "l2_sp", "full")
    return ("lp_ft", "l2_sp", "full", "from_scratch")
