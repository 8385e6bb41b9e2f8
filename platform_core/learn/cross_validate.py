"""A race: which strategy is worth its cost at one site, by cross-validated log-loss on patients that it was not shown.

Candidates start from the same network and are trained on the same folds, the cheapest first. The first is `none`:
no gradient, the calibration alone is fitted again. Nothing here knows of a workspace.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from platform_core.errors import BadRequest, EmptySample
from platform_core.learn.calibrate import fit_platt, log_odds, smoothed_share
from platform_core.learn.contract import Strategy, Tell, untold
from platform_core.learn.cost import is_head_alone, n_passes_to_embed, n_passes_to_train
from platform_core.learn.data import Loaded, Scan
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.networks import Classifier
from platform_core.learn.resume import Bookmarks
from platform_core.learn.segment import overlap
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.together import from_first, is_first
from platform_core.learn.trained import Reals, Rows, joined, labels_of, some, train_copy
from platform_core.provenance import number_of
from platform_core.settings import TrainSettings
from platform_core.shift.risk import Estimate, log_losses, patient_bootstrap

Wholes = npt.NDArray[np.intp]
Outcome = Literal["won", "lost", "not_run"]

NONE = "none"
"""The candidate that moves no weight."""
MOST_FAILURES = 2
"""Dearer candidates in a row that are no better, after which the rest are not run.

One says too little: the cheapest gradient, a linear probe, often fails where one that moves features succeeds (regret
0.052 against 0.017 to 0.020 at 20 labels, measured on simulated scanners). After two, further depth seldom helps: the
candidates differ less from one another than from `none`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One strategy under one seed over all folds, before anything is compared; JSON-able."""

    strategy: str
    logits: tuple[float, ...] = ()
    """Of every scan of the site, by the network that was not shown its patient; empty if the training failed. Of a
    segmentation: Dice in place of logits."""
    curve: tuple[float, ...] = ()
    """Mean training loss of each epoch, over the folds that came so far, nats."""
    seconds: float
    n_scan_passes: float
    failed: str | None = None
    """Why it could not be trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one candidate."""

    strategy: str
    step: int
    """0 is `none`."""
    outcome: Outcome
    because: str
    log_loss: Estimate | None = None
    """Nats per scan at the site's own prevalence; of a segmentation 1 - Dice; lower is better."""
    gain: Estimate | None = None
    """Log-loss of `none` less that of this one, on the same patients; above 0 is better."""
    seed_gain: float | None = None
    """Of the winner: mean of that gain over the seeds."""
    seed_sd: float | None = None
    """Of the winner: its standard deviation over the seeds."""
    n_seeds: int = 0
    seconds: float = 0.0
    n_scan_passes: float = 0.0
    """Forward and backward passes of one scan through the whole network (`cost.py`), all folds and seeds."""
    curve: tuple[float, ...] = ()
    """Mean training loss of each epoch, over the folds, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Who won, and what every candidate did."""

    winner: str
    """A strategy, or `none`."""
    because: str
    """One sentence."""
    entries: tuple[Entry, ...]
    n_patients: int
    n_scans: int
    n_folds: int
    logits: tuple[float, ...] = field(repr=False)
    """Of the winner: raw, one per scan of the site, by the network that was not shown its patient."""

    @property
    def won(self) -> Entry:
        """The winner's entry."""
        return next(entry for entry in self.entries if entry.outcome == "won")

    def to_json(self) -> dict[str, Any]:
        """JSON-able, as decisions record it; logits stay out."""
        return {name: value for name, value in asdict(self).items() if name != "logits"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Field:
    """What all candidates share."""

    start: Classifier
    blank: Classifier | None
    site: Loaded
    replay: Loaded
    fold: Wholes
    n_folds: int
    settings: TrainSettings
    threshold: float
    bookmarks: Bookmarks | None
    logits: Reals
    """Of the start, for the site's scans."""
    embedded: torch.Tensor | None
    """(n, channels) of the start, the site's scans first, then the replayed ones; None of a segmentation, whose maps
    would fill the memory."""

    @property
    def patients(self) -> list[str]:
        return [scan.patient_key for scan in self.site.scans]

    @property
    def loss_word(self) -> str:
        return "log-loss" if self.site.masks is None else "1 - Dice"

    def start_of(self, strategy: Strategy) -> Classifier:
        if strategy.starts_from == "champion":
            return self.start
        if self.blank is None:
            raise BadRequest(f"{strategy.name} starts from nothing; this race was given no new network")
        return self.blank


def race(
    start: Classifier,
    site: Loaded,
    replay: Loaded,
    candidates: Sequence[str],
    settings: TrainSettings,
    *,
    n_folds: int = 5,
    n_seeds: int = 3,
    blank: Classifier | None = None,
    threshold: float = 0.5,
    bookmarks: Bookmarks | None = None,
    tell: Tell = untold,
) -> Race:
    """Try candidates on the same patient-disjoint folds, cheapest first, until dearer ones are no better.

    A candidate takes the lead if its log-loss is lower than the leader's by more than one standard error of the
    paired difference (`standard_error`); after `MOST_FAILURES` in a row that do not, the rest are not run. The winner
    is then repeated under other seeds, which chooses nothing.

    Args:
        start: The network that all start from; it is left as it was.
        site: Labelled scans of the site that asks, of patients that `start` has not learned from.
        replay: Labelled scans that are trained on in every fold and never scored: the source's.
        candidates: Names of strategies, cheapest first; `none` is always run before them.
        settings: Epochs, batches, learning rate, first seed.
        n_folds: Folds of patients; fewer if the rarer class has fewer patients.
        n_seeds: Seeds that the winner is trained with in all.
        blank: A network of new weights, for strategies that start from nothing.
        threshold: Of a segmentation: the probability from which on a voxel is marked.
        bookmarks: Where it keeps how far it has come; the caller sees to it that they belong to this race, and
            forgets them. A race that was killed ends, when it is asked for again, as if nothing had happened.
        tell: Told what is done and which share of the work is behind, every epoch.

    Raises:
        UnknownName: If there is no such strategy.
        EmptySample: If a class has fewer than two patients.
        DeviceLost: If a GPU fails.
        StorageUnavailable: If a bookmark cannot be written.

    Source:
        The one-standard-error rule: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3; Hastie,
        Tibshirani & Friedman 2009, "The Elements of Statistical Learning", section 7.10.
    """
    strategies = [STRATEGIES[name] for name in candidates if name != NONE]
    started = time.monotonic()
    shared = _prepare(start, blank, site, replay, settings, n_folds, threshold, bookmarks)
    n_all = len(site.scans) + len(replay.scans)
    nothing = Trial(
        strategy=NONE,
        logits=tuple(shared.logits.tolist()),
        seconds=time.monotonic() - started,
        n_scan_passes=n_passes_to_embed(n_all),
    )
    n_fits = shared.n_folds * (len(strategies) + n_seeds - 1)
    judge = _Judge(shared, nothing)
    for place, strategy in enumerate(strategies):
        if judge.n_failures >= MOST_FAILURES:
            judge.pass_over(strategy.name)
            continue
        heard = _in_part(tell, place * shared.n_folds / n_fits, shared.n_folds / n_fits)
        judge.take(_attempt(shared, strategy, settings.seed, heard))
    done = shared.n_folds * len(strategies)
    if judge.leader.strategy != NONE:
        repeats = []
        for number in range(1, n_seeds):
            begun = (done + (number - 1) * shared.n_folds) / n_fits
            heard = _in_part(tell, begun, shared.n_folds / n_fits)
            strategy = STRATEGIES[judge.leader.strategy]
            repeats.append(_attempt(shared, strategy, settings.seed + number, heard))
        judge.repeat(repeats)
    tell("the race has ended", 1.0)
    return judge.verdict()


def fold_of_each(scans: Sequence[Scan], n_folds: int) -> Wholes:
    """(n,), the fold that every scan is held out in: all of a patient's in one, each class spread evenly.

    It depends on the keys and labels of the patients alone, not on the order of the scans.
    """
    labels: dict[str, set[int | None]] = {}
    for scan in scans:
        labels.setdefault(scan.patient_key, set()).add(scan.y)
    order = sorted(labels, key=lambda key: (sorted(map(str, labels[key])), number_of(f"fold/{key}")))
    place = {key: number % n_folds for number, key in enumerate(order)}
    return np.array([place[scan.patient_key] for scan in scans], dtype=np.intp)


def standard_error(saved: Reals, patients: Sequence[str]) -> float:
    """Standard error of the mean of paired differences, all scans of a patient taken together; same unit.

    A patient with several scans is one observation (linearised ratio estimator: Cochran 1977, "Sampling Techniques",
    section 2.11). The networks of the folds share training patients, which no estimate from one cross-validation
    accounts for (Bengio & Grandvalet 2004, JMLR 5:1089): it is a yardstick, not a test. The gate judges on others.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    n_patients = int(patient.max()) + 1
    if n_patients < 2:
        return float("inf")
    away = np.bincount(patient, weights=saved - saved.mean())
    return float(np.sqrt(n_patients / (n_patients - 1) * (away**2).sum()) / len(saved))


def calibrated_by_others(logits: Reals, scans: Sequence[Scan], fold: Wholes) -> Reals:
    """Probability of the positive class of every scan, (n,), calibrated without its own fold.

    Slope, intercept and prevalence come from the held-out logits of the other folds. Those come from networks that
    were shown this fold's scans: of the two numbers that are fitted, a trace of their labels remains.
    """
    y, sites = labels_of(scans), np.array([scan.site for scan in scans])
    p = np.empty(len(scans))
    for number in np.unique(fold):
        own, others = fold == number, fold != number
        platt = fit_platt(logits[others], y[others], sites[others].tolist())
        score = platt.score(logits[own]) + log_odds(smoothed_share(y[others]))
        p[own] = 1 / (1 + np.exp(-score))
    return p


class _Judge:
    """Compares trials as they come."""

    def __init__(self, shared: _Field, nothing: Trial) -> None:
        self.shared = shared
        self.losses = {NONE: _losses(shared, nothing)}
        self.trials = {NONE: nothing}
        self.leader = nothing
        self.n_failures = 0
        self.entries = [self._entry(nothing, _told_of_none(shared))]

    def take(self, trial: Trial) -> None:
        """Compare the next trial with the leader."""
        if trial.failed is not None:
            self.n_failures += 1
            failed = Entry(
                strategy=trial.strategy,
                step=len(self.entries),
                outcome="lost",
                because=f"could not be trained: {trial.failed}",
                seconds=trial.seconds,
            )
            self.entries.append(failed)
            return
        self.trials[trial.strategy], self.losses[trial.strategy] = trial, _losses(self.shared, trial)
        saved = self.losses[self.leader.strategy] - self.losses[trial.strategy]
        gain, error = float(saved.mean()), standard_error(saved, self.shared.patients)
        leads = gain > error
        told = f"{self.shared.loss_word} {-gain:+.4f} against {self.leader.strategy}, " + (
            f"better by more than one standard error ({error:.4f})"
            if leads
            else f"no better by one standard error ({error:.4f})"
        )
        self.entries.append(self._entry(trial, told))
        self.leader, self.n_failures = (trial, 0) if leads else (self.leader, self.n_failures + 1)

    def pass_over(self, strategy: str) -> None:
        """Leave a candidate out."""
        because = f"{MOST_FAILURES} candidates in a row before it were no better than {self.leader.strategy}"
        self.entries.append(Entry(strategy=strategy, step=len(self.entries), outcome="not_run", because=because))

    def repeat(self, repeats: Sequence[Trial]) -> None:
        """Add the other seeds to the leader's entry."""
        none, name = self.losses[NONE], self.leader.strategy
        kept = [trial for trial in repeats if trial.failed is None]
        losses = [self.losses[name], *(_losses(self.shared, trial) for trial in kept)]
        gains = [float((none - loss).mean()) for loss in losses]
        self.entries = [
            replace(
                entry,
                seed_gain=float(np.mean(gains)),
                seed_sd=float(np.std(gains, ddof=1)) if len(gains) > 1 else None,
                n_seeds=len(gains),
                seconds=entry.seconds + sum(trial.seconds for trial in repeats),
                n_scan_passes=entry.n_scan_passes + sum(trial.n_scan_passes for trial in repeats),
            )
            if entry.strategy == name
            else entry
            for entry in self.entries
        ]

    def verdict(self) -> Race:
        """The race as it ended."""
        name = self.leader.strategy
        entries = tuple(replace(e, outcome="won") if e.strategy == name else e for e in self.entries)
        return Race(
            winner=name,
            because=_in_one_sentence(name, entries, self.shared.loss_word),
            entries=entries,
            n_patients=len(set(self.shared.patients)),
            n_scans=len(self.shared.site.scans),
            n_folds=self.shared.n_folds,
            logits=self.leader.logits,
        )

    def _entry(self, trial: Trial, because: str) -> Entry:
        loss, patients = self.losses[trial.strategy], self.shared.patients
        saved = self.losses[NONE] - loss
        return Entry(
            strategy=trial.strategy,
            step=0 if trial.strategy == NONE else len(self.entries),
            outcome="lost",
            because=because,
            log_loss=patient_bootstrap(lambda rows: float(loss[rows].mean()), patients),
            gain=patient_bootstrap(lambda rows: float(saved[rows].mean()), patients),
            seconds=trial.seconds,
            n_scan_passes=trial.n_scan_passes,
            curve=trial.curve,
        )


def _told_of_none(shared: _Field) -> str:
    return "no weight moves" + ("; the calibration is fitted again" if shared.site.masks is None else "")


def _in_one_sentence(winner: str, entries: Sequence[Entry], loss: str) -> str:
    run = [entry for entry in entries if entry.outcome != "not_run" and entry.strategy != NONE]
    if winner == NONE:
        tried = ", ".join(entry.strategy for entry in run) or "nothing"
        return f"no gradient is worth its cost: {tried} lowered cross-validated {loss} by no more than chance"
    won = next(entry for entry in entries if entry.strategy == winner)
    assert won.gain is not None, "a winner was compared"
    seeds = "" if won.seed_sd is None else f"; over {won.n_seeds} seeds {won.seed_gain:.4f}, SD {won.seed_sd:.4f}"
    gain = f"{won.gain.value:.4f} [{won.gain.low:.4f}, {won.gain.high:.4f}]"
    unit = " nats per scan" if loss == "log-loss" else ""
    return f"{winner} won among {len(run) + 1}: cross-validated {loss} is lower by {gain}{unit}{seeds}"


def _prepare(
    start: Classifier,
    blank: Classifier | None,
    site: Loaded,
    replay: Loaded,
    settings: TrainSettings,
    n_folds: int,
    threshold: float,
    bookmarks: Bookmarks | None,
) -> _Field:
    needed = {0: "negative", 1: "positive"} if site.masks is None else {1: "positive"}
    n_class = {y: len({scan.patient_key for scan in site.scans if scan.y == y}) for y in needed}
    for y, n in n_class.items():
        if n < 2:
            raise EmptySample(f"{needed[y]} patients to race on", 2, n)
    n_folds = min(n_folds, *n_class.values())
    logits, embedded = _of_start(start, site, replay, threshold)
    return _Field(
        start=start,
        blank=blank,
        site=site,
        replay=replay,
        fold=fold_of_each(site.scans, n_folds),
        n_folds=n_folds,
        settings=settings,
        threshold=threshold,
        bookmarks=bookmarks,
        logits=logits,
        embedded=embedded,
    )


def _of_start(start: Classifier, site: Loaded, replay: Loaded, threshold: float) -> tuple[Reals, torch.Tensor | None]:
    """What the start says of the site's scans, and the embeddings of those and the replayed ones."""
    if site.masks is not None:
        return overlap(start, site, threshold=threshold), None
    arrays = np.concatenate([site.arrays, replay.arrays]) if replay.scans else site.arrays
    logits, embedded = logits_and_embeddings(start, torch.from_numpy(arrays))
    return np.asarray(logits[: len(site.scans)].numpy(), dtype=np.float64), embedded.clone()


def _attempt(shared: _Field, strategy: Strategy, seed: int, tell: Tell) -> Trial:
    """The trial, from its note if it was finished before."""
    note = f"{strategy.name}-{seed}"
    noted = None if shared.bookmarks is None else from_first(shared.bookmarks.noted(note))
    if noted is not None:
        return Trial(**noted | {"logits": tuple(noted["logits"]), "curve": tuple(noted["curve"])})
    started = time.monotonic()
    settings = shared.settings.model_copy(update={"seed": seed})
    try:
        logits, curve, n_passes = _over_folds(shared, strategy, settings, tell)
        trial = Trial(
            strategy=strategy.name,
            logits=tuple(logits.tolist()),
            curve=curve,
            n_scan_passes=n_passes,
            seconds=time.monotonic() - started,
        )
    except BadRequest as error:
        seconds = time.monotonic() - started
        trial = Trial(strategy=strategy.name, seconds=seconds, n_scan_passes=0.0, failed=str(error))
    trial = from_first(trial)
    if shared.bookmarks is not None and is_first():
        shared.bookmarks.note(note, asdict(trial))
    return trial


def _over_folds(
    shared: _Field, strategy: Strategy, settings: TrainSettings, tell: Tell
) -> tuple[Reals, tuple[float, ...], float]:
    """Held-out logits of the site's scans, the mean curve, and passes spent."""
    start, names = shared.start_of(strategy), shared.start.block_names
    embedded = shared.embedded if start is shared.start else None
    is_probe = is_head_alone(strategy, names) and embedded is not None
    logits, curves, n_passes = np.empty(len(shared.site.scans)), [], 0.0
    for number, held_out in enumerate(_held_out(shared)):
        data = joined(some(shared.site, ~held_out), shared.replay)
        trains = np.concatenate([~held_out, np.ones(len(shared.replay.scans), dtype=bool)])
        heard = _in_part(tell, number / shared.n_folds, 1 / shared.n_folds, f"{strategy.name}, fold {number + 1}, ")
        trained = train_copy(
            start,
            data,
            strategy,
            settings,
            embedded=None if embedded is None else embedded[torch.from_numpy(trains)],
            bookmarks=shared.bookmarks,
            tell=heard,
        )
        logits[held_out] = _logits(trained.network, shared, held_out, is_probe=is_probe)
        curves.append(trained.curve)
        n_passes += n_passes_to_train(strategy, names, len(data.scans), settings, is_embedded=embedded is not None)
        n_passes += 0.0 if is_probe else n_passes_to_embed(int(held_out.sum()))
    return logits, _mean_curve(curves), n_passes


def _logits(network: Classifier, shared: _Field, rows: Rows, *, is_probe: bool) -> Reals:
    """Raw logits of some of the site's scans; of a probe, whose features are the start's, by the head alone.

    Of a segmentation: Dice.
    """
    if shared.site.masks is not None:
        return overlap(network, some(shared.site, rows), threshold=shared.threshold)
    if is_probe:
        assert shared.embedded is not None, "a probe is one of embeddings"
        with torch.inference_mode():
            found = network.head(shared.embedded[: len(rows)][torch.from_numpy(rows)]).squeeze(1)
    else:
        found, _ = logits_and_embeddings(network, torch.from_numpy(shared.site.arrays[rows]))
    return np.asarray(found.numpy(), dtype=np.float64)


def _losses(shared: _Field, trial: Trial) -> Reals:
    """Nats lost on each scan of the site; of a segmentation 1 - Dice."""
    if shared.site.masks is not None:
        return 1 - np.asarray(trial.logits)
    p = calibrated_by_others(np.asarray(trial.logits), shared.site.scans, shared.fold)
    return log_losses(labels_of(shared.site.scans), p)


def _held_out(shared: _Field) -> Iterator[Rows]:
    for number in range(shared.n_folds):
        yield shared.fold == number


def _mean_curve(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    longest = max(map(len, curves))
    return tuple(float(np.mean([c[epoch] for c in curves if epoch < len(c)])) for epoch in range(longest))


def _in_part(tell: Tell, begun: float, share: float, what: str = "") -> Tell:
    """Tells of a part of the work as of a share of the whole."""

    def heard(part: str, done: float) -> None:
        tell(what + part, begun + share * done)

    return heard
