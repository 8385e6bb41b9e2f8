"""A race: nobody is scored by a network that was shown him, and a dearer strategy must earn its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import BadRequest, EmptySample, UnknownName
from platform_core.learn import cross_validate
from platform_core.learn.cross_validate import fold_of_each, race
from platform_core.learn.data import Loaded, Scan
from platform_core.learn.judging import Race, calibrated_by_others, standard_error
from platform_core.learn.networks import Classifier, build_network, weights_sha256
from platform_core.learn.resume import Bookmarks
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.trained import Trained, train_copy
from platform_core.settings import TrainSettings
from platform_core.storage.local import LocalObjects

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TrainSettings(epochs=2, batch_size=8, learning_rate=1e-2, seed=3)


def scan(site: str, number: int, y: int, *, patient: str | None = None) -> Scan:
    return Scan(
        site=site,
        series_key=f"{site}-{number}",
        revision=1,
        patient_key=patient or f"{site}-p{number}",
        patient_known=True,
        modality="CT",
        observed_on=date(2026, 1, 5),
        volume_uri="",
        y=y,
    )


def loaded(site: str, n: int, *, sign: float = 1.0, seed: int = 0) -> Loaded:
    """Positive scans are brighter, or darker with a negative sign."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    x = rng.normal(0, 0.5, (n, 1, 8, 8)) + sign * y.reshape(-1, 1, 1, 1)
    return Loaded(tuple(scan(site, i, int(y[i])) for i in range(n)), x.astype(np.float32), {})


@pytest.fixture(scope="module")
def champion() -> Classifier:
    settings = SETTINGS.model_copy(update={"epochs": 8})
    start = build_network("resnet_tiny", 2, seed=1)
    return train_copy(start, loaded("north", 60), STRATEGIES["from_scratch"], settings).network


def run(champion: Classifier, names: Sequence[str], site: Loaded | None = None, **more: Any) -> Race:
    replay = loaded("north", 6, seed=9)
    return race(champion, site or loaded("south", 30, seed=5), replay, names, SETTINGS, **{"n_folds": 3, **more})


# Folds


@given(
    labels=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=4, max_size=60),
    n_folds=st.integers(2, 5),
)
def test_a_patient_is_in_one_fold_and_every_kind_of_patient_is_spread_evenly(
    labels: list[tuple[int, int]], n_folds: int
) -> None:
    scans = [scan("s", i, y, patient=f"p{patient}") for i, (patient, y) in enumerate(labels)]
    fold = fold_of_each(scans, n_folds)
    folds_of: dict[str, set[int]] = {}
    kind_of: dict[str, set[int | None]] = {}
    for one, number in zip(scans, fold, strict=True):
        folds_of.setdefault(one.patient_key, set()).add(int(number))
        kind_of.setdefault(one.patient_key, set()).add(one.y)
    assert all(len(numbers) == 1 for numbers in folds_of.values())
    for kind in ({0}, {1}, {0, 1}):
        n_in = [sum(kind_of[p] == kind and f == {number} for p, f in folds_of.items()) for number in range(n_folds)]
        assert max(n_in) - min(n_in) <= 1


def test_folds_do_not_depend_on_the_order_of_the_scans() -> None:
    scans = [scan("s", i, i % 2) for i in range(40)]
    fold = dict(zip((one.series_key for one in scans), fold_of_each(scans, 5), strict=True))
    turned = scans[::-1]
    assert dict(zip((one.series_key for one in turned), fold_of_each(turned, 5), strict=True)) == fold


def test_no_network_is_shown_whom_it_is_scored_on_and_all_are_shown_the_source(
    champion: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = loaded("south", 30, seed=5)
    twice = Loaded((*site.scans[:28], scan("south", 28, 1, patient="south-p0"), site.scans[29]), site.arrays, {})
    shown: list[set[str]] = []
    heard: list[set[str]] = []

    def spy(start: Classifier, data: Loaded, *rest: Any, **more: Any) -> Trained:
        shown.append({one.patient_key for one in data.scans})
        return train_copy(start, data, *rest, **more)

    def ask(network: Classifier, shared: Any, rows: Any, *, is_probe: bool) -> Any:
        heard.append({one.patient_key for one, asked in zip(shared.site.scans, rows, strict=True) if asked})
        return np.zeros(rows.sum())

    monkeypatch.setattr(cross_validate, "train_copy", spy)
    monkeypatch.setattr(cross_validate, "_logits", ask)
    run(champion, ["linear_probe"], twice)
    assert len(shown) == len(heard) == 3
    assert all(not seen & asked for seen, asked in zip(shown, heard, strict=True))
    assert all({f"north-p{i}" for i in range(6)} <= seen for seen in shown)
    assert set.union(*heard) == {one.patient_key for one in twice.scans}


# The yardstick


def test_with_one_scan_per_patient_the_standard_error_is_the_one_of_a_mean() -> None:
    saved = np.random.default_rng(0).normal(0.1, 1, 50)
    expected = saved.std(ddof=1) / np.sqrt(50)
    assert standard_error(saved, [f"p{i}" for i in range(50)]) == pytest.approx(expected)


def test_every_scan_twice_is_no_more_evidence() -> None:
    saved, patients = np.random.default_rng(0).normal(0.1, 1, 50), [f"p{i}" for i in range(50)]
    assert standard_error(np.tile(saved, 2), patients * 2) == pytest.approx(standard_error(saved, patients))


def test_one_patient_says_nothing() -> None:
    assert standard_error(np.array([0.1, 0.2]), ["p", "p"]) == np.inf


@given(turned=st.integers(0, 2))
def test_labels_of_a_fold_do_not_touch_its_own_probabilities(turned: int) -> None:
    rng = np.random.default_rng(0)
    scans = [scan("s", i, i % 2) for i in range(30)]
    fold = fold_of_each(scans, 3)
    logits = rng.normal(0, 2, 30)
    other = [
        scan("s", i, 1 - one.y if fold[i] == turned else one.y) for i, one in enumerate(scans) if one.y is not None
    ]
    first, second = calibrated_by_others(logits, scans, fold), calibrated_by_others(logits, other, fold)
    assert np.array_equal(first[fold == turned], second[fold == turned])
    assert not np.array_equal(first[fold != turned], second[fold != turned])


# Who wins


@dataclass
class Told:
    """Answers that a strategy is said to give: the separation of its held-out logits, by strategy and seed."""

    by_strategy: Mapping[str, float | Exception]
    asked: list[tuple[str, int]]

    def __call__(self, shared: Any, strategy: Any, settings: TrainSettings, _tell: Any) -> Any:
        self.asked.append((strategy.name, settings.seed))
        answer = self.by_strategy[strategy.name]
        if isinstance(answer, Exception):
            raise answer
        y = np.array([one.y for one in shared.site.scans])
        noise = np.random.default_rng([settings.seed, len(strategy.name)]).normal(0, 1, len(y))
        return answer * (answer * (y - 0.5) + noise), (0.7, 0.6), 12.0


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answer(**by_strategy: float | Exception) -> Told:
        told = Told(by_strategy, [])
        monkeypatch.setattr(cross_validate, "_over_folds", told)
        return told

    return answer


def blind() -> Classifier:
    """A champion that knows nothing: every logit is 0."""
    network = build_network("resnet_tiny", 2, seed=1)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.zero_()
    return network


def outcomes(found: Race) -> dict[str, str]:
    return {entry.strategy: entry.outcome for entry in found.entries}


def test_the_cheapest_wins_where_a_dearer_one_is_hardly_better(says: Any) -> None:
    says(linear_probe=3.0, partial=3.1, full=3.0)
    found = run(blind(), ["linear_probe", "partial", "full"])
    assert found.winner == "linear_probe"
    assert outcomes(found) == {"none": "lost", "linear_probe": "won", "partial": "lost", "full": "lost"}


def test_a_dearer_one_wins_where_it_is_much_better(says: Any) -> None:
    told = says(linear_probe=0.1, partial=3.0)
    found = run(blind(), ["linear_probe", "partial"], loaded("south", 100, seed=5))
    assert found.winner == "partial"
    assert found.won.gain is not None
    assert found.won.gain.low > 0
    assert [name for name, _ in told.asked] == ["linear_probe", "partial", "partial", "partial"]


def test_no_gradient_wins_where_none_pays_and_is_not_repeated(says: Any) -> None:
    told = says(linear_probe=0.0, partial=0.0, full=9.0, l2_sp=9.0)
    found = run(blind(), ["linear_probe", "partial", "full", "l2_sp"])
    assert found.winner == "none"
    assert outcomes(found) == {
        "none": "won", "linear_probe": "lost", "partial": "lost", "full": "not_run", "l2_sp": "not_run",
    }  # fmt: skip
    assert told.asked == [("linear_probe", 3), ("partial", 3)]
    assert "no gradient is worth its cost" in found.because


def test_failures_are_counted_from_the_last_that_took_the_lead(says: Any) -> None:
    says(linear_probe=0.0, surgical_late=3.0, partial=3.0, full=5.0)
    found = run(blind(), ["linear_probe", "surgical_late", "partial", "full"], loaded("south", 200, seed=5))
    assert "not_run" not in outcomes(found).values()


def test_the_winner_is_repeated_under_other_seeds(says: Any) -> None:
    told = says(linear_probe=3.0)
    found = run(blind(), ["linear_probe"], n_seeds=4)
    assert told.asked == [("linear_probe", seed) for seed in (3, 4, 5, 6)]
    won = found.won
    assert won.n_seeds == 4
    assert won.n_scan_passes == 4 * 12
    assert won.seed_sd is not None
    assert won.seed_sd > 0
    assert won.seed_gain is not None


def test_the_gain_over_seeds_is_the_mean_of_what_each_seed_gains(says: Any) -> None:
    says(linear_probe=3.0)
    found, site = run(blind(), ["linear_probe"], n_seeds=3), loaded("south", 30, seed=5)
    gains = []
    for seed in (3, 4, 5):
        settings = SETTINGS.model_copy(update={"seed": seed})
        one = race(blind(), site, loaded("north", 6), ["linear_probe"], settings, n_folds=3, n_seeds=1).won
        assert one.gain is not None
        assert (one.seed_sd, one.n_seeds) == (None, 1)
        gains.append(one.gain.value)
    assert found.won.seed_gain == pytest.approx(np.mean(gains))
    assert found.won.seed_sd == pytest.approx(np.std(gains, ddof=1))


def test_one_that_cannot_be_trained_is_lost_and_the_others_go_on(says: Any) -> None:
    says(linear_probe=BadRequest("the training loss is nan"), partial=3.0)
    found = run(blind(), ["linear_probe", "partial"])
    assert found.winner == "partial"
    assert "the training loss is nan" in found.entries[1].because


# With networks


def test_a_head_that_is_turned_round_is_learned_by_a_probe(champion: Classifier) -> None:
    """At the site positive scans are dark: the features are right, the head is not."""
    settings = SETTINGS.model_copy(update={"epochs": 30, "source_replay": 0.0})
    site, nobody = loaded("south", 40, sign=-1.0, seed=5), loaded("north", 0)
    before = weights_sha256(champion)
    found = race(champion, site, nobody, ["linear_probe"], settings, n_folds=3, n_seeds=1)
    assert found.winner == "linear_probe"
    assert weights_sha256(champion) == before
    assert (found.n_patients, found.n_scans, found.n_folds) == (40, 40, 3)
    assert len(found.won.curve) == 30


def test_labels_of_chance_are_worth_no_gradient(champion: Classifier) -> None:
    site = loaded("south", 40, sign=0.0, seed=5)
    assert run(champion, ["linear_probe", "surgical_late"], site).winner == "none"


def test_a_probe_looks_at_every_scan_once(champion: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many folds, epochs and seeds."""
    n_seen = 0
    embed = Classifier.embed

    def count(network: Classifier, x: torch.Tensor) -> torch.Tensor:
        nonlocal n_seen
        n_seen += len(x)
        return embed(network, x)

    monkeypatch.setattr(Classifier, "embed", count)
    found = run(champion, ["linear_probe"], loaded("south", 30, sign=-1.0, seed=5), n_folds=5)
    assert n_seen == 30 + 6
    assert found.entries[0].n_scan_passes == pytest.approx(36 / 3)
    assert found.entries[1].n_scan_passes == 0


@pytest.mark.parametrize("strategy", ["linear_probe", "lp_ft"])
def test_embeddings_that_are_known_change_no_weight(champion: Classifier, strategy: str) -> None:
    data = loaded("south", 16, seed=5)
    with torch.no_grad():
        embedded = champion.embed(torch.from_numpy(data.arrays))
    hashes = {
        weights_sha256(train_copy(champion, data, STRATEGIES[strategy], SETTINGS, embedded=known).network)
        for known in (None, embedded)
    }
    assert len(hashes) == 1


def test_one_class_is_no_race(champion: Classifier) -> None:
    site = loaded("south", 30)
    negative = Loaded(tuple(scan("south", i, 0) for i in range(30)), site.arrays, {})
    with pytest.raises(EmptySample, match="positive patients to race on"):
        run(champion, ["linear_probe"], negative)


def test_few_patients_make_few_folds(champion: Classifier) -> None:
    site = loaded("south", 7)
    assert run(champion, [], site, n_folds=5).n_folds == 3


def test_a_strategy_that_does_not_exist_is_named(champion: Classifier) -> None:
    with pytest.raises(UnknownName, match="linear_probe"):
        run(champion, ["magic"])


def test_from_nothing_needs_a_new_network(champion: Classifier) -> None:
    assert "no new network" in run(champion, ["from_scratch"]).entries[1].because
    blank = build_network("resnet_tiny", 2, seed=7)
    assert run(champion, ["from_scratch"], blank=blank).entries[1].log_loss is not None


# Killed and asked again


class Killed(BaseException):
    """Nothing catches it."""


@dataclass(frozen=True)
class Dying(LocalObjects):
    """Dies after its n-th write."""

    n_left: int
    puts: list[str]

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:
        super().put(path, data, durable=durable)
        self.puts.append(path)
        if len(self.puts) == self.n_left:
            raise Killed


def facts(found: Race) -> list[Any]:
    """All but the time that it took."""
    return [replace(entry, seconds=0.0) for entry in found.entries]


def test_a_race_that_is_killed_ends_as_if_nothing_had_happened(champion: Classifier, tmp_path: Path) -> None:
    """In a fold, between two candidates, among the seeds."""
    names, site = ["linear_probe", "surgical_late"], loaded("south", 30, sign=-1.0, seed=5)
    whole = run(champion, names, site, n_seeds=2)
    assert whole.winner != "none"
    for n_left in (2, 4, 7, 9):
        objects = Dying(tmp_path / str(n_left), n_left, [])
        kept = Bookmarks(objects=objects, folder="race", every_s=1e9)
        with pytest.raises(Killed):
            run(champion, names, site, n_seeds=2, bookmarks=kept)
        n_finished = sum(path.endswith(".json") for path in objects.puts)
        assert facts(run(champion, names, site, n_seeds=2, bookmarks=kept)) == facts(whole)
        noted = [path for path in objects.puts if path.endswith(".json")]
        assert len(noted) == len(set(noted)) == 3
        assert n_finished < 3
        assert not any(path.endswith(".pt") for path in objects.list("race"))


def test_progress_never_goes_back_and_ends(champion: Classifier) -> None:
    told: list[tuple[str, float]] = []
    run(champion, ["linear_probe", "surgical_late"], tell=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[0][0] == "linear_probe, fold 1, epoch 1 of 2"
