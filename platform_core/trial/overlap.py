"""Segmentations side by side: how well two servings mark what readers drew, and what that says at the gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from platform_core.learn import registry
from platform_core.learn.bundle import read_bundle
from platform_core.learn.data import Scan, find_scans
from platform_core.learn.masks import load_labelled
from platform_core.learn.segment import overlap
from platform_core.manifest.labels import labels_in_force
from platform_core.manifest.serving import Serving
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.settings import PolicySettings, SplitSettings
from platform_core.shift.paired_mean import chance_of_no_gain
from platform_core.shift.resampled import mean_of, resampled
from platform_core.shift.risk import Estimate, Reals
from platform_core.trial.paired import Unseen
from platform_core.trial.weigh import (
    GateVerdict,
    Outcome,
    Seeds,
    SiteVerdict,
    gate_verdict,
    may_lose_no_more_than,
    share_of_alpha,
)


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Dice of one serving on masked scans, one row per scan."""

    series_key: tuple[str, ...]
    patients: tuple[str, ...]
    y: Reals
    """1 where a reader has drawn something."""
    dice: Reals
    """[0, 1]; higher is better."""
    weight: Reals
    """1 over the chance with which a scan's mask was asked for; 1 where nobody recorded one."""


@dataclass(frozen=True, slots=True, eq=False)
class OverlapPairs:
    """Dice before and after on the same scans, one row per scan."""

    patients: tuple[str, ...]
    y: Reals
    before: Reals
    after: Reals
    weight: Reals

    @property
    def n_patients(self) -> int:
        """Patients, not scans."""
        return len(set(self.patients))

    @property
    def n_with_marks(self) -> int:
        """Patients on whom a reader has drawn something."""
        return len({patient for patient, y in zip(self.patients, self.y, strict=True) if y == 1})

    def gain(self) -> Estimate:
        """Dice after less before, weighted mean over scans, with its patient-bootstrap interval; above 0 is better.

        Raises:
            EmptySample: If there is no pair.
        """
        return resampled(mean_of(self.after - self.before), self.patients, weight=self.weight)

    def chance_of_no_gain(self) -> float:
        """One-sided p value of "Dice does not rise".

        Raises:
            EmptySample: If there are fewer than two patients.
        """
        return chance_of_no_gain(self.after - self.before, self.patients, self.weight)


def overlaps_of(
    workspace: Workspace, serving: Serving, *, keys: Sequence[str] | None = None, unseen: Unseen | None = None
) -> Overlaps:
    """Segment the masked scans of a site's evaluation patients as a serving would; nothing is stored.

    What was predicted before holds no marks, and masks come after it; so the network looks again.

    Args:
        workspace: Where volumes, masks and models lie.
        serving: Model, recipe and threshold; need not be in force.
        keys: Only these series; None for all.
        unseen: Only known patients who may be evidence, under one key per person; None: all evaluation patients.
    """
    settings = workspace.target(serving.target)
    bundle = read_bundle(workspace, registry.find(workspace, serving.model).bundle_uri)
    found = find_scans(workspace, serving.target, serving.site, serving.recipe, keys=keys)
    drawn_on = [scan for scan in found if scan.mask_uri is not None and scan.y is not None]
    scans = _evidence(drawn_on, workspace.settings.split, unseen)
    loaded = load_labelled(workspace, scans, settings, bundle.framing)
    return Overlaps(
        series_key=tuple(scan.series_key for scan in loaded.scans),
        patients=tuple(scan.patient_key for scan in loaded.scans),
        y=np.array([scan.y for scan in loaded.scans], dtype=np.float64),
        dice=overlap(bundle.network, loaded, threshold=serving.calibration.threshold),
        weight=_weights(workspace, serving, loaded.scans),
    )


def _weights(workspace: Workspace, serving: Serving, scans: Sequence[Scan]) -> Reals:
    """(n,), 1 over the chance with which each scan's mask was asked for."""
    rows = labels_in_force(workspace, serving.target).to_pylist()
    chance = {row["series_key"]: row["sampling_probability"] for row in rows if row["site"] == serving.site}
    return np.array([1 / (chance.get(scan.series_key) or 1.0) for scan in scans], dtype=np.float64)


def pair_masks(
    workspace: Workspace,
    before: Serving,
    after: Serving,
    *,
    keys: Sequence[str] | None = None,
    unseen: Unseen | None = None,
) -> OverlapPairs:
    """Masked scans of evaluation patients as both servings of one site see them.

    Args:
        workspace: Where volumes, masks and models lie.
        before: One serving.
        after: The other, of the same site and target.
        keys: Only these series; None for all.
        unseen: As `overlaps_of`.
    """
    first, second = (overlaps_of(workspace, serving, keys=keys, unseen=unseen) for serving in (before, after))
    place = {key: number for number, key in enumerate(second.series_key)}
    rows = [(number, place[key]) for number, key in enumerate(first.series_key) if key in place]
    mine, theirs = [a for a, _ in rows], [b for _, b in rows]
    return OverlapPairs(
        patients=tuple(first.patients[number] for number in mine),
        y=first.y[mine],
        before=first.dice[mine],
        after=second.dice[theirs],
        weight=first.weight[mine],
    )


def _evidence(scans: Sequence[Scan], split: SplitSettings, unseen: Unseen | None) -> list[Scan]:
    if unseen is None:
        return [scan for scan in scans if part_of(scan.patient_key, split) == "evaluation"]
    named = ((scan, unseen.name_of(scan.patient_key)) for scan in scans if scan.patient_known)
    return [replace(scan, patient_key=name) for scan, name in named if name is not None]


def judge_overlaps(
    pairs_by_site: Mapping[str, OverlapPairs],
    asking_site: str,
    rules: PolicySettings,
    n_challenges: int = 0,
    *,
    target: str = "",
    seeds: Seeds | None = None,
    champion: str = "the champion",
    challenger: str = "the challenger",
) -> GateVerdict:
    """Judge a challenger by Dice on held-out scans of every site that is served.

    It passes if the asking site gains beyond chance at its share of alpha, and no other site may lose more Dice than
    the margin allows (the source is one of them, so nothing is forgotten), and the seed did not make the gain. A site
    that cannot tell stops it.

    Args:
        pairs_by_site: `before` by what each site runs now, `after` by what it would run.
        asking_site: The site that wants the challenger.
        rules: Margins.
        n_challenges: Challengers of the target that were judged before this one.
        target: For the verdict only, as the two names.
        seeds: From the race; None: not measured, and not asked for.
        champion: Name.
        challenger: Name.
    """
    number = n_challenges + 1
    alpha = share_of_alpha(rules.promotion_alpha, number)
    verdicts = tuple(
        judge_overlap_site(site, pairs, rules, alpha=alpha if site == asking_site else None)
        for site, pairs in pairs_by_site.items()
    )
    return gate_verdict(
        verdicts,
        asking_site,
        number=number,
        alpha=alpha,
        seeds=seeds,
        target=target,
        champion=champion,
        challenger=challenger,
    )


def judge_overlap_site(
    site: str, pairs: OverlapPairs, rules: PolicySettings, *, alpha: float | None = None
) -> SiteVerdict:
    """What one site says; `alpha` is the level at which it must gain, None if it need not."""
    n_marked = int(pairs.y.sum())
    if pairs.n_with_marks < rules.min_class_patients:
        because = (
            f"masks of {pairs.n_with_marks} patients that no model has seen mark something; "
            f"it takes {rules.min_class_patients}"
        )
        return SiteVerdict(
            site=site, outcome="not_evaluable", because=because, n_patients=pairs.n_patients, n_positive=n_marked
        )
    gain, chance = pairs.gain(), pairs.chance_of_no_gain()
    outcome: Outcome
    told = f"Dice changes by {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    if alpha is not None and not (chance <= alpha and gain.value > 0):
        outcome, because = "fails", f"{told}, which is no gain beyond chance (p {chance:.2g}, and it takes {alpha:.2g})"
    elif alpha is not None:
        outcome, because = "gains", f"{told}, a gain beyond chance (p {chance:.2g}, and it takes {alpha:.2g})"
    elif not may_lose_no_more_than(rules.dice_margin, gain):
        outcome, because = "fails", f"{told}, which may be a loss of more than {rules.dice_margin:g}"
    else:
        outcome, because = "gains" if gain.low > 0 else "holds", f"{told}, no loss over {rules.dice_margin:g}"
    return SiteVerdict(
        site=site,
        outcome=outcome,
        because=because,
        n_patients=pairs.n_patients,
        n_positive=n_marked,
        dice_gain=gain,
        chance=chance,
    )
