"""The door book: which arrival came from where. Beside the door, for its owner's eyes only.

One file of JSON lines per site, append-only; the last line of an address counts, and a
last line that a crash tore is left out. Nothing of it enters the workspace. The lists of
files that a run has yet to take in (shards) lie here too, under opaque names.
"""

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from platform_core.errors import NoSuchPlace
from platform_core.manifest.door import Door, private_folder
from platform_core.sources.contract import Item

KEPT_SHARDS_NS = 7 * 24 * 3600 * 10**9
"""Lists of a run that broke off are kept for a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as the door knows it."""

    address: str
    n_bytes: int
    modified_ns: int
    content: str
    """Keyed hash of its bytes."""
    arrival_key: str
    base: str | None = None
    """Pseudonym of the whole series it belongs to."""
    parts: tuple[int, ...] = ()
    """Parts of that series it went into."""

    @property
    def item(self) -> Item:
        """The file as a source would list it."""
        return Item(self.address, self.n_bytes, self.modified_ns)


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one series that are to be taken in together."""

    base: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """The door book of one site."""

    file: Path
    pending: Path

    def read(self) -> dict[str, Entry]:
        """What is known, by address."""
        if not self.file.exists():
            return {}
        known: dict[str, Entry] = {}
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                facts = json.loads(line)
            except json.JSONDecodeError:
                continue
            known[facts["address"]] = Entry(**{**facts, "parts": tuple(facts["parts"])})
        return known

    def append(self, entries: Iterable[Entry]) -> None:
        """Add lines; what two processes add at the same time does not mix."""
        text = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
        if not text:
            return
        private_folder(self.file.parent)
        with os.fdopen(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            size = out.seek(0, os.SEEK_END)
            if size and _last_byte(out.fileno(), size) != b"\n":
                text = "\n" + text
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())

    def put_shards(self, run: str, groups: Sequence[Group], size: int, now_ns: int) -> tuple[str, ...]:
        """Write down what a run is to take in, `size` series to a shard; returns the shards' opaque names."""
        private_folder(self.pending)
        for old in self.pending.glob("*.json"):
            if now_ns - old.stat().st_mtime_ns > KEPT_SHARDS_NS:
                old.unlink(missing_ok=True)
        names = []
        for start in range(0, len(groups), size):
            name = f"{run}-{start // size:05d}"
            facts = [
                [group.base, [list(asdict(item).values()) for item in group.items]]
                for group in groups[start : start + size]
            ]
            _write_private(self.pending / f"{name}.json", json.dumps(facts))
            names.append(name)
        return tuple(names)

    def get_shard(self, name: str) -> list[Group]:
        """The series of a shard.

        Raises:
            NoSuchPlace: If there is no such shard.
        """
        try:
            facts = json.loads((self.pending / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NoSuchPlace(f"shard {name}", "a shard of a run of the last week", "start a new run") from error
        return [Group(base, tuple(Item(*item) for item in items)) for base, items in facts]


def open_book(door: Door, site: str) -> Book:
    """The door book of one site; a site name is safe in a path (`settings.NAME`)."""
    return Book(door.home / f"{site}.jsonl", door.home / f"{site}.pending")


def by_series(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Known files by the series they belong to."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.base is not None:
            groups[entry.base].append(entry)
    return groups


def _last_byte(handle: int, size: int) -> bytes:
    return os.pread(handle, 1, size - 1)


def _write_private(file: Path, text: str) -> None:
    temporary = file.with_suffix(".part")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    temporary.replace(file)
