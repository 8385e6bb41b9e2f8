"""M5, M6 and the mixed kind of M4: the labelled reference, shown through a site's scanner.

The scanner has changed, and in half of the cells the prevalence too; no scan of the site is labelled. A transport is
learned from 40 scans of either side, other patients' at each, and 300 labelled scans of the reference are shown by it,
harmonized, measured and scored. Of the site's 1,000 scans the product then tells the prevalence by these, and a
verdict; where it does not certify the story (the noise shown is another one, or no mixture of the shown classes
explains the scores) it says so, which is counted and published, and no estimate is claimed. Blur and noise are learned
and shown; curved intensities and bias fields are not, and the recipe here has no step for them. Periods of one cell
share a transport and the scans that are shown, so they are no independent trials: cells are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from platform_core.features.measure import FEATURES
from platform_core.harmonize.way import Recipes, Way, learn_way
from platform_core.shift.diagnosis import diagnose
from platform_core.shift.evidence import evidence_of
from platform_core.shift.reweighted import class_weights, weighted_ks
from platform_core.shift.risk import Reals
from platform_core.shift.transported import Transported
from tests.benchmarks.detection.kinds import SETTINGS, Samples, material
from tests.benchmarks.detection.oneshot import pool_of
from tests.benchmarks.detection.operators import HELD_OUT, NONE, PREVALENCE, PREVALENCES, SCANNER_OPERATORS
from tests.benchmarks.detection.pool import Pool, Rows, World, features_of, fitted_recipe, reader_of
from tests.benchmarks.detection.reader import Reader, answers_of
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate, total
from tests.benchmarks.detection.world import MODALITY, draw_patient, render

M6 = FROZEN["m6"]
METRIC = "M6"
STRENGTHS = (1, 2)
MIXED = "with another prevalence"
SHOWN = ("psf", "dose", "sharp_kernel")
"""Families that consist of blur and noise in plane, which a transport can show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Who may be at the site, and who not."""

    world: World
    prevalence: float
    among: Rows
    rest: Rows
    n: int


def cells(*, is_quick: bool) -> list[Cell]:
    """Every family at strengths 1 and 2, alone and with another prevalence; the held-out family in full runs only."""
    names = [name for name in SCANNER_OPERATORS if name != HELD_OUT or not is_quick]
    plan = [((name, s), p) for name in names for s in STRENGTHS for p in (PREVALENCE, PREVALENCES[s])]
    return [
        Cell(
            metric=METRIC,
            name=f"{world[0]} {world[1]}" + ("" if prevalence == PREVALENCE else f" {MIXED}"),
            index=M6["first"] + i,
            run=partial(_run, world, prevalence, is_quick),
        )
        for world, prevalence in plan
        for i in range(1 if is_quick else M6["cells"])
    ]


def _run(world: World, prevalence: float, is_quick: bool, seed: int) -> Numbers:
    pool, rng = pool_of(is_quick), np.random.default_rng([seed, round(100 * prevalence), *repr(world).encode()])
    site = _site(pool, world, prevalence, M6["quick_n" if is_quick else "n"])
    current = [pool.pick(rng, site.n, prevalence, site.among) for _ in range(M6["repetitions"])]
    shown = _transported(pool, site, current[0], reader_of(quick=is_quick), is_quick=is_quick, rng=rng)
    if shown is None:
        return {"n": float(len(current)), "not_learned": float(len(current))}
    found = [_judged(pool, site, rows, shown, rng) for rows in current]
    names = sorted({name for numbers in found for name in numbers})
    return {name: float(sum(numbers.get(name, 0.0) for numbers in found)) for name in names} | {"worst": shown.worst}


def _site(pool: Pool, world: World, prevalence: float, n: int) -> Site:
    """Patients of the site are among those whom the operator was applied to, the reference's are the others."""
    n_of = pool.n_of(world)
    of_class = [float((pool.y[:n_of] == value).sum()) for value in (0, 1)]
    # room for the chance of a draw
    feasible = 0.9 * min(of_class[0] / (1 - prevalence), of_class[1] / prevalence)
    return Site(
        world=world,
        prevalence=prevalence,
        among=np.arange(n_of),
        rest=np.arange(n_of, len(pool.y)),
        n=int(min(n, feasible)),
    )


def _transported(
    pool: Pool, site: Site, current: Rows, reader: Reader, *, is_quick: bool, rng: np.random.Generator
) -> Transported | None:
    """The reference as the site's scanner shows it; None where its scanner cannot be told."""
    recipe = fitted_recipe()
    there = pool.pick(rng, M6["n_learn"], PREVALENCE, site.rest)
    way = learn_way(
        Recipes(ours=recipe, there=recipe, modality=MODALITY),
        [render(draw_patient(int(row))) for row in there],
        [render(draw_patient(int(row)), *site.world) for row in current[: M6["n_learn"]]],
    )
    if way is None:
        return None
    rows = pool.pick(rng, M6["quick_shown" if is_quick else "n_shown"], PREVALENCE, site.rest)
    scans = [_shown(way, int(row)) for row in rows]
    values = np.array([values for values, _ in scans])
    return Transported(
        transport="",
        scores=reader.score(np.array([answers for _, answers in scans])),
        y=pool.y[rows],
        acquisition={name: values[:, k] for k, name in enumerate(FEATURES) if name in pool.features},
        worst=way.transport.worst,
    )


def _shown(way: Way, patient: int) -> tuple[Reals, Reals]:
    """Features and answers of one scan of the reference, as the site would have them."""
    volume = way.show(render(draw_patient(patient)), seed=patient)
    return features_of(volume), answers_of(volume)


def _judged(pool: Pool, site: Site, current: Rows, shown: Transported, rng: np.random.Generator) -> dict[str, float]:
    """What the product says of one period, and how far that is from the truth."""
    n_reference = min(M6["n_reference"], len(site.rest) // 2)
    reference = pool.pick(rng, n_reference, PREVALENCE, site.rest)
    samples = Samples(site.world, reference, reference, current, np.full(len(current), np.nan))
    evidence = evidence_of(replace(material(pool, samples, "", rng), transported=shown), ("ks",))
    kind = diagnose(evidence, SETTINGS).kind
    told, naive = evidence.through_scanner, evidence.prevalence
    truth = float(pool.y[current].mean())
    numbers = {"n": 1.0, f"said_{kind}": 1.0, "eta": _eta(pool, site.world, current, reference, shown)}
    if naive is not None:
        numbers |= {"naive_bias": naive.by_scores.value - truth, "naive_fits": float(bool(evidence.fits))}
    if told is None:
        return numbers
    numbers |= {"any_bias": told.value - truth, "any_covered": float(told.low <= site.prevalence <= told.high)}
    if evidence.is_certified:
        covered = float(told.low <= site.prevalence <= told.high)
        numbers |= {"certified": 1.0, "bias": told.value - truth, "abs_bias": abs(told.value - truth)}
        numbers |= {"covered": covered, "width": told.high - told.low}
    return numbers


def _eta(pool: Pool, world: World, current: Rows, reference: Rows, shown: Transported) -> float:
    """1 - D_after / D_before, D the mean Kolmogorov-Smirnov distance of the acquisition features to the site's, by the
    site's recipe, either reference weighted to the site's prevalence.
    """
    names = [name for name in pool.features if FEATURES[name].bank == "acquisition"]
    share = float(pool.y[current].mean())
    weights, weights_shown = class_weights(pool.y[reference], share), class_weights(shown.y, share)
    before, after = [], []
    for name in names:
        k = pool.features.index(name)
        here, there = pool.harmonized[world][current, k], pool.harmonized[NONE][reference, k]
        before.append(weighted_ks(there, weights, here))
        after.append(weighted_ks(shown.acquisition[name], weights_shown, here))
    return 1 - float(np.nanmean(after) / np.nanmean(before))


def lines(rows: Sequence[Row]) -> list[Line]:
    """The mixed kind, prevalence through the scanner, and what is left of the distance; then every cell."""
    mine = of_metric(rows, METRIC)
    if not mine:
        return []
    pure = [row for row in mine if not row.cell.endswith(MIXED)]
    mixed = [row for row in mine if row.cell.endswith(MIXED)]
    in_plane = [row for row in mixed if row.cell.split()[0] in SHOWN]
    return [
        _kind("mixed when it is, blur and noise", in_plane, M6["bars"]["mixed"], "at least"),
        _kind("mixed when it is, every family", mixed, None, "at least"),
        _kind("mixed when only the scanner changed", pure, M6["bars"]["false_mixed"], "at most"),
        *_coverage(mine),
        *(line for name in SCANNER_OPERATORS for line in _family(name, mine)),
        *(_cell([row for row in mine if row.cell == cell], cell) for cell in sorted({row.cell for row in mine})),
    ]


def _kind(what: str, rows: Sequence[Row], bar: float | None, way: str) -> Line:
    return rate("M4", what, total(rows, "said_mixed"), total(rows, "n"), bar=bar, way=way)


def _coverage(rows: Sequence[Row]) -> list[Line]:
    """Of the intervals that are claimed, and how often none is."""
    n, n_certified = total(rows, "n"), total(rows, "certified")
    bar = M6["bars"]["coverage"]
    return [
        rate(
            METRIC, "certified intervals that hold the prevalence", total(rows, "covered"), n_certified, bar=bar,
            way="at least", note=f"the periods of a cell share one transport: there are {len(rows)} of those",
        ),
        rate(METRIC, "not certified, and said so", n - n_certified, n),
    ]  # fmt: skip


def _family(name: str, rows: Sequence[Row]) -> list[Line]:
    """Bias of what is certified, and the distance that is left, of one family."""
    its = [row for row in rows if row.cell.split()[0] == name]
    n, n_certified = total(its, "n"), total(its, "certified")
    if not n:
        return []
    cells = [[row for row in its if row.cell == cell] for cell in sorted({row.cell for row in its})]
    biases = [abs(total(rows, "bias") / total(rows, "certified")) for rows in cells if total(rows, "certified")]
    naive = {"scores held against the reference as it is": total(its, "naive_bias") / n}
    mean = float(np.mean(biases)) if biases else np.nan
    worst = f"worst cell {max(biases):.3f}, " if biases else ""
    note = f"{worst}not certified {n - n_certified:.0f} of {n:.0f}" + (", held out" if name == HELD_OUT else "")
    eta = total(its, "eta") / n
    return [
        Line(metric=METRIC, what=f"|bias| of prevalence, {name}, mean over cells", value=mean, n=int(n_certified),
             bar=M6["bars"]["bias"], beside=naive, note=note),
        Line(metric="M5", what=f"distance taken away, {name}", value=eta, n=int(n), bar=M6["bars"]["eta"],
             way="at least"),
    ]  # fmt: skip


def _cell(rows: Sequence[Row], cell: str) -> Line:
    n, n_certified = total(rows, "n"), total(rows, "certified")
    said = {name: total(rows, name) for row in rows for name in row.numbers if name.startswith("said_")}
    told = ", ".join(f"{name.removeprefix('said_')} {count:.0f}" for name, count in sorted(said.items()))
    bias = total(rows, "any_bias") / n if n else np.nan
    naive = total(rows, "naive_bias") / n if n else np.nan
    share = rate(METRIC, f"  certified, {cell}", n_certified, n)
    return replace(share, note=f"bias {bias:+.3f} (naive {naive:+.3f}), certified or not; said: {told}")
