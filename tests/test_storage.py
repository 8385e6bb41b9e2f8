from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from platform_core.errors import SchemaMismatch
from platform_core.storage.local import LocalObjects
from platform_core.storage.objects import open_objects
from platform_core.storage.s3 import S3Objects
from platform_core.storage.tables import Lake, rows_of

THING = pa.schema([("site", pa.string()), ("value", pa.int64())])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), {"core__thing": THING})


def things(*values: int) -> pa.Table:
    return rows_of(THING, [{"site": "north", "value": v} for v in values])


def test_a_table_reads_empty_before_its_first_row(lake: Lake) -> None:
    assert lake.read("core__thing").num_rows == 0
    assert lake.version("core__thing") == -1


def test_a_repeated_transaction_lands_once(lake: Lake) -> None:
    assert lake.append("core__thing", things(1, 2), transaction="a") == 2
    assert lake.append("core__thing", things(1, 2), transaction="a") == 0
    assert lake.read("core__thing").num_rows == 2


def test_writers_side_by_side_lose_nothing(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: lake.append("core__thing", things(k), transaction=str(k)), range(12)))
    assert sorted(lake.read("core__thing").column("value").to_pylist()) == list(range(12))


def test_a_feature_of_tomorrow_widens_the_table(lake: Lake) -> None:
    lake.append("core__thing", things(1), transaction="a")
    wider = things(2).append_column("noise_hu", pa.array([1.5]))
    lake.append("core__thing", wider, transaction="b")
    rows = sorted(lake.read("core__thing").to_pylist(), key=lambda r: r["value"])
    assert [r["noise_hu"] for r in rows] == [None, 1.5]


def test_a_column_promised_later_reads_as_null(lake: Lake) -> None:
    lake.append("core__thing", things(1), transaction="a")
    newer = Lake(lake.uri, {"core__thing": THING.append(pa.field("colour", pa.string()))})
    assert newer.read("core__thing").to_pylist() == [{"site": "north", "value": 1, "colour": None}]
    with newer.connect() as db:
        assert db.sql("SELECT colour FROM core__thing").fetchall() == [(None,)]


def test_a_promised_column_may_not_be_missing(lake: Lake) -> None:
    with pytest.raises(SchemaMismatch, match="missing value"):
        lake.append("core__thing", pa.table({"site": ["north"]}), transaction="a")


def test_an_unknown_column_of_a_row_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="velue"):
        rows_of(THING, [{"site": "north", "velue": 1}])


def test_duckdb_sees_every_table_under_its_own_name(lake: Lake) -> None:
    lake.append("core__thing", things(1, 2, 3), transaction="a")
    with lake.connect() as db:
        assert db.sql("SELECT sum(value) FROM core__thing").fetchall() == [(6,)]


def test_objects_are_replaced_whole(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    objects.put("a/b.bin", b"one")
    objects.put("a/b.bin", b"two")
    assert objects.get("a/b.bin") == b"two"
    assert objects.list("a") == ["a/b.bin"]
    objects.delete("a/b.bin")
    assert not objects.exists("a/b.bin")


def test_the_form_of_a_uri_chooses_the_store(tmp_path: Path) -> None:
    assert open_objects(str(tmp_path)) == LocalObjects(tmp_path)
    assert open_objects("s3://bucket/some/prefix/") == S3Objects("bucket", "some/prefix")
