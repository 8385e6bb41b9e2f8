import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from platform_core.errors import NoSuchPlace
from platform_core.manifest.book import Book, Entry, Group, open_book
from platform_core.manifest.door import open_door
from platform_core.manifest.workspace import Workspace
from platform_core.sources.contract import Item


@pytest.fixture
def book(workspace: Workspace) -> Book:
    return open_book(open_door(workspace), "north")


def entry(address: str, **facts: object) -> Entry:
    return Entry(**({"address": address, "n_bytes": 1, "modified_ns": 2, "content": "c", "arrival_key": "k"} | facts))  # type: ignore[arg-type]


def test_the_book_lies_outside_the_workspace_for_its_owner_alone(book: Book, workspace: Workspace) -> None:
    book.append([entry("a")])
    assert not book.file.is_relative_to(workspace.uri)
    assert stat.S_IMODE(book.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(book.file.parent.stat().st_mode) == 0o700


def test_the_last_line_of_an_address_counts(book: Book) -> None:
    book.append([entry("a", parts=(0, 1)), entry("b")])
    book.append([entry("a", n_bytes=9, parts=(1,))])
    assert book.read() == {"a": entry("a", n_bytes=9, parts=(1,)), "b": entry("b")}


def test_a_torn_last_line_is_left_out_and_does_not_spoil_the_next(book: Book) -> None:
    book.append([entry("a"), entry("b")])
    text = book.file.read_text()
    book.file.write_text(text[:-20])
    assert list(book.read()) == ["a"]
    book.append([entry("c")])
    assert list(book.read()) == ["a", "c"]


def test_lines_of_several_writers_do_not_mix(book: Book) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: book.append([entry(f"{n}/{k}") for k in range(20)]), range(16)))
    assert len(book.read()) == 320


def test_shards_keep_series_whole_under_opaque_names(book: Book) -> None:
    groups = [Group(f"base{n}", (Item(f"Erika/{n}", 1, 2), Item(f"Erika/{n}b", 3, 4))) for n in range(5)]
    names = book.put_shards("run1", groups, 2, 0)
    assert names == ("run1-00000", "run1-00001", "run1-00002")
    assert [group for name in names for group in book.get_shard(name)] == groups
    assert not any("Erika" in path.name for path in book.pending.iterdir())


def test_a_shard_that_is_not_there_is_named(book: Book) -> None:
    with pytest.raises(NoSuchPlace, match="run9-00000"):
        book.get_shard("run9-00000")


def test_two_sites_have_two_books(workspace: Workspace) -> None:
    door = open_door(workspace)
    open_book(door, "north").append([entry("a")])
    assert open_book(door, "south").read() == {}


def test_without_a_book_nothing_is_known(book: Book, tmp_path: Path) -> None:
    assert book.read() == {}
