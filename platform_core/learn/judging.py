"""The candidates of a race compared as they come: who leads, by how much, and what is said of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from platform_core.learn.calibrate import fit_platt, smoothed_share
from platform_core.learn.data import Loaded, Scan
from platform_core.learn.trained import Reals, labels_of
from platform_core.manifest.serving import log_odds
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


class Judge:
    """Compares trials as they come.

    Args:
        site: The scans that every trial says something of.
        fold: (n,), the fold that each of them is held out in.
        nothing: The trial of `none`.
    """

    def __init__(self, site: Loaded, fold: Wholes, nothing: Trial) -> None:
        self.site, self.fold = site, fold
        self.patients = [scan.patient_key for scan in site.scans]
        self.loss_word = "log-loss" if site.masks is None else "1 - Dice"
        self.losses = {NONE: self._losses(nothing)}
        self.trials = {NONE: nothing}
        self.leader = nothing
        self.n_failures = 0
        again = "; the calibration is fitted again" if site.masks is None else ""
        self.entries = [self._entry(nothing, f"no weight moves{again}")]

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
        self.trials[trial.strategy], self.losses[trial.strategy] = trial, self._losses(trial)
        saved = self.losses[self.leader.strategy] - self.losses[trial.strategy]
        gain, error = float(saved.mean()), standard_error(saved, self.patients)
        leads = gain > error
        told = f"{self.loss_word} {-gain:+.4f} against {self.leader.strategy}, " + (
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
        losses = [self.losses[name], *(self._losses(trial) for trial in kept)]
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
            because=_in_one_sentence(name, entries, self.loss_word),
            entries=entries,
            n_patients=len(set(self.patients)),
            n_scans=len(self.site.scans),
            n_folds=len(np.unique(self.fold)),
            logits=self.leader.logits,
        )

    def _losses(self, trial: Trial) -> Reals:
        """Nats lost on each scan of the site; of a segmentation 1 - Dice."""
        if self.site.masks is not None:
            return 1 - np.asarray(trial.logits)
        p = calibrated_by_others(np.asarray(trial.logits), self.site.scans, self.fold)
        return log_losses(labels_of(self.site.scans), p)

    def _entry(self, trial: Trial, because: str) -> Entry:
        loss, patients = self.losses[trial.strategy], self.patients
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
