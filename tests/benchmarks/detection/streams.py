"""M1: how often does a site at which nothing changes ever alarm, in a thousand nightly checks?

With the nuisances one by one, and with all of them. Beside it, on the same scans: a Kolmogorov-Smirnov test of the
last 100 images at 5 % (Bonferroni over the features), PSI > 0.2 of them, and Evidently's default (an alarm when half of
the columns have drifted).

What is watched is one family of eight features, at the share of alpha that a site's first watch has; the watch on
scores and those after a restart have shares of their own, which add up to no more than alpha.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from tests.benchmarks.detection.nuisances import N_FEATURES, N_REFERENCE_DAYS, NUISANCES, Scans, send
from tests.benchmarks.detection.practice import evidently_flags, ks_flags, psi, said_by_evidently, windows_of
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate, total
from tests.benchmarks.detection.units import first_alarm

M1 = FROZEN["m1"]
PRACTICES = {
    "KS of the last 100 images, Bonferroni over features": "ks",
    "PSI > 0.2 of the last 100 images": "psi",
    "Evidently's default of the last 100 images": "evidently",
}


def cells(*, is_quick: bool) -> list[Cell]:
    """All nuisances together most, each alone some."""
    found = []
    for name in NUISANCES:
        n = 1 if is_quick else M1["cells_all" if name == "all" else "cells_each"]
        run = partial(watch_sites, name, n_sites=M1["quick_sites" if is_quick else "sites_per_cell"])
        found += [Cell(metric="M1", name=name, index=i, run=run) for i in range(n)]
    return [*found, Cell(metric="M1", name="as Evidently says", index=0, run=agreement)]


def watch_sites(name: str, seed: int, *, n_sites: int, n_checks: int = M1["checks"]) -> Numbers:
    """Some sites that do not change, watched by the platform; the first of them by ordinary practice as well."""
    compared = min(n_sites, M1["sites_compared"])
    watched = [watch_site(name, [seed, site], n_checks, is_compared=site < compared) for site in range(n_sites)]
    found = {key: math.fsum(one.get(key, 0) for one in watched) for key in watched[0]}
    return {"n": n_sites, "n_compared": compared} | found


def watch_site(name: str, seed: Sequence[int], n_checks: int, *, is_compared: bool) -> dict[str, float]:
    """Who ever alarms at one site (0 or 1), and in how many checks the ordinary practices do."""
    rng = np.random.default_rng([*seed, *name.encode()])
    scans = send(NUISANCES[name], rng, N_REFERENCE_DAYS + n_checks)
    night, n_by_day = first_alarm(scans, FROZEN["alpha"]["site"], f"reference {seed[-1]}")
    flags = windowed(scans, n_checks) if is_compared else {}
    ever = {method: float(is_up.any()) for method, is_up in flags.items()}
    often = {f"{method}_checks": float(is_up.sum()) for method, is_up in flags.items()}
    return {"alarmed": float(np.isfinite(night)), "by_day": n_by_day} | ever | often


def windowed(scans: Scans, n_checks: int) -> Mapping[str, np.ndarray]:
    """Per practice the checks at which it alarms, (checks,)."""
    nights = np.arange(N_REFERENCE_DAYS, N_REFERENCE_DAYS + n_checks)
    ks, index = np.zeros(n_checks, bool), np.zeros(n_checks, bool)
    n_drifted = np.zeros(n_checks, int)
    for feature in range(N_FEATURES):
        known = scans.only(np.isfinite(scans.values[:, feature]))
        values, night = known.values[:, feature], known.night
        reference = values[night < N_REFERENCE_DAYS]
        windows = windows_of(values, np.searchsorted(night, nights, "right"), FROZEN["practice"]["window"])
        ks |= ks_flags(windows, reference, FROZEN["alpha"]["site"] / N_FEATURES)
        index |= psi(windows, reference, FROZEN["practice"]["psi_bins"]) > FROZEN["practice"]["psi"]
        n_drifted += evidently_flags(windows, reference)
    return {"ks": ks, "psi": index, "evidently": n_drifted >= N_FEATURES / 2}


def agreement(seed: int) -> Numbers:
    """On how many windows the library counts as many drifted columns as its rule restated here; see `practice`."""
    rng = np.random.default_rng(seed)
    references = [rng.normal(size=(n, N_FEATURES)) for n in (800, 2000)]
    windows = [rng.normal(rng.normal(0, 0.15, N_FEATURES), 1, (100, N_FEATURES)) for _ in range(20)]
    same = asked = 0
    for reference in references:
        said = said_by_evidently([_frame(window) for window in windows], _frame(reference))
        if said is None:
            return {"n": 0, "same": 0}
        ours = [
            sum(int(evidently_flags(np.sort(w[:, f])[None], reference[:, f])[0]) for f in range(N_FEATURES))
            for w in windows
        ]
        same += sum(one == other for one, other in zip(said, ours, strict=True))
        asked += len(windows)
    return {"n": asked, "same": same}


def lines(rows: Sequence[Row]) -> list[Line]:
    """The share of sites that ever alarm, per nuisance."""
    found = []
    for name in NUISANCES:
        mine = of_metric(rows, "M1", name)
        n = total(mine, "n")
        if not n:
            continue
        compared = total(mine, "n_compared")
        practices = PRACTICES.items() if compared else ()
        beside = {f"{told} (n={compared:.0f})": total(mine, key) / compared for told, key in practices}
        by_day = total(mine, "by_day") / n
        found.append(
            rate(
                "M1",
                f"sites that ever alarm in 1,000 checks: {name}",
                total(mine, "alarmed"),
                n,
                bar=FROZEN["bars"]["M1"],
                beside=beside if name in ("nothing", "all") else {},
                note=f"{by_day:.1f} of {N_FEATURES} features are watched by day" if name == "all" else "",
            )
        )
    said = of_metric(rows, "M1", "as Evidently says")
    if total(said, "n"):
        found.append(
            rate("M1", "Evidently's rule as restated here agrees with it", total(said, "same"), total(said, "n"))
        )
    return found


def _frame(values: np.ndarray) -> dict[str, list[float]]:
    return {f"f{f}": values[:, f].tolist() for f in range(N_FEATURES)}
