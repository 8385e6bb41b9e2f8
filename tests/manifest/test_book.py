import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from platform_core.errors import NoSuchPlace
from platform_core.manifest import book as books
from platform_core.manifest.book import Book, Entry, open_book
from platform_core.manifest.door import open_door
from platform_core.manifest.process import this_process
from platform_core.manifest.workspace import Workspace
from platform_core.sources.contract import Item

S = 10**9


@pytest.fixture
def book(workspace: Workspace) -> Book:
    return open_book(open_door(workspace), "north")


def entry(address: str, key: str = "k", base: str | None = "b", **facts: object) -> Entry:
    return replace(Entry(address=address, n_bytes=1, modified_ns=2, arrival_key=key, base=base), **facts)  # type: ignore[arg-type]


def item(address: str, at_s: int = 1) -> Item:
    return Item(address, 1, at_s * S)


def test_the_book_lies_outside_the_workspace_for_its_owner_alone(book: Book, workspace: Workspace) -> None:
    book.settle([entry("a")], "r")
    assert not book.file.is_relative_to(workspace.uri)
    for file in book.file.parent.glob("north.sqlite*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(book.file.parent.stat().st_mode) == 0o700


def test_a_file_is_pending_until_it_has_an_outcome(book: Book) -> None:
    book.list_pending([(item("x/1"), "b"), (item("x/2"), "b")], 9 * S)
    assert (book.n_pending(), list(book.entries())) == (2, [])
    book.settle([entry("x/1", "k1", content="c", parts=(0, 1))], "r")
    group = book.group("b")
    assert [e.address for e in group.pending] == ["x/2"]
    assert group.done == (entry("x/1", "k1", content="c", parts=(0, 1)),)
    assert book.settled("r") == ["k1"]


def test_an_address_with_new_bytes_is_a_new_arrival(book: Book) -> None:
    book.settle([entry("a", "old", parts=(0,), content="c")], "r")
    book.list_pending([(item("a", 5), "b")], 9 * S)
    (now,) = book.group("b").pending
    assert (now.arrival_key, now.parts, now.content) == ("", (), "")


def test_a_file_that_waits_keeps_its_arrival_key(book: Book) -> None:
    book.list_pending([(item("a"), "b")], 9 * S)
    book.settle([entry("a", "waited")], "r1", is_done=False)
    book.list_pending([(item("a", 7), "b")], 9 * S)
    assert book.group("b").pending[0].arrival_key == "waited"


def test_a_series_is_at_rest_when_its_last_file_is(book: Book) -> None:
    book.list_pending([(item("a", 10), "old"), (item("b", 10), "new"), (item("c", 50), "new")], 60 * S)
    assert list(book.series_at_rest(30 * S)) == ["old"]
    assert list(book.series_moving(30 * S)) == ["new"]
    assert list(book.series_at_rest(50 * S)) == ["new", "old"]


def test_a_file_of_unknown_or_future_time_counts_from_when_it_was_seen(book: Book) -> None:
    book.list_pending([(Item("unknown", -1, 0), "u"), (item("future", 900), "f")], 60 * S)
    assert list(book.series_moving(59 * S)) == ["f", "u"]
    assert list(book.series_at_rest(60 * S)) == ["f", "u"]


def test_shards_keep_series_whole_under_opaque_names(book: Book) -> None:
    bases = [f"base{n}" for n in range(5)]
    names = book.put_shards("run1", bases, 2)
    assert names == ("run1-00000", "run1-00001", "run1-00002")
    assert [base for name in names for base in book.get_shard(name)] == bases


def test_a_shard_that_is_not_there_is_named(book: Book) -> None:
    with pytest.raises(NoSuchPlace, match="run9-00000"):
        book.get_shard("run9-00000")


def test_a_site_is_left_to_the_run_that_is_at_work_on_it(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = this_process()
    assert book.begin("r1", "")
    monkeypatch.setattr(books, "this_process", lambda: "1:1")
    assert not book.begin("r2", "")
    book.end()
    assert not book.begin("r2", "")
    monkeypatch.setattr(books, "this_process", lambda: mine)
    book.end()
    monkeypatch.setattr(books, "this_process", lambda: "1:1")
    assert book.begin("r2", "")


def test_a_run_that_was_killed_does_not_keep_the_site(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "this_process", lambda: "4194399:77")
    assert book.begin("r1", "")
    monkeypatch.undo()
    assert book.begin("r2", "")


def test_a_book_of_other_tables_is_emptied(book: Book) -> None:
    book.begin("r1", "")
    book.settle([entry("a")], "r1")
    book.begin("r2", "lake-1")
    assert [e.address for e in book.entries()] == ["a"]
    book.begin("r3", "lake-2")
    assert list(book.entries()) == []


def test_what_is_reopened_is_decided_again(book: Book) -> None:
    book.settle([entry("a", "k1", "b1"), entry("b", "k2", None), entry("c", "k3", "b3")], "r")
    assert book.reopen(["b1"], ["k2"]) == 2
    assert [e.address for e in book.group("b1").pending] == ["a"]
    assert [e.address for e in book.entries()] == ["c"]


def test_writers_wait_for_one_another(book: Book) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: book.settle([entry(f"{n}/{k}") for k in range(20)], "r"), range(16)))
    assert len(list(book.entries())) == 320


def test_two_sites_have_two_books(workspace: Workspace) -> None:
    door = open_door(workspace)
    open_book(door, "north").settle([entry("a")], "r")
    assert list(open_book(door, "south").entries()) == []


def test_a_book_of_the_time_when_whole_series_were_released_still_opens(book: Book) -> None:
    """What it held then stays released; what comes later is looked at."""
    book.settle(
        [entry("a", "k1", content="c1"), entry("b", "k2", content="c2"), entry("c", "k3", "x", content="c3")], "r"
    )
    with sqlite3.connect(book.file) as old:
        old.execute("DROP TABLE released")
        old.execute("DROP TABLE shown")
        old.execute("INSERT INTO fact VALUES ('released/b', 'it says PORTABLE')")
    assert book.group("b").released == {"c1", "c2"}
    book.settle([entry("d", "k4", content="c4")], "r")
    assert book.group("b").released == {"c1", "c2"}
    assert book.group("x").released == set()
