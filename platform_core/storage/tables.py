"""Delta tables: transactional Parquet that every write reaches once.

A write names its transaction; a write whose transaction has landed is skipped, so a
retried or repeated task never doubles a row. Reads are Arrow; questions are DuckDB over
Arrow (the `delta` extension of DuckDB cannot be had in a closed network).
"""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from platform_core.errors import SchemaMismatch, StorageUnavailable
from platform_core.queries import Connection, connect

N_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Correction:
    """How rows of one table change what is seen of another; nothing that was written is touched.

    `statement` reads both tables, the corrected one as `<table>_as_written`, and returns all its columns.
    """

    told_by: str
    statement: str


@dataclass(frozen=True)
class Lake:
    """The tables of one workspace.

    `schemas` says what a table looks like before its first row; tables with a `site`
    column are partitioned by it. `corrections`, by table, count in `connect`; `read` and
    `dataset` give the rows as they were written.
    """

    uri: str
    schemas: Mapping[str, pa.Schema]
    corrections: Mapping[str, Correction] = field(default_factory=dict)

    def append(self, table: str, rows: pa.Table, *, transaction: str) -> int:
        """Append rows once; returns how many were written, 0 if `transaction` had landed before.

        Raises:
            SchemaMismatch: If a promised column is missing.
            StorageUnavailable: If the store did not take the commit.
        """
        if rows.num_rows == 0:
            return 0
        rows = self._conform(table, rows)
        for attempt in range(N_ATTEMPTS):
            if self._has_landed(table, transaction):
                return 0
            try:
                self._write(table, rows, transaction)
            except (CommitFailedError, DeltaError) as error:
                if attempt == N_ATTEMPTS - 1:
                    raise StorageUnavailable(f"{self.uri}/{table}", str(error)) from error
                time.sleep(random.uniform(0.01, 0.05) * 2 ** min(attempt, 5))
            else:
                return int(rows.num_rows)
        raise AssertionError("unreachable")

    def version(self, table: str) -> int:
        """The table's present version; -1 before its first row."""
        delta = self._open(table)
        return -1 if delta is None else int(delta.version())

    def versions(self) -> dict[str, int]:
        """The present version of every table: equal before and after means that nothing was written."""
        return {table: self.version(table) for table in self.schemas}

    def dataset(self, table: str, version: int | None = None) -> ds.Dataset | pa.Table:
        """The table, lazily, at a version; an empty table before its first row.

        Columns that were promised after its rows were written read as null.
        """
        delta = self._open(table, version)
        if delta is None:
            return self.schemas[table].empty_table()
        data = delta.to_pyarrow_dataset()
        newer = [field for field in self.schemas[table] if field.name not in data.schema.names]
        return data.replace_schema(pa.schema([*data.schema, *newer])) if newer else data

    def read(self, table: str, where: ds.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Rows that meet `where`, with all columns or those named."""
        data = self.dataset(table)
        if isinstance(data, pa.Table):
            return data if columns is None else data.select(columns)
        return data.to_table(columns=columns, filter=where)

    def connect(self, tables: Iterable[str] | None = None) -> Connection:
        """A DuckDB connection in which each table is a view under its own name, corrected where it is to be."""
        wanted = dict.fromkeys(self.schemas if tables is None else tables)
        told = {name: self.corrections[name] for name in wanted if name in self.corrections}
        told = {name: correction for name, correction in told.items() if self.version(correction.told_by) >= 0}
        views = {name: self.dataset(name) for name in (*wanted, *(c.told_by for c in told.values()))}
        db = connect({f"{name}_as_written" if name in told else name: rows for name, rows in views.items()})
        for name, correction in told.items():
            db.sql(correction.statement).create_view(name)
        return db

    def _path(self, table: str) -> str:
        return f"{self.uri}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        if table not in self.schemas:
            raise SchemaMismatch(self.uri, [table], sorted(self.schemas))
        try:
            return DeltaTable(self._path(table), version=version)
        except TableNotFoundError:
            return None

    def _has_landed(self, table: str, transaction: str) -> bool:
        delta = self._open(table)
        return delta is not None and delta.transaction_version(transaction) is not None

    def _write(self, table: str, rows: pa.Table, transaction: str) -> None:
        write_deltalake(
            self._path(table),
            rows,
            mode="append",
            schema_mode="merge",
            partition_by=["site"] if "site" in rows.column_names else None,
            commit_properties=CommitProperties(max_commit_retries=50, app_transactions=[Transaction(transaction, 1)]),
        )

    def _conform(self, table: str, rows: pa.Table) -> pa.Table:
        """Promised columns in their promised types and order, then any more that came along."""
        schema = self.schemas[table]
        missing = [name for name in schema.names if name not in rows.column_names]
        if missing:
            raise SchemaMismatch(table, missing, rows.column_names)
        more = [name for name in rows.column_names if name not in schema.names]
        promised = rows.select(schema.names).cast(schema.remove_metadata())
        for name in more:
            promised = promised.append_column(name, rows.column(name))
        return promised


def rows_of(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """An Arrow table of dictionaries; a column that a row leaves out is null, one it should not have is an error."""
    unknown = sorted({key for row in rows for key in row} - set(schema.names))
    if unknown:
        raise SchemaMismatch("row", unknown, schema.names)
    return pa.Table.from_pylist(rows, schema=schema)
