"""A back-test: scans come to a workspace of its own again, night by night, and another policy lives through them.

Nothing is played: recipes are fitted, challengers trained and gated in the replay's workspace, which holds what was
there on each day and no more. It begins with the target's first champion. Every site has its own clock, because its
dates are moved by a secret number of weeks: night 0 is the source's last day in the champion's reference, and any other
site's first day.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.learn.registry import read_reference
from platform_core.manifest.serving import Serving, serving_history
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.costs import hours_of_training
from platform_core.policy.episodes import ACTS
from platform_core.policy.record import decisions
from platform_core.policy.table import read_policy
from platform_core.shift.resampled import mean_of, resampled
from platform_core.shift.risk import Estimate, Reals, log_losses
from platform_core.shift.scores import ScoredScans, score_rows
from platform_core.storage.objects import open_objects
from platform_core.trial.overlap import Overlaps, overlaps_of

Wholes = npt.NDArray[np.intp]
Names = npt.NDArray[np.str_]
Loss = Literal["log-loss", "1 - Dice"]
Days = npt.NDArray[np.datetime64]
BY_SERIES = (layout.SERIES, layout.STAGE, layout.VOLUME, layout.FEATURE, layout.PREDICTION)
"""Tables whose rows come with their series; labels come when they were given."""
WHOLE = (layout.PATIENT_MERGE,)
POLICY_FILE = "replayed_policy.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A handle on one back-test."""

    uri: str
    """The replay's own workspace."""
    original: str
    target: str
    sites: tuple[str, ...]
    """The source first."""
    first_model: str
    first_recipe: str
    """By which the source was seen then."""
    every_days: int
    n_nights: int
    began_at: datetime
    began_on: Mapping[str, date]
    """Per site, by its own clock: the day of night 0."""

    def moment(self, night: int) -> datetime:
        """When a night is, by the clock of the replay."""
        return self.began_at + timedelta(days=night * self.every_days)

    def run(self, night: int) -> str:
        """The run of a night."""
        return f"night-{night:04d}"

    def nights(self, site: str, days: Days) -> Wholes:
        """The first night on or after each day of a site, 0 for all that come before."""
        since = (days - np.datetime64(self.began_on[site], "D")).astype(np.intp)
        return np.maximum(0, -(-since // self.every_days)).astype(np.intp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """One decision of the replay, with the days that it took."""

    site: str
    night: int
    action: str
    strategy: str | None
    status: str
    kind: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarmed:
    """One alarm of a watch."""

    site: str
    night: int
    days_of_delay: int
    """From the day on which the change seems to have begun to the night that told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A site that came to a halt on one night; the others went on."""

    site: str
    night: int
    because: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Labelled evaluation scans, and what was lost on each by what was served when it came."""

    series: Names
    patient: Names
    loss: Reals
    """Nats per scan; of a segmentation 1 - Dice, [0, 1]."""
    weight: Reals
    """One over the chance with which a scan was chosen to be labelled."""

    @classmethod
    def of(cls, scans: ScoredScans, serving: Serving) -> "Judged":
        """Of scans and the serving that they met."""
        loss = log_losses(scans.y, serving.calibration.probability(scans.score))
        return cls(series=scans.series_key, patient=scans.patient_key, loss=loss, weight=scans.weight)

    @classmethod
    def of_overlaps(cls, found: Overlaps) -> "Judged":
        """Of masked scans as a serving segments them."""
        series, patient = np.array(found.series_key, dtype=np.str_), np.array(found.patients, dtype=np.str_)
        return cls(series=series, patient=patient, loss=1 - found.dice, weight=found.weight)

    @classmethod
    def joined(cls, parts: Sequence["Judged"]) -> "Judged":
        """Several as one."""
        series, patient, loss, weight = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("series", "patient", "loss", "weight")
        )
        return cls(series=series, patient=patient, loss=loss, weight=weight)

    def less(self, other: "Judged") -> "Judged":
        """The scans of both, with what was lost on them beyond what was lost in the other."""
        _, here, there = np.intersect1d(self.series, other.series, return_indices=True)
        excess = self.loss[here] - other.loss[there]
        return Judged(series=self.series[here], patient=self.patient[here], loss=excess, weight=self.weight[here])

    def mean(self) -> Estimate | None:
        """Of the loss; None without a scan."""
        if not len(self.loss):
            return None
        return resampled(mean_of(self.loss), self.patient.tolist(), weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRisk:
    """What was lost on the labelled evaluation patients of a site, by what it was served when they came."""

    n_patients: int
    loss: Estimate
    """In the unit of the ending: an estimate from those patients alone."""
    excess: Estimate | None
    """Beyond what the first policy of the back-test lost on the same scans; None for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a policy came to."""

    policy: str
    n_nights: int
    every_days: int
    n_patients: Mapping[str, int]
    """Per site, who came."""
    alarms: tuple[Alarmed, ...]
    decisions: tuple[Acted, ...]
    training_hours: float
    """Of races and trainings in the replay, on this machine."""
    risk: Mapping[str, ServedRisk]
    """Per site; those without a labelled evaluation patient are missing."""
    risk_of_all: ServedRisk | None
    """Over the patients of all sites."""
    stopped: tuple[Stopped, ...] = ()
    """In order of the night."""
    loss: Loss = "log-loss"
    """What risk is told in: nats per scan, or 1 - Dice in [0, 1]; lower is better."""

    @property
    def acts(self) -> tuple[Acted, ...]:
        """Decisions by which something was to be done."""
        return tuple(each for each in self.decisions if each.action != "none")

    def count(self, action: str, status: str = "done") -> int:
        """Decisions of one action that ended in one way."""
        return sum((each.action, each.status) == (action, status) for each in self.decisions)

    @property
    def days_to_alarm(self) -> float | None:
        """Median over alarms; None without one."""
        return float(np.median([alarm.days_of_delay for alarm in self.alarms])) if self.alarms else None

    @property
    def days_to_action(self) -> float | None:
        """Median of `waits`; None without one."""
        return float(np.median(self.waits)) if self.waits else None

    @property
    def waits(self) -> tuple[int, ...]:
        """For each alarm that was followed by an action at its site: days from the change to the first one."""
        acted = [(act.site, act.night) for act in self.decisions if act.status == "done" and act.action in ACTS]
        return tuple(
            alarm.days_of_delay + self.every_days * (min(later) - alarm.night)
            for alarm in self.alarms
            if (later := [night for site, night in acted if site == alarm.site and night >= alarm.night])
        )


def begin(
    workspace: Workspace,
    folder: Path,
    target: str,
    *,
    policy: Path | None,
    sites: Sequence[str] = (),
    every_days: int = 7,
) -> Replay:
    """Make the replay's workspace: settings, the first champion, and nothing that came later.

    Args:
        workspace: Whose manifest is replayed; it is only read.
        folder: New or empty; holds patients' scans under their keys as long as it is there.
        target: The task.
        policy: The table to try; None: the one in force.
        sites: Beside the source; all by default.
        every_days: Days between two nights.

    Raises:
        UnknownName: If there is no such target or site.
        BadRequest: If the target never had a champion, or the folder is in use.
        BadSetting: If the policy cannot be read.
    """
    source = workspace.target(target).source_site
    for name in sites:
        workspace.site(name)
    named = (source, *(name for name in sites or workspace.sites if name != source))
    first = _first_champion(workspace, target)
    if folder.exists() and any(folder.iterdir()):
        raise BadRequest(f"{folder} is not empty; a replay needs a folder of its own")
    replayed = _set_up(workspace, folder, policy)
    _bring_model(workspace, replayed, first)
    _bring_volumes(workspace, replayed, named, str(first["recipe"]))
    replay = Replay(
        uri=replayed.uri,
        original=workspace.uri,
        target=target,
        sites=named,
        first_model=f"{target}@{first['version']}",
        first_recipe=str(first["recipe"]),
        every_days=every_days,
        n_nights=0,
        began_at=first["since"],
        began_on=_first_days(workspace, named, str(first["bundle_uri"])),
    )
    nights = [int(_came(replay, name).night.max(initial=0)) for name in named]
    return replace(replay, n_nights=max(nights) + 1)


def arrive(replay: Replay, night: int) -> list[str]:
    """Let the rows of a night come; returns the sites that sent something, the source first."""
    return [name for name in replay.sites if _bring(replay, name, night)]


def judge(replay: Replay) -> dict[str, Judged]:
    """Per site, its labelled evaluation scans; sites without one are missing."""
    workspace = open_workspace(replay.uri)
    seen = {name: list(_judged(workspace, replay, name)) for name in replay.sites}
    return {name: Judged.joined(parts) for name, parts in seen.items() if parts}


def ending(
    replay: Replay,
    policy: str,
    judged: Mapping[str, Judged],
    *,
    stopped: Sequence[Stopped] = (),
    first: Mapping[str, Judged] | None = None,
) -> Ending:
    """What the replay came to, read from its tables.

    Args:
        replay: Lived through.
        policy: What it is called.
        judged: What `judge` found in it.
        stopped: What came to a halt.
        first: What `judge` found in the replay of the first policy, to set this one against.
    """
    workspace = open_workspace(replay.uri)
    return Ending(
        policy=policy,
        n_nights=replay.n_nights,
        every_days=replay.every_days,
        n_patients={name: len(set(_came(replay, name).patient)) for name in replay.sites},
        alarms=_alarms(workspace, replay),
        decisions=_decisions(workspace, replay),
        training_hours=_training_hours(workspace, replay),
        risk={name: _risk([one], [first[name]] if first and name in first else []) for name, one in judged.items()},
        risk_of_all=_risk([*judged.values()], [*(first or {}).values()]) if judged else None,
        stopped=tuple(stopped),
        loss="1 - Dice" if _is_segmentation(workspace, replay) else "log-loss",
    )


def acts_of(endings: Sequence[Ending]) -> list[tuple[str, str]]:
    """Every action and how it ended, of all policies."""
    return sorted({(act.action, act.status) for ending in endings for act in ending.acts})


def halts_of(ending: Ending) -> list[tuple[Stopped, Stopped]]:
    """The first and last night of every stretch of nights on which a site was stopped."""
    stretches: list[tuple[Stopped, Stopped]] = []
    for halt in sorted(ending.stopped, key=lambda each: (each.site, each.night)):
        begun, last = stretches[-1] if stretches else (halt, halt)
        if (last.site, last.night + 1) == (halt.site, halt.night):
            stretches[-1] = (begun, halt)
        else:
            stretches.append((halt, halt))
    return stretches


@dataclass(frozen=True, slots=True, eq=False)
class _Came:
    """The series of a site, and on which night of the replay each comes."""

    series: npt.NDArray[np.str_]
    patient: npt.NDArray[np.str_]
    night: Wholes


def _came(replay: Replay, site: str) -> _Came:
    lake = open_workspace(replay.original).lake
    rows = lake.read(layout.SERIES, pc.field("site") == site, ["series_key", "patient_key", "observed_on"])
    series, patient = (np.array(rows.column(name).to_pylist(), dtype=np.str_) for name in ("series_key", "patient_key"))
    return _Came(series, patient, replay.nights(site, rows.column("observed_on").to_numpy()))


def _bring(replay: Replay, site: str, night: int) -> bool:
    """Append what a site sends on a night; whether any of it is a scan or a label."""
    original, lake = open_workspace(replay.original).lake, open_workspace(replay.uri).lake
    came = _came(replay, site)
    keys = came.series[came.night == night]
    of_site = pc.field("site") == site
    for table in BY_SERIES if len(keys) else ():
        rows = original.read(table, of_site & pc.field("series_key").isin(pa.array(keys, pa.string())))
        lake.append(table, _known_at_first(replay, site, table, rows), transaction=f"{table}/{site}/{night}")
    labels = original.read(layout.LABEL, of_site)
    labels = labels.filter(pa.array(_night_of_labels(replay, site, came, labels) == night))
    n_labels = lake.append(layout.LABEL, labels, transaction=f"{layout.LABEL}/{site}/{night}")
    return len(keys) > 0 or n_labels > 0


def _night_of_labels(replay: Replay, site: str, came: _Came, labels: pa.Table) -> Wholes:
    """On which night each label comes: with its scan, or when it was given if that was later and is known."""
    of_series = dict(zip(came.series.tolist(), came.night.tolist(), strict=True))
    scan = np.array([of_series.get(key, -1) for key in labels.column("series_key").to_pylist()], dtype=np.intp)
    given = [day or replay.began_on[site] for day in labels.column("labelled_on").to_pylist()]
    night = np.maximum(scan, replay.nights(site, np.array(given, dtype="datetime64[D]")))
    return np.where(scan < 0, -1, night).astype(np.intp)


def _known_at_first(replay: Replay, site: str, table: str, rows: pa.Table) -> pa.Table:
    """Without what recipes and models made of the scans, but for the source's under the first champion."""
    is_source = site == replay.sites[0]
    recipes = [layout.NATIVE, "", *([replay.first_recipe] if is_source else [])]
    models = ["", *([replay.first_model] if is_source else [])]
    for column, known in (("recipe", recipes), ("model", models)):
        if column in rows.column_names and table != layout.SERIES:
            mine = pc.is_in(rows.column(column), pa.array(known))
            rows = rows.filter(pc.or_kleene(mine, pc.is_null(rows.column(column))))
    return rows.filter(pc.not_equal(rows.column("stage"), "sketch")) if table == layout.STAGE else rows


def _first_champion(workspace: Workspace, target: str) -> dict[str, Any]:
    """The row of `out__model` by which the target's first champion came."""
    where = (pc.field("model") == target) & (pc.field("alias") == "champion")
    rows = sorted(workspace.lake.read(layout.MODEL, where).to_pylist(), key=lambda row: row["epoch"])
    if not rows:
        raise BadRequest(f"{target} never had a champion, so there is nothing to replay; train one: `sitedrift train`")
    return dict(rows[0])


def _set_up(workspace: Workspace, folder: Path, policy: Path | None) -> Workspace:
    """Settings and sites, as they are now, but for the policy; nothing of a replay is logged anywhere."""
    objects = open_objects(str(folder))
    settings = re.sub(r"(?m)^mlflow_uri\s*=.*$", "", workspace.objects.get(layout.SETTINGS).decode())
    name = workspace.settings.policy.file
    if policy is not None:
        read_policy(policy)
        objects.put(name or POLICY_FILE, policy.read_bytes())
        settings = settings if name else _with_policy(settings)
    elif name is not None:
        objects.put(name, workspace.objects.get(name))
    objects.put(layout.SETTINGS, settings.encode())
    for path in workspace.objects.list(layout.SITES):
        objects.put(path, workspace.objects.get(path))
    return open_workspace(str(folder))


def _with_policy(settings: str) -> str:
    """The text of a `sitedrift.toml` that names no policy, with `policy.file` set."""
    line = f'file = "{POLICY_FILE}"'
    if re.search(r"(?m)^\[policy\]", settings):
        return re.sub(r"(?m)^\[policy\].*$", f"[policy]\n{line}", settings, count=1)
    return f"policy.{line}\n{settings}"


def _bring_model(workspace: Workspace, replayed: Workspace, first: Mapping[str, Any]) -> None:
    """The first champion: its files, its row, and the recipe that it sees the source by."""
    for path in workspace.objects.list(str(first["bundle_uri"])):
        replayed.objects.put(path, workspace.objects.get(path))
    mine = (pc.field("model") == first["model"]) & (pc.field("version") == first["version"])
    rows = workspace.lake.read(layout.MODEL, mine & (pc.field("epoch") == first["epoch"]))
    replayed.lake.append(layout.MODEL, rows, transaction=f"model/{first['model']}/0")
    recipe = workspace.lake.read(layout.RECIPE, pc.field("recipe") == first["recipe"])
    replayed.lake.append(layout.RECIPE, recipe, transaction=f"recipe/{first['recipe']}")
    for table in WHOLE:
        replayed.lake.append(table, workspace.lake.read(table), transaction=table)


def _bring_volumes(workspace: Workspace, replayed: Workspace, sites: Sequence[str], recipe: str) -> None:
    """Volumes as they came, masks, and the source's by the first champion's recipe; linked where both are folders."""
    for site in sites:
        for kind in (layout.NATIVE, layout.MASKS, *([recipe] if site == sites[0] else [])):
            folder = f"{layout.VOLUMES}/{site}/{kind}"
            if layout.is_remote(workspace.uri):
                for path in workspace.objects.list(folder):
                    replayed.objects.put(path, workspace.objects.get(path), durable=False)
            elif (Path(workspace.uri) / folder).exists():
                place = Path(replayed.uri) / folder
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(workspace.uri) / folder, target_is_directory=True)


def _first_days(workspace: Workspace, sites: Sequence[str], bundle_uri: str) -> dict[str, date]:
    """The source's last day in the champion's reference, its first if it is not in it; of other sites their first."""
    learned = {(row["site"], row["series_key"]) for row in read_reference(workspace, bundle_uri).to_pylist()}
    found = {}
    for site in sites:
        rows = workspace.lake.read(layout.SERIES, pc.field("site") == site, ["series_key", "observed_on"]).to_pylist()
        first = min((row["observed_on"] for row in rows), default=date.min)
        known = [row["observed_on"] for row in rows if (site, row["series_key"]) in learned and site == sites[0]]
        found[site] = max(known, default=first)
    return found


def _judged(workspace: Workspace, replay: Replay, site: str) -> Iterator[Judged]:
    """Labelled evaluation scans, by the serving that was in force when they came."""
    came = _came(replay, site)
    for serving, first, last in _history(workspace, replay, site):
        keys = came.series[(came.night >= first) & (came.night <= last)].tolist()
        if _is_segmentation(workspace, replay):
            found = Judged.of_overlaps(overlaps_of(workspace, serving, keys=keys))
        else:
            args = (workspace, site, replay.target, serving.model, serving.recipe)
            scans = score_rows(*args, keys=keys, part="evaluation")
            found = Judged.of(scans.where(scans.is_labelled), serving)
        if len(found.loss):
            yield found


def _is_segmentation(workspace: Workspace, replay: Replay) -> bool:
    return workspace.target(replay.target).task == "segmentation"


def _history(workspace: Workspace, replay: Replay, site: str) -> list[tuple[Serving, int, int]]:
    """Every serving, with the first and last night whose scans it met: a change of a night is for the next one's.

    The first scans of a site meet its first serving; the source's first night, which the model has learned from,
    counts for nobody.
    """
    where = (pc.field("site") == site) & (pc.field("target") == replay.target)
    since = {row["epoch"]: row["since"] for row in workspace.lake.read(layout.SERVING, where).to_pylist()}
    history = serving_history(workspace, site, replay.target)
    begins = [(since[serving.epoch] - replay.began_at).days // replay.every_days + 1 for serving in history]
    begins[:1] = [1 if site == replay.sites[0] else 0] * len(begins[:1])
    ends = [*(begin - 1 for begin in begins[1:]), replay.n_nights][: len(begins)]
    return [(s, first, last) for s, first, last in zip(history, begins, ends, strict=True) if first <= last]


def _risk(judged: Sequence[Judged], first: Sequence[Judged]) -> ServedRisk:
    ours = Judged.joined(judged)
    loss = ours.mean()
    assert loss is not None, "a site without a scan is not judged"
    excess = ours.less(Judged.joined(first)).mean() if first else None
    return ServedRisk(n_patients=len(set(ours.patient.tolist())), loss=loss, excess=excess)


def _alarms(workspace: Workspace, replay: Replay) -> tuple[Alarmed, ...]:
    """Alarms of all sites, in order of the night."""
    found = []
    for row in workspace.lake.read(layout.ALARM).to_pylist():
        night = (row["raised_at"] - replay.began_at).days // replay.every_days
        told_on = replay.began_on[row["site"]] + timedelta(days=night * replay.every_days)
        delay = (told_on - row["changed_on"]).days
        found.append(Alarmed(site=row["site"], night=night, days_of_delay=max(0, delay)))
    return tuple(sorted(found, key=lambda alarm: (alarm.night, alarm.site)))


def _decisions(workspace: Workspace, replay: Replay) -> tuple[Acted, ...]:
    kinds = {row["finding_key"]: row["kind"] for row in workspace.lake.read(layout.FINDING).to_pylist()}
    return tuple(
        Acted(
            site=row["site"],
            night=(row["decided_at"] - replay.began_at).days // replay.every_days,
            action=row["action"],
            strategy=row["strategy"],
            status=row["status"],
            kind=kinds.get(row["finding_key"], "unknown"),
            because=row["because"],
        )
        for row in decisions(workspace).to_pylist()
    )


def _training_hours(workspace: Workspace, replay: Replay) -> float:
    return hours_of_training(workspace, since=replay.began_at, until=replay.moment(replay.n_nights))
