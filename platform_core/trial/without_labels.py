"""May a site run a network that was adapted to its scans without labels? Pure: scores and embeddings in, verdict out.

No label says that an adaptation helps, so four things must speak for it at once: the site's scores can be explained by
the classes of the reference; the reference, shown through the site's scanner, costs no more; the site's embeddings come
nearer to the reference's; and something that no adaptation touches says that the share of positives has not moved.
Labels of the period, where there are any, must not speak against it.

An adapted network is for the site's scans. The reference is always seen through the network that was trained on it:
through another scanner's statistics its scans would look as odd as the site's did.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.errors import EmptySample
from platform_core.policy.situation import difference
from platform_core.shift.labels.prevalence import P_FIT, PrevalenceEstimate, estimate_prevalence
from platform_core.shift.mmd import mmd_test
from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.paired import Pairs
from platform_core.trial.steps import spelt

P_MOVED = 0.05
"""A prevalence less likely than this to be the assumed one has moved: `p_label` of the decision table."""
FITS_WELL = 0.10
"""From here on a fall of `p_fit` is what chance does to scores that fit. Proposed."""
FARTHEST = 0.15
"""A prevalence whose interval reaches farther than this from the assumed one is not told. Measured on images of 16 x 16
with 200 scans of a site: mixed BatchNorm statistics cost 0.02 nats per scan where the share of positives was 0.35
instead of 0.5, and 0.15 to 0.35 where it was 0.25 behind a blur; in seven runs of eight neither fit nor divergence
nor the adapted network's own scores showed that."""
MIN_PATIENTS = 20
"""Held-out patients of the site, and labelled ones, below which a comparison says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What one network says of some patients, one row each."""

    scores: Reals
    """(n,), logits of the positive class before calibration."""
    embeddings: Reals
    """(n, dimensions)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The site's share of positives, as something says that no adaptation touches."""

    by: str
    """What says so, for the sentence."""
    share: Estimate
    p_changed: float
    """Chance of that if the assumed share holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """What every adaptation of one network to one site and period is held against."""

    reference: View
    """Held-out patients of the reference by the network that was trained on it."""
    reference_y: Reals
    """1 positive, 0 negative, NaN unknown."""
    before: View
    """The site's patients by the network that it runs."""
    is_held_out: npt.NDArray[np.bool_]
    """Of the site's patients, those whose scans move nothing."""
    assumed: float
    """Share of positives that the site's calibration assumes."""
    material_prevalence: float
    """Change of it that matters."""
    told: tuple[Told, ...] = ()
    """From labels, or from the reference through the site's scanner; without either nothing passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one adaptation passes, with the numbers that it was judged by."""

    adaptation: str
    passed: bool
    because: str
    fit_before: float | None = None
    """Chance of scores this unlike any mixture of the reference's classes, by the network that the site runs."""
    fit_after: float | None = None
    prevalence: Estimate | None = None
    """Of the site, as the adapted network's scores have it; nothing is judged by it."""
    nearer: Estimate | None = None
    """Fall of the squared maximum mean discrepancy to the reference's embeddings, on held-out patients."""
    expected_gain: Estimate | None = None
    """Log-loss saved on the labelled reference as the site's scanner shows it, nats per scan; None if nobody has."""
    gain: Estimate | None = None
    """Log-loss saved on labelled held-out patients of the period, nats per scan; None without enough."""

    @property
    def is_confirmed(self) -> bool:
        """Labels of the site confirm it beyond chance."""
        return self.gain is not None and self.gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """What was tried, and what passed."""

    model: str
    """model@version of the adaptation that passed, registered and not served yet."""
    tried: tuple[Verdict, ...]

    @property
    def strategy(self) -> str:
        """Name of the one that passed."""
        return self.tried[-1].adaptation


def refused(adaptation: str, because: str) -> Verdict:
    """An adaptation that could not be made."""
    return Verdict(adaptation=adaptation, passed=False, because=because)


def weigh(
    scene: Scene, adaptation: str, after: View, *, expected: Pairs | None = None, labelled: Pairs | None = None
) -> Verdict:
    """Judge one adapted network.

    Args:
        scene: What it is held against.
        adaptation: Its name.
        after: The site's patients by the adapted network, in the order of `scene.before`.
        expected: The labelled reference as the site's scanner shows it, by both networks; None if nobody has shown it.
        labelled: Labelled held-out patients of the period, by both; None without any.
    """
    fit_before, fit_after = (_prevalence(scene, view.scores) for view in (scene.before, after))
    measured = Verdict(
        adaptation=adaptation,
        passed=False,
        because="",
        fit_before=None if fit_before is None else fit_before.p_fit,
        fit_after=None if fit_after is None else fit_after.p_fit,
        prevalence=None if fit_after is None else Estimate.of(fit_after),
        nearer=_nearer(scene, after),
        expected_gain=_gain(expected),
        gain=_gain(labelled),
    )
    failed = [*_misfits(measured), *_losses(measured), *_moves(scene)]
    because = "; ".join(failed) or _in_favour(measured, scene.told)
    return replace(measured, passed=not failed, because=because)


def tells(by: str, found: PrevalenceEstimate) -> Told:
    """An estimate from scores that fit."""
    return Told(by=by, share=Estimate.of(found), p_changed=found.p_changed)


def _prevalence(scene: Scene, scores: Reals) -> PrevalenceEstimate | None:
    known = np.isfinite(scene.reference_y)
    reference, y = scene.reference.scores[known], scene.reference_y[known]
    try:
        return estimate_prevalence(scores, reference, y, assumed=scene.assumed)
    except EmptySample:
        return None


def _nearer(scene: Scene, after: View) -> Estimate | None:
    """Where only the head has changed, embeddings are the same, and scores are what can have come nearer."""
    held = scene.is_held_out
    if min(int(held.sum()), len(scene.reference.embeddings)) < MIN_PATIENTS:
        return None
    is_same = np.array_equal(scene.before.embeddings, after.embeddings)
    seen = [view.scores[:, None] if is_same else view.embeddings for view in (scene.reference, scene.before, after)]
    was, now = (mmd_test(seen[0], rows[held]) for rows in seen[1:])
    return difference(Estimate.of(was), Estimate.of(now))


def _gain(pairs: Pairs | None) -> Estimate | None:
    return None if pairs is None or pairs.n_patients < MIN_PATIENTS else pairs.gain()


def _misfits(found: Verdict) -> Iterator[str]:
    if found.fit_after is None:
        yield "the reference has too few labelled patients to say whether the site's scores fit"
    elif found.fit_after <= P_FIT:
        yield f"no mixture of the reference's classes fits the site's scores (p {found.fit_after:.3f})"
    elif found.fit_before is not None and found.fit_after < min(found.fit_before, FITS_WELL):
        yield f"the site's scores fit less well than before (p {found.fit_before:.3f}, now {found.fit_after:.3f})"
    if found.nearer is None:
        yield f"fewer than {MIN_PATIENTS} patients are left to see whether embeddings come nearer"
    elif found.nearer.low <= 0:
        yield f"embeddings do not come nearer to the reference beyond chance (by {spelt(found.nearer)})"


def _losses(found: Verdict) -> Iterator[str]:
    if found.expected_gain is not None and found.expected_gain.high < 0:
        yield f"the reference through the site's scanner costs more: {spelt(found.expected_gain)} nats per scan saved"
    if found.gain is not None and found.gain.high < 0:
        yield f"labels of the period say that it does harm: {spelt(found.gain)} nats per scan saved"


def _moves(scene: Scene) -> Iterator[str]:
    """Whether the prevalence moved. What the adapted scores say of it counts neither way: they were made to fit."""
    for each in scene.told:
        if each.p_changed < P_MOVED and abs(each.share.value - scene.assumed) >= scene.material_prevalence:
            yield (
                f"{each.by} say that the share of positives moved from {scene.assumed:.2f} to {spelt(each.share)}, and "
                "an adaptation would take other patients for another scanner"
            )
            return
    near = [each for each in scene.told if _reach(each.share, scene.assumed) <= FARTHEST]
    if not near:
        yield (
            "nothing tells whether the share of positives has moved (to within "
            f"{FARTHEST:g} of {scene.assumed:.2f}): it takes labels of patients drawn at random, or more scans"
        )


def _reach(share: Estimate, assumed: float) -> float:
    return max(abs(share.low - assumed), abs(share.high - assumed))


def _in_favour(found: Verdict, told: tuple[Told, ...]) -> str:
    assert found.nearer is not None
    parts = [
        f"the site's scores fit the reference's classes (p {found.fit_after:.2f})",
        f"embeddings come nearer by {spelt(found.nearer)}",
        f"the share of positives is {spelt(told[0].share)} by {told[0].by}",
    ]
    if found.expected_gain is not None:
        parts.append(f"the reference through the site's scanner saves {spelt(found.expected_gain)} nats per scan")
    if found.gain is not None:
        parts.append(f"labels save {spelt(found.gain)} nats per scan")
    return "; ".join(parts)
