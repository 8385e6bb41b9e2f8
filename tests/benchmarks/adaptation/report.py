"""The lines of M7 to M9, from rows alone.

Regret of a shift is the mean error of the platform's choice less that of the best fixed strategy, which is found in
hindsight, by its mean error on the same hospitals. Intervals resample seeds, and look for the best strategy anew.
Means over shifts are of the seeds that have every shift.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tests.benchmarks.adaptation.arms import ALONE, METRIC, POLICY, budget_of, shift_of
from tests.benchmarks.adaptation.sizes import FROZEN
from tests.benchmarks.detection.table import Line, Row, rate, total

BARS = FROZEN["bars"]
N_RESAMPLES = 1000
NOTHING = "nothing"
OURS = (POLICY, ALONE)
GRADIENT = "did.fine_tune"
Errors = Mapping[str, Mapping[int, Mapping[str, float]]]
"""By shift, seed and strategy."""


def lines(rows: Sequence[Row]) -> list[Line]:
    """Every line that the rows allow."""
    mine = [row for row in rows if row.metric == METRIC]
    budgets = sorted({budget_of(row.cell) for row in mine})
    found = [line for budget in budgets for line in _regret_lines(mine, budget)]
    return [*found, *_harm_lines(mine), *_forgetting_lines(mine), *_compute_lines(mine), *_label_lines(mine)]


def values_of(rows: Sequence[Row], budget: int, what: str = "error") -> Errors:
    """What every strategy costs at a budget, those without labels from the rows of budget 0 of the same hospital."""
    free = {(shift_of(row.cell), row.seed): _by_arm(row, what) for row in rows if budget_of(row.cell) == 0}
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        key = shift_of(row.cell), row.seed
        if budget_of(row.cell) == budget and key in free:
            found.setdefault(key[0], {})[row.seed] = {**free[key], **_by_arm(row, what)}
    return found


def _by_arm(row: Row, what: str) -> dict[str, float]:
    ending = f".{what}"
    return {name.removesuffix(ending): value for name, value in row.numbers.items() if name.endswith(ending)}


def regret_of(errors: Errors, seeds: Sequence[int], arm: str = POLICY) -> dict[str, float]:
    """By shift, mean error of a strategy less that of the best fixed one, over seeds (repeats count)."""
    found = {}
    for shift, by_seed in errors.items():
        chosen = [by_seed[seed] for seed in seeds if seed in by_seed]
        shared = set.intersection(*(set(each) for each in chosen)) if chosen else set()
        if arm not in shared:
            continue
        means = {name: float(np.mean([each[name] for each in chosen])) for name in shared}
        found[shift] = means[arm] - min(mean for name, mean in means.items() if name not in OURS)
    return found


def best_of(errors: Errors, shift: str) -> str:
    """The best fixed strategy of a shift."""
    chosen = list(errors[shift].values())
    shared = set.intersection(*(set(each) for each in chosen)) - set(OURS)
    return min(sorted(shared), key=lambda name: float(np.mean([each[name] for each in chosen])))


def over_seeds(seeds: Sequence[int], statistic: Callable[[Sequence[int]], float]) -> tuple[float, float]:
    """95 % interval of a statistic of seeds: percentiles over resampled seeds; NaN with fewer than three."""
    if len(seeds) < 3:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.choice(seeds, len(seeds)).tolist()) for _ in range(N_RESAMPLES)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _regret_lines(rows: Sequence[Row], budget: int) -> list[Line]:
    errors = values_of(rows, budget)
    if not errors:
        return []
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in errors.values())))
    if not seeds:
        return [_shift_line(rows, errors, shift, budget) for shift in errors]
    arms = sorted({arm for by_seed in errors.values() for each in by_seed.values() for arm in each} - set(OURS))
    where = f"{budget} labels" if budget else "no labels"
    beside = {f"{arm}, every time": _mean(regret_of(errors, seeds, arm)) for arm in arms}
    beside = dict(sorted(beside.items(), key=lambda pair: pair[1]))
    is_quoted = budget in (0, 100)
    found = []
    for what, statistic, bar in (("mean", _mean, BARS["regret"]), ("worst", _worst, BARS["worst"])):
        low, high = over_seeds(seeds, lambda drawn, of=statistic: of(regret_of(errors, drawn)))  # type: ignore[misc]
        value = statistic(regret_of(errors, seeds))
        found.append(
            Line(
                metric=METRIC, what=f"{what} regret of error over {len(errors)} shifts, {where}", value=value, low=low,
                high=high, n=len(seeds), bar=bar if is_quoted else None, beside=beside if what == "mean" else {},
                note="" if what == "mean" else f"worst at {_worst_shift(regret_of(errors, seeds))}",
            )
        )  # fmt: skip
    found.append(_alone_line(errors, seeds, where))
    losses = values_of(rows, budget, "log_loss")
    value = _mean(regret_of(losses, seeds))
    low, high = over_seeds(seeds, lambda drawn: _mean(regret_of(losses, drawn)))
    found.append(
        Line(metric=METRIC, what=f"mean regret of log-loss, {where}", value=value, low=low, high=high, n=len(seeds))
    )
    return found + [_shift_line(rows, errors, shift, budget) for shift in errors]


def _alone_line(errors: Errors, seeds: Sequence[int], where: str) -> Line:
    low, high = over_seeds(seeds, lambda drawn: _mean(regret_of(errors, drawn, ALONE)))
    value = _mean(regret_of(errors, seeds, ALONE))
    what = f"mean regret of error, {where}, nobody ever asked"
    return Line(metric=METRIC, what=what, value=value, low=low, high=high, n=len(seeds))


def _shift_line(rows: Sequence[Row], errors: Errors, shift: str, budget: int) -> Line:
    seeds, best = sorted(errors[shift]), best_of(errors, shift)
    one = {shift: errors[shift]}
    low, high = over_seeds(seeds, lambda drawn: _mean(regret_of(one, drawn)))
    mean = {arm: float(np.mean([each[arm] for each in errors[shift].values()])) for arm in (POLICY, best, NOTHING)}
    aurocs = values_of(rows, budget, "auroc")[shift].values()
    auroc = {arm: float(np.mean([each.get(arm, np.nan) for each in aurocs])) for arm in (POLICY, best, NOTHING)}
    its = [row for row in rows if shift_of(row.cell) == shift and budget_of(row.cell) == budget]
    return Line(
        metric=METRIC,
        what=f"  {shift}, {budget} labels",
        value=_mean(regret_of(one, seeds)),
        low=low,
        high=high,
        n=len(seeds),
        note=(
            f"error {mean[POLICY]:.3f} (best {mean[best]:.3f} by {best}, nothing {mean[NOTHING]:.3f}), AUROC "
            f"{auroc[POLICY]:.3f} ({auroc[best]:.3f}, {auroc[NOTHING]:.3f}); {_said(its)}"
        ),
    )


def _said(rows: Sequence[Row]) -> str:
    """What the platform found and did, with how often."""
    told: dict[str, int] = {}
    for row in rows:
        for name in row.numbers:
            if name.startswith(("kind.", "did.", "refused.", "asked.")):
                told[name] = told.get(name, 0) + 1
    return ", ".join(f"{name} {n}" for name, n in sorted(told.items()))


def _mean(regrets: Mapping[str, float]) -> float:
    return float(np.mean(list(regrets.values()))) if regrets else float("nan")


def _worst(regrets: Mapping[str, float]) -> float:
    return max(regrets.values(), default=float("nan"))


def _worst_shift(regrets: Mapping[str, float]) -> str:
    return max(regrets, key=lambda shift: regrets[shift], default="none")


def _harm_lines(rows: Sequence[Row]) -> list[Line]:
    """Runs in which an action made the target worse by more than .01; those with and without labels, and both."""
    found = []
    for where, budgets in (("", None), (", no labels", (0,)), (", 100 labels", (100,))):
        harms = _harms(rows, budgets)
        k, n = harms.pop(POLICY, (0, 0))
        if not n:
            continue
        beside = {f"{arm}, every time": k / n for arm, (k, n) in sorted(harms.items())} if not where else {}
        what = f"runs made worse by more than {BARS['harmed_from']}{where}"
        found.append(rate("M8", what, k, n, bar=BARS["harm"], beside=beside))
    return found


def _harms(rows: Sequence[Row], budgets: Sequence[int] | None) -> dict[str, tuple[int, int]]:
    """By strategy, runs that it harmed and runs."""
    counts: dict[str, tuple[int, int]] = {}
    for budget in sorted({budget_of(row.cell) for row in rows}):
        if budgets is not None and budget not in budgets:
            continue
        mine = values_of(rows, budget)
        offered = {arm for row in rows if budget_of(row.cell) == budget for arm in _by_arm(row, "error")}
        for each in (by_arm for by_seed in mine.values() for by_arm in by_seed.values()):
            for arm in offered & set(each) - {NOTHING, ALONE}:
                k, n = counts.get(arm, (0, 0))
                counts[arm] = k + (each[arm] > each[NOTHING] + BARS["harmed_from"]), n + 1
    return counts


def _forgetting_lines(rows: Sequence[Row]) -> list[Line]:
    """Rise of the error elsewhere: over all runs, and over those that promoted a network."""
    names = sorted({name for row in rows for name in row.numbers if ".forgets." in name})
    places = sorted({name.rsplit(".", 1)[1] for name in names})
    promoted = [row for row in rows if any(name.startswith(GRADIENT) for name in row.numbers)]
    found = []
    for place in places:
        beside = {
            f"{arm}, every time": _mean_of(rows, f"{arm}.forgets.{place}")
            for arm in ("full", "raw:full", "linear_probe", "l2_sp")
        }
        name = f"{POLICY}.forgets.{place}"
        found.append(_forgetting_line(rows, name, f"rise of the error at {place}, all runs", beside))
        if promoted:
            found.append(_forgetting_line(promoted, name, f"rise of the error at {place}, runs that promoted", {}))
    return found


def _forgetting_line(rows: Sequence[Row], name: str, what: str, beside: Mapping[str, float]) -> Line:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if name in row.numbers:
            by_seed.setdefault(row.seed, []).append(row.numbers[name])
    low, high = over_seeds(sorted(by_seed), lambda drawn: float(np.mean([v for s in drawn for v in by_seed[s]])))
    n = sum(map(len, by_seed.values()))
    value = _mean_of(rows, name)
    return Line(
        metric="M9", what=what, value=value, low=low, high=high, n=n, bar=BARS["forgetting"], beside=beside,
        note=f"most in one run {max((v for vs in by_seed.values() for v in vs), default=float('nan')):+.3f}",
    )  # fmt: skip


def _mean_of(rows: Sequence[Row], name: str) -> float:
    values = [row.numbers[name] for row in rows if name in row.numbers]
    return float(np.mean(values)) if values else float("nan")


def _compute_lines(rows: Sequence[Row]) -> list[Line]:
    """What the platform spends on gradients and looks, over one full fine-tuning in every run with labels."""
    with_labels = [row for row in rows if budget_of(row.cell) and "full.passes" in row.numbers]
    if not with_labels:
        return []
    seeds = sorted({row.seed for row in with_labels})
    found = []
    for unit, what in (("passes", "scan-passes"), ("seconds", "core seconds")):

        def share(drawn: Sequence[int], unit: str = unit) -> float:
            mine = [row for seed in drawn for row in with_labels if row.seed == seed]
            return total(mine, f"{POLICY}.{unit}") / total(mine, f"full.{unit}")

        low, high = over_seeds(seeds, share)
        note = "recipes and receipts included, and the race" if unit == "seconds" else "the race included"
        bar = BARS["compute"] if unit == "passes" else None
        told = f"{what} over fine-tuning in full every time, runs with labels"
        found.append(
            Line(metric="M9", what=told, value=share(seeds), low=low, high=high, n=len(seeds), bar=bar, note=note)
        )
    return found


def _label_lines(rows: Sequence[Row]) -> list[Line]:
    """Changes of prevalence alone: cured, and cured by no gradient. And priors that should not have been moved."""
    k = n = 0
    for budget in sorted({budget_of(row.cell) for row in rows}):
        errors = values_of(rows, budget)
        for shift in (name for name in errors if name.split()[0] == "prevalence"):
            best = best_of(errors, shift)
            for row in rows:
                if row.cell == f"{shift}, {budget} labels" and row.seed in errors[shift]:
                    each = errors[shift][row.seed]
                    is_free = not any(name.startswith(GRADIENT) for name in row.numbers)
                    k, n = k + (is_free and each[POLICY] - each[best] <= BARS["harmed_from"]), n + 1
    unsafe = rate("M8", "priors moved while acquisition is alarmed or no mixture fits", total(rows, "unsafe_priors"),
                  len(rows), bar=0.0)  # fmt: skip
    cured = rate("M8", f"prevalence alone: within {BARS['harmed_from']} of the best, without a gradient", k, n)
    return [line for line in (cured, unsafe) if line.n]
