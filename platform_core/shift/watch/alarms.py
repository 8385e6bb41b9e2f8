"""Alarms that may be asked for at any time: what the bets have won, and whether it is too much for chance.

**The promise.** At most a share alpha of sites ever raises a false alarm, however long and often they are looked at.

- Within a feature all bets are on the same ranks, so their mixture is an e-process. It restarts at every
  block of ranks with a weight that is spent (`log_spent`), because a change may begin at any time.
- Over features the threshold is multiplied by their number (a union bound). An average would be an e-value at
  one planned moment, not an e-process: the ranks of each feature are uniform given their own past only, and
  e-processes of different filtrations cannot be averaged (Choe & Ramdas 2024, arXiv:2402.09698).
- Over the families of streams that a site ever opens (a stratum; a restart against an accepted state;
  a model generation) alpha is spent once more (`share`).

A block is a number of ranks, not a calendar day: a late arrival, a clock that runs backwards or ten years taken
in at once change nothing. What is kept is a few numbers per bet; history is never read again.

Beside it runs the Shiryaev-Roberts sum of the same bets: quick, with a stated average run length, for display only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest, EmptySample
from platform_core.manifest.workspace import Workspace
from platform_core.shift.watch.bets import Step, block_sums, log_weights
from platform_core.shift.watch.pools import UNITS, Scope
from platform_core.shift.watch.streams import Crossing, Stream, Watch
from platform_core.shift.watch.wealth import Wealth, settle

SCANS_PER_CHECK = 25
N_NAMED = 3
"""Features that a sentence names."""
NEVER = 2**62
"""A sequence that no rank has."""
RUN_LENGTH = 1000
"""Blocks between two false signals of the quick detector, on average, at least."""

RANKED = pa.schema(
    [("feature", pa.string()), ("sequence", pa.int64()), ("observed_on", pa.date32()), ("rank", pa.float64())]
)
STREAM = pa.schema([("feature", pa.string()), ("size", pa.int64()), ("n_settled", pa.int64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchVerdict:
    """What a watch says now."""

    scope: Scope
    is_alarm: bool
    alarmed_on: date | None
    """Day of the rank that raised it."""
    changed_on: date | None
    """About when the change began, by the feature that alarmed first."""
    carriers: tuple[tuple[str, Crossing], ...]
    """Features that passed the threshold, first one first."""
    e_values: Mapping[str, float]
    """Per feature; may be infinite beyond 1e308."""
    threshold: float
    """That any of them must reach."""
    signals: tuple[str, ...]
    """Features in which the quick detector is up; no reason to act."""

    @property
    def e_value(self) -> float:
        """One e-value of the whole family: the largest, divided by the number of features."""
        return max(self.e_values.values(), default=0.0) / max(len(self.e_values), 1)

    @property
    def sentence(self) -> str:
        """For the person on call."""
        if not self.carriers:
            return f"no change: largest e-value {max(self.e_values.values(), default=1.0):.3g} of {self.threshold:.3g}"
        told = [f"{feature} {c.meaning} since about {c.changed_on}" for feature, c in self.carriers[:N_NAMED]]
        more = len(self.carriers) - len(told)
        others = f", and {more} more" if more else ""
        first = self.carriers[0][1]
        return f"{'; '.join(told)}{others} (e-value {_exp(first.log_e):.3g}, alarm at {self.threshold:.3g})"


def open_watch(
    workspace: Workspace,
    scope: Scope,
    *,
    alpha: float,
    n_opened: int,
    scans_per_check: int = SCANS_PER_CHECK,
    steps: Mapping[str, Sequence[Step]] | None = None,
) -> Watch:
    """Begin to watch every feature that a reference was opened with.

    Args:
        workspace: Where the reference's rows are.
        scope: What is watched.
        alpha: The site's promise, whole.
        n_opened: Families of streams that the site has opened before, ever.
        scans_per_check: Patient-days per block: about a day's, at most 25. Fixed for the life of the watch.
        steps: More bets on some features.

    Raises:
        EmptySample: If `open_reference` has written no row for this scope.
    """
    units = workspace.lake.read(layout.RANK, scope.rows & (pc.field("sequence") == -1), UNITS.names).to_pylist()
    if not units:
        raise EmptySample(f"reference {scope.reference} of {scope.site}")
    more = steps or {}
    streams = [
        Stream(
            feature=row["feature"],
            size=max(1, round(scans_per_check / row["n_values"])),
            steps=tuple(more.get(row["feature"], ())),
        )
        for row in sorted(units, key=lambda row: str(row["feature"]))
    ]
    return Watch(scope=scope, alpha=alpha, n_opened=n_opened, streams=tuple(streams))


def restart(
    workspace: Workspace,
    watch: Watch,
    reference: str,
    *,
    n_opened: int,
    scans_per_check: int = SCANS_PER_CHECK,
    steps: Mapping[str, Sequence[Step]] | None = None,
) -> Watch:
    """Watch the same site and stratum against another reference: the accepted state, or a new model's.

    Call `open_reference` first; only what arrives after that is to be ranked in the new scope.

    Raises:
        BadRequest: If the reference is the same, or `n_opened` does not count the watch before.
        EmptySample: As `open_watch`.
    """
    if reference == watch.scope.reference:
        raise BadRequest(f"{watch.scope.site}: a restart needs another reference than {reference}")
    if n_opened <= watch.n_opened:
        raise BadRequest(f"{watch.scope.site}: n_opened is {n_opened}, but {watch.n_opened + 1} families were opened")
    scope = replace(watch.scope, reference=reference)
    return open_watch(
        workspace, scope, alpha=watch.alpha, n_opened=n_opened, scans_per_check=scans_per_check, steps=steps
    )


def catch_up(workspace: Workspace, watch: Watch) -> Watch:
    """Take in every rank that was written since; reads none twice."""
    where = watch.scope.rows & (pc.field("batch") >= watch.n_batches)
    ranked = workspace.lake.read(layout.RANK, where, [*RANKED.names, "batch"])
    newest = pc.max(ranked.column("batch")).as_py()
    return watch if newest is None else replace(advance(watch, ranked), n_batches=newest + 1)


def advance(watch: Watch, ranked: pa.Table) -> Watch:
    """As `catch_up`, from a table of ranks (feature, sequence, observed_on, rank); those that are known are left out.

    A feature that has passed the threshold stays as it was then; the others go on, so that the explanation
    may grow. What comes out does not depend on how many nights are taken at once.
    """
    going = [stream for stream in watch.streams if stream.crossing is None]
    unsettled = _unsettled(going, ranked)
    rows = [{"feature": s.feature, "size": s.size, "n_settled": s.n_settled} for s in going]
    sums = block_sums(unsettled, pa.Table.from_pylist(rows, schema=STREAM), {s.feature: s.bets for s in going})
    left, won, level = _parts(unsettled), _parts(sums), math.log(watch.threshold)
    nothing = unsettled.slice(0, 0), sums.slice(0, 0)
    streams = [
        stream
        if stream.crossing
        else _advance_stream(stream, left.get(stream.feature, nothing[0]), won.get(stream.feature, nothing[1]), level)
        for stream in watch.streams
    ]
    return replace(watch, streams=tuple(streams))


def judge(watch: Watch, *, run_length: int = RUN_LENGTH) -> WatchVerdict:
    """What a watch says now; `run_length` in blocks is the quick detector's."""
    crossed = [(stream.feature, stream.crossing) for stream in watch.streams if stream.crossing]
    carriers = sorted(crossed, key=lambda each: (each[1].crossed_on, -each[1].log_e, each[0]))
    level = math.log(run_length * max(len(watch.streams), 1))
    return WatchVerdict(
        scope=watch.scope,
        is_alarm=bool(carriers),
        alarmed_on=carriers[0][1].crossed_on if carriers else None,
        changed_on=carriers[0][1].changed_on if carriers else None,
        carriers=tuple(carriers),
        e_values={stream.feature: _exp(stream.log_e_value) for stream in watch.streams},
        threshold=watch.threshold,
        signals=tuple(stream.feature for stream in watch.streams if stream.log_run >= level),
    )


def _unsettled(streams: Sequence[Stream], ranked: pa.Table) -> pa.Table:
    """Ranks that are in no settled block, in order of feature and sequence: those that were pending, and new ones."""
    seen = {stream.feature: stream.n_seen for stream in streams}
    features = ranked.column("feature").to_pylist()
    first = np.array([seen.get(feature, NEVER) for feature in features], np.int64)
    is_new = pa.array(ranked.column("sequence").fill_null(-1).to_numpy() >= first)
    kept = [
        {"feature": stream.feature, "sequence": stream.n_settled * stream.size + i, "observed_on": day, "rank": rank}
        for stream in streams
        for i, (day, rank) in enumerate(stream.pending)
    ]
    new = ranked.filter(is_new).select(RANKED.names).cast(RANKED)
    rows = pa.concat_tables([pa.Table.from_pylist(kept, schema=RANKED), new])
    return rows.sort_by([("feature", "ascending"), ("sequence", "ascending")])


def _parts(rows: pa.Table) -> dict[str, pa.Table]:
    """Rows that are in order of feature, by feature."""
    found, first = {}, 0
    for row in rows.group_by("feature", use_threads=False).aggregate([([], "count_all")]).to_pylist():
        found[row["feature"]] = rows.slice(first, row["count_all"])
        first += row["count_all"]
    return found


def _advance_stream(stream: Stream, unsettled: pa.Table, sums: pa.Table, level: float) -> Stream:
    """Settle the full blocks of one feature, and keep the ranks of the one that is not."""
    settled = _settle_stream(stream, sums, level)
    if settled.crossing:
        return replace(settled, pending=())
    left = unsettled.slice((settled.n_settled - stream.n_settled) * settled.size)
    pending = zip(left.column("observed_on").to_pylist(), left.column("rank").to_pylist(), strict=True)
    return replace(settled, pending=tuple(pending))


def _settle_stream(stream: Stream, sums: pa.Table, level: float) -> Stream:
    """Settle the blocks of one feature, in order, until it crosses `level` (nats)."""
    names = [bet.name for bet in stream.bets]
    place = np.argsort(np.argsort(np.asarray(names)))  # the query sorts bets by name
    log_won = sums.column("log_won").to_numpy().reshape(-1, len(names))[:, place]
    first_on, last_on = (sums.column(name).to_pylist()[:: len(names)] for name in ("first_on", "last_on"))
    for won, first, last in zip(log_won, first_on, last_on, strict=True):
        wealth = settle(_wealth(stream), won, stream.n_settled)
        is_new = wealth.since == stream.n_settled
        before = stream.since_on or [first] * len(names)
        stream = replace(
            stream,
            n_settled=stream.n_settled + 1,
            log_e=tuple(wealth.log_e.tolist()),
            log_sr=tuple(wealth.log_sr.tolist()),
            log_peak=tuple(wealth.log_peak.tolist()),
            since=tuple(wealth.since.tolist()),
            since_on=tuple(first if new else old for new, old in zip(is_new, before, strict=True)),
            settled_on=last,
        )
        if stream.log_e_value >= level:
            return replace(stream, crossing=_crossing(stream, last))
    return stream


def _crossing(stream: Stream, crossed_on: date) -> Crossing:
    leader = int(np.argmax(np.asarray(stream.log_e) + log_weights(stream.bets)))
    bet = stream.bets[leader]
    return Crossing(
        block=stream.n_settled - 1,
        crossed_on=crossed_on,
        changed_on=stream.since_on[leader],
        bet=bet.name,
        meaning=bet.meaning,
        log_e=stream.log_e_value,
    )


def _wealth(stream: Stream) -> Wealth | None:
    if not stream.n_settled:
        return None
    log_e, log_sr, log_peak = (np.asarray(part) for part in (stream.log_e, stream.log_sr, stream.log_peak))
    return Wealth(log_e, log_sr, log_peak, np.asarray(stream.since, np.int64))


def _exp(log: float) -> float:
    return math.exp(log) if log < 709 else math.inf
