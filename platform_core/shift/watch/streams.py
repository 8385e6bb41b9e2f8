"""What is kept of a watch between two checks: a few numbers per bet, and the ranks of the block that is still open."""

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

import numpy as np

from platform_core.shift.watch.bets import BETS, Bet, Step, log_weights
from platform_core.shift.watch.pools import Scope
from platform_core.shift.watch.wealth import log_mixture, log_sum, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The moment a feature's e-value passed its threshold."""

    block: int
    crossed_on: date
    """Day of the last rank that it took."""
    changed_on: date
    """Day from which the leading bet has won most: about when the change began."""
    bet: str
    meaning: str
    """What the values do since then."""
    log_e: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One feature that is watched."""

    feature: str
    size: int
    """Ranks per block."""
    steps: tuple[Step, ...] = ()
    """Bets beyond `BETS`, fixed when the stream was opened."""
    n_settled: int = 0
    """Blocks."""
    log_e: tuple[float, ...] = ()
    log_sr: tuple[float, ...] = ()
    log_peak: tuple[float, ...] = ()
    since: tuple[int, ...] = ()
    since_on: tuple[date, ...] = ()
    """First day of the block in `since`."""
    settled_on: date | None = None
    """Day of the last rank in it."""
    pending: tuple[tuple[date, float], ...] = ()
    """Day and value of each rank of the block that is not full yet."""
    crossing: Crossing | None = None

    @property
    def n_seen(self) -> int:
        """Ranks that were taken in."""
        return self.n_settled * self.size + len(self.pending)

    @property
    def bets(self) -> tuple[Bet, ...]:
        """Those that its wealth is about, in that order."""
        return (*BETS, *self.steps) if self.steps else BETS

    @property
    def log_e_value(self) -> float:
        """Evidence against `nothing has changed`, nats; 0 before the first block."""
        return (
            0.0
            if not self.log_e
            else float(log_mixture(np.asarray(self.log_e), self.n_settled, log_weights(self.bets)))
        )

    @property
    def log_run(self) -> float:
        """The quick detector, nats."""
        return -math.inf if not self.log_sr else float(log_sum(np.asarray(self.log_sr) + log_weights(self.bets)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The streams of one scope, opened together; an alarm closes them for good, until `restart` opens others."""

    scope: Scope
    alpha: float
    """The site's promise, whole."""
    n_opened: int
    """Families of streams that the site had opened before this one, over all strata, restarts and models."""
    streams: tuple[Stream, ...]
    n_batches: int = 0
    """Batches of `core__rank` that were taken in."""

    @property
    def threshold(self) -> float:
        """E-value that a feature must reach for an alarm."""
        return float(len(self.streams) / (self.alpha * share(self.n_opened)))

    @property
    def is_closed(self) -> bool:
        """Whether it has alarmed."""
        return any(stream.crossing for stream in self.streams)


def to_json(watch: Watch) -> str:
    """A watch as text, to be kept until the next check; `from_json` gives it back exactly."""
    return json.dumps(to_facts(watch), sort_keys=True, allow_nan=False)


def from_json(text: str) -> Watch:
    """The watch that `to_json` wrote."""
    return from_facts(json.loads(text))


def to_facts(watch: Watch) -> dict[str, Any]:
    """A watch as what JSON knows; `from_facts` gives it back exactly."""
    facts = {field.name: getattr(watch, field.name) for field in fields(watch)}
    return facts | {"scope": asdict(watch.scope), "streams": [_facts(stream) for stream in watch.streams]}


def from_facts(facts: dict[str, Any]) -> Watch:
    """The watch that `to_facts` has told."""
    streams = tuple(_stream(row) for row in facts["streams"])
    return Watch(**facts | {"scope": Scope(**facts["scope"]), "streams": streams})


def _facts(stream: Stream) -> dict[str, Any]:
    """One stream; `asdict` would copy every number of it by itself."""
    days = {"since_on": [day.isoformat() for day in stream.since_on]}
    crossing = None
    if stream.crossing:
        crossing = {
            name: str(fact) if isinstance(fact, date) else fact for name, fact in asdict(stream.crossing).items()
        }
    told = {
        "steps": [asdict(step) for step in stream.steps],
        "pending": [(day.isoformat(), rank) for day, rank in stream.pending],
        "settled_on": None if stream.settled_on is None else stream.settled_on.isoformat(),
        "crossing": crossing,
    }
    return {field.name: getattr(stream, field.name) for field in fields(stream)} | days | told


def _stream(facts: dict[str, Any]) -> Stream:
    crossing, settled_on = facts["crossing"], facts["settled_on"]
    days = {name: date.fromisoformat(crossing[name]) for name in ("crossed_on", "changed_on")} if crossing else {}
    lists = {name: tuple(facts[name]) for name in ("log_e", "log_sr", "log_peak", "since")}
    read = {
        "steps": tuple(Step(**step | {"heights": tuple(step["heights"])}) for step in facts["steps"]),
        "pending": tuple((date.fromisoformat(day), rank) for day, rank in facts["pending"]),
        "since_on": tuple(date.fromisoformat(day) for day in facts["since_on"]),
        "settled_on": date.fromisoformat(settled_on) if settled_on else None,
        "crossing": Crossing(**crossing | days) if crossing else None,
    }
    return Stream(**facts | lists | read)
