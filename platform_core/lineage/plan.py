"""What a withdrawal will touch, found before anything is changed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadRequest
from platform_core.lineage.seen import Seen, seen_by
from platform_core.manifest.book import Book, open_book
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.workspace import Workspace
from platform_core.storage.erasure import Chosen, met

SCOPE = ("site", "stratum", "recipe", "reference")
"""What names one pool of ranks."""
MODELS_AT_WORK = re.compile(rf"{layout.MODELS}/[^/]+/unfinished/")
WORD = re.compile(r"[0-9a-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One withdrawal: whose rows, and what else is touched; keys only, no identifier."""

    run: str
    site: str
    """Whose identifier it was."""
    began_at: str
    """UTC, ISO 8601."""
    patient_keys: tuple[str, ...]
    """The key of the identifier, and every key that a merge made one with it."""
    tombstones: tuple[str, ...]
    is_known: bool
    """Whether a tombstone was there before: then only what was left, or lies at this door, is removed."""
    series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Series keys by site."""
    arrivals: tuple[str, ...] = ()
    """Keys of the files that they came in."""
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Series in the door books that lie here, by site."""
    elsewhere: tuple[str, ...] = ()
    """Sites of the patient whose door book lies on another machine."""
    days: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Days of the patient by site, as sketches have them, ISO 8601."""
    scopes: tuple[Mapping[str, str], ...] = ()
    """Pools of ranks that hold the patient."""
    n_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows to remove, by table; sketches and pools are counted anew and not among them."""
    n_volumes: int = 0
    models: tuple[Seen, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Series keys of all sites."""
        return tuple(sorted(key for keys in self.series.values() for key in keys))

    @property
    def words(self) -> frozenset[str]:
        """Whatever no file of the workspace may hold afterwards."""
        return frozenset({*self.patient_keys, *self.keys, *self.arrivals})

    @property
    def n_files(self) -> int:
        """Rows of the ledger."""
        return self.n_rows.get(layout.ARRIVAL, 0)


def plan_withdrawal(workspace: Workspace, site: str, patient_id: str, *, run: str, at: datetime) -> Plan:
    """Find everything that is a patient's; nothing is written.

    Args:
        workspace: Where.
        site: Whose identifier it is; sites that share its issuer are searched too.
        patient_id: The PatientID; it never leaves this process.
        run: The run that withdraws.
        at: The moment, UTC.

    Raises:
        UnknownName: If the site is not configured.
        BadRequest: If the identifier is empty.
        WrongKey: If the pseudonym key is not this workspace's.
    """
    settings, door = workspace.site(site), open_door(workspace)
    if not patient_id.strip():
        raise BadRequest("a withdrawal takes a patient identifier; the one given is empty")
    patients = _one_person(workspace, door.patient_key(settings.issuer or site, patient_id.strip()))
    tombstones = tuple(sorted(door.tombstone(key) for key in patients))
    known = set(workspace.lake.read(layout.WITHDRAWN).column("tombstone").to_pylist())
    plan = Plan(
        run=run,
        site=site,
        began_at=at.isoformat(),
        patient_keys=patients,
        tombstones=tombstones,
        is_known=known.issuperset(tombstones),
    )
    return _with_what_is_touched(workspace, door, plan)


def renewed(workspace: Workspace, plan: Plan) -> Plan:
    """The plan with whatever came, or was merged, since it was made; what it names stays in it.

    To be asked when no run can take in more: a person may have thought about the question for a while.
    """
    door = open_door(workspace)
    patients = tuple(sorted({key for known in plan.patient_keys for key in _one_person(workspace, known)}))
    stones = tuple(sorted(door.tombstone(key) for key in patients))
    now = _with_what_is_touched(workspace, door, replace(plan, patient_keys=patients, tombstones=stones))
    tables = plan.n_rows.keys() | now.n_rows.keys()
    models = {seen.model: seen for seen in (*now.models, *plan.models)}
    scopes = {tuple(scope[name] for name in SCOPE): scope for scope in (*plan.scopes, *now.scopes)}
    return replace(
        now,
        series=_both(plan.series, now.series),
        bases=_both(plan.bases, now.bases),
        days=_both(plan.days, now.days),
        arrivals=tuple(sorted({*plan.arrivals, *now.arrivals})),
        elsewhere=tuple(sorted({*plan.elsewhere, *now.elsewhere} - books_here(workspace, door).keys())),
        scopes=tuple(scopes[name] for name in sorted(scopes)),
        n_rows={table: max(plan.n_rows.get(table, 0), now.n_rows.get(table, 0)) for table in sorted(tables)},
        n_volumes=max(plan.n_volumes, now.n_volumes),
        models=tuple(models[name] for name in sorted(models)),
    )


def books_here(workspace: Workspace, door: Door) -> dict[str, Book]:
    """The door books that lie on this machine, by site."""
    books = {site: open_book(door, site) for site in workspace.sites}
    return {site: book for site, book in books.items() if book.file.exists()}


def chosen_rows(plan: Plan, table: str, names: Sequence[str]) -> list[Chosen]:
    """Which rows of a table are the patient's, by the key columns that it has."""
    wanted: list[Chosen] = [{"series_key": plan.keys}] if "series_key" in names and plan.keys else []
    if table == layout.ARRIVAL and plan.arrivals:
        wanted.append({"arrival_key": plan.arrivals})
    return wanted + [{name: plan.patient_keys} for name in ("patient_key", "kept_key") if name in names]


def words_of(text: str) -> set[str]:
    """The words of a path or text that may be keys: runs of small letters and digits."""
    return set(WORD.findall(text))


def _with_what_is_touched(workspace: Workspace, door: Door, plan: Plan) -> Plan:
    rows = _series_rows(workspace, plan.patient_keys)
    keys = {site: {row["series_key"] for row in rows if row["site"] == site} for site in {row["site"] for row in rows}}
    books = books_here(workspace, door)
    bases: dict[str, tuple[str, ...]] = {}
    arrivals: set[str] = set()
    for site, book in books.items():
        found = _bases_of(door, book, keys.get(site, set()))
        keys.setdefault(site, set()).update(found.keys)
        bases[site] = tuple(sorted(found.bases))
        arrivals |= found.arrivals
    series = {site: tuple(sorted(found)) for site, found in sorted(keys.items()) if found}
    every = {key for found in series.values() for key in found}
    arrivals |= _arrivals_of(workspace, every)
    plan = replace(
        plan,
        series=series,
        arrivals=tuple(sorted(arrivals)),
        bases={site: found for site, found in bases.items() if found},
        elsewhere=tuple(sorted(series.keys() - books.keys())),
        days={site: _days(rows, site) for site in series},
        scopes=_scopes(workspace, sorted(every)),
        models=tuple(seen_by(workspace, every, plan.patient_keys)),
    )
    return replace(plan, n_rows=_n_rows(workspace, plan), n_volumes=len(volumes_of(workspace, plan)))


def volumes_of(workspace: Workspace, plan: Plan) -> list[str]:
    """Stored volumes of the patient, whichever recipe and revision, those that no row names among them."""
    wanted = set(plan.keys)
    return [path for path in workspace.objects.list(layout.VOLUMES) if wanted & words_of(path)] if wanted else []


def _both(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    sites = sorted(one.keys() | other.keys())
    return {site: tuple(sorted({*one.get(site, ()), *other.get(site, ())})) for site in sites}


def _one_person(workspace: Workspace, key: str) -> tuple[str, ...]:
    """Every key that readers see as the same patient."""
    rows = sorted(workspace.lake.read(layout.PATIENT_MERGE).to_pylist(), key=lambda row: int(row["epoch"]))
    kept = {str(row["patient_key"]): str(row["kept_key"]) for row in rows}
    own = kept.get(key, key)
    return tuple(sorted({key, own} | {other for other, under in kept.items() if under == own}))


def _series_rows(workspace: Workspace, patients: Sequence[str]) -> list[dict[str, Any]]:
    """Every revision of the series whose latest one is of these patients.

    A series that was corrected to another patient is that patient's; only its rows under the wrong key go.
    """
    where = pc.field("patient_key").isin(pa.array(patients, pa.string()))
    keys = workspace.lake.read(layout.SERIES, where, ["series_key"]).column("series_key").to_pylist()
    columns = ["site", "series_key", "revision", "patient_key", "observed_on"]
    known = workspace.lake.read(layout.SERIES, pc.field("series_key").isin(pa.array(keys, pa.string())), columns)
    rows = sorted(known.to_pylist(), key=lambda row: int(row["revision"]))
    owner = {row["series_key"]: row["patient_key"] for row in rows}
    return [row for row in rows if owner[row["series_key"]] in patients]


@dataclass(frozen=True, slots=True)
class _InBook:
    bases: set[str]
    keys: set[str]
    arrivals: set[str]


def _bases_of(door: Door, book: Book, keys: set[str]) -> _InBook:
    """The series of a book that became one of these, with all keys of their parts and files."""
    files = list(book.files())
    parts: dict[str, set[int]] = {}
    for base, numbers in _parts((entry.base, entry.parts) for entry in files):
        parts.setdefault(base, {0}).update(numbers)
    for base, numbers in book.shown_parts():
        parts.setdefault(base, {0}).update(numbers)
    named = {base: {door.part_key(base, part) for part in numbers} for base, numbers in parts.items()}
    bases = {base for base, made in named.items() if made & keys}
    arrivals = {entry.arrival_key for entry in files if entry.base in bases and entry.arrival_key}
    return _InBook(bases, {key for base in bases for key in named[base]}, arrivals)


def _parts(files: Iterable[tuple[str | None, tuple[int, ...]]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((base, parts) for base, parts in files if base is not None)


def _arrivals_of(workspace: Workspace, keys: Iterable[str]) -> set[str]:
    where = pc.field("series_key").isin(pa.array(sorted(keys), pa.string()))
    return set(workspace.lake.read(layout.ARRIVAL, where, ["arrival_key"]).column("arrival_key").to_pylist())


def _days(rows: Sequence[Mapping[str, Any]], site: str) -> tuple[str, ...]:
    found: set[date] = {row["observed_on"] for row in rows if row["site"] == site and row["observed_on"] is not None}
    return tuple(day.isoformat() for day in sorted(found))


def _scopes(workspace: Workspace, keys: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    where = pc.field("series_key").isin(pa.array(keys, pa.string()))
    rows = workspace.lake.read(layout.RANK, where, list(SCOPE)).to_pylist()
    return tuple(dict(zip(SCOPE, scope, strict=True)) for scope in sorted({tuple(row.values()) for row in rows}))


def _n_rows(workspace: Workspace, plan: Plan) -> dict[str, int]:
    n = {}
    for table, schema in workspace.lake.schemas.items():
        chosen = chosen_rows(plan, table, schema.names)
        if chosen:
            n[table] = workspace.lake.read(table, met(chosen), [next(iter(chosen[0]))]).num_rows
    return {table: count for table, count in sorted(n.items()) if count}
