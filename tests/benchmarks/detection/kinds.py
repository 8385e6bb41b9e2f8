"""M4: does the product name the kind of shift rightly, with 500 scans and 100 labels?

The site is the reference's own, a period later: its accepted state is the 2,000 labelled patients that the model is
held against, its period 500 others of whom 100 random ones have labels. Verdicts are `diagnose` of `evidence_of`, at
the product's default settings; nothing is told from here but samples in memory. Cells named `small site` have an
accepted state of 500 patients with 100 labels instead.

A right verdict on a covariate shift is either covariate kind; `undetermined` counts as wrong, and is printed. `milder`
and `severer` choose other positives. To one who knows severities that is a covariate shift; to one who sees scores and
labels, it is the score that means something else. So recall is told without them, as in the published figures, and
with them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from platform_core.features import FAMILIES
from platform_core.features.measure import FEATURES
from platform_core.manifest.serving import Calibration
from platform_core.settings import ShiftSettings
from platform_core.shift.diagnosis import diagnose
from platform_core.shift.evidence import evidence_of
from platform_core.shift.material import Material
from platform_core.shift.risk import Reals
from platform_core.shift.samples import Patients
from platform_core.shift.scores import ScoredScans
from tests.benchmarks.detection.oneshot import mean_rate, pool_of
from tests.benchmarks.detection.operators import (
    HELD_OUT,
    NONE,
    PREVALENCE,
    PREVALENCES,
    SCANNER_OPERATORS,
    TILTED_BY,
    relabelled_at_random,
    relabelled_by_size,
    tilted_weights,
)
from tests.benchmarks.detection.pool import Pool, Rows, World
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate, total

M4 = FROZEN["m4"]
METRIC = "M4"
SETTINGS = ShiftSettings()
KINDS = ("none", "covariate_acquisition", "covariate_case_mix", "label", "concept", "mixed", "undetermined")
LABELS_OF: Mapping[str, str] = {"relabelled": "concept", "size_cut": "concept", "prevalence": "label", "none": "none"}
"""The true kind of each change of patients or labels; everything else is covariate."""
CASE_MIX = ("milder", "severer")
SMALL_SITE = "small site"
N_KINDS = 4
"""That recall is the mean of."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Who is in which sample, and what labels they were given."""

    world: World
    accepted: Rows
    reference: Rows
    current: Rows
    y: Reals
    """Of the current patients, as labelled there."""


def cells(*, is_quick: bool) -> list[Cell]:
    """Every change at strengths 1 and 2; the held-out family in full runs only."""
    names = [name for name in SCANNER_OPERATORS if name != HELD_OUT or not is_quick]
    changes = [("none", 0), *((name, s) for name in (*names, *CASE_MIX, *list(LABELS_OF)[:3]) for s in (1, 2))]
    n = 1 if is_quick else M4["cells"]
    plan = [(change, "") for change in changes]
    plan += [(change, SMALL_SITE) for change in changes if change[0] in ("none", "psf", "prevalence", "relabelled")]
    return [
        Cell(
            metric=METRIC,
            name=" ".join([*map(str, change), where]).strip(),
            index=i,
            run=partial(_run, change, where, is_quick),
        )
        for change, where in plan
        for i in range(max(n // 4, 1) if where else n)
    ]


def _run(change: World, where: str, is_quick: bool, seed: int) -> Numbers:
    pool, found = pool_of(is_quick), Counter[str]()
    n_repeated = M4["null_repetitions" if change == NONE else "repetitions"]
    for i in range(n_repeated):
        rng = np.random.default_rng([seed, i])
        n = M4["quick_n"] if is_quick else M4["n"]
        samples = draw(pool, change, where, n, rng)
        found[diagnose(evidence_of(material(pool, samples, where, rng), ("ks",)), SETTINGS).kind] += 1
    return {"n": float(n_repeated)} | {kind: float(found[kind]) for kind in KINDS}


def draw(pool: Pool, change: World, where: str, n: int, rng: np.random.Generator) -> Samples:
    """Patients of a changed site, of its accepted state and of the reference; nobody is in two of them."""
    name, strength = change
    world = change if name in SCANNER_OPERATORS else NONE
    prevalence = PREVALENCES[strength] if name == "prevalence" else PREVALENCE
    among = np.arange(pool.n_of(world))
    current = other_mix(pool, name, strength, n, rng) if name in CASE_MIX else pool.pick(rng, n, prevalence, among)
    n_reference = min(M4["n_reference"], (len(pool.y) - n) // 2)
    accepted = pool.pick(rng, n, PREVALENCE, pool.without(current)) if where == SMALL_SITE else current[:0]
    reference = pool.pick(rng, n_reference, PREVALENCE, pool.without(current, accepted))
    y = pool.y[current]
    if name == "relabelled":
        y = relabelled_at_random(y, strength, rng)
    if name == "size_cut":
        y = relabelled_by_size(y, pool.severity[current], strength)
    return Samples(world, accepted if where == SMALL_SITE else reference, reference, current, y)


def other_mix(pool: Pool, name: str, strength: int, n: int, rng: np.random.Generator) -> Rows:
    """As many positives as ever, but milder or severer ones."""
    positives = np.flatnonzero(pool.y == 1)
    factor = 1 + TILTED_BY[strength] * (1 if name == "severer" else -1)
    n_positive = int(rng.binomial(n, PREVALENCE))
    weights = tilted_weights(pool.severity[positives], factor)
    chosen = rng.choice(positives, n_positive, replace=False, p=weights)
    return rng.permutation(np.append(chosen, rng.choice(np.flatnonzero(pool.y == 0), n - n_positive, replace=False)))


def material(pool: Pool, samples: Samples, where: str, rng: np.random.Generator) -> Material:
    """The samples as the product would have read them."""
    y = only(samples.y, M4["n_labels"], rng)
    at_reference = pool.y[samples.reference]
    at_accepted = only(pool.y[samples.accepted], M4["n_labels"], rng) if where == SMALL_SITE else at_reference
    scores = scored(pool, samples.world, samples.current, y)
    calibration = calibrated(pool.score[NONE][samples.reference], at_reference)
    return Material(
        current=patients(pool, samples.world, samples.current, y),
        accepted=patients(pool, NONE, samples.accepted, at_accepted),
        reference=patients(pool, NONE, samples.reference, at_reference),
        harmonized=patients(pool, samples.world, samples.current, y, is_native=False),
        reference_harmonized=patients(pool, NONE, samples.reference, at_reference, is_native=False),
        scores=scores,
        held_out=scores,
        accepted_scores=scored(pool, NONE, samples.accepted, at_accepted),
        reference_scores=scored(pool, NONE, samples.reference, at_reference),
        calibration=calibration,
        reference_calibration=calibration,
        banks={name: feature.bank for name, feature in FEATURES.items()},
        protocol=frozenset(feature.name for name in ("acquisition", "geometry") for feature in FAMILIES[name].features),
    )


def only(y: Reals, n: int, rng: np.random.Generator) -> Reals:
    """Labels of `n` random patients, NaN for the others."""
    told = np.full(len(y), np.nan)
    asked = rng.choice(len(y), min(n, len(y)), replace=False)
    told[asked] = y[asked]
    return told


def patients(pool: Pool, world: World, rows: Rows, y: Reals, *, is_native: bool = True) -> Patients:
    """Rows of the pool as a finding takes them."""
    values = (pool.values if is_native else pool.harmonized)[world][rows]
    return Patients(features=pool.features, values=values, y=y)


def scored(pool: Pool, world: World, rows: Rows, y: Reals) -> ScoredScans:
    """Their scores under the one model; without embeddings, which no verdict reads."""
    keys = np.array([f"patient{row:05d}" for row in rows])
    known = np.ones(len(rows), dtype=bool)
    return ScoredScans(keys, keys, known, y, pool.score[world][rows], np.empty((len(rows), 0)))


def calibrated(score: Reals, y: Reals) -> Calibration:
    """The offset with which probabilities add up to the positives of the reference."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(score + middle)))).mean() < y.mean() else (low, middle)
    return Calibration(logit_offset=middle, prevalence=float(y.mean()), threshold=0.5)


def lines(rows: Sequence[Row]) -> list[Line]:
    """Macro recall, its four parts, every cell, and how often nobody could tell."""
    mine = of_metric(rows, METRIC)
    main, small = ([row for row in mine if row.cell.endswith(SMALL_SITE) == is_small] for is_small in (False, True))
    return [*_lines(main, ""), *_lines(small, f", {SMALL_SITE}")]


def _lines(rows: Sequence[Row], where: str) -> list[Line]:
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(truth_of(row.cell), []).append(row)
    also = {"covariate": " of scanner or severity"}
    parts = {kind: _recall(its, kind, also.get(kind, "") + where) for kind, its in by_kind.items()}
    of_scanner = [row for row in by_kind.get("covariate", []) if row.cell.split()[0] not in CASE_MIX]
    scanner = _recall(of_scanner, "covariate", f" of the scanner{where}")
    told = [] if len(parts) < N_KINDS else [_macro({**parts, "covariate": scanner}, where)]
    if told and not where:
        told.append(_macro(parts, ", severity of positives among the covariate shifts"))
    n = total(rows, "n")
    unsure = rate(METRIC, f"undetermined, all cells{where}", total(rows, "undetermined"), n)
    by_cell = [_cell(rows, cell) for cell in sorted({row.cell for row in rows})]
    return [line for line in (*told, *parts.values(), scanner, unsure, *by_cell) if line.n]


def _macro(parts: Mapping[str, Line], where: str) -> Line:
    """Mean over kinds, whatever the number of their cells."""
    half = sum((line.high - line.low) ** 2 for line in parts.values()) ** 0.5 / len(parts) / 2
    value = float(np.mean([line.value for line in parts.values()]))
    return Line(
        metric=METRIC,
        what=f"macro recall: none, covariate, label, concept{where}",
        value=value,
        low=max(value - half, 0),
        high=min(value + half, 1),
        n=sum(line.n for line in parts.values()),
        bar=None if where.endswith(SMALL_SITE) else M4["bars"]["macro"],
        way="at least",
        note="interval: those of its parts, added as independent errors",
    )


def truth_of(cell: str) -> str:
    """The right answer to a cell."""
    return LABELS_OF.get(cell.split(maxsplit=1)[0], "covariate")


def _recall(rows: Sequence[Row], kind: str, where: str) -> Line:
    bar = M4["bars"]["none"] if kind == "none" and not where else None
    return mean_rate(METRIC, f"right when it is {kind}{where}", rows, right_of(kind), bar=bar)


def right_of(kind: str) -> tuple[str, ...]:
    """Verdicts that are right."""
    return ("covariate_acquisition", "covariate_case_mix") if kind == "covariate" else (kind,)


def _cell(rows: Sequence[Row], cell: str) -> Line:
    its = [row for row in rows if row.cell == cell]
    said = ", ".join(f"{name} {total(its, name):.0f}" for name in KINDS if total(its, name))
    return replace(mean_rate(METRIC, f"  {cell}", its, right_of(truth_of(cell))), note=f"said: {said}")
