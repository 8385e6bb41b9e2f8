"""What the platform does by itself: its own finding, its own policy, its own gates, on arrays.

It mirrors `flows/respond.py`: decide, act, be judged, decide again, until the policy asks for nothing more. A request
for labels brings none, and a `hold` ends the case, but for one: asked whether the label has another meaning, a person
who knows says so. The truth is out of reach: a `Knowledge` holds what the hospital knows, and this module knows neither
what happened nor the hidden test.
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from platform_core.features import FAMILIES
from platform_core.features.measure import FEATURES
from platform_core.learn.calibrate import fit_calibration, smoothed_share
from platform_core.learn.cross_validate import race
from platform_core.learn.data import Loaded
from platform_core.learn.judging import NONE, Race
from platform_core.learn.networks import Classifier
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.train import FEWEST_OF_A_CLASS
from platform_core.manifest.splits import Part, part_of
from platform_core.policy.candidates import CHEAPEST_FIRST
from platform_core.policy.decide import Decision, decide
from platform_core.policy.episodes import ACTS
from platform_core.policy.history import ENOUGH_REDUCTION, UNGATED
from platform_core.policy.situation import Situation
from platform_core.settings import PolicySettings, ShiftSettings, SplitSettings
from platform_core.shift.diagnosis import Verdict, diagnose
from platform_core.shift.evidence import Evidence, evidence_of
from platform_core.shift.material import Material
from platform_core.shift.questions import Questions
from platform_core.shift.risk import Estimate, Reals, measure_risk
from platform_core.shift.samples import Patients
from platform_core.shift.scores import ScoredScans
from platform_core.trial.adapt import told_by, try_in_turn
from platform_core.trial.before_after import risk_at
from platform_core.trial.calibrate import judging_pairs, too_few
from platform_core.trial.outlook import Outlook, look
from platform_core.trial.paired import Pairs
from platform_core.trial.recalibrate import by_labels_alone, capped, weigh_recalibration
from platform_core.trial.receipt import MIN_PATIENTS, Receipt, _reduction
from platform_core.trial.reharmonize import against_recipe
from platform_core.trial.weigh import Seeds, judge_pairs
from platform_core.trial.without_labels import Scene, View, weigh
from platform_core.trial.without_labels import Verdict as Gated
from tests.benchmarks.adaptation.fixed import (
    SITE,
    Spent,
    calibrated,
    own,
    passes,
    recipe_of,
    replayed,
)
from tests.benchmarks.adaptation.seen import Other, Period, probability
from tests.benchmarks.adaptation.slabs import Rows
from tests.benchmarks.adaptation.source import (
    SETTINGS,
    SOURCE,
    Array,
    Served,
    Source,
    joined,
    patient_key,
    some,
    trained,
)

SHIFT, POLICY, SPLIT = ShiftSettings(), PolicySettings(), SplitSettings()
N_RECEIPT = 200
"""Patients of either side whose features a receipt compares, so that it takes seconds."""
MEANING = "meaning_changed"
"""The row of the policy that asks a person whether the label has another meaning."""
MOST_STEPS = 8
"""A policy that goes on longer runs in circles."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """What the consortium knows: its source, the other sites, and the hospital's period."""

    source: Source
    period: Period
    others: Mapping[str, Other]
    is_redefined: bool = False
    """Whether the hospital has changed the meaning of the label; only a person tells, and only when asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """One action and how it ended."""

    action: str
    passed: bool
    because: str
    what: str = ""
    """The adaptation or strategy."""

    @property
    def is_failed_gate(self) -> bool:
        """Refused for what it did; what was not even made failed at no gate."""
        return not self.passed and self.action not in UNGATED and self.what != NONE


@dataclass(kw_only=True, eq=False)
class Case:
    """One finding, and how far the answer to it has come."""

    known: Knowledge
    evidence: Evidence
    verdict: Verdict
    served: Served
    spent: Spent = field(default_factory=Spent)
    acted: list[Acted] = field(default_factory=list)
    divergence_stays: bool | None = None
    is_promoted: bool = False
    """A challenger went to every site."""
    n_unsafe_priors: int = 0
    """Corrections of the prior while acquisition was alarmed or no mixture fitted."""
    asked_for: Decision | None = None
    """What the policy asked for at the end."""
    released: tuple[str, ...] = ()
    """Rows whose `hold` a person has lifted."""
    alone: Served | None = None
    """What was served when a person was first asked; None if nobody was."""


def respond(known: Knowledge) -> Case:
    """Find, decide, act and be judged until nothing more is asked for."""
    evidence, verdict = finding_of(known)
    case = Case(known=known, evidence=evidence, verdict=verdict, served=known.source.served)
    for _ in range(MOST_STEPS):
        decision = decide(situation_of(case))
        case.asked_for = decision
        if decision.rule == MEANING and known.is_redefined:
            case.alone, case.released = case.served, (MEANING,)
            continue
        if decision.action not in ACTS or decision.status == "waiting":
            return case
        case.acted.append(ACTIONS[decision.action](case, decision))
    raise AssertionError([each.action for each in case.acted])


def finding_of(known: Knowledge) -> tuple[Evidence, Verdict]:
    """What the platform makes of the period."""
    evidence = evidence_of(_material(known), ("ks",))
    return evidence, diagnose(evidence, SHIFT)


def situation_of(case: Case) -> Situation:
    """The facts of a decision."""
    known, verdict = case.known, case.verdict
    return Situation(
        kind=verdict.kind,
        size=verdict.size,
        n_patients=len(known.period),
        min_patients=SHIFT.min_scans,
        n_labels=len(known.period.labelled),
        n_train_labels=len(of_part(known.period, "train")),
        n_evaluation_labels=len(of_part(known.period, "evaluation")),
        min_labels=POLICY.min_labels,
        accepted_risk=_accepted(case) or case.evidence.bound.source_risk,
        target_risk=_risk(case, case.served) or case.evidence.bound.target_risk,
        taken=tuple(dict.fromkeys(each.action for each in case.acted)),
        tried=tuple(dict.fromkeys(each.action for each in case.acted)),
        n_gates_failed=sum(each.is_failed_gate for each in case.acted),
        divergence_stays=case.divergence_stays,
        has_prevalence_moved=_has_prevalence_moved(case),
        cool_down_days=POLICY.cool_down_days,
        strategies=CHEAPEST_FIRST,
        released=case.released,
    )


def _material(known: Knowledge) -> Material:
    source, period = known.source, known.period
    served, y = source.served, source.reference_y
    reference = _patients(source.slabs.values[source.reference], y)
    scores = _scored(SITE, period.seen.rows, served.score(period.seen.arrays(served.recipe))[0], period.y)
    there = _scored(SOURCE, source.reference, served.score(source.reference_arrays)[0], y)
    return Material(
        current=_patients(period.seen.native, period.y),
        accepted=reference,
        reference=reference,
        harmonized=_patients(period.seen.values(served.recipe), period.y),
        reference_harmonized=_patients(source.reference_values, y),
        scores=scores,
        held_out=scores,
        accepted_scores=there,
        reference_scores=there,
        calibration=served.calibration,
        reference_calibration=served.calibration,
        banks={name: feature.bank for name, feature in FEATURES.items()},
        protocol=frozenset(feature.name for name in ("acquisition", "geometry") for feature in FAMILIES[name].features),
    )


def _patients(values: Reals, y: Reals) -> Patients:
    """Features that any of them has."""
    told = np.flatnonzero(np.isfinite(values).any(axis=0))
    names = list(FEATURES)
    return Patients(features=tuple(names[column] for column in told), values=values[:, told], y=y)


def _scored(site: str, rows: Rows, score: Reals, y: Reals) -> ScoredScans:
    keys = np.array([patient_key(site, int(row)) for row in rows])
    return ScoredScans(keys, keys, np.ones(len(keys), dtype=bool), y, score, np.empty((len(keys), 0)))


def of_part(period: Period, part: Part) -> Rows:
    """Places of the labelled patients of one part of the work."""
    rows = period.seen.rows
    mine = [part_of(patient_key(SITE, int(rows[place])), SPLIT) == part for place in period.labelled]
    return np.asarray(period.labelled[np.array(mine, dtype=bool)], dtype=np.intp)


def _risk(case: Case, served: Served) -> Estimate | None:
    """Log-loss on the labelled patients whom the model has not learned from; None without any."""
    period, places = case.known.period, _unlearned(case)
    if not len(places):
        return None
    p, keys = _probability(period, served)[places], [str(place) for place in places]
    y, least = period.y[places], POLICY.min_class_patients
    return measure_risk(y, p, keys, threshold=served.calibration.threshold, min_class_patients=least).log_loss


def _accepted(case: Case) -> Estimate | None:
    """The same on the reference, at as many positives as the labels have; None without any."""
    source, places = case.known.source, _unlearned(case)
    if not len(places):
        return None
    score, share = source.served.score(source.reference_arrays)[0], smoothed_share(case.known.period.y[places])
    return risk_at(score, source.reference_y, source.served.calibration, share)


def _unlearned(case: Case) -> Rows:
    period = case.known.period
    return of_part(period, "evaluation") if case.is_promoted else period.labelled


def _probability(period: Period, served: Served) -> Reals:
    return probability(served, period.seen)


def _has_prevalence_moved(case: Case) -> bool | None:
    """As the platform reads it from its tables: an estimate that can be believed is off the assumed prevalence."""
    if case.verdict.kind in ("label", "mixed"):
        return True
    told = [each for each in (case.evidence.labelled_prevalence, case.evidence.through_scanner) if each is not None]
    assumed = case.served.calibration.prevalence
    off = [abs(e.value - assumed) >= SHIFT.material_prevalence and not e.low <= assumed <= e.high for e in told]
    return any(off) if told else None


def _pairs(period: Period, places: Rows, before: Served, after: Served) -> Pairs:
    """Labelled patients of the period as two servings see them."""
    return Pairs(
        patients=tuple(str(place) for place in places),
        y=period.y[places],
        before=_probability(period, before)[places],
        after=_probability(period, after)[places],
    )


def _reharmonize(case: Case, decision: Decision) -> Acted:
    """A recipe fitted to the period, served if its receipt says that it helps; its steps are not tried one by one."""
    known, before = case.known, case.served
    started = time.process_time()
    after = replace(before, recipe=recipe_of(known.source, known.period))
    receipt = _receipt(known, before, after)
    looks = (None, None) if receipt.gain is not None else (_outlook(case, before), _outlook(case, after))
    against = against_recipe(*looks)
    passed = receipt.helps and against is None
    stays = receipt.reduction is None or receipt.reduction.value < ENOUGH_REDUCTION
    case.divergence_stays = stays or not passed
    case.spent += Spent(seconds=time.process_time() - started)
    if passed:
        case.served = after
    return Acted(action=decision.action, passed=passed, because=against or receipt.because)


def _receipt(known: Knowledge, before: Served, after: Served) -> Receipt:
    places = of_part(known.period, "evaluation")
    seen = known.period.seen
    reference, was = (v[:N_RECEIPT] for v in (known.source.reference_values, seen.values(before.recipe)))
    now = seen.values(after.recipe, N_RECEIPT)
    enough = np.logical_and.reduce([np.isfinite(v).sum(axis=0) >= MIN_PATIENTS for v in (reference, was, now)])
    gain = _pairs(known.period, places, before, after).gain() if len(places) >= MIN_PATIENTS else None
    return Receipt(
        site=SITE,
        target="",
        recipe_before=before.recipe.name,
        recipe_after=after.recipe.name,
        n_patients=len(was),
        n_reference=len(reference),
        distance_before=None,
        distance_after=None,
        reduction=_reduction(reference[:, enough], was[:, enough], now[:, enough]),
        gain=gain,
        features=(),
    )


def _recalibrate(case: Case, decision: Decision) -> Acted:
    """The estimated prevalence, as far as the cap lets it go; judged by labels, or by fit and expected risk."""
    before, period = case.served, case.known.period
    assert case.verdict.size is not None, "a change of prevalence has a size"
    assumed = before.calibration.prevalence
    after = before.at(capped(assumed, assumed + case.verdict.size.value))
    pairs = _pairs(period, of_part(period, "evaluation"), before, after)
    judged = weigh_recalibration(pairs, _outlook(case, before), _outlook(case, after))
    if judged.passed:
        case.served = after
        case.n_unsafe_priors += _is_unsafe(case.evidence)
    return Acted(action=decision.action, passed=judged.passed, because=judged.because)


def _calibrate(case: Case, decision: Decision) -> Acted:
    """Scale and offset fitted to labels outside the evaluation part; judged by patients who had no part in it."""
    before, period = case.served, case.known.period
    places = np.setdiff1d(period.labelled, of_part(period, "evaluation"))
    fitting, held_out = (_labelled(period, before, each) for each in (places, of_part(period, "evaluation")))
    if few := too_few(fitting.y, fitting.patient_key):
        return Acted(action=decision.action, passed=False, because=few, what=NONE)
    fitted = fit_calibration(fitting.score, fitting.y, before.calibration)
    judged = by_labels_alone(judging_pairs(fitting, held_out, before.calibration, fitted, n_folds=POLICY.n_folds))
    if judged.passed:
        case.served = replace(before, calibration=fitted)
    return Acted(action=decision.action, passed=judged.passed, because=judged.because)


def _labelled(period: Period, served: Served, places: Rows) -> ScoredScans:
    score, _ = served.score(period.seen.arrays(served.recipe)[places])
    return _scored(SITE, period.seen.rows[places], score, period.y[places])


def _outlook(case: Case, served: Served) -> Outlook | None:
    """The period's scores held against the reference as it is."""
    source = case.known.source
    scores, there = (
        served.score(case.known.period.seen.arrays(served.recipe))[0],
        source.served.score(source.reference_arrays)[0],
    )
    return look(scores, there, source.reference_y, served.calibration)


def _is_unsafe(evidence: Evidence) -> bool:
    """Acquisition is alarmed and not explained by prevalence, or no mixture of the source's scores fits."""
    return not evidence.fits or Questions(evidence, SHIFT).furthest("acquisition") is not None


def _adapt(case: Case, decision: Decision) -> Acted:
    """The first adaptation without labels that passes its gate; by the scans of patients who do not judge it."""
    source, period, served = case.known.source, case.known.period, case.served
    arrays, scene, started = period.seen.arrays(served.recipe), _scene(case), time.process_time()

    def judge(name: str, network: Classifier) -> Gated:
        after = replace(served, network=network)
        return weigh(scene, name, _view(after, arrays), labelled=_held_out_pairs(case, after))

    tried, network = try_in_turn(served.network, arrays[~_is_held_out(period)], source.reference_arrays, judge)
    n_passes = len(tried) * (len(arrays) + len(source.reference_arrays)) / 3
    case.spent += Spent(seconds=time.process_time() - started, passes=n_passes)
    if network is not None:
        case.served = replace(served, network=network)
    last = tried[-1]
    what = last.adaptation if network is not None else ""
    return Acted(action=decision.action, passed=network is not None, because=last.because, what=what)


def _is_held_out(period: Period) -> npt.NDArray[np.bool_]:
    rows = period.seen.rows
    return np.array([part_of(patient_key(SITE, int(row)), SPLIT) == "evaluation" for row in rows], dtype=bool)


def _scene(case: Case) -> Scene:
    source, period, evidence = case.known.source, case.known.period, case.evidence
    return Scene(
        reference=_view(source.served, source.reference_arrays),
        reference_y=source.reference_y,
        before=_view(case.served, period.seen.arrays(case.served.recipe)),
        is_held_out=_is_held_out(period),
        assumed=case.served.calibration.prevalence,
        material_prevalence=SHIFT.material_prevalence,
        told=told_by(evidence, case.served.calibration.prevalence, evidence.p_labelled),
    )


def _view(served: Served, arrays: Array) -> View:
    scores, embeddings = served.score(arrays)
    return View(scores=scores, embeddings=embeddings)


def _held_out_pairs(case: Case, after: Served) -> Pairs | None:
    places = of_part(case.known.period, "evaluation")
    return _pairs(case.known.period, places, case.served, after) if len(places) else None


def _fine_tune(case: Case, decision: Decision) -> Acted:
    """A race on the training part of the labels, a challenger of the winner, and the gate at every site."""
    raced, started = _race(case, decision), time.process_time()
    if raced is None or raced.winner == NONE:
        because = "labels do not suffice" if raced is None else raced.because
        return Acted(action=decision.action, passed=False, because=because, what=NONE)
    challenger = _challenger(case, raced.winner)
    won = raced.won
    seeds = None if won.seed_sd is None or won.seed_gain is None else Seeds(gain=won.seed_gain, sd=won.seed_sd)
    verdict = judge_pairs(_pairs_everywhere(case, challenger), SITE, POLICY, source_site=SOURCE, seeds=seeds)
    case.spent += Spent(seconds=time.process_time() - started)
    if verdict.passed:
        case.served, case.is_promoted = challenger, True
    return Acted(action=decision.action, passed=verdict.passed, because=verdict.because, what=raced.winner)


def _race(case: Case, decision: Decision) -> Race | None:
    started = time.process_time()
    site = _own(case, "train")
    if min(sum(scan.y == y for scan in site.scans) for y in (0, 1)) < FEWEST_OF_A_CLASS:
        return None
    found = race(
        case.served.network,
        site,
        replayed(case.known.source),
        decision.candidates,
        SETTINGS.model_copy(update={"seed": case.known.source.seed}),
        n_folds=POLICY.n_folds,
        n_seeds=POLICY.n_seeds,
    )
    n_passes = sum(entry.n_scan_passes for entry in found.entries)
    case.spent += Spent(seconds=time.process_time() - started, passes=n_passes)
    return found


def _own(case: Case, part: Part) -> Loaded:
    period = case.known.period
    return some(own(period, case.served), np.flatnonzero(np.isin(period.labelled, of_part(period, part))))


def _challenger(case: Case, strategy: str) -> Served:
    source = case.known.source
    data = joined(_own(case, "train"), replayed(source))
    network = trained(deepcopy(case.served.network), data, STRATEGIES[strategy], source.seed)
    case.spent += Spent(passes=passes(network, strategy, len(data.scans)))
    return calibrated(source, replace(case.served, network=network), _own(case, "validation"))


def _pairs_everywhere(case: Case, challenger: Served) -> dict[str, Pairs]:
    """What every site runs now against what it would run: another network by the recipe and prevalence of its own."""
    known, champion = case.known, case.known.source.served
    source = known.source
    found = {SITE: _pairs(known.period, of_part(known.period, "evaluation"), case.served, challenger)}
    sides = [replace(each, calibration=champion.calibration) for each in (champion, challenger)]
    before, after = (each.calibration.probability(each.score(source.reference_arrays)[0]) for each in sides)
    found[SOURCE] = _paired(source.reference_y, before, after)
    for name, other in known.others.items():
        before, after = (probability(replace(each, recipe=other.recipe), other.seen) for each in sides)
        found[name] = _paired(other.y, before, after)
    return found


def _paired(y: Reals, before: Reals, after: Reals) -> Pairs:
    return Pairs(patients=tuple(map(str, range(len(y)))), y=y, before=before, after=after)


ACTIONS: Mapping[str, Callable[[Case, Decision], Acted]] = {
    "reharmonize": _reharmonize,
    "recalibrate": _recalibrate,
    "calibrate": _calibrate,
    "adapt": _adapt,
    "fine_tune": _fine_tune,
}
