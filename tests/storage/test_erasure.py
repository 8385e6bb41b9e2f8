"""What was erased lies in no file of a table and in no line of its log; what was not is as it was."""

from collections.abc import Iterator
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from platform_core.storage.erasure import Chosen, spelt
from platform_core.storage.local import LocalObjects
from platform_core.storage.objects import Stored, open_objects
from platform_core.storage.tables import Lake

DAY = date(2026, 1, 1)
THING = pa.schema([("site", pa.string()), ("key", pa.string()), ("day", pa.date32()), ("value", pa.float64())])
PLAIN = pa.schema([("key", pa.string()), ("value", pa.float64())])
SCHEMAS = {"core__thing": THING, "core__plain": PLAIN}
GONE: list[Chosen] = [{"key": ["key007", "key033"]}]


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket_uri"), SCHEMAS)


@pytest.fixture
def here(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), SCHEMAS)


def rows(*numbers: int) -> pa.Table:
    """One row each; odd numbers are of south."""
    made = [
        {"site": "south" if n % 2 else "north", "key": f"key{n:03}", "day": DAY + timedelta(n), "value": 1000.125 + n}
        for n in numbers
    ]
    return pa.Table.from_pylist(made, schema=THING)


def fill(lake: Lake, n: int = 36) -> None:
    """Many commits, checkpoints among them, then one compaction, then more commits."""
    for i in range(n - 4):
        lake.append("core__thing", rows(i), transaction=f"t{i}")
    lake.compact("core__thing")
    for i in range(n - 4, n):
        lake.append("core__thing", rows(i), transaction=f"t{i}")


def found(lake: Lake, *words: str) -> list[tuple[str, str]]:
    """Files below the lake that hold a word, as they lie or read as Parquet."""
    objects = open_objects(lake.uri)
    told = []
    for path in objects.list(""):
        data = objects.get(path)
        if path.endswith(".parquet"):
            data += repr(pq.ParquetFile(BytesIO(data)).read().to_pylist()).encode()
        told += [(path, word) for word in words if word.encode() in data]
    return told


def keys(lake: Lake, table: str = "core__thing") -> list[str]:
    return sorted(lake.read(table).column("key").to_pylist())


def test_no_file_holds_what_was_erased(lake: Lake) -> None:
    fill(lake)
    assert len(found(lake, "key007", "key033")) > 3
    assert lake.erase("core__thing", GONE) == 2
    assert found(lake, "key007", "key033") == []
    assert keys(lake) == [f"key{n:03}" for n in range(36) if n not in (7, 33)]


def test_numbers_that_only_the_erased_rows_had_are_not_in_the_log_either(here: Lake) -> None:
    """A file of one row tells its values as the least and greatest of every column."""
    fill(here)
    assert found(here, "1007.125", "2026-01-08")
    here.erase("core__thing", GONE)
    assert found(here, "1007.125", "2026-01-08", "1033.125") == []


def test_what_is_left_can_be_filtered_appended_to_and_compacted(lake: Lake) -> None:
    fill(lake)
    identity = lake.identity("core__thing")
    lake.erase("core__thing", GONE)
    assert lake.read("core__thing", pc.field("key") == "key008").num_rows == 1
    assert lake.append("core__thing", rows(8), transaction="t8") == 0
    assert lake.append("core__thing", rows(50), transaction="t50") == 1
    lake.compact("core__thing")
    assert keys(lake) == [f"key{n:03}" for n in range(36) if n not in (7, 33)] + ["key050"]
    assert lake.identity("core__thing") == identity


def test_erasing_again_changes_nothing(here: Lake) -> None:
    fill(here)
    here.erase("core__thing", GONE)
    before, files = here.version("core__thing"), {path: open_objects(here.uri).get(path) for path in _paths(here)}
    assert here.erase("core__thing", GONE) == 0
    assert here.version("core__thing") == before
    assert {path: open_objects(here.uri).get(path) for path in _paths(here)} == files


def _paths(lake: Lake) -> list[str]:
    return open_objects(lake.uri).list("")


def test_no_number_of_a_version_comes_again(here: Lake) -> None:
    """Without its log a writer that had opened the table before would write an old version, and nobody would see it."""
    fill(here)
    stale = DeltaTable(f"{here.uri}/core__thing")
    here.erase("core__thing", GONE)
    with pytest.raises(CommitFailedError):
        write_deltalake(stale, rows(60), mode="append")


def test_the_other_sites_files_are_left_alone(here: Lake) -> None:
    fill(here)
    before = {path for path in _paths(here) if "site=north" in path}
    here.erase("core__thing", [{"key": ["key033"]}])
    assert {path for path in _paths(here) if "site=north" in path} == before


def test_a_table_without_sites_is_erased_from_too(lake: Lake) -> None:
    for n in range(3):
        row = pa.Table.from_pylist([{"key": f"key{n:03}", "value": 1.0}], schema=PLAIN)
        lake.append("core__plain", row, transaction=str(n))
    lake.erase("core__plain", [{"key": ["key001"]}])
    assert keys(lake, "core__plain") == ["key000", "key002"]
    assert found(lake, "key001") == []


def test_a_table_before_its_first_row_has_nothing_to_erase(here: Lake) -> None:
    assert here.erase("core__thing", GONE) == 0


def test_rows_are_replaced_in_one_commit_and_the_old_ones_gone(lake: Lake) -> None:
    fill(lake)
    days: Chosen = {"site": ["south"], "day": [DAY + timedelta(7), DAY + timedelta(9)]}

    def change(present: pa.Table) -> pa.Table:
        return present.filter(pc.field("key") == "key009")

    assert lake.replace("core__thing", days, change, transaction="r") == 2
    assert lake.replace("core__thing", days, change, transaction="r") == 0
    assert [key for key in ("key007", "key009") if key in keys(lake)] == ["key009"]
    assert {path for path, _ in found(lake, "key007")} == set()


def test_a_row_that_comes_between_is_neither_lost_nor_left_out(here: Lake) -> None:
    fill(here)
    due = [True]

    def change(present: pa.Table) -> pa.Table:
        if due:
            due.clear()
            here.append("core__thing", rows(107), transaction="between")
        return present.set_column(3, "value", pa.array([0.0] * present.num_rows))

    south: Chosen = {"site": ["south"]}
    here.replace("core__thing", south, change, transaction="r")
    values: list[dict[str, Any]] = here.read("core__thing").to_pylist()
    assert {row["value"] for row in values if row["site"] == "south"} == {0.0}
    assert "key107" in keys(here)


def test_a_condition_is_spelt_with_its_quotes_doubled() -> None:
    chosen: list[Chosen] = [{"key": ["o'clock"], "day": [DAY]}, {"key": ["b"]}]
    assert spelt(chosen) == "(key IN ('o''clock') AND day IN (CAST('2026-01-01' AS DATE))) OR (key IN ('b'))"


@pytest.mark.parametrize("when", ["before the listing", "after it"])
@pytest.mark.parametrize("what", ["append", "compact"])
def test_a_commit_that_lands_while_files_are_listed_keeps_its_rows(
    here: Lake, monkeypatch: pytest.MonkeyPatch, when: str, what: str
) -> None:
    """It may name a row that is chosen, as it came again: its file is live and must not go."""
    fill(here, 8)
    find = LocalObjects.find

    def interrupted(objects: LocalObjects, folder: str) -> Iterator[Stored]:
        monkeypatch.setattr(LocalObjects, "find", find)
        listed = [] if when == "before the listing" else list(find(objects, folder))
        here.append("core__thing", rows(7), transaction="again")
        if what == "compact":
            here.compact("core__thing")
        return iter(listed or find(objects, folder))

    monkeypatch.setattr(LocalObjects, "find", interrupted)
    assert here.erase("core__thing", GONE) == 1
    assert keys(here) == [f"key{n:03}" for n in range(8)]
    assert here.append("core__thing", rows(9), transaction="t9") == 1
