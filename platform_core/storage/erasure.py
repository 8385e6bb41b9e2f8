"""Rows that must lie nowhere any more: in no file of a table, of whichever version, and in no line of its log.

A Delta table forgets slowly: a delete writes files without the rows and leaves those with them to whoever reads an
earlier version; and the log tells the least and greatest value of every column of every file that ever was. Here
the files go, their statistics go, and so do older checkpoints, which repeat them. No line of the log goes: its
numbers keep two writers apart, and its transactions keep a write from being done twice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from io import BytesIO
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

from platform_core.storage.objects import Objects

Chosen = Mapping[str, Sequence[str | date]]
"""Rows whose every named column holds one of the values."""

LOG = "_delta_log/"
N_SIDE_BY_SIDE = 8
UNDER_WAY = timedelta(hours=1)
"""A file that no commit names may belong to one that is still to come; an older one was left by a crash."""
HIDDEN = "withdrawn"
"""What stands in the log in the place of a condition that named what was removed."""


def spelt(chosen: Sequence[Chosen]) -> str:
    """The condition in SQL."""
    each = [" AND ".join(f"{name} IN ({', '.join(map(_literal, values))})" for name, values in one.items())
            for one in chosen]  # fmt: skip
    return " OR ".join(f"({one})" for one in each)


def met(chosen: Sequence[Chosen]) -> ds.Expression:
    """The condition for Arrow."""
    each = [
        reduce(and_, (ds.field(name).isin(pa.array(list(values))) for name, values in one.items())) for one in chosen
    ]
    return reduce(or_, each)


def remove_traces(reopen: Callable[[], DeltaTable | None], objects: Objects, chosen: Sequence[Chosen]) -> int:
    """Remove files of earlier versions that hold chosen rows, and what the log tells of files that are gone.

    Args:
        reopen: Opens the table as it is now. No row of it is chosen, or those that are were written in their place or
            since. It is opened after the log was read: what a commit names that lands meanwhile is live.
        objects: The folder of the table.
        chosen: Which rows.

    Returns:
        Files removed. Called again, it removes none and leaves the table as it is.
    """
    found = {each.path: each.modified_at for each in objects.find("")}
    log = sorted(path for path in found if path.startswith(LOG) and path.endswith(".json"))
    with ThreadPoolExecutor(N_SIDE_BY_SIDE) as pool:
        commits = dict(zip(log, pool.map(objects.get, log), strict=True))
        named = {path for data in commits.values() for path in _named(data)}
        old = datetime.now(UTC) - UNDER_WAY  # by the store's clock or this one: an hour is no matter of seconds
        delta = reopen()
        if delta is None:
            return 0
        live = set(pa.table(delta.get_add_actions(flatten=True)).column("path").to_pylist())
        dead = [
            path
            for path, modified_at in found.items()
            if path.endswith(".parquet") and not path.startswith(LOG) and path not in live
            if path in named or modified_at < old
        ]
        holds = pool.map(lambda path: _holds(objects.get(path), path, chosen), dead)
        gone = [path for path, is_held in zip(dead, holds, strict=True) if is_held]
        list(pool.map(objects.delete, gone))
    left = (found.keys() - set(gone)) | live
    for path, data in commits.items():
        told = _redacted(data, left)
        if told != data:
            objects.put(path, told)
    _renew_checkpoint(delta, objects, [path for path in found if path.endswith(".checkpoint.parquet")])
    return len(gone)


def _literal(value: str | date) -> str:
    if isinstance(value, date):
        return f"CAST('{value.isoformat()}' AS DATE)"
    return "'" + value.replace("'", "''") + "'"


def _holds(data: bytes, path: str, chosen: Sequence[Chosen]) -> bool:
    """Whether a file of the table has a chosen row; columns that are partitions are told by its path."""
    parts = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
    file = pq.ParquetFile(BytesIO(data))
    names = {name for one in chosen for name in one}
    rows = file.read(columns=[name for name in file.schema_arrow.names if name in names])
    for name in names & parts.keys():
        rows = rows.append_column(name, pa.array([parts[name]] * len(rows), pa.string()))
    return any(_count(rows, one) for one in chosen if one.keys() <= set(rows.column_names))


def _count(rows: pa.Table, one: Chosen) -> int:
    for name, values in one.items():
        field = rows.schema.field(name)
        rows = rows.filter(ds.field(name).isin(pa.array(list(values), field.type)))
    return int(rows.num_rows)


def _named(data: bytes) -> list[str]:
    """Files that a commit adds."""
    return [str(action["add"]["path"]) for action in map(json.loads, data.splitlines()) if "add" in action]


def _redacted(data: bytes, left: set[str]) -> bytes:
    """A commit without the statistics of files that are gone and without conditions; its bytes if it has none."""
    lines, is_changed = [], False
    for line in data.splitlines():
        action = json.loads(line)
        has_changed = _redact(action, left)
        lines.append(json.dumps(action, separators=(",", ":")).encode() if has_changed else line)
        is_changed |= has_changed
    return b"\n".join(lines) + b"\n" if is_changed else data


def _redact(action: dict[str, Any], left: set[str]) -> bool:
    """Change one action in place; whether there was anything to change."""
    asked = action.get("commitInfo", {}).get("operationParameters", {})
    if (
        action.get("commitInfo", {}).get("operation") in ("DELETE", "WRITE")
        and asked.get("predicate", HIDDEN) != HIDDEN
    ):
        asked["predicate"] = HIDDEN
        return True
    add = action.get("add")
    if add is None or add["path"] in left or not add.get("stats"):
        return False
    stats = json.dumps({"numRecords": json.loads(add["stats"])["numRecords"]})
    if add["stats"] == stats:
        return False
    add["stats"] = stats
    return True


def _renew_checkpoint(delta: DeltaTable, objects: Objects, older: Sequence[str]) -> None:
    """One checkpoint of the present version instead of all: what they held is in the log."""
    newest = f"{LOG}{delta.version():020d}.checkpoint.parquet"
    if older == [newest]:
        return
    delta.create_checkpoint()
    for path in older:
        if path != newest:
            objects.delete(path)
