import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from platform_core.errors import NoSuchPlace, SiteUnavailable, UnreadableScan
from platform_core.settings import SiteSettings
from platform_core.sources import s3_bucket
from platform_core.sources.contract import list_items
from platform_core.sources.s3_bucket import S3_BUCKET
from tests.servers.faultproxy import FaultProxy, Rule, fault_proxy
from tests.servers.s3 import S3Server

DATA = bytes(range(256)) * 2000


class Bucket:
    """A bucket behind a proxy that can fail."""

    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.client, self.name, self.proxy = server.client(), server.new_bucket(), proxy
        self.settings = SiteSettings(source="s3_bucket", path=f"s3://{self.name}/p", endpoint=proxy.endpoint)

    def put(self, address: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"p/{address}", Body=data)

    def n_asked(self, method: str = "GET") -> int:
        return sum(found == method for found, _, _ in self.proxy.log)


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path) -> Iterator[Bucket]:
    with fault_proxy(int(s3.endpoint.rpartition(":")[2]), tmp_path) as proxy:
        yield Bucket(s3, proxy)


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def test_a_body_that_breaks_off_is_read_on_from_there(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.proxy.fail(Rule("truncate", method="GET", times=3))
    assert S3_BUCKET.open(bucket.settings, "a") == DATA
    assert bucket.proxy.count("truncate") == 3


def test_a_body_that_always_breaks_off_is_unavailable(bucket: Bucket) -> None:
    bucket.put("a", DATA)
    bucket.proxy.fail(Rule("truncate", method="GET", times=99))
    with pytest.raises(SiteUnavailable):
        S3_BUCKET.open(bucket.settings, "a")


def test_an_object_that_was_replaced_while_its_body_broke_off_is_gone_not_mixed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a", DATA)
    bucket.proxy.fail(Rule("truncate", method="GET"))
    read = s3_bucket._read_into

    def replace(data: bytearray, answer: Any) -> bool:
        bucket.put("a", DATA[::-1])
        return read(data, answer)

    monkeypatch.setattr(s3_bucket, "_read_into", replace)
    with pytest.raises(NoSuchPlace):
        S3_BUCKET.open(bucket.settings, "a")


@pytest.mark.parametrize("fault", ["unavailable", "reset_before", "reset_after"])
def test_a_listing_survives_a_server_that_fails_now_and_then(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr(s3_bucket, "PAGE", 2)
    for n in range(5):
        bucket.put(str(n), b"x")
    bucket.proxy.fail(Rule(fault, path="list-type", first=2, times=2))
    assert [item.address for item in list_items(S3_BUCKET, bucket.settings)] == ["0", "1", "2", "3", "4"]
    assert bucket.proxy.count(fault) == 2


def test_of_an_archive_only_the_wanted_member_travels_in_one_request(bucket: Bucket) -> None:
    members = {f"{n}": bytes([n]) * 300_000 for n in range(10)}
    bucket.put("a.zip", archive(**members))
    items = list(list_items(S3_BUCKET, bucket.settings))
    assert [item.address for item in items] == [f"a.zip!{n}" for n in range(10)]
    bucket.proxy.fail()
    for n in (7, 2):
        assert S3_BUCKET.open(bucket.settings, f"a.zip!{n}") == members[str(n)]
    assert bucket.n_asked() == 2
    bucket.proxy.fail()
    assert S3_BUCKET.head(bucket.settings, "a.zip!4", 100) == members["4"][:100]
    assert bucket.n_asked() == 1


def test_an_archive_that_was_replaced_is_read_anew(bucket: Bucket) -> None:
    bucket.put("a.zip", archive(x=b"1" * 9, y=b"2"))
    assert S3_BUCKET.open(bucket.settings, "a.zip!x") == b"1" * 9
    bucket.put("a.zip", archive(x=b"3" * 9, y=b"2"))
    assert S3_BUCKET.open(bucket.settings, "a.zip!x") == b"3" * 9
    bucket.put("a.zip", archive(y=b"2"))
    with pytest.raises(NoSuchPlace):
        S3_BUCKET.open(bucket.settings, "a.zip!x")


def test_an_archive_torn_in_the_bucket_is_one_item(bucket: Bucket) -> None:
    bucket.put("a.zip", archive(x=b"1" * 1000)[:-30])
    bucket.put("b.zip", b"")
    assert [item.refusal for item in list_items(S3_BUCKET, bucket.settings)] == ["unreadable_archive"] * 2


def test_an_empty_object_is_listed_and_empty(bucket: Bucket) -> None:
    bucket.put("a", b"")
    assert [item.n_bytes for item in list_items(S3_BUCKET, bucket.settings)] == [0]
    assert S3_BUCKET.open(bucket.settings, "a") == S3_BUCKET.head(bucket.settings, "a", 10) == b""


def test_any_key_can_be_opened(bucket: Bucket) -> None:
    keys = {"a b", "a+b", "a%2Fb", "x//y", "\u00e4/\u65e5", "a?b=c&d", "a#b", "~", "q'\"q", "<&>"}
    for key in keys:
        bucket.put(key, key.encode())
    found = {
        item.address: S3_BUCKET.open(bucket.settings, item.address) for item in list_items(S3_BUCKET, bucket.settings)
    }
    assert found == {key: key.encode() for key in keys}


def test_without_a_prefix_the_whole_bucket_is_the_place(bucket: Bucket) -> None:
    bucket.put("a", b"1")
    whole = bucket.settings.model_copy(update={"path": f"s3://{bucket.name}"})
    assert [item.address for item in list_items(S3_BUCKET, whole)] == ["p/a"]


@pytest.mark.parametrize("path", ["s3://", "s3:///p", "/p", "https://host/bucket", "s3://B_ad!/p"])
def test_a_path_that_names_no_bucket_is_said_to(bucket: Bucket, path: str) -> None:
    with pytest.raises(NoSuchPlace, match="correct `path`"):
        list(list_items(S3_BUCKET, bucket.settings.model_copy(update={"path": path})))


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [("InvalidObjectState", 403, "cold_storage"), ("InvalidRequest", 400, "unreadable_object")],
)
@pytest.mark.parametrize("address", ["a", "a.zip!x"])
def test_an_object_that_the_server_keeps_to_itself_is_refused_not_gone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, status: int, reason: str, address: str
) -> None:
    """In an archive class, or encrypted with a key of its own: answers that the test server cannot give."""
    bucket.put("a", DATA)
    bucket.put("a.zip", archive(x=DATA))

    def refuse(**_: Any) -> None:
        told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(told, "GetObject")

    client = s3_bucket._bucket(bucket.settings).client
    monkeypatch.setattr(client, "get_object", refuse)
    with pytest.raises(UnreadableScan) as refused:
        S3_BUCKET.open(bucket.settings, address)
    assert refused.value.reason == reason
    with pytest.raises(UnreadableScan) as refused:
        S3_BUCKET.head(bucket.settings, address, 9)
    assert refused.value.reason == reason
    assert {item.address: item.refusal for item in list_items(S3_BUCKET, bucket.settings)} == {"a": "", "a.zip": reason}


def test_an_archive_that_the_server_keeps_to_itself_is_listed_as_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question for its size is answered by a bare 400."""
    bucket.put("a.zip", archive(x=DATA))

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "400"}}, "HeadObject")

    monkeypatch.setattr(s3_bucket._bucket(bucket.settings).client, "head_object", refuse)
    assert [item.refusal for item in list_items(S3_BUCKET, bucket.settings)] == ["unreadable_object"]
