"""M7 to M9: every fixed strategy and the platform's own choice, at every kind of shift and budget of labels.

A cell is one shift at one budget; a row is one hospital of it, with its own source model. `x.error`, `x.log_loss` and
`x.auroc` are those of strategy x on the hidden test, `policy` is the platform's. Strategies that need no label stand
in the rows of budget 0, which has the same hospitals as the others of its seed. A person is asked one thing: whether
the label has another meaning, where the platform finds that it has. `policy_alone` is the platform without that answer.

What was reduced: a network of 2-D squares about a mark, trained for 20 epochs; the steps of a recipe are not tried one
by one, and its receipt compares 200 patients of either side; nothing is transported through a site's scanner, so that
no finding is `mixed` and no adaptation can pass without labels; nobody answers a request for labels or lifts another
hold.
"""

from collections.abc import Mapping
from functools import partial

from tests.benchmarks.adaptation.fixed import STRATEGIES_RUN, Outcome, forgotten, labelled, unlabelled
from tests.benchmarks.adaptation.responder import Acted, Case, Knowledge, finding_of, respond
from tests.benchmarks.adaptation.seen import Other
from tests.benchmarks.adaptation.site import SHIFTS, Shift, Site, others_of, site_of
from tests.benchmarks.adaptation.sizes import sizes
from tests.benchmarks.adaptation.source import SOURCE, Source, source_of
from tests.benchmarks.detection.operators import HELD_OUT
from tests.benchmarks.detection.table import Cell, Numbers

METRIC = "M7"
POLICY, ALONE = "policy", "policy_alone"
"""The platform's choice, and what it serves if no person ever answers."""
GATED_PRIOR = "gated_prior"
"""The prevalence that scores tell, only where the platform finds that nothing but prevalence has moved."""
FEW_SEEDS = 5
"""Repetitions of the budgets that are not quoted, and of strategies on raw scans."""
QUOTED = (0, 100)


def cells(*, is_quick: bool) -> list[Cell]:
    """Every shift at every budget; the held-out family in full runs only."""
    n = sizes(is_quick=is_quick)
    shifts = [shift for shift in SHIFTS if shift.kind != HELD_OUT or not is_quick]
    return [
        Cell(metric=METRIC, name=name_of(shift, budget), index=i, run=partial(_run, shift, budget, is_quick, i))
        for i in range(n["repetitions"])
        for shift in shifts
        for budget in n["budgets"]
        if budget in QUOTED or i < FEW_SEEDS
    ]


def name_of(shift: Shift, budget: int) -> str:
    """`psf 1, 100 labels`."""
    return f"{shift}, {budget} labels"


def budget_of(cell: str) -> int:
    """Labels of a cell."""
    return int(cell.rsplit(", ", 1)[1].split(maxsplit=1)[0])


def shift_of(cell: str) -> str:
    """The shift of a cell: `psf 1`."""
    return cell.rsplit(", ", 1)[0]


def _run(shift: Shift, budget: int, is_quick: bool, index: int, seed: int) -> Numbers:
    import torch

    torch.set_num_threads(1)
    source, site = source_of(seed, is_quick=is_quick), site_of(shift, seed, is_quick=is_quick)
    others = others_of(seed, is_quick=is_quick)
    period = site.known(budget)
    known = Knowledge(source=source, period=period, others=others, is_redefined=shift.kind == "relabelled")
    if budget:
        outcomes = labelled(source, period, with_raw=index < FEW_SEEDS)
        kept = [name for name in outcomes if name.removeprefix("raw:") in STRATEGIES_RUN]
    else:
        outcomes, kept = unlabelled(source, period), []
        _, verdict = finding_of(known)
        outcomes[GATED_PRIOR] = outcomes["prior" if verdict.kind == "label" else "nothing"]
    case = respond(known)
    outcomes[POLICY] = Outcome(served=case.served, spent=case.spent)
    outcomes[ALONE] = Outcome(served=case.alone or case.served)
    numbers = _judged(site, outcomes) | _told(case)
    numbers |= _forgotten(source, {name: outcomes[name] for name in kept}, others)
    return numbers | _policy_forgets(source, case, others)


def _judged(site: Site, outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, outcome in outcomes.items():
        found = site.judged(outcome.served)
        numbers |= {f"{name}.error": found.error, f"{name}.log_loss": found.log_loss, f"{name}.auroc": found.auroc}
        numbers |= {f"{name}.seconds": outcome.spent.seconds, f"{name}.passes": outcome.spent.passes}
    return numbers


def _told(case: Case) -> dict[str, float]:
    """What the platform found and did, as numbers."""
    asked = case.asked_for.action if case.asked_for else "none"
    numbers = {f"kind.{case.verdict.kind}": 1.0, f"asked.{asked}": 1.0, "unsafe_priors": float(case.n_unsafe_priors)}
    for acted in case.acted:
        numbers[name_of_act(acted)] = 1.0
    return numbers


def name_of_act(acted: Acted) -> str:
    """`did.fine_tune.full` or `refused.adapt`."""
    how = "did" if acted.passed else "refused"
    return ".".join(part for part in (how, acted.action, acted.what) if part)


def _forgotten(source: Source, outcomes: Mapping[str, Outcome], others: Mapping[str, Other]) -> dict[str, float]:
    """Rise of the error elsewhere, if the network went there."""
    return {
        f"{name}.forgets.{where}": rise
        for name, outcome in outcomes.items()
        for where, rise in forgotten(source, outcome.served, others).items()
    }


def _policy_forgets(source: Source, case: Case, others: Mapping[str, Other]) -> dict[str, float]:
    """What is changed for one site alone is forgotten nowhere else."""
    if case.is_promoted:
        return _forgotten(source, {POLICY: Outcome(served=case.served)}, others)
    return {f"{POLICY}.forgets.{where}": 0.0 for where in (SOURCE, *others)}
