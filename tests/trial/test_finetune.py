"""A fine-tuning is raced, trained and recorded; whatever goes wrong, the champion stays and the decision says why."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from platform_core import layout
from platform_core.errors import DeviceLost, StorageUnavailable
from platform_core.learn import training
from platform_core.learn.bundle import read_bundle
from platform_core.learn.networks import weights_sha256
from platform_core.learn.registry import champion, models
from platform_core.learn.train import train_source
from platform_core.manifest.schemas import FINDING
from platform_core.manifest.serving import Serving, change_serving, current_serving
from platform_core.manifest.workspace import Workspace, open_workspace
from platform_core.policy.decide import Decision
from platform_core.policy.record import decisions
from platform_core.storage import local
from platform_core.storage.tables import rows_of
from platform_core.trial import finetune, race
from platform_core.trial.attempt import give_up
from platform_core.trial.case import Case
from platform_core.trial.finetune import train_challenger
from platform_core.trial.race import race_facts, read_race, seeds_of
from tests.learn.conftest import patients_in, plant, with_target

__all__ = ["patients_in", "plant", "with_target"]
pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPT = Path(__file__).with_name("fine_tune_in.py")
AT = datetime(2026, 3, 1, tzinfo=UTC)
Plant = Callable[..., list[str]]
Choose = Callable[[str, int], list[str]]
PROBE = Decision(action="fine_tune", because="risk is higher", rule="still_worse", candidates=("linear_probe",))


@dataclass(frozen=True)
class Asked:
    """South is served by the champion, and a fine-tuning was decided for it."""

    workspace: Workspace
    plant: Plant
    patients_in: Choose

    def case(self, keys: list[str]) -> Case:
        return Case(
            uri=self.workspace.uri,
            site="south",
            target="lesion",
            finding_key="finding",
            headline="",
            keys=tuple(keys),
            run="run",
            at=AT,
        )

    def of(self, n: int = 32, **more: Any) -> Case:
        return self.case(self.plant("south", n, **{"patients": self.patients_in("train", n), **more}))

    def turned(self, n: int = 32, **more: Any) -> Case:
        """South's scanner shows dark what north's shows bright: a head that is turned round mends it."""
        case = self.of(n, **more)
        for key in case.keys:
            path = layout.volume_path("south", "r1", key, 1)
            volume = self.workspace.read_volume(path)
            self.workspace.write_volume(path, replace(volume, voxels=100 - volume.voxels))
        return case


@pytest.fixture
def asked(with_target: Workspace, plant: Plant, patients_in: Choose) -> Asked:
    file = Path(with_target.uri) / layout.SETTINGS
    text = file.read_text(encoding="utf-8").replace("[policy]\n", "[policy]\nn_folds = 2\nn_seeds = 2\n")
    head = "[target.lesion.train]\n"
    text = text.replace(head, head + "learning_rate = 0.03\nsource_replay = 0.0\n")
    own = "\n[target.lesion]\n"  # the template has a commented one
    text = text.replace(own, f'{own}source_weights = "nothing"\n')  # two epochs suffice for what these scans ask
    file.write_text(text, encoding="utf-8")
    here = open_workspace(with_target.uri)
    plant("north", 44, patients=patients_in("train", 44)[20:] + patients_in("validation", 20))
    made = train_source(here, "lesion", run="run", at=AT, recipe="r1")
    for site in ("north", "south"):
        wanted = Serving(
            site=site, target="lesion", model=made.name, recipe="r1", calibration=made.calibration, epoch=-1
        )
        change_serving(here, wanted, decision_key=None, at=AT, run="run")
    finding = {
        "site": "south",
        "finding_key": "finding",
        "stratum": "CT",
        "target": "lesion",
        "model": made.name,
        "period_start": date(2026, 1, 5),
        "period_end": date(2026, 2, 1),
        "kind": "covariate_acquisition",
        "explained_by": "",
        "run": "run",
    }
    here.lake.append(layout.FINDING, rows_of(FINDING, [finding]), transaction="finding")
    return Asked(here, plant, lambda part, n: patients_in(part, 64 + n)[64:])


def refusal_of(case: Case) -> dict[str, Any]:
    """The evidence of the decision, which must be refused with nothing else changed."""
    here = case.workspace
    (row,) = decisions(here, "south").to_pylist()
    assert (row["action"], row["status"], row["serving_after"]) == ("fine_tune", "refused", None)
    first = champion(here, "lesion")
    assert first is not None
    assert (first.name, [ref.name for ref in models(here)]) == ("lesion@1", ["lesion@1"])
    served = current_serving(here, "south", "lesion")
    assert served is not None
    assert (served.model, served.epoch) == ("lesion@1", 0)
    evidence: dict[str, Any] = json.loads(row["evidence"])
    return evidence


def unfinished(case: Case) -> list[str]:
    return case.workspace.objects.list("models/lesion/unfinished")


def test_the_winner_of_the_race_becomes_the_challenger(asked: Asked) -> None:
    case = asked.turned()
    told: list[float] = []
    assert train_challenger(case, PROBE, tell=lambda _, share: told.append(share)) == "lesion@2"
    (made,) = [ref for ref in models(case.workspace) if ref.version == 2]
    assert (made.alias, made.strategy, made.parent) == ("challenger", "linear_probe", "lesion@1")
    assert made.training is not None
    rows = read_race(case.workspace, "south", made.training["race_key"])
    assert [(row["strategy"], row["outcome"]) for row in rows] == [("none", "lost"), ("linear_probe", "won")]
    assert {row["n_patients"] for row in rows} == {32}
    assert rows[1]["gain_low"] > 0
    assert rows[1]["n_seeds"] == 2
    assert len(rows[1]["curve"]) == 2
    seeds = seeds_of(rows)
    assert seeds is not None
    assert seeds.gain == rows[1]["seed_gain"]
    facts = race_facts(rows)
    assert facts is not None
    assert json.loads(json.dumps(facts, allow_nan=False))["winner"] == "linear_probe"
    assert unfinished(case) == []
    assert told[-1] == 1.0


def test_the_challengers_calibration_comes_from_scans_that_the_race_held_out(asked: Asked) -> None:
    """No more networks are trained for it: validation lies at the source only, and has both classes."""
    case = asked.turned()
    train_challenger(case, PROBE)
    made = max(models(case.workspace), key=lambda ref: ref.version)
    assert made.metrics["south"]["n_train"] == 32
    assert made.training is not None
    assert made.training["n_scan_passes"] == pytest.approx(32 / 3)


def test_where_no_gradient_pays_the_fine_tuning_is_refused(asked: Asked) -> None:
    case = asked.of()
    assert train_challenger(case, PROBE) is None
    evidence = refusal_of(case)
    assert "no gradient is worth its cost" in evidence["refused"]
    assert evidence["race"]["winner"] == "none"
    assert [told["outcome"] for told in evidence["race"]["candidates"]] == ["won", "lost"]
    assert unfinished(case) == []


def test_ten_patients_are_refused(asked: Asked) -> None:
    case = asked.of(10)
    assert train_challenger(case, PROBE) is None
    assert "needs at least 20, found 10" in refusal_of(case)["refused"]


def test_one_class_only_is_refused(asked: Asked) -> None:
    case = asked.of(labels=["benign"] * 32)
    assert train_challenger(case, PROBE) is None
    assert "positive patients of south" in refusal_of(case)["refused"]


def test_patients_whom_the_champion_knows_are_not_scored(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have scans at north as well, which the champion was trained on: too few are left."""
    rows = asked.workspace.lake.read(layout.SERIES).to_pylist()
    seen = sorted({row["patient_key"] for row in rows if row["patient_key"].startswith("train")})[:20]
    case = asked.turned(patients=seen + asked.patients_in("train", 12))
    assert train_challenger(case, PROBE) is None
    reason = refusal_of(case)["refused"]
    assert "that the champion has not learned from: needs at least 20, found 12" in reason


def test_a_network_that_raises_is_a_refusal_and_no_stack_trace(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: Any, **__: Any) -> None:
        raise RuntimeError("patient HOSP-4711 is in here")

    case = asked.turned()
    monkeypatch.setattr(training, "train_copy", fall)  # the race goes well, the training proper does not
    assert train_challenger(case, PROBE) is None
    evidence = refusal_of(case)
    assert "RuntimeError" in evidence["refused"]
    assert "HOSP-4711" not in json.dumps(evidence)


def test_a_gpu_that_vanishes_is_tried_again_and_then_given_up(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: Any, **__: Any) -> None:
        raise DeviceLost("CUDA error: unspecified launch failure")

    case = asked.turned()
    monkeypatch.setattr(training, "train_copy", lose)
    with pytest.raises(DeviceLost) as lost:
        train_challenger(case, PROBE)
    assert lost.value.retryable
    assert unfinished(case) != []  # the race is not run again
    give_up(case, PROBE, str(lost.value))
    assert "unspecified launch failure" in refusal_of(case)["refused"]


def test_a_full_disk_is_told_as_such_and_gone_on_from(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    case = asked.turned()
    write, n_left = local._write, [2]

    def full(file: Path, data: bytes, *, durable: bool) -> None:
        if "unfinished" in str(file):
            n_left[0] -= 1
            if n_left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data, durable=durable)

    monkeypatch.setattr(local, "_write", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        train_challenger(case, PROBE)
    monkeypatch.setattr(local, "_write", write)
    assert [ref.name for ref in models(case.workspace)] == ["lesion@1"]
    assert train_challenger(case, PROBE) == "lesion@2"


def test_a_race_goes_on_under_another_finding_about_the_same_period(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, folders = asked.turned(), []
    (row,) = case.workspace.lake.read(layout.FINDING).to_pylist()
    case.workspace.lake.append(
        layout.FINDING, rows_of(FINDING, [row | {"finding_key": "later", "run": "r2"}]), transaction="later"
    )

    def die(*_: Any, bookmarks: Any, **__: Any) -> None:
        folders.append(bookmarks.folder)
        raise DeviceLost("gone")

    monkeypatch.setattr(race, "race", die)
    for key in ("finding", "later"):
        with pytest.raises(DeviceLost):
            train_challenger(replace(case, finding_key=key), PROBE)
    assert folders[0] == folders[1]


def test_a_challenger_whose_maker_died_is_not_made_twice(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    case = asked.turned()
    assert [train_challenger(case, PROBE) for _ in range(2)] == ["lesion@2", "lesion@2"]
    assert case.workspace.lake.read(layout.RACE).num_rows == 2


@pytest.mark.slow
def test_a_fine_tuning_that_is_killed_makes_the_same_challenger(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in a fold, then under the second seed; a third attempt ends as one that nothing happened to."""
    case, file = asked.turned(), tmp_path / "case"
    file.write_bytes(pickle.dumps((case, PROBE)))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for step in ("2", "4"):
        done = subprocess.run([sys.executable, str(SCRIPT), str(file), step], env=env, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL
    assert [ref.name for ref in models(case.workspace)] == ["lesion@1"]
    noted = [path for path in unfinished(case) if path.endswith(".json")]
    assert len(noted) == 1  # the first seed of the probe is not trained again
    assert train_challenger(case, PROBE) == "lesion@2"
    assert unfinished(case) == []
    killed = read_bundle(case.workspace, max(models(case.workspace), key=lambda ref: ref.version).bundle_uri)
    monkeypatch.setattr(finetune, "_made_before", lambda *_: None)
    assert train_challenger(case, PROBE) == "lesion@3"
    whole = read_bundle(case.workspace, max(models(case.workspace), key=lambda ref: ref.version).bundle_uri)
    assert weights_sha256(killed.network) == weights_sha256(whole.network)
    assert killed.platt == whole.platt
