"""A race: which strategy is worth its cost at one site, by cross-validated log-loss on patients that it was not shown.

Candidates start from the same network and are trained on the same folds, the cheapest first. The first is `none`:
no gradient, the calibration alone is fitted again. Nothing here knows of a workspace.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from platform_core.errors import BadRequest, EmptySample
from platform_core.learn.contract import Strategy, Tell, untold
from platform_core.learn.cost import is_head_alone, n_passes_to_embed, n_passes_to_train
from platform_core.learn.data import Loaded, Scan
from platform_core.learn.embedding import logits_and_embeddings
from platform_core.learn.judging import MOST_FAILURES, NONE, Judge, Race, Trial, Wholes
from platform_core.learn.networks import Classifier
from platform_core.learn.resume import Bookmarks
from platform_core.learn.segment import overlap
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.together import from_first, is_first
from platform_core.learn.trained import Reals, Rows, joined, some, train_copy
from platform_core.provenance import number_of
from platform_core.settings import TrainSettings


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
    judge = Judge(site, shared.fold, nothing)
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
