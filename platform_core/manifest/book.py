"""The door book: which arrival came from where. Beside the door, for its owner's eyes only.

One SQLite file per site. A file is in it from the moment it is listed: `pending` until it
has an outcome, then `done`. So a listing that broke off is not lost, a file that still
arrives is not forgotten, and what a change feed told once need not be told again. Nothing
of it enters the workspace.
"""

# ruff: noqa: S608 - statements are put together of constants of this file; values are bound
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from platform_core.errors import NoSuchPlace
from platform_core.manifest.door import Door, private_folder
from platform_core.manifest.process import is_alive, this_process
from platform_core.sources.contract import Item

TABLES = Path(__file__).with_name("sql") / "door_book.sql"
FILE = "address, n_bytes, modified_ns, arrival_key, content, base, parts, n_tries"
WAIT_S = 60.0
"""How long a writer waits for another one; a write takes milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as the door knows it."""

    address: str
    n_bytes: int
    modified_ns: int
    arrival_key: str = ""
    """Empty until the file has an outcome, be it that it waits."""
    content: str = ""
    """Keyed hash of its bytes."""
    base: str | None = None
    """Pseudonym of the whole series it belongs to."""
    parts: tuple[int, ...] = ()
    """Parts of that series it went into."""
    n_tries: int = 0
    """How often it was listed, and then not there to be read."""
    instance: str = ""
    """Pseudonym of the DICOM instance that was read from it; `Group` tells it of earlier reads."""

    @property
    def item(self) -> Item:
        """The file as a source would list it."""
        return Item(self.address, self.n_bytes, self.modified_ns)

    def at(self, item: Item) -> "Entry":
        """The same file as it is listed now."""
        return replace(self, modified_ns=item.modified_ns)


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one series: those to take in, and those that were taken in before."""

    base: str
    pending: tuple[Entry, ...]
    done: tuple[Entry, ...]
    instances: Mapping[str, str] = field(default_factory=dict)
    """Content of every file ever read, and the instance that it showed."""
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Instance, and the parts that it went into, under whatever address and in whatever bytes it came."""
    released: frozenset[str] = frozenset()
    """Content of files whose pixels a person has looked at: what looks like text in them names nobody."""


@dataclass(frozen=True, slots=True)
class Book:
    """The door book of one site."""

    file: Path

    # -- listing

    def known(self, addresses: Sequence[str]) -> dict[str, Entry]:
        """What the book holds of these addresses, pending or done."""
        marks = ",".join("?" * len(addresses))
        with self._open() as db:
            return {entry.address: entry for entry in _entries(db, f"WHERE address IN ({marks})", addresses)}

    def list_pending(self, items: Iterable[tuple[Item, str]], seen_ns: int) -> None:
        """Note files that are to be taken in, each with its series; what was known of an address gives way.

        A file that could never be read keeps its arrival, so that what it was held for is settled once it can be.
        """
        rows = [
            (item.address, item.n_bytes, item.modified_ns, base, min(item.modified_ns or seen_ns, seen_ns))
            for item, base in items
        ]
        with self._open() as db:
            db.executemany(
                "INSERT INTO file (address, n_bytes, modified_ns, base, changed_ns, is_done) VALUES (?, ?, ?, ?, ?, 0) "
                "ON CONFLICT (address) DO UPDATE SET n_bytes = excluded.n_bytes, modified_ns = excluded.modified_ns, "
                "base = excluded.base, changed_ns = excluded.changed_ns, is_done = 0, parts = '[]', content = '', "
                "n_tries = 0, arrival_key = CASE WHEN is_done AND (content <> '' OR n_bytes <> excluded.n_bytes) "
                "THEN '' ELSE arrival_key END",
                rows,
            )

    def cursor(self) -> str:
        """Where the listing goes on."""
        return self._fact("cursor")

    def save_cursor(self, cursor: str) -> None:
        """What was listed up to here is noted."""
        self._state("cursor", cursor)

    # -- a run

    def begin(self, run: str, lake: str) -> bool:
        """Take the site for this run; False if a run of another process that lives is at work on it.

        A book whose tables were lost or replaced (`lake` is another one) is emptied: its files
        are new to the tables that are there.
        """
        with self._open() as db:
            owner = _fact(db, "owner")
            if owner and owner != this_process() and is_alive(owner):
                return False
            before = _fact(db, "lake")
            if not lake or (before and lake != before):
                db.execute("DELETE FROM file WHERE is_done")
                _state(db, "cursor", "")
            _state(db, "lake", lake)
            _state(db, "owner", this_process())
            _state(db, "run", run)
            db.execute("DELETE FROM shard")
            return True

    def end(self) -> None:
        """Leave the site to the next run, if this process has it."""
        with self._open() as db:
            if _fact(db, "owner") == this_process():
                _state(db, "owner", "")

    def series_at_rest(self, changed_before_ns: int) -> Iterator[str]:
        """Series with files to take in of which none has changed since."""
        yield from self._series("HAVING max(CASE WHEN is_done THEN 0 ELSE changed_ns END) <= ?", changed_before_ns)

    def series_moving(self, changed_after_ns: int) -> Iterator[str]:
        """Series with files to take in of which one has changed since: more may come."""
        yield from self._series("HAVING max(CASE WHEN is_done THEN 0 ELSE changed_ns END) > ?", changed_after_ns)

    def n_pending(self) -> int:
        """Files that are to be taken in."""
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM file WHERE NOT is_done").fetchone()[0])

    def n_settled(self, run: str) -> int:
        """Files to which a run gave an outcome, those that wait not among them."""
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM file WHERE run = ? AND is_done", (run,)).fetchone()[0])

    def put_shards(self, run: str, bases: Iterable[str], size: int) -> tuple[str, ...]:
        """Note what a run is to take in, `size` series to a shard; returns the shards' opaque names."""
        listed = list(bases)
        shards = [(f"{run}-{n // size:05d}", json.dumps(listed[n : n + size])) for n in range(0, len(listed), size)]
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO shard (name, bases) VALUES (?, ?)", shards)
        return tuple(name for name, _ in shards)

    def get_shard(self, name: str) -> list[str]:
        """The series of a shard.

        Raises:
            NoSuchPlace: If there is no such shard.
        """
        with self._open() as db:
            row = db.execute("SELECT bases FROM shard WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NoSuchPlace(f"shard {name}", "a shard of the run that is at work on this site", "start a new run")
        return list(json.loads(row[0]))

    def group(self, base: str) -> Group:
        """All files of a series, in the order of their addresses."""
        with self._open() as db:
            pending = _entries(db, "WHERE base = ? AND NOT is_done ORDER BY address", (base,))
            done = _entries(db, "WHERE base = ? AND is_done ORDER BY address", (base,))
            shown = db.execute("SELECT content, instance, parts FROM shown WHERE base = ?", (base,)).fetchall()
            released = db.execute("SELECT content FROM released WHERE base = ?", (base,)).fetchall()
        instances = {content: instance for content, instance, _ in shown}
        parts = {instance: tuple(json.loads(parts)) for _, instance, parts in shown}
        return Group(base, tuple(pending), tuple(done), instances, parts, frozenset(content for (content,) in released))

    # -- outcomes

    def settle(self, entries: Iterable[Entry], run: str, *, is_done: bool = True) -> None:
        """Note the outcome of files: `done`, or still pending because they wait."""
        entries = list(entries)
        rows = [
            (e.address, e.n_bytes, e.modified_ns, e.arrival_key, e.content, e.base, json.dumps(e.parts), e.n_tries)
            for e in entries
        ]
        shown = [(json.dumps(e.parts), e.base, e.instance, e.content) for e in entries if e.instance and e.parts]
        with self._open() as db:
            db.executemany("UPDATE shown SET parts = ? WHERE base = ? AND instance = ?", [row[:3] for row in shown])
            db.executemany("INSERT OR IGNORE INTO shown (parts, base, instance, content) VALUES (?, ?, ?, ?)", shown)
            db.executemany(
                f"INSERT INTO file ({FILE}, run, is_done, changed_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (address) DO UPDATE SET n_bytes = excluded.n_bytes, modified_ns = excluded.modified_ns, "
                "arrival_key = excluded.arrival_key, content = excluded.content, base = excluded.base, "
                "parts = excluded.parts, n_tries = excluded.n_tries, run = excluded.run, is_done = excluded.is_done",
                [(*row, run, is_done, row[2]) for row in rows],
            )

    def touch(self, entries: Iterable[Entry]) -> None:
        """Note that files carry another time now; whether they are done or pending stays as it is."""
        with self._open() as db:
            rows = [(entry.modified_ns, entry.address) for entry in entries]
            db.executemany("UPDATE file SET modified_ns = ? WHERE address = ?", rows)

    def forget(self, entries: Iterable[Entry]) -> None:
        """Let go of files that are gone; were they to come back, they would be new."""
        with self._open() as db:
            db.executemany("DELETE FROM file WHERE address = ?", [(entry.address,) for entry in entries])

    def settled(self, run: str) -> list[str]:
        """Arrival keys of all files to which a run gave an outcome."""
        with self._open() as db:
            return [key for (key,) in db.execute("SELECT arrival_key FROM file WHERE run = ?", (run,))]

    def entries(self) -> Iterator[Entry]:
        """All files that have been taken in, in the order of their addresses."""
        with self._open() as db:
            yield from _entries(db, "WHERE is_done ORDER BY address")

    def reopen(self, bases: Sequence[str], arrival_keys: Sequence[str] = ()) -> int:
        """Let the next run decide again on these series, and find these files anew; returns the number of files."""
        with self._open() as db:
            n = 0
            for column, values in (("base", bases), ("arrival_key", arrival_keys)):
                for value in values:
                    n += db.execute(
                        f"DELETE FROM file WHERE {column} = ? AND is_done AND base IS NULL", (value,)
                    ).rowcount
                    n += db.execute(
                        f"UPDATE file SET is_done = 0, changed_ns = 0, n_tries = 0 WHERE {column} = ? AND is_done",
                        (value,),
                    ).rowcount
            _state(db, "cursor", "")
            return n

    def release(self, entries: Iterable[Entry], because: str) -> None:
        """A person has looked at the pixels of these files, in the bytes that they have now."""
        rows = [(entry.base, entry.content, because) for entry in entries if entry.base and entry.content]
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO released (base, content, because) VALUES (?, ?, ?)", rows)

    # -- withdrawal

    def files(self) -> Iterator[Entry]:
        """All files, pending or done, in the order of their addresses."""
        with self._open() as db:
            yield from _entries(db, "ORDER BY address")

    def shown_parts(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every series that was read, and parts that its instances went into."""
        with self._open() as db:
            for base, parts in db.execute("SELECT DISTINCT base, parts FROM shown ORDER BY base, parts"):
                yield base, tuple(json.loads(parts))

    def erase(self, bases: Iterable[str], arrival_keys: Iterable[str] = ()) -> int:
        """Let go of all that is known of these series and files, and of the bytes that told of it; returns the files.

        Files that still lie at the source are new to the next run.
        """
        series, arrivals = [(base,) for base in bases], [(key,) for key in arrival_keys]
        with self._open() as db:
            before = db.total_changes
            db.executemany("DELETE FROM file WHERE base = ?", series)
            db.executemany("DELETE FROM file WHERE arrival_key = ?", arrivals)
            n = db.total_changes - before
            db.executemany("DELETE FROM shown WHERE base = ?", series)
            db.executemany("DELETE FROM released WHERE base = ?", series)
            db.execute("DELETE FROM shard")
            _state(db, "cursor", "")
        self._tidy()
        return n

    def _tidy(self) -> None:
        """Write the file anew without what was deleted, and empty the log of writes beside it."""
        db = sqlite3.connect(self.file, timeout=WAIT_S, isolation_level=None)
        try:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.close()

    # -- the file

    def _series(self, having: str, *values: object) -> Iterator[str]:
        with self._open() as db:
            for (base,) in db.execute(
                "SELECT base FROM file WHERE base IN (SELECT base FROM file WHERE NOT is_done) "
                f"GROUP BY base {having} ORDER BY base",
                values,
            ):
                yield base

    def _fact(self, name: str) -> str:
        with self._open() as db:
            return _fact(db, name)

    def _state(self, name: str, value: str) -> None:
        with self._open() as db:
            _state(db, name, value)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone in the book."""
        if not self.file.exists():
            private_folder(self.file.parent)
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.file, timeout=WAIT_S, isolation_level=None)
        try:
            db.executescript(TABLES.read_text(encoding="utf-8"))
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()


def open_book(door: Door, site: str) -> Book:
    """The door book of one site; a site name is safe in a path (`settings.NAME`)."""
    return Book(door.home / f"{site}.sqlite")


def _entries(db: sqlite3.Connection, where: str, values: Sequence[object] = ()) -> list[Entry]:
    names = FILE.split(", ")
    rows = db.execute(f"SELECT {FILE} FROM file {where}", values)
    facts = (dict(zip(names, row, strict=True)) for row in rows)
    return [Entry(**{**fact, "parts": tuple(json.loads(fact["parts"]))}) for fact in facts]


def _fact(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def _state(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))
