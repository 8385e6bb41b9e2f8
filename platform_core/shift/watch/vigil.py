"""The nightly watch over a site: rank what is new against its accepted state, and keep what the bets have won.

A watch adds nothing to what a finding says of a period; it says at once, and with a promise that holds however often
it is asked, that something has changed. It alarms, it does not name the kind.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.settings import ShiftSettings
from platform_core.shift.samples import Sample, accepted_sample, period_samples
from platform_core.shift.watch.alarms import WatchVerdict, catch_up, judge, open_watch
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.power import Promise, false_alarms_per_year, smallest_shift
from platform_core.shift.watch.ranks import feature_days, open_reference, rank_new
from platform_core.shift.watch.streams import Watch, from_json, to_json

HERE = "watches"
N_REVEALING = 100
"""Patient-days after a change for which the smallest shift that they reveal is stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A watch as it was kept, and what it says."""

    watch: Watch
    n_reference: int
    """Patients of the accepted state."""

    @property
    def verdict(self) -> WatchVerdict:
        """What it says now."""
        return judge(self.watch)

    @property
    def n_seen(self) -> int:
        """Patient-days, or days, that the longest stream has taken in."""
        return max((stream.n_seen for stream in self.watch.streams), default=0)

    @property
    def sentence(self) -> str:
        """For the person on call: the verdict, and what a change would have to be to show."""
        if self.verdict.is_alarm:
            return self.verdict.sentence
        least = smallest_shift(
            N_REVEALING,
            Promise(
                alpha=self.watch.alpha,
                n_features=len(self.watch.streams),
                n_reference=self.n_reference,
                n_before=self.n_seen,
                n_opened=self.watch.n_opened,
            ),
        )
        shown = "no shift up to 3 SD" if least is None else f"a shift of {least:.2f} SD"
        return f"{self.verdict.sentence}; {N_REVEALING} patient-days would reveal {shown} of a feature"


def keep_watch(workspace: Workspace, site: str, target: str | None, *, run: str) -> list[Kept]:
    """Take in what came since the last time, stratum by stratum; opens a watch where an accepted state has none.

    A stratum is watched from its first sound period on, against that period; after an accepted action against the
    period that was adapted to, with what is left of alpha.

    Args:
        workspace: Where features lie, and where ranks and watches are kept.
        site: The site.
        target: Whose accepted periods count; None before there is a target.
        run: The run.
    """
    modality = None if target is None else workspace.target(target).modality
    settings = workspace.settings.shift
    kept = []
    for periods in period_samples(workspace, site, modality).values():
        accepted = accepted_sample(workspace, target, periods)
        if accepted.n < settings.min_scans:
            continue
        before = _watch_of(workspace, accepted, settings, run)
        if before is not None:
            kept.append(_taken_in(workspace, before, accepted, periods, run))
    return kept


def kept_watches(workspace: Workspace, site: str) -> list[Kept]:
    """The latest watch of every stratum of a site, as it was left by the last run, in the order of strata."""
    found = [_read(workspace, path) for path in workspace.objects.list(f"{HERE}/{site}")]
    latest = {kept.watch.scope.stratum: kept for kept in sorted(found, key=lambda kept: kept.watch.n_opened)}
    return [kept for _, kept in sorted(latest.items())]


def promise_of(settings: ShiftSettings, n_sites: int) -> str:
    """What the alarms of a fleet promise, in a sentence."""
    per_year = false_alarms_per_year(settings.alpha, n_sites)
    return (
        f"at most {settings.alpha:.0%} of sites ever raise a false alarm: of {n_sites}, {per_year:.2g} a year at most"
    )


def _watch_of(workspace: Workspace, accepted: Sample, settings: ShiftSettings, run: str) -> Kept | None:
    """The watch against an accepted state, opened if need be; None if too few of its features are known."""
    scope = Scope(site=accepted.site, stratum=accepted.stratum, reference=f"{accepted.site}@{accepted.period_start}")
    path = _path(scope)
    if workspace.objects.exists(path):
        return _read(workspace, path)
    values = _days(workspace, accepted, accepted.keys)
    n_written = open_reference(workspace, scope, values, run=run)
    if not n_written and not workspace.lake.read(layout.RANK, scope.rows, ["sequence"]).num_rows:
        return None
    n_opened = len(workspace.objects.list(f"{HERE}/{scope.site}"))
    watch = open_watch(workspace, scope, alpha=settings.alpha, n_opened=n_opened)
    return Kept(watch=watch, n_reference=accepted.n)


def _taken_in(workspace: Workspace, kept: Kept, accepted: Sample, periods: Sequence[Sample], run: str) -> Kept:
    scope = kept.watch.scope
    known = set(workspace.lake.read(layout.RANK, scope.rows, ["series_key"]).column("series_key").to_pylist())
    later = [sample for sample in periods if sample.period_start > accepted.period_start]
    due = [key for sample in later for key in sample.keys if key not in known]
    if due and not kept.watch.is_closed:
        rank_new(workspace, scope, _days(workspace, accepted, due), run=run)
    now = replace(kept, watch=catch_up(workspace, kept.watch))
    facts = {"n_reference": now.n_reference, "watch": json.loads(to_json(now.watch))}
    workspace.objects.put(_path(scope), json.dumps(facts, sort_keys=True).encode())
    return now


def _read(workspace: Workspace, path: str) -> Kept:
    facts = json.loads(workspace.objects.get(path))
    return Kept(watch=from_json(json.dumps(facts["watch"])), n_reference=facts["n_reference"])


def _days(workspace: Workspace, accepted: Sample, keys: Sequence[str]) -> pa.Table:
    return feature_days(workspace, accepted.site, accepted.stratum, keys, layout.NATIVE)


def _path(scope: Scope) -> str:
    return f"{HERE}/{scope.site}/{digest(asdict(scope))}.json"
