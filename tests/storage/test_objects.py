"""What holds of objects wherever they lie; then what holds of one store only."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from platform_core.errors import StorageRefused, StorageUnavailable
from platform_core.storage import s3 as s3_storage
from platform_core.storage.local import LocalObjects
from platform_core.storage.objects import Objects, open_objects
from platform_core.storage.s3 import S3Objects
from tests.servers.faultproxy import Fault, FaultProxy, Rule
from tests.servers.s3 import S3Server

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return open_objects(str(tmp_path / "w"))
    return open_objects(request.getfixturevalue("bucket_uri"))


def test_the_form_of_a_uri_chooses_the_store(tmp_path: Path) -> None:
    assert open_objects(str(tmp_path)) == LocalObjects(tmp_path)
    assert open_objects("s3://bucket/some/prefix/") == S3Objects("bucket", "some/prefix")


@pytest.mark.parametrize("data", [b"", b"one", b"\x00\xff" * 300_000])
def test_what_was_put_is_what_is_read(objects: Objects, data: bytes) -> None:
    objects.put("a/b.bin", data)
    assert objects.get("a/b.bin") == data
    assert objects.exists("a/b.bin")


def test_objects_are_replaced_whole(objects: Objects) -> None:
    objects.put("a/b.bin", b"one, and long")
    objects.put("a/b.bin", b"two")
    assert objects.get("a/b.bin") == b"two"
    assert objects.list("a") == ["a/b.bin"]


@pytest.mark.parametrize("path", ["none.bin", "a/none.bin", "a", "a/b.bin/c"])
def test_what_is_not_there_is_not_found(objects: Objects, path: str) -> None:
    objects.put("a/b.bin", b"one")
    assert not objects.exists(path)
    with pytest.raises(FileNotFoundError):
        objects.get(path)


def test_deleting_is_silent_about_what_is_not_there(objects: Objects) -> None:
    objects.put("a/b.bin", b"one")
    objects.delete("a/b.bin")
    objects.delete("a/b.bin")
    assert not objects.exists("a/b.bin")
    assert objects.list("") == []


@pytest.mark.parametrize("path", ["a b/c.bin", "ü/ñ.bin", "a+b/c%20d.bin", "a=1/b&c.bin"])
def test_a_path_may_hold_any_letter(objects: Objects, path: str) -> None:
    objects.put(path, b"one")
    assert objects.get(path) == b"one"
    assert objects.list("") == [path]


def test_a_listing_stays_below_its_folder(objects: Objects) -> None:
    for path in ("vol/1", "volumes/2", "volumes/x/3", "volumes.txt", "a"):
        objects.put(path, b"123")
    assert objects.list("volumes") == ["volumes/2", "volumes/x/3"]
    assert objects.list("volumes/") == ["volumes/2", "volumes/x/3"]
    assert objects.list("a") == []
    assert objects.list("none") == []
    assert objects.list("") == ["a", "vol/1", "volumes.txt", "volumes/2", "volumes/x/3"]


def test_a_listing_tells_size_and_age(objects: Objects) -> None:
    before = datetime.now(UTC)
    objects.put("a/b.bin", b"12345")
    (found,) = objects.find("a")
    assert (found.path, found.n_bytes) == ("a/b.bin", 5)
    assert abs(found.modified_at - before) < timedelta(minutes=1)


def test_a_listing_goes_on_over_all_pages(objects: Objects) -> None:
    names = [f"many/{number:05d}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: objects.put(name, b"", durable=False), names))
    assert objects.list("many") == names


def test_a_create_happens_once(objects: Objects) -> None:
    assert objects.create("a/b.bin", b"one")
    assert not objects.create("a/b.bin", b"two")
    assert not objects.create("a/b.bin", b"one")
    assert objects.get("a/b.bin") == b"one"
    objects.delete("a/b.bin")
    assert objects.create("a/b.bin", b"three")


def test_of_several_creates_one_wins_and_its_bytes_stay(objects: Objects) -> None:
    with ThreadPoolExecutor(8) as pool:
        for key in range(10):
            won = list(pool.map(lambda n, key=key: objects.create(f"race/{key}", b"%d" % n), range(8)))
            assert won.count(True) == 1
            assert objects.get(f"race/{key}") == b"%d" % won.index(True)
    assert objects.list("race") == [f"race/{key}" for key in range(10)]


def test_sweeping_leaves_what_was_finished(objects: Objects) -> None:
    objects.put("a/b.bin", b"one")
    objects.create("a/c.bin", b"two")
    assert objects.sweep(datetime.now(UTC) + AHEAD) == 0
    assert objects.list("") == ["a/b.bin", "a/c.bin"]


# a folder


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from platform_core.storage.local import LocalObjects
objects = LocalObjects(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        objects.put("x/y.bin", letter * 2_000_000, durable=False)
"""


def test_a_killed_writer_leaves_the_old_bytes_or_the_new(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    for attempt in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        while not objects.exists("x/y.bin"):
            time.sleep(0.001)
        time.sleep(0.0013 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert objects.get("x/y.bin") in (b"a" * 2_000_000, b"b" * 2_000_000)
        assert objects.list("") == ["x/y.bin"]
        objects.sweep(datetime.now(UTC) + AHEAD)
        assert [file.name for file in (tmp_path / "x").iterdir()] == ["y.bin"]


def test_only_old_temporary_files_are_swept(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    objects.put("a/b.bin", b"one")
    for name in (".put-00ff", "part-1.parquet#1", "sample#1.bin"):
        (tmp_path / "a" / name).write_bytes(b"half")
    assert objects.sweep(LONG_AGO) == 0
    assert objects.sweep(datetime.now(UTC) + AHEAD) == 2
    assert objects.list("") == ["a/b.bin", "a/sample#1.bin"]


def test_a_durable_put_syncs_the_bytes_and_then_every_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def note(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    objects = LocalObjects(tmp_path)
    objects.put("a/b/c.bin", b"one")
    *folders, file, last = (str(Path(name).relative_to(tmp_path)) for name in synced)
    assert set(folders) == {".", "a"}
    assert file.startswith("a/b/.put-")
    assert last == "a/b"
    synced.clear()
    objects.put("d/e.bin", b"one", durable=False)
    assert synced == []


def test_a_full_or_forbidden_disk_is_unavailable_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a file where a folder is wanted")
    with pytest.raises(StorageUnavailable):
        LocalObjects(tmp_path).put("a/b.bin", b"one")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# S3


def test_uploads_in_parts_that_never_ended_are_given_up(s3: S3Server, bucket_uri: str) -> None:
    objects = open_objects(bucket_uri)
    bucket = bucket_uri.split("/")[2]
    client = s3.client()
    for key in ("some/prefix/big.parquet", "elsewhere/big.parquet"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert objects.sweep(LONG_AGO) == 0
    assert objects.sweep(datetime.now(UTC) + AHEAD) == 1
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/big.parquet"]


def test_a_whole_bucket_may_be_one_place(s3: S3Server) -> None:
    objects = open_objects(f"s3://{s3.new_bucket()}")
    objects.put("a/b.bin", b"one")
    assert objects.list("") == ["a/b.bin"]
    assert objects.get("a/b.bin") == b"one"


def test_a_wrong_secret_is_refused_with_a_remedy(bucket_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageRefused, match="AWS_SECRET_ACCESS_KEY"):
        open_objects(bucket_uri).put("a", b"one")
    with pytest.raises(StorageRefused, match="AWS_SECRET_ACCESS_KEY"):
        open_objects(bucket_uri).exists("a")


def test_a_missing_bucket_is_refused_with_a_remedy(s3: S3Server) -> None:
    with pytest.raises(StorageRefused, match="make the bucket"):
        open_objects("s3://nobody-made-this/w").put("a", b"one")


def test_missing_credentials_are_refused_with_a_remedy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StorageRefused, match="AWS_ACCESS_KEY_ID"):
        open_objects("s3://bucket/w").get("a")


def test_the_store_tells_its_time(bucket_uri: str) -> None:
    objects = open_objects(bucket_uri)
    assert isinstance(objects, S3Objects)
    assert abs(objects.clock() - datetime.now(UTC)) < timedelta(minutes=1)


# S3 over a network that fails


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "unavailable", "truncate", "stall"])
def test_a_read_that_fails_twice_succeeds(faulty_s3: FaultProxy, bucket_uri: str, fault: Fault) -> None:
    objects = open_objects(bucket_uri)
    data = os.urandom(200_000)
    objects.put("a/b.bin", data)
    faulty_s3.fail(Rule(fault, "GET", "b.bin", times=2))
    assert objects.get("a/b.bin") == data
    assert faulty_s3.count(fault) == 2


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "unavailable", "stall"])
def test_a_write_that_fails_once_happens(faulty_s3: FaultProxy, bucket_uri: str, fault: Fault) -> None:
    objects = open_objects(bucket_uri)
    faulty_s3.fail(Rule(fault, "PUT"))
    objects.put("a/b.bin", b"one")
    assert faulty_s3.count(fault) == 1
    assert objects.get("a/b.bin") == b"one"


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "unavailable", "stall"])
def test_a_create_knows_its_own_object_whatever_became_of_the_answer(
    faulty_s3: FaultProxy, bucket_uri: str, fault: Fault
) -> None:
    objects = open_objects(bucket_uri)
    faulty_s3.fail(Rule(fault, "PUT"))
    assert objects.create("a/b.bin", b"one")
    assert faulty_s3.count(fault) == 1
    faulty_s3.fail(Rule(fault, "PUT"))
    assert not objects.create("a/b.bin", b"one")
    assert objects.get("a/b.bin") == b"one"


@pytest.mark.parametrize("fault", ["reset_before", "unavailable", "truncate"])
def test_a_store_that_stays_away_is_unavailable(
    faulty_s3: FaultProxy, bucket_uri: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "N_ATTEMPTS", 2)
    s3_storage._connection.cache_clear()
    objects = open_objects(bucket_uri)
    objects.put("a/b.bin", b"one")
    faulty_s3.fail(Rule(fault, times=1000))
    with pytest.raises(StorageUnavailable) as caught:
        objects.get("a/b.bin")
    assert caught.value.retryable
    assert faulty_s3.count(fault) == 2
    s3_storage._connection.cache_clear()
