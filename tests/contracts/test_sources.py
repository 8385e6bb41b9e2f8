"""What every kind of source promises, held against every one that exists."""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platform_core.errors import BadSetting, NoSuchPlace, SiteUnavailable
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES, dicomweb, web
from platform_core.sources.contract import Item, Page, Source, list_items

REAL = Path(__file__).parents[1] / "data" / "dicom"
QUERY = "dicomweb without a change feed"
KINDS = [*SOURCES, QUERY]


@dataclass(frozen=True)
class Place:
    """A small place of one kind."""

    settings: SiteSettings
    missing: SiteSettings
    empty: Callable[[], SiteSettings]
    add: Callable[[], object]
    """Puts one thing more there; it is listed last."""
    holds: frozenset[bytes] = frozenset()
    """All that lies there, if bytes come as they were put there."""
    down: SiteSettings | None = None
    """The same place when its server does not run."""
    secrets: tuple[str, ...] = ()
    """Wrong contents of the variable that `secret_env` names."""
    also: dict[str, Any] = field(default_factory=dict)


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


PLAIN = {name: name.encode() * 50 for name in ("b/2", "a.dcm", "b/1", "C/x y", "C/\u00e4", "b/deep/er", "c!d")}
MEMBERS = {f"in/{n}": bytes([n]) * 300 for n in range(5)}
HIDDEN = {".hidden": b"no scan", "b/.hidden/1": b"no scan"}


def a_folder(path: Path, request: pytest.FixtureRequest) -> Place:
    root = path / "scans"
    for name, data in (PLAIN | HIDDEN | {"b/a.zip": zipped(**MEMBERS)}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (path / "empty").mkdir()
    return Place(
        SiteSettings(quiet_s=0, path=str(root)),
        missing=SiteSettings(quiet_s=0, path=str(path / "nowhere")),
        empty=lambda: SiteSettings(quiet_s=0, path=str(path / "empty")),
        add=lambda: (root / "z").write_bytes(b"new"),
        holds=frozenset({*PLAIN.values(), *MEMBERS.values()}),
    )


def an_image_folder(path: Path, request: pytest.FixtureRequest) -> Place:
    root = path / "scans"
    (root / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.png", "e#1.png"):
        Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(root / name)
    np.savez(root / "c.npz", train_images=np.zeros((12, 4, 4), np.uint8), test_images=np.ones((2, 4, 4), np.uint8))
    (root / "d.zip").write_bytes(zipped(**{"1.png": (root / "b.png").read_bytes()}))
    (path / "empty").mkdir()
    return Place(
        SiteSettings(quiet_s=0, path=str(root), source="image_folder"),
        missing=SiteSettings(quiet_s=0, path=str(path / "nowhere"), source="image_folder"),
        empty=lambda: SiteSettings(quiet_s=0, path=str(path / "empty"), source="image_folder"),
        add=lambda: (root / "z.png").write_bytes((root / "b.png").read_bytes()),
    )


def a_bucket(path: Path, request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("s3_server")
    request.getfixturevalue("monkeypatch").setenv("NORTH", f"{server.access_key}:{server.secret_key}")
    client, bucket = server.client(), server.new_bucket()
    for name, data in (PLAIN | HIDDEN | {"b/a.zip": zipped(**MEMBERS), "b/folder/": b""}).items():
        client.put_object(Bucket=bucket, Key=f"north/{name}", Body=data)
    client.put_object(Bucket=bucket, Key="northern/1", Body=b"of another site")
    path_there = f"s3://{bucket}/north"
    site = SiteSettings(source="s3_bucket", path=path_there, endpoint=server.endpoint, secret_env="NORTH")
    return Place(
        site,
        missing=site.model_copy(update={"path": f"s3://{bucket}-none/north"}),
        empty=lambda: site.model_copy(update={"path": f"s3://{server.new_bucket()}/north"}),
        add=lambda: client.put_object(Bucket=bucket, Key="north/z", Body=b"new"),
        holds=frozenset({*PLAIN.values(), *MEMBERS.values()}),
        down=site.model_copy(update={"endpoint": "http://127.0.0.1:1"}),
        secrets=(f"{server.access_key}:wrong", "wrong:wrong"),
    )


def a_dicomweb_server(path: Path, request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("orthanc")
    files = [*sorted(REAL.glob("dicom2nifti/generic/anatomical/001/*.dcm")), *sorted(REAL.glob("dcm_qa_ts/In/*.dcm"))]
    *objects, last = [file.read_bytes() for file in files[:7]]
    server.send(objects)
    return Place(
        server.settings,
        missing=server.settings.model_copy(update={"path": f"{server.root}/nowhere"}),
        empty=lambda: _emptied(server),
        add=lambda: server.send([last]),
        holds=frozenset(objects),
        down=server.settings.model_copy(update={"path": "http://127.0.0.1:1/dicom-web"}),
        secrets=("ingest:wrong", "a-token"),
    )


def _emptied(server: Any) -> SiteSettings:
    for patient in server.ask("/patients"):
        server.ask(f"/patients/{patient}", method="DELETE")
    found: SiteSettings = server.settings
    return found


PLACES: dict[str, Callable[[Path, pytest.FixtureRequest], Place]] = {
    "folder": a_folder,
    "image_folder": an_image_folder,
    "s3_bucket": a_bucket,
    "dicomweb": a_dicomweb_server,
    QUERY: a_dicomweb_server,
}
"""A new kind of source adds its own."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(web, "BACK_OFF_S", 0.01)
    if request.param == QUERY:
        monkeypatch.setattr(dicomweb, "find_feed", lambda _: None)
    return str(request.param)


@pytest.fixture
def source(kind: str) -> Source:
    return SOURCES[kind.partition(" ")[0]]


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return PLACES[kind](tmp_path, request)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in ("paging", "s3_bucket", "orthanc", "dicomweb"):
        monkeypatch.setattr(f"platform_core.sources.{module}.PAGE", 3)
    monkeypatch.setattr(dicomweb, "LIMIT", 2)
    return 3


def addresses(pages: Iterator[Page] | list[Page]) -> list[str]:
    return [item.address for page in pages for item in page.items]


def test_the_same_place_is_listed_twice_in_the_same_order(source: Source, place: Place) -> None:
    first = list(list_items(source, place.settings))
    assert len(first) > 3
    assert first == list(list_items(source, place.settings))


def test_addresses_are_relative_and_unique(source: Source, place: Place) -> None:
    found = addresses(source.pages(place.settings, ""))
    assert len(set(found)) == len(found)
    assert not any(address.startswith("/") or place.settings.path in address for address in found)


def test_all_that_lies_there_is_listed_and_comes_as_it_was_put_there(source: Source, place: Place) -> None:
    if not place.holds:
        pytest.skip("images of an archive come in a form of their own")
    assert {source.open(place.settings, item.address) for item in list_items(source, place.settings)} == place.holds


def test_every_item_can_be_opened_and_twice_gives_the_same_bytes(source: Source, place: Place) -> None:
    for item in list_items(source, place.settings):
        data = source.open(place.settings, item.address)
        assert data
        assert not item.refusal
        assert item.n_bytes in (len(data), -1) or "#" in item.address
        assert data == source.open(place.settings, item.address)


@pytest.mark.parametrize("n_bytes", [1, 40, 10**6])
def test_a_head_is_where_the_file_begins(source: Source, place: Place, n_bytes: int) -> None:
    for item in list_items(source, place.settings):
        head, data = source.head(place.settings, item.address, n_bytes), source.open(place.settings, item.address)
        assert data.startswith(head)
        assert len(head) >= min(n_bytes, len(data))


def test_a_page_is_of_bounded_size(source: Source, place: Place, small_pages: int) -> None:
    pages = list(source.pages(place.settings, ""))
    assert len(pages) > 1
    assert max(len(page.items) for page in pages) <= small_pages


def test_a_listing_that_broke_off_goes_on_behind_its_last_page(source: Source, place: Place, small_pages: int) -> None:
    whole = list(source.pages(place.settings, ""))
    for n_before, page in enumerate(whole[:-1], start=1):
        rest = source.pages(place.settings, page.cursor)
        assert addresses(whole[:n_before]) + addresses(rest) == addresses(whole)


def test_what_came_since_is_in_the_next_listing(source: Source, place: Place, small_pages: int) -> None:
    before = list(source.pages(place.settings, ""))
    place.add()
    after = addresses(source.pages(place.settings, before[-1].cursor))
    assert len(set(after) - set(addresses(before))) == 1


def test_many_at_once_are_what_they_are_one_by_one(source: Source, place: Place) -> None:
    if source.open_all is None:
        pytest.skip("has no request for many")
    items = list(list_items(source, place.settings))
    assert len({item.series_uid for item in items}) > 1
    gone = Item("1.2.3/4.5.6/7.8.9", -1, 0, "4.5.6")
    found = dict(source.open_all(place.settings, [*items, gone]))
    assert found == {item: source.open(place.settings, item.address) for item in items}


def test_a_missing_place_is_said_to_be_missing(source: Source, place: Place) -> None:
    with pytest.raises(NoSuchPlace):
        list(list_items(source, place.missing))


def test_an_empty_place_lists_nothing(source: Source, place: Place) -> None:
    assert list(list_items(source, place.empty())) == []


@pytest.mark.parametrize("address", ["not/there", "a.zip!b", "b/a.zip!none", "1.2/3.4/5.6", "c.npz#none/0", "", "/"])
def test_an_item_that_is_gone_is_said_to_be_gone_without_its_address(
    source: Source, place: Place, address: str
) -> None:
    with pytest.raises(NoSuchPlace) as found:
        source.open(place.settings, address)
    assert len(address) < 3 or address not in str(found.value)
    assert found.value.__cause__ is None


@pytest.mark.parametrize("address", ["../secret", "b/../../secret", "/etc/passwd", "b\0", "../../dicom-web/studies"])
def test_an_address_cannot_lead_out_of_the_place(source: Source, place: Place, tmp_path: Path, address: str) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(NoSuchPlace):
        source.open(place.settings, address)


def test_a_refused_password_names_the_setting_and_not_the_password(
    source: Source, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not place.secrets:
        pytest.skip("asks for no password")
    address = addresses(source.pages(place.settings, ""))[0]
    variable = str(place.settings.secret_env)
    for secret in place.secrets:
        monkeypatch.setenv(variable, secret)
        for ask in (lambda: list(source.pages(place.settings, "")), lambda: source.open(place.settings, address)):
            with pytest.raises(BadSetting, match=variable) as found:
                ask()
            assert found.value.key == "secret_env"
            assert "wrong" not in str(found.value)
    monkeypatch.delenv(variable)
    with pytest.raises(BadSetting, match=f"{variable} is not set"):
        list(source.pages(place.settings, ""))


def test_a_server_that_is_down_is_unavailable_for_now(source: Source, place: Place) -> None:
    if place.down is None:
        pytest.skip("needs no server")
    for ask in (lambda: list(source.pages(place.down, "")), lambda: source.open(place.down, "1.2/3.4/5.6")):
        with pytest.raises(SiteUnavailable) as found:
            ask()
        assert found.value.retryable
        assert found.value.__cause__ is None
