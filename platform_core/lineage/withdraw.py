"""Take a patient out of everything that a workspace holds, in steps of which each can be done again.

The order: the tombstone, so that nothing comes in again; then what is found by the keys of series; then the rows
that tell which series are the patient's; the door book; a look at every file; the audit. A withdrawal that was
killed goes on from its journal (`journal.py`) and ends as if it had not been.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import partial

import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.lineage import ranks
from platform_core.lineage.journal import drop_plan, keep_plan
from platform_core.lineage.plan import (
    MODELS_AT_WORK,
    Plan,
    books_here,
    chosen_rows,
    renewed,
    volumes_of,
)
from platform_core.lineage.seen import Seen, shorten_references
from platform_core.lineage.sketches import recount
from platform_core.lineage.traces import find_traces
from platform_core.manifest.book import Book
from platform_core.manifest.door import open_door
from platform_core.manifest.orphans import sweep
from platform_core.manifest.schemas import PATIENT_MERGE, WITHDRAWAL
from platform_core.manifest.withdrawn import leave_tombstones
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.watch.kept import HERE as WATCHES
from platform_core.storage.tables import rows_of

LAST = (layout.SERIES, layout.PATIENT_MERGE)
"""Tables that tell whose a series is: until all else is gone they can be asked again."""
COUNTED_ANEW = (layout.RANK, layout.POOL, layout.SKETCH)
LEFT_AFTER = timedelta(days=1)
"""A volume without a row, or half a file, is by then of no run that lives."""
EXACT = (
    "Every other row is as it was, and work that is done again gives it again bit for bit. Not computed again: ranks "
    "of other scans, which had this patient in their pool; findings and decisions, which are history; the edges and "
    "counts of frozen references, recipes that were fitted, and the weights of the models named here."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal came to."""

    n_series: int
    n_volumes: int
    n_rows: dict[str, int]
    traces: tuple[str, ...]
    """Files of the workspace that still hold a key, for a person to look at; the next call tries again."""
    elsewhere: tuple[str, ...]
    """Sites whose door book lies on another machine: the same call is due there."""
    models: tuple[Seen, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left in the workspace."""
        return not self.traces


def withdraw(workspace: Workspace, plan: Plan, *, at: datetime) -> Withdrawn:
    """Carry a plan out, from wherever it stopped.

    Args:
        workspace: Where.
        plan: What `plan_withdrawal` found, or `held_plans` kept.
        at: The moment, UTC.

    Raises:
        BadRequest: If a run is at work on a site of the patient.
        StorageUnavailable: If the store does not answer; call again.
    """
    keep_plan(workspace, plan)
    leave_tombstones(workspace, plan.tombstones, run=plan.run, at=at)
    with _alone(workspace, plan) as books:
        plan = renewed(workspace, plan)
        keep_plan(workspace, plan)
        leave_tombstones(workspace, plan.tombstones, run=plan.run, at=at)
        shorten_references(workspace, plan.keys)
        _remove_objects(workspace, plan)
        _close_up_ranks(workspace, plan)
        _forget_in_watches(workspace, plan)
        _keep_merges_numbered(workspace, plan, at)
        for table in (*(name for name in workspace.lake.schemas if name not in (*LAST, *COUNTED_ANEW)), *LAST):
            _erase(workspace, plan, table)
        for site, days in plan.days.items():
            recount(workspace, site, [date.fromisoformat(day) for day in days], run=plan.run, work=_work(plan))
        sweep(workspace, before=at - LEFT_AFTER)
        for site, book in books.items():
            _clear_book(workspace, site, book, plan)
    traces = tuple(find_traces(workspace.objects, plan.words))
    _tell(workspace, plan, traces, at)
    if not traces:
        drop_plan(workspace, plan)
    return Withdrawn(
        n_series=len(plan.keys),
        n_volumes=plan.n_volumes,
        n_rows=dict(plan.n_rows),
        traces=traces,
        elsewhere=plan.elsewhere,
        models=plan.models,
    )


def _work(plan: Plan) -> str:
    """What names the writes of a withdrawal: other series, other writes."""
    return f"withdraw/{plan.run}/{digest(list(plan.keys))}"


@contextmanager
def _alone(workspace: Workspace, plan: Plan) -> Iterator[dict[str, Book]]:
    """The door books that lie here, none of which a run is at work on."""
    books = books_here(workspace, open_door(workspace))
    lake = workspace.lake.identity(layout.ARRIVAL)
    with ExitStack() as held:
        for site, book in books.items():
            if not book.begin(plan.run, lake):
                raise BadRequest(f"{site}: a run is at work on it; call again when it has ended, the journal is kept")
            held.callback(book.end)
        yield books


def _remove_objects(workspace: Workspace, plan: Plan) -> None:
    """Volumes, pages that may show the patient, and trainings that have not ended."""
    if not plan.keys:
        return
    at_work = [path for path in workspace.objects.list(layout.MODELS) if MODELS_AT_WORK.match(path)]
    for path in (*volumes_of(workspace, plan), *workspace.objects.list(layout.REPORTS), *at_work):
        workspace.objects.delete(path)


def _forget_in_watches(workspace: Workspace, plan: Plan) -> None:
    """A watch keeps which series it has looked at lately; what it has won stays won."""
    wanted = set(plan.keys)
    for path in workspace.objects.list(WATCHES):
        facts = json.loads(workspace.objects.get(path))
        left = [seen for seen in facts.get("recent", []) if seen[0] not in wanted]
        if len(left) < len(facts.get("recent", [])):
            told = json.dumps(facts | {"recent": left}, sort_keys=True, allow_nan=False)
            workspace.objects.put(path, told.encode())


def _close_up_ranks(workspace: Workspace, plan: Plan) -> None:
    for scope in plan.scopes:
        chosen = {name: [value] for name, value in scope.items()}
        name = f"{_work(plan)}/{digest(dict(scope))}"
        workspace.lake.erase(layout.POOL, [chosen])
        change = partial(ranks.without, keys=plan.keys)
        workspace.lake.replace(layout.RANK, chosen, change, transaction=name, gone=[{"series_key": plan.keys}])


def _keep_merges_numbered(workspace: Workspace, plan: Plan, at: datetime) -> None:
    """Leave one empty merge behind, if the patient has any: numbers of merges must not come again."""
    while True:
        rows = workspace.lake.read(layout.PATIENT_MERGE).to_pylist()
        told = {str(row[name]) for row in rows for name in ("patient_key", "kept_key")}
        if told.isdisjoint(plan.patient_keys) or not told.isdisjoint(plan.tombstones):
            return
        epoch = max(int(row["epoch"]) for row in rows) + 1
        stone = plan.tombstones[0]
        row = {"site": plan.site, "patient_key": stone, "kept_key": stone, "epoch": epoch}
        filled = rows_of(PATIENT_MERGE, [row | {"merged_at": at, "run": plan.run}])
        workspace.lake.append(layout.PATIENT_MERGE, filled, transaction=f"patient_merge/{epoch}")


def _erase(workspace: Workspace, plan: Plan, table: str) -> None:
    chosen = chosen_rows(plan, table, workspace.lake.schemas[table].names)
    if chosen:
        workspace.lake.erase(table, chosen)


def _clear_book(workspace: Workspace, site: str, book: Book, plan: Plan) -> None:
    """Let the book forget the patient, and whatever another door has withdrawn: files that the ledger does not know."""
    keys = workspace.lake.read(layout.ARRIVAL, pc.field("site") == site, ["arrival_key"]).column("arrival_key")
    known = set(keys.to_pylist())
    gone = {entry.arrival_key for entry in book.entries() if entry.arrival_key and entry.arrival_key not in known}
    bases = {entry.base for entry in book.entries() if entry.base and entry.arrival_key in gone}
    if bases or gone or plan.bases.get(site):
        book.erase({*bases, *plan.bases.get(site, ())}, {*gone, *plan.arrivals})


def _tell(workspace: Workspace, plan: Plan, traces: tuple[str, ...], at: datetime) -> None:
    """The audit; it names nobody. A call that found nothing to remove leaves no row."""
    if not plan.keys and not plan.n_rows:
        return
    row = {
        "sites": sorted(plan.series),
        "began_at": datetime.fromisoformat(plan.began_at),
        "ended_at": at,
        "n_series": len(plan.keys),
        "n_volumes": plan.n_volumes,
        "n_rows": json.dumps(dict(plan.n_rows), sort_keys=True),
        "n_left": len(traces),
        "models": json.dumps([asdict(seen) for seen in plan.models]),
        "because": EXACT,
        "run": plan.run,
    }
    name = f"withdrawal/{plan.run}/{len(traces)}"
    workspace.lake.append(layout.WITHDRAWAL, rows_of(WITHDRAWAL, [row]), transaction=name)
