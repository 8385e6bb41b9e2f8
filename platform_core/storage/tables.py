"""Delta tables: transactional Parquet that every write reaches once.

A write names its transaction; a write whose transaction has landed is skipped, so a
retried or repeated task never doubles a row. Reads are Arrow; questions are DuckDB over
Arrow (the `delta` extension of DuckDB cannot be had in a closed network).

On S3 a commit is one conditional put. If its answer is lost, deltalake repeats it as the
next version unless a transaction forbids that; each append therefore carries a number of
its own in its transaction and finds out afterwards whether it was the one that landed.
"""

import atexit
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from platform_core.errors import SchemaMismatch, StorageUnavailable
from platform_core.layout import is_remote
from platform_core.queries import Connection, connect
from platform_core.storage.erasure import Chosen, met, remove_traces, spelt
from platform_core.storage.objects import open_objects
from platform_core.storage.s3 import table_options

PATIENCE = 12
CONFLICT, FAILURE = 1, 3
"""What another writer's commit, or a store that does not answer, takes of the patience of one append."""
N_OPENINGS = 4
GROWN_BYTES = 2_000_000
"""A file of this size is left alone: opening it costs less than reading it."""
GROUP_ROWS = 4096
"""Rows of a merged file that are read or skipped together: a month of many years is a small part of them."""
LAST_READS_S = 0.1
"""What Arrow's reading threads are given at the end of a process to let go of what they hold of Python."""
NEW_TABLE = {
    "delta.checkpointInterval": "30",
    "delta.enableExpiredLogCleanup": "false",
}
"""A reader lists and reads every commit since the last checkpoint: on S3 thirty requests, not a hundred (the default).

The log is kept, so that a version that a decision names can still be read after thirty days.
"""


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
        patience, ticket = PATIENCE, uuid.uuid4().int >> 66
        while True:
            try:
                return int(rows.num_rows) if self._land(table, rows, transaction, ticket) else 0
            except (DeltaError, OSError) as error:
                patience -= CONFLICT if isinstance(error, CommitFailedError) else FAILURE
                if patience <= 0:
                    raise StorageUnavailable(self._path(table), _first_line(error)) from error
                time.sleep(random.uniform(0.01, 0.05) * 2 ** min(PATIENCE - patience, 5))

    def compact(self, table: str) -> int:
        """Merge small files, a site's by itself and in order; returns how many files became fewer.

        What was written is not rewritten once a file has grown to `GROWN_BYTES`, and no version is lost: the
        merged files stay for whoever reads an earlier one.

        Raises:
            StorageUnavailable: If the store did not take the commit.
        """
        delta = self._open(table)
        if delta is None:
            return 0
        try:
            done = delta.optimize.compact(
                target_size=GROWN_BYTES, writer_properties=WriterProperties(max_row_group_size=GROUP_ROWS)
            )
        except (DeltaError, OSError) as error:
            raise StorageUnavailable(self._path(table), _first_line(error)) from error
        return int(done["numFilesRemoved"]) - int(done["numFilesAdded"])

    def erase(self, table: str, chosen: Sequence[Chosen]) -> int:
        """Remove rows from the table, from every file in its folder and from its log; returns how many it held now.

        Earlier versions lose the files that held them: what else was in those files can be read no more at that
        version. Everything else is left, the numbers of versions and the transactions that have landed among it.

        Args:
            table: Which table.
            chosen: Rows that meet any of these conditions.

        Raises:
            StorageUnavailable: If the store did not take the commit.
        """
        return self._change(table, chosen, None, None, chosen)

    def replace(
        self,
        table: str,
        chosen: Chosen,
        change: Callable[[pa.Table], pa.Table],
        *,
        transaction: str,
        gone: Sequence[Chosen] | None = None,
    ) -> int:
        """Put what `change` makes of the chosen rows in their place, in one commit; returns how many they were.

        If another writer comes between, the rows are read and changed again. With a transaction that has landed
        nothing is written: 0. Files that held the rows as they were go, as in `erase`.

        Args:
            table: Which table.
            chosen: The rows that are read; what is made of them is of the same sites.
            change: Makes the new rows.
            transaction: What tells this write from any other.
            gone: Of which rows nothing may be left, by default of all that were chosen.
        """
        return self._change(table, [chosen], change, transaction, gone or [chosen])

    def _change(
        self,
        table: str,
        chosen: Sequence[Chosen],
        change: Callable[[pa.Table], pa.Table] | None,
        transaction: str | None,
        gone: Sequence[Chosen],
    ) -> int:
        """Write the sites of the chosen rows anew, again if another writer came between; then remove all traces."""
        patience, n = PATIENCE, 0
        while (delta := self._open(table)) is not None:
            try:
                n = self._rewrite(table, delta, chosen, change, transaction)
                break
            except (DeltaError, OSError) as error:
                patience -= CONFLICT if isinstance(error, CommitFailedError) else FAILURE
                if patience <= 0:
                    raise StorageUnavailable(self._path(table), _first_line(error)) from error
                time.sleep(random.uniform(0.01, 0.05) * 2 ** min(PATIENCE - patience, 5))
        if delta is not None:
            remove_traces(partial(self._open, table), open_objects(self._path(table)), gone)
        return n

    def _rewrite(
        self,
        table: str,
        delta: DeltaTable,
        chosen: Sequence[Chosen],
        change: Callable[[pa.Table], pa.Table] | None,
        transaction: str | None,
    ) -> int:
        """One commit of whole sites: rows that deltalake copies itself get a type of text that Arrow cannot filter."""
        if transaction is not None and delta.transaction_version(transaction) is not None:
            return 0
        data = self.dataset(table, int(delta.version()))
        present = data.to_table(filter=met(chosen))
        if not present.num_rows:
            return 0
        made = None if change is None else self._conform(table, change(present))
        is_parted = "site" in delta.metadata().partition_columns
        sites = pc.unique(present.column("site")).to_pylist() if is_parted else []
        others = ~met(chosen) & met([{"site": sites}]) if is_parted else ~met(chosen)
        known = {field.name for field in delta.schema().fields}
        schema = pa.schema([f.remove_metadata() if f.name in known else f for f in data.schema.remove_metadata()])
        parts = chain(data.scanner(filter=others).to_batches(), () if made is None else made.to_batches())
        batches = (batch.select(schema.names).cast(schema) for batch in parts)
        landed = [] if transaction is None else [Transaction(transaction, uuid.uuid4().int >> 66)]
        write_deltalake(
            delta,
            pa.RecordBatchReader.from_batches(schema, batches),
            mode="overwrite",
            schema_mode="merge",
            predicate=spelt([{"site": sites}]) if is_parted else None,
            target_file_size=GROWN_BYTES,
            writer_properties=WriterProperties(max_row_group_size=GROUP_ROWS),
            commit_properties=CommitProperties(max_commit_retries=0, app_transactions=landed),
        )
        return int(present.num_rows)

    def n_small_files(self, table: str) -> int:
        """Files below half of `GROWN_BYTES`, of the site that has most of them: what compaction would merge."""
        delta = self._open(table)
        if delta is None:
            return 0
        files = pa.table(delta.get_add_actions(flatten=True))
        small = files.filter(pc.less(files.column("size_bytes"), GROWN_BYTES // 2))
        of = [name for name in small.column_names if name.startswith("partition.")]
        return int(pc.max(small.group_by(of).aggregate([([], "count_all")]).column("count_all")).as_py() or 0)

    def version(self, table: str) -> int:
        """The table's present version; -1 before its first row."""
        delta = self._open(table)
        return -1 if delta is None else int(delta.version())

    def identity(self, table: str) -> str:
        """What tells this table from another of its name, for as long as it lives; empty before its first row."""
        delta = self._open(table)
        return "" if delta is None else str(delta.metadata().id)

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
        data = delta.to_pyarrow_dataset(filesystem=self._files(table))
        newer = [field for field in self.schemas[table] if field.name not in data.schema.names]
        return data.replace_schema(pa.schema([*data.schema, *newer])) if newer else data

    def read(self, table: str, where: ds.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Rows that meet `where`, with all columns or those named."""
        data = self.dataset(table)
        if isinstance(data, pa.Table):
            return data if columns is None else data.select(columns)
        try:
            return data.to_table(columns=columns, filter=where)
        except OSError as error:
            raise StorageUnavailable(self._path(table), _first_line(error)) from error

    def connect(self, tables: Iterable[str] | None = None) -> Connection:
        """A DuckDB connection in which each table is a view under its own name, corrected where it is to be."""
        wanted = dict.fromkeys(self.schemas if tables is None else tables)
        told = {name: self.corrections[name] for name in wanted if name in self.corrections}
        told = {name: correction for name, correction in told.items() if self.version(correction.told_by) >= 0}
        views = {name: self.dataset(name) for name in (*wanted, *(c.told_by for c in told.values()))}
        db = connect({f"{name}_as_written" if name in told else name: rows for name, rows in views.items()})
        for name, correction in told.items():
            db.register(name, db.sql(correction.statement))
        return db

    def _path(self, table: str) -> str:
        return f"{self.uri}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        if table not in self.schemas:
            raise SchemaMismatch(self.uri, [table], sorted(self.schemas))
        for attempt in range(N_OPENINGS):
            try:
                return DeltaTable(self._path(table), version=version, storage_options=self._options())
            except TableNotFoundError:
                return None
            except (DeltaError, OSError) as error:  # deltalake does not repeat a log file that was cut short
                if attempt == N_OPENINGS - 1:
                    raise StorageUnavailable(self._path(table), _first_line(error)) from error
                time.sleep(random.uniform(0.01, 0.05) * 2**attempt)
        raise AssertionError("unreachable")

    def _files(self, table: str) -> pyarrow.fs.FileSystem | None:
        """Arrow's own way to local files; to a store goes deltalake's, which is written in Python."""
        if is_remote(self.uri):
            _await_last_reads()
            return None
        return pyarrow.fs.SubTreeFileSystem(self._path(table), pyarrow.fs.LocalFileSystem())

    def _options(self) -> dict[str, str] | None:
        return table_options(self.uri) if is_remote(self.uri) else None

    def _land(self, table: str, rows: pa.Table, transaction: str, ticket: int) -> bool:
        """Append unless the transaction has landed; whether it is `ticket` that landed, now or at an earlier try."""
        delta = self._open(table)
        if delta is None:
            self._create(table, rows.schema)
            delta = self._open(table)
        landed = None if delta is None else delta.transaction_version(transaction)
        if landed is not None:
            return bool(landed == ticket)
        write_deltalake(
            delta,
            rows if delta is None else _described_once(rows, {field.name for field in delta.schema().fields}),
            mode="append",
            schema_mode="merge",
            commit_properties=CommitProperties(
                max_commit_retries=50, app_transactions=[Transaction(transaction, ticket)]
            ),
        )
        return True

    def _create(self, table: str, schema: pa.Schema) -> None:
        """Make the table; another may be first.

        Without retries: a first commit whose answer was lost would be repeated as version 1.
        """
        try:
            DeltaTable.create(
                self._path(table),
                schema,
                partition_by=["site"] if "site" in schema.names else None,
                configuration=NEW_TABLE,
                storage_options=self._options(),
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            if self._open(table) is None:
                raise

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


@cache
def _await_last_reads() -> None:
    """End this process only when Arrow's threads hold no Python file any more; else it aborts (apache/arrow#34314)."""
    atexit.register(time.sleep, LAST_READS_S)


def _described_once(rows: pa.Table, known: set[str]) -> pa.Table:
    """The rows with the descriptions of new columns only: a description stays as the table was made with it."""
    fields = [field.remove_metadata() if field.name in known else field for field in rows.schema]
    return rows.cast(pa.schema(fields))


def _first_line(error: Exception) -> str:
    """What deltalake says, without its tree of causes."""
    return " ".join(str(error).split())[:300]
