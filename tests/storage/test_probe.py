"""A store is tried before it may hold a workspace: both ways."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.doctor import examine
from platform_core.errors import StorageRefused, StorageUnavailable
from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import create_workspace
from platform_core.storage.local import LocalObjects
from platform_core.storage.objects import open_objects
from platform_core.storage.probe import require_atomic
from tests.servers.careless import Careless, careless
from tests.servers.faultproxy import FaultProxy, Rule

SpeakTo = Callable[[Careless], None]


@pytest.fixture
def speak_to(monkeypatch: pytest.MonkeyPatch) -> SpeakTo:
    """Turns boto3 to a server."""

    def turn(server: Careless) -> None:
        facts = {"ENDPOINT_URL": server.endpoint, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}
        for name, value in facts.items():
            monkeypatch.setenv(f"AWS_{name}", value)

    return turn


def test_a_folder_passes_and_keeps_nothing_of_the_probe(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    require_atomic(objects, str(tmp_path))
    assert objects.list("") == []


def test_radosgw_passes_and_keeps_nothing_of_the_probe(bucket_uri: str) -> None:
    objects = open_objects(bucket_uri)
    require_atomic(objects, bucket_uri, n_keys=32)
    assert objects.list("") == []


def test_radosgw_passes_over_a_bad_network(faulty_s3: FaultProxy, bucket_uri: str) -> None:
    faulty_s3.fail(
        Rule("reset_after", "PUT", times=3), Rule("unavailable", "PUT", times=3), Rule("truncate", "GET", times=2)
    )
    require_atomic(open_objects(bucket_uri), bucket_uri)
    assert faulty_s3.count("reset_after") == 3


def test_a_store_that_does_not_answer_is_not_called_unfit(
    faulty_s3: FaultProxy, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.storage.s3.N_ATTEMPTS", 1)
    faulty_s3.fail(Rule("reset_before", times=10_000))
    with pytest.raises(StorageUnavailable):
        require_atomic(open_objects(bucket_uri), bucket_uri)


@pytest.mark.parametrize("is_blind", [False, True], ids=["looks first and writes later", "ignores the condition"])
def test_a_careless_store_is_refused_with_a_remedy(speak_to: SpeakTo, is_blind: bool) -> None:
    with careless(is_blind=is_blind) as server:
        speak_to(server)
        with pytest.raises(StorageRefused, match=r"conditional put.*atomic conditional puts") as caught:
            require_atomic(open_objects("s3://bucket/w"), "s3://bucket/w")
        assert not caught.value.retryable
        assert server.objects == {}


def test_no_workspace_is_made_in_a_careless_store(speak_to: SpeakTo, home: Path) -> None:
    with careless() as server:
        speak_to(server)
        with pytest.raises(StorageRefused):
            create_workspace("s3://bucket/w", key_fingerprint=create_key("w"))
        assert server.objects == {}


def test_the_doctor_names_a_careless_store(speak_to: SpeakTo, home: Path) -> None:
    with careless() as server:
        speak_to(server)
        told = examine("s3://bucket/w")
    assert any("atomic conditional puts" in line for line in told)


def test_the_doctor_has_nothing_to_say_about_radosgw(bucket_uri: str, home: Path) -> None:
    create_workspace(bucket_uri, key_fingerprint=create_key("w"))
    assert examine(bucket_uri) == []
