"""SQL is source code: it lives in `.sql` files that open with their own documentation.

The header is the signature. Its first line is `-- name: purpose`; then `reads`, `params`
and `returns` (and, where they help, `range` and `source`). Values bind as `$name`; the
tables are views that the caller creates. `tests/test_queries.py` holds every header
against its file.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from platform_core.errors import StorageUnavailable, UnknownName

Connection = duckdb.DuckDBPyConnection
SECTIONS = ("reads", "params", "returns", "range", "source")


@dataclass(frozen=True, slots=True)
class Query:
    """One `.sql` file."""

    name: str
    text: str

    @property
    def header(self) -> dict[str, str]:
        """The documented sections, each as one string; `purpose` is the first line."""
        return _parse_header(self.text)

    @property
    def params(self) -> frozenset[str]:
        """The `$names` that the statement binds."""
        body = "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("--"))
        return frozenset(re.findall(r"\$([a-z_]+)", body))

    def run(self, db: Connection, **params: Any) -> pa.Table:
        """Run the statement on `db` and return its rows.

        Raises:
            UnknownName: If a parameter is missing or is not one of the statement's.
            StorageUnavailable: If a table cannot be read now.
        """
        for name in self.params ^ params.keys():
            raise UnknownName(f"parameter of {self.name}.sql", name, sorted(self.params))
        try:
            return db.sql(self.text, params=params).to_arrow_table()
        except duckdb.Error as error:
            if "IOError" not in str(error):
                raise
            raise StorageUnavailable("a table", " ".join(str(error).split())[:300]) from error


def connect(tables: Mapping[str, Any]) -> Connection:
    """A DuckDB connection in which each Arrow table or dataset is a view under its own name; close it after use.

    What is registered is seen by this connection alone: no other one, and no other thread, knows its views.
    """
    db = _engine(os.getpid()).cursor()
    for name, rows in tables.items():
        db.register(name, rows)
    return db


@cache
def _engine(process: int) -> Connection:  # noqa: ARG001 - a forked process must not use its parent's threads
    """The one database of a process: to make another takes 13 ms, a connection to it 0.2 ms."""
    return duckdb.connect()


@cache
def load(package: str, name: str) -> Query:
    """The query `name.sql` that lies in the folder `sql` of `package`."""
    path = files(package).joinpath("sql", f"{name}.sql")
    return Query(name, path.read_text(encoding="utf-8"))


def _parse_header(text: str) -> dict[str, str]:
    sections: dict[str, list[str]] = {"purpose": []}
    current = "purpose"
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        words = line[2:].strip()
        first, _, rest = words.partition(" ")
        if first in SECTIONS:
            current, words = first, rest.strip()
        sections.setdefault(current, []).append(words)
    return {name: " ".join(filter(None, lines)) for name, lines in sections.items()}
