"""Adaptations without labels for one site: tried on the period's scans in turn; the first that passes is served.

What is fitted and what is judged are different patients: statistics come from the site's patients who are not of the
evaluation part, nearness and labels are judged on those who are. The champion and every other site stay as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.errors import BadRequest, EmptySample, NotAdaptable, TooLittleMemory
from platform_core.learn import registry
from platform_core.learn.adapt import register_adapted
from platform_core.learn.adaptations import ADAPTATIONS
from platform_core.learn.bundle import Bundle, read_bundle
from platform_core.learn.contract import Adaptation
from platform_core.learn.data import Loaded, Scan, find_scans, frame, in_part, load_scans
from platform_core.learn.networks import Classifier
from platform_core.learn.predict import scores_and_embeddings
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import Serving
from platform_core.policy.decide import Decision
from platform_core.shift.evidence import Evidence, evidence_of
from platform_core.shift.inputs import Inputs, Reference, material_of, read_inputs
from platform_core.shift.risk import Estimate, Reals
from platform_core.shift.scores import ScoredScans
from platform_core.trial.attempt import attempt
from platform_core.trial.case import Case, finding_of, serve, settle
from platform_core.trial.expiry import until
from platform_core.trial.paired import Pairs
from platform_core.trial.rollout import with_model
from platform_core.trial.transported import show_again
from platform_core.trial.without_labels import Adapted, Scene, Told, Verdict, View, refused, tells, weigh

ENOUGH_HELD_OUT = 100
"""Scans of the reference that moved no weight from which on they alone stand for it."""
SEED = 0

Arrays = npt.NDArray[np.float32]


def adapt_model(case: Case, decision: Decision) -> Adapted | None:
    """Try every adaptation in turn and register the first that passes.

    Whatever fails, the site runs what it ran.

    Returns:
        None if none passes or the adaptation fails, which settles the decision as refused; what was tried is in its
        evidence.

    Raises:
        Unavailable: If the store fails: another try may succeed.
    """
    return attempt(case, decision, lambda: _adapted(case, decision), named="the adaptation")


def _adapted(case: Case, decision: Decision) -> Adapted | None:
    stage = _stage(case)
    tried, network = try_in_turn(stage.network, stage.fitted, stage.reference_arrays, stage.judge)
    if network is None:
        settle(case, decision, status="refused", before=case.serving, facts=_facts(tried))
        return None
    made = register_adapted(
        case.workspace,
        stage.parent,
        stage.bundle,
        network,
        adaptation=tried[-1].adaptation,
        recipe=case.serving.recipe,
        scans=[*stage.fitted_scans, *stage.reference_scans],
        run=case.run,
        at=case.at,
    )
    return Adapted(model=made.name, tried=tried)


def settle_adapted(case: Case, decision: Decision, adapted: Adapted) -> None:
    """Serve the adapted version at the case's site, for a time; refuse it if the champion has changed meanwhile."""
    workspace, before = case.workspace, case.serving
    made = registry.find(workspace, adapted.model)
    champion = registry.champion(workspace, case.target)
    wanted = replace(
        with_model(before, made), until=until(workspace, case.at, has_labels=adapted.tried[-1].is_confirmed)
    )
    facts = _facts(adapted.tried)
    if champion is None or champion.name != made.parent:
        registry.alias(workspace, made, "refused", run=case.run, at=case.at)
        facts["refused"] = f"{made.name} was made of {made.parent}, which is no longer the champion"
        settle(case, decision, status="refused", before=before, after=wanted, facts=facts, strategy=made.strategy)
        return
    after = serve(case, wanted, decision)
    settle(case, decision, status="done", before=before, after=after, facts=facts, strategy=made.strategy)


Judge = Callable[[str, Classifier], Verdict]


def try_in_turn(
    network: Classifier,
    site_arrays: Arrays,
    reference_arrays: Arrays,
    judge: Judge,
    adaptations: Sequence[Adaptation] | None = None,
) -> tuple[tuple[Verdict, ...], Classifier | None]:
    """Adapt and judge, what moves least first, until one passes.

    Args:
        network: Stays as it is.
        site_arrays: The scans that statistics may come from, (n, 1, ...).
        reference_arrays: Of the reference, the same axes.
        judge: From an adaptation's name and network to a verdict.
        adaptations: By default all that there are.

    Returns:
        The verdicts in order, and the network that passed, of the last of them; None if none did.
    """
    tried: list[Verdict] = []
    for one in sorted(adaptations or ADAPTATIONS.values(), key=lambda each: each.place):
        try:
            adapted = one.adapt(network, site_arrays, reference_arrays, seed=SEED)
        except (EmptySample, NotAdaptable, TooLittleMemory) as error:
            tried.append(refused(one.name, str(error)))
            continue
        tried.append(judge(one.name, adapted))
        if tried[-1].passed:
            return tuple(tried), adapted
    return tuple(tried), None


def told_by(evidence: Evidence, assumed: float, p_labelled: float | None) -> tuple[Told, ...]:
    """The site's prevalence as labels, or the reference through its scanner, tell it; nothing where neither can.

    Args:
        evidence: About the site's period.
        assumed: By its calibration.
        p_labelled: Chance of the labels if that holds; None if they were not drawn evenly.
    """
    found = []
    if evidence.is_certified and evidence.through_scanner is not None:
        found.append(tells("scores of the reference through the site's scanner", evidence.through_scanner))
    labels = evidence.labelled_prevalence
    if labels is not None:
        is_outside = not labels.low <= assumed <= labels.high
        p = p_labelled if p_labelled is not None else float(not is_outside)
        found.append(Told(by="labels", share=Estimate.of(labels), p_changed=p))
    return tuple(found)


def _facts(tried: Sequence[Verdict]) -> dict[str, Any]:
    return {"adaptations": [verdict.to_json() for verdict in tried]}


@dataclass(frozen=True)
class _Stage:
    """All that a case's adaptations are made of and judged on."""

    case: Case
    inputs: Inputs
    serving: Serving
    reference: Reference
    parent: ModelRef

    @cached_property
    def bundle(self) -> Bundle:
        return read_bundle(self.case.workspace, self.parent.bundle_uri)

    @property
    def network(self) -> Classifier:
        return self.bundle.network

    @cached_property
    def site(self) -> Loaded:
        """One scan per patient of the period."""
        return self._load(self._scans(self.inputs.current.site, self.serving.recipe, self.inputs.current.keys))

    @cached_property
    def fitted(self) -> Arrays:
        return self.site.arrays[self._is_of("train") | self._is_of("validation")]

    @property
    def fitted_scans(self) -> list[Scan]:
        chosen = self._is_of("train") | self._is_of("validation")
        return [scan for scan, is_chosen in zip(self.site.scans, chosen, strict=True) if is_chosen]

    @cached_property
    def _reference(self) -> Loaded:
        """Of the reference's patients who are not for evaluation, those not trained on, if they are enough."""
        like = self.inputs.like_reference
        keys = () if like is None else like.keys
        scans = self._scans(self.reference.site, self.reference.recipe, keys)
        held_out = in_part(self.case.workspace, scans, "validation")
        learned = [] if len(held_out) >= ENOUGH_HELD_OUT else in_part(self.case.workspace, scans, "train")
        return self._load([*held_out, *learned])

    @property
    def reference_arrays(self) -> Arrays:
        return self._reference.arrays

    @property
    def reference_scans(self) -> tuple[Scan, ...]:
        return self._reference.scans

    @cached_property
    def running(self) -> Callable[[Arrays], View]:
        """What the site runs."""
        workspace = self.case.workspace
        return _viewer(read_bundle(workspace, registry.find(workspace, self.serving.model).bundle_uri))

    @cached_property
    def scene(self) -> Scene:
        reference, scored = self._reference_view(), self.serving.calibration
        evidence = evidence_of(material_of(self.inputs), ("ks",))
        return Scene(
            reference=reference[0],
            reference_y=reference[1],
            before=self.running(self.site.arrays),
            is_held_out=self._is_of("evaluation"),
            assumed=scored.prevalence,
            material_prevalence=self.case.workspace.settings.shift.material_prevalence,
            told=told_by(evidence, scored.prevalence, evidence.p_labelled),
        )

    def judge(self, adaptation: str, network: Classifier) -> Verdict:
        view = _viewer(replace(self.bundle, network=network))
        after = view(self.site.arrays)
        return weigh(
            self.scene, adaptation, after, expected=self._expected(view), labelled=self._labelled(after.scores)
        )

    def _reference_view(self) -> tuple[View, Reals]:
        found = self.inputs.reference_scores
        if found is None or not len(found):
            raise EmptySample(f"held-out patients of {self.reference.site} that {self.reference.model} has scored")
        return View(scores=found.score, embeddings=found.embedding), found.y

    @cached_property
    def _shown(self) -> tuple[Reals, Arrays]:
        """Labels and arrays of the reference as the site's scanner shows it."""
        pairs = [(y, frame(volume, self.bundle.framing)) for y, volume in show_again(self.inputs)]
        arrays = np.stack([array for _, array in pairs])[:, np.newaxis] if pairs else self.site.arrays[:0]
        return np.array([y for y, _ in pairs], dtype=np.float64), arrays

    def _expected(self, view: Callable[[Arrays], View]) -> Pairs | None:
        """Both networks on the shown reference, at its own prevalence; one scan per patient."""
        y, arrays = self._shown
        if not len(y) or not 0 < y.mean() < 1:
            return None
        own = float(y.mean())
        before, after = (self._probability(see(arrays).scores, own) for see in (self.running, view))
        return Pairs(patients=tuple(map(str, range(len(y)))), y=y, before=before, after=after)

    def _probability(self, scores: Reals, prevalence: float) -> Reals:
        return self.serving.calibration.moved_to(prevalence).probability(scores)

    def _labelled(self, scores: Reals) -> Pairs | None:
        """Both networks on the period's labelled patients of the evaluation part."""
        y = np.array([np.nan if scan.y is None else scan.y for scan in self.site.scans], dtype=np.float64)
        chosen = self._is_of("evaluation") & np.isfinite(y)
        if not chosen.any():
            return None
        calibration, weight = self.serving.calibration, _weights(self.inputs.scores)
        rows = np.flatnonzero(chosen)
        scans = [self.site.scans[row] for row in rows]
        return Pairs(
            patients=tuple(scan.patient_key for scan in scans),
            y=y[rows],
            before=calibration.probability(self.scene.before.scores[rows]),
            after=calibration.probability(scores[rows]),
            weight=np.array([weight.get(scan.series_key, 1.0) for scan in scans]),
        )

    def _is_of(self, part: Any) -> npt.NDArray[np.bool_]:
        keys = {scan.series_key for scan in in_part(self.case.workspace, self.site.scans, part)}
        return np.array([scan.series_key in keys for scan in self.site.scans], dtype=bool)

    def _scans(self, site: str, recipe: str, keys: Sequence[str]) -> list[Scan]:
        return find_scans(self.case.workspace, self.case.target, site, recipe, keys=keys)

    def _load(self, scans: Sequence[Scan]) -> Loaded:
        workspace = self.case.workspace
        return load_scans(workspace, scans, workspace.target(self.case.target), self.bundle.framing)


def _stage(case: Case) -> _Stage:
    workspace = case.workspace
    if workspace.target(case.target).task != "classification":
        raise BadRequest(f"{case.target} is a segmentation; only networks with one logit per scan are adapted")
    champion = registry.champion(workspace, case.target)
    if champion is None:
        raise BadRequest(f"{case.target} has no champion to adapt")
    finding = finding_of(case)
    about = (finding["stratum"], finding["period_start"])
    for inputs in read_inputs(workspace, case.site, case.target):
        is_same = (inputs.current.stratum, inputs.current.period_start) == about
        if is_same and inputs.serving is not None and inputs.reference is not None:
            return _Stage(case=case, inputs=inputs, serving=inputs.serving, reference=inputs.reference, parent=champion)
    raise BadRequest(f"{case.site}: the period of the finding is not the latest any more; the next run looks again")


def _viewer(bundle: Bundle) -> Callable[[Arrays], View]:
    def see(arrays: Arrays) -> View:
        scores, embeddings = scores_and_embeddings(bundle, arrays)
        return View(scores=scores, embeddings=embeddings)

    return see


def _weights(scores: ScoredScans | None) -> dict[str, float]:
    """What each labelled scan counts, by series."""
    if scores is None:
        return {}
    return dict(zip(scores.series_key.tolist(), scores.weight.tolist(), strict=True))
