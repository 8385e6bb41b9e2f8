import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from platform_core.errors import SchemaMismatch, StorageUnavailable
from platform_core.queries import Query
from platform_core.storage import tables
from platform_core.storage.s3 import table_options
from platform_core.storage.tables import Lake, rows_of
from tests.servers.faultproxy import Fault, FaultProxy, Rule

THING = pa.schema([("site", pa.string()), ("value", pa.int64())])
SCHEMAS = {"core__thing": THING}


N_READERS = 12
READER = """
import sys
import pyarrow as pa
from platform_core.storage.tables import Lake
lake = Lake(sys.argv[1], {"core__thing": pa.schema([("site", pa.string()), ("value", pa.int64())])})
for _ in range(3):
    lake.read("core__thing")
"""


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket_uri"), SCHEMAS)


@pytest.fixture
def remote(faulty_s3: FaultProxy, bucket_uri: str) -> Lake:
    """A lake behind the fault proxy."""
    return Lake(bucket_uri, SCHEMAS)


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


def test_a_process_that_has_read_ends_in_peace(lake: Lake) -> None:
    """Arrow's threads may still hold what they read when Python ends; on a busy machine one in four aborted."""
    for n in range(8):
        lake.append("core__thing", things(n), transaction=str(n))
    command = [sys.executable, "-c", READER, lake.uri]
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda _: subprocess.run(command, check=False, capture_output=True), range(N_READERS)))
    assert [(reader.returncode, reader.stderr) for reader in ended] == [(0, b"")] * N_READERS


def test_a_column_promised_later_reads_as_null(lake: Lake) -> None:
    lake.append("core__thing", things(1), transaction="a")
    newer = Lake(lake.uri, {"core__thing": THING.append(pa.field("colour", pa.string()))})
    assert newer.read("core__thing").to_pylist() == [{"site": "north", "value": 1, "colour": None}]
    with newer.connect() as db:
        assert db.sql("SELECT colour FROM core__thing").fetchall() == [(None,)]


def test_a_column_that_is_described_otherwise_later_still_takes_rows(lake: Lake) -> None:
    """As after an upgrade: Delta merges no two descriptions of one column."""

    def described(how: str) -> pa.Schema:
        return pa.schema([field.with_metadata({"description": f"{field.name}, {how}"}) for field in THING])

    for number, how in enumerate(("as first said", "as said later")):
        now = Lake(lake.uri, {"core__thing": described(how)})
        rows = pa.Table.from_pylist([{"site": "north", "value": number}], schema=described(how))
        now.append(
            "core__thing", rows.append_column(pa.field(f"new_{number}", pa.int64()), pa.array([1])), transaction=how
        )
    assert sorted(lake.read("core__thing").column("value").to_pylist()) == [0, 1]


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


def test_of_two_that_name_one_transaction_one_is_told_that_it_landed(lake: Lake) -> None:
    lake.append("core__thing", things(0), transaction="first")
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda k: lake.append("core__thing", things(k), transaction="same"), range(1, 5)))
    assert sorted(told) == [0, 0, 0, 1]
    assert values(lake) == [0, told.index(1) + 1]


def test_several_may_make_a_table_at_once(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda k: lake.append("core__thing", things(k), transaction=str(k)), range(4)))
    assert told == [1, 1, 1, 1]
    assert values(lake) == [0, 1, 2, 3]
    assert operations(lake).count("CREATE TABLE") == 1


def test_a_transaction_of_an_older_lake_still_counts(tmp_path: Path) -> None:
    transaction = CommitProperties(app_transactions=[Transaction("a", 1)])
    write_deltalake(tmp_path / "core__thing", things(1), partition_by=["site"], commit_properties=transaction)
    lake = Lake(str(tmp_path), SCHEMAS)
    assert lake.append("core__thing", things(1), transaction="a") == 0
    assert lake.append("core__thing", things(2), transaction="b") == 1
    assert values(lake) == [1, 2]


def test_a_table_that_was_made_and_never_written_reads_empty(lake: Lake) -> None:
    lake._create("core__thing", THING)
    assert lake.read("core__thing").num_rows == 0
    with lake.connect() as db:
        assert db.sql("SELECT count(*) FROM core__thing").fetchall() == [(0,)]
    assert lake.append("core__thing", things(1), transaction="a") == 1


def test_a_first_version_can_still_be_read_after_many_commits(lake: Lake) -> None:
    for number in range(32):
        lake.append("core__thing", things(number), transaction=str(number))
    assert lake.dataset("core__thing", version=1).to_table().num_rows == 1
    assert values(lake) == list(range(32))


def test_an_opening_reads_no_more_log_than_lies_behind_the_last_checkpoint(remote: Lake, faulty_s3: FaultProxy) -> None:
    for number in range(65):
        remote.append("core__thing", things(number), transaction=str(number))
    faulty_s3.fail()
    assert remote.append("core__thing", things(0), transaction="0") == 0
    commits = {path for method, path, _ in faulty_s3.log if method == "GET" and path.endswith(".json")}
    assert len(commits) <= 30


ANSWERS_LOST: list[tuple[Fault, str, str]] = [
    (fault, method, path)
    for fault in ("reset_before", "reset_after", "unavailable", "stall")
    for method, path in (("PUT", "_delta_log/.*json"), ("PUT", "parquet"))
] + [(fault, "GET", "_delta_log") for fault in ("reset_after", "unavailable", "truncate", "stall")]


@pytest.mark.parametrize(("fault", "method", "path"), ANSWERS_LOST)
@pytest.mark.parametrize("is_new", [True, False], ids=["new table", "table"])
def test_rows_land_once_in_one_commit_whatever_fails(
    remote: Lake, faulty_s3: FaultProxy, fault: Fault, method: str, path: str, is_new: bool
) -> None:
    n_before = 0 if is_new else remote.append("core__thing", things(1, 2), transaction="before")
    faulty_s3.fail(Rule(fault, method, path))
    assert remote.append("core__thing", things(3, 4, 5), transaction="a") == 3
    assert faulty_s3.count(fault) == 1
    faulty_s3.fail()
    assert remote.append("core__thing", things(3, 4, 5), transaction="a") == 0
    assert values(remote) == [1, 2, 3, 4, 5][2 - n_before :]
    assert operations(remote) == ["CREATE TABLE"] + ["WRITE"] * (1 if is_new else 2)


def test_without_a_ticket_a_lost_answer_would_double_the_history(remote: Lake, faulty_s3: FaultProxy) -> None:
    """What the ticket is for: deltalake alone commits the same file twice."""
    remote.append("core__thing", things(1), transaction="before")
    table = DeltaTable(remote._path("core__thing"), storage_options=table_options(remote.uri))
    faulty_s3.fail(Rule("reset_after", "PUT", "_delta_log/.*json"))
    write_deltalake(table, things(2), mode="append")
    faulty_s3.fail()
    assert operations(remote) == ["CREATE TABLE", "WRITE", "WRITE", "WRITE"]


@pytest.mark.parametrize("fault", ["reset_before", "unavailable", "truncate"])
def test_tables_that_stay_away_are_unavailable(
    remote: Lake, faulty_s3: FaultProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.append("core__thing", things(1), transaction="a")
    monkeypatch.setattr(tables, "N_OPENINGS", 2)
    monkeypatch.setattr("platform_core.storage.s3.N_ATTEMPTS", 2)
    faulty_s3.fail(Rule(fault, times=10_000))
    with pytest.raises(StorageUnavailable) as caught:
        remote.read("core__thing")
    assert caught.value.retryable
    with pytest.raises(StorageUnavailable):
        remote.append("core__thing", things(2), transaction="b")
    faulty_s3.fail()
    assert values(remote) == [1]


def test_a_question_whose_rows_cannot_be_read_is_worth_a_second_attempt(
    remote: Lake, faulty_s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.storage.s3.N_ATTEMPTS", 2)
    remote.append("core__thing", things(1), transaction="a")
    question = Query("total", "SELECT sum(value) AS n FROM core__thing")
    with remote.connect() as db:
        faulty_s3.fail(Rule("unavailable", "GET", "parquet", times=10_000))
        with pytest.raises(StorageUnavailable):
            question.run(db)
        faulty_s3.fail(Rule("truncate", "GET", "parquet"))
        assert question.run(db).column("n").to_pylist() == [1]


def values(lake: Lake) -> list[int]:
    return sorted(lake.read("core__thing").column("value").to_pylist())


def operations(lake: Lake) -> list[str]:
    """What was committed, oldest first."""
    options = table_options(lake.uri) if lake.uri.startswith("s3:") else None
    history = DeltaTable(lake._path("core__thing"), storage_options=options).history()
    return [str(commit["operation"]) for commit in reversed(history)]
