"""What every kind of source promises, held against every one that exists."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from platform_core.errors import NoSuchPlace
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES
from platform_core.sources.contract import Source, list_items

Place = Callable[[Path], str]


def a_folder(path: Path) -> str:
    for name in ("b/2", "a.dcm", "b/1", "C/x y"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode() * 50)
    (path / ".hidden").write_text("no scan")
    return str(path)


def an_image_folder(path: Path) -> str:
    (path / "deep").mkdir()
    for name in ("b.png", "deep/a.png"):
        Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(path / name)
    np.savez(path / "c.npz", train_images=np.zeros((12, 4, 4), np.uint8), test_images=np.ones((2, 4, 4), np.uint8))
    return str(path)


PLACES: dict[str, Place] = {"folder": a_folder, "image_folder": an_image_folder}
"""A small place of each kind; a new kind of source adds its own."""


@pytest.fixture(params=SOURCES.values(), ids=list(SOURCES))
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.param
    return found


@pytest.fixture
def settings(source: Source, tmp_path: Path) -> SiteSettings:
    return SiteSettings(source=source.name, path=PLACES[source.name](tmp_path))


def test_the_same_place_is_listed_twice_in_the_same_order(source: Source, settings: SiteSettings) -> None:
    first = list(list_items(source, settings))
    assert len(first) > 3
    assert first == list(list_items(source, settings))


def test_addresses_are_relative_and_unique(source: Source, settings: SiteSettings) -> None:
    addresses = [item.address for item in list_items(source, settings)]
    assert len(set(addresses)) == len(addresses)
    assert not any(address.startswith("/") or settings.path in address for address in addresses)


def test_every_item_can_be_opened_and_twice_gives_the_same_bytes(source: Source, settings: SiteSettings) -> None:
    for item in list_items(source, settings):
        data = source.open(settings, item.address)
        assert data
        assert data == source.open(settings, item.address)


def test_a_missing_place_is_said_to_be_missing(source: Source, tmp_path: Path) -> None:
    with pytest.raises(NoSuchPlace):
        list(list_items(source, SiteSettings(source=source.name, path=str(tmp_path / "nowhere"))))


def test_an_empty_place_lists_nothing(source: Source, tmp_path: Path) -> None:
    assert list(list_items(source, SiteSettings(source=source.name, path=str(tmp_path)))) == []


def test_an_item_that_is_gone_is_said_to_be_gone(source: Source, settings: SiteSettings) -> None:
    with pytest.raises(NoSuchPlace):
        source.open(settings, "not/there")


def test_an_address_cannot_lead_out_of_the_place(source: Source, settings: SiteSettings, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(NoSuchPlace):
        source.open(settings.model_copy(update={"path": str(inside)}), "../secret")
