"""How far a training has come, kept so that one that was killed goes on as if nothing had happened.

A bookmark holds everything that the loop needs beside its data: weights, optimizer, schedule, random numbers and
the batches still to come. On a CPU the resumed training ends at the same weights, bit for bit.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from math import inf
from typing import Any

import torch

from platform_core.learn.contract import Strategy
from platform_core.learn.networks import Classifier, weights_sha256
from platform_core.learn.phases import TrainingSet
from platform_core.provenance import digest
from platform_core.settings import TrainSettings
from platform_core.storage.objects import Objects

KEPT, NOTED = ".pt", ".json"
FORMAT = 1
"""Of a bookmark's content; a training never goes on from one of another format."""


@dataclass(kw_only=True, eq=False)
class Progress:
    """Where a training is."""

    chance: torch.Generator
    """Orders and augments."""
    at_once: int
    """Scans on the device at a time, as memory allowed so far."""
    phase: int = 0
    epoch: int = 0
    """Of the phase."""
    batches: list[torch.Tensor] = field(default_factory=list)
    """Rows of the epoch's batches that are still to come."""
    total: torch.Tensor | float = 0.0
    """Loss of the epoch so far, summed over its scans."""
    losses: list[float] = field(default_factory=list)
    """Mean training loss of every epoch so far, all phases."""
    best_loss: float = inf
    """Of the phase, on the scans held out."""
    best_weights: dict[str, torch.Tensor] | None = None
    n_worse: int = 0
    """Epochs since the best."""

    def next_phase(self) -> None:
        """Begin the phase after this one."""
        self.phase, self.epoch, self.batches = self.phase + 1, 0, []
        self.best_loss, self.best_weights, self.n_worse = inf, None, 0

    def pack(self) -> dict[str, Any]:
        """As tensors and plain values."""
        return vars(self) | {"chance": self.chance.get_state()}


def unpack(packed: dict[str, Any]) -> Progress:
    """The inverse of `pack`."""
    chance = torch.Generator()
    chance.set_state(packed["chance"])
    return Progress(**packed | {"chance": chance, "total": float(packed["total"])})


@dataclass(slots=True, kw_only=True)
class Bookmark:
    """The one object in which a training keeps where it is; replaced whole, so it is never half written."""

    objects: Objects
    path: str
    every_s: float
    written_at: float = field(default_factory=time.monotonic)
    """By the machine's own clock, which means nothing outside this process."""

    def is_due(self) -> bool:
        """Whether more would be lost than may be."""
        return time.monotonic() - self.written_at >= self.every_s

    def write(self, state: dict[str, Any]) -> None:
        """Replace what is kept.

        Raises:
            StorageUnavailable: If it cannot be written, as on a full disk.
        """
        out = BytesIO()
        torch.save(state, out)
        self.objects.put(self.path, out.getvalue())
        self.written_at = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was kept; None if nothing was, or it cannot be read: then the training starts anew."""
        try:
            state = torch.load(BytesIO(self.objects.get(self.path)), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception:  # noqa: BLE001 - the parser of damaged bytes raises whatever it likes
            return None
        return dict(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmarks:
    """A folder in which one piece of work keeps the bookmarks of its trainings, and notes of what is finished."""

    objects: Objects
    folder: str
    every_s: float

    def of(self, name: str) -> Bookmark:
        """The bookmark of one training."""
        return Bookmark(objects=self.objects, path=f"{self.folder}/{name}{KEPT}", every_s=self.every_s)

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep JSON-able facts; the bookmarks of the trainings behind them are not needed any more.

        Raises:
            StorageUnavailable: If they cannot be written.
        """
        self.objects.put(f"{self.folder}/{name}{NOTED}", json.dumps(facts, allow_nan=False).encode())
        self._forget(KEPT)

    def noted(self, name: str) -> dict[str, Any] | None:
        """The facts; None if nothing was noted, or it cannot be read: then the work is done anew."""
        try:
            return dict(json.loads(self.objects.get(f"{self.folder}/{name}{NOTED}")))
        except (FileNotFoundError, ValueError):
            return None

    def forget(self) -> None:
        """The work has ended: nothing of it is kept."""
        self._forget("")

    def _forget(self, ending: str) -> None:
        for path in self.objects.list(self.folder):
            if path.endswith(ending):
                self.objects.delete(path)


def fit_key(network: Classifier, data: Sequence[TrainingSet], strategy: Strategy, settings: TrainSettings) -> str:
    """A name for one training: equal only if weights, scans, strategy and settings are."""
    arrays = hashlib.sha256()
    for tensor in (tensor for part in data for tensor in (part.x, part.y, part.weight)):
        arrays.update(tensor.contiguous().numpy().data)
    facts = {
        "format": FORMAT,
        "start": weights_sha256(network),
        "data": [arrays.hexdigest(), [len(part.y) for part in data]],
        "phases": phase_facts(strategy),
        "settings": settings.model_dump(exclude={"checkpoint_minutes"}),
    }
    return digest(facts)


def phase_facts(strategy: Strategy) -> list[dict[str, Any]]:
    """What a strategy does, JSON-able, whatever its name."""
    return [asdict(phase) | {"trains": phase.trains.__name__} for phase in strategy.phases]
