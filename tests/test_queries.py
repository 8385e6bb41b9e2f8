"""Every `.sql` file in the tree is documented, and its header is true."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from platform_core.queries import Query, connect, load

ROOT = Path(__file__).parents[1] / "platform_core"
FILES = sorted(ROOT.rglob("sql/*.sql"))


def query_of(file: Path) -> Query:
    package = ".".join(("platform_core", *file.parent.parent.relative_to(ROOT).parts))
    return load(package, file.stem)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.parent.name}/{f.stem}")
def test_a_query_opens_with_its_own_documentation(file: Path) -> None:
    header = query_of(file).header
    assert header["purpose"].startswith(f"{file.stem}: ")
    assert header.get("reads")
    assert header.get("returns")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.parent.name}/{f.stem}")
def test_the_documented_parameters_are_those_that_bind(file: Path) -> None:
    query = query_of(file)
    documented = {word.strip(",.;:") for word in query.header.get("params", "").split() if word.startswith("$")}
    assert documented == {f"${name}" for name in query.params}


def test_two_connections_do_not_see_each_other_s_tables() -> None:
    with connect({"t": pa.table({"x": [1]})}) as first, connect({"t": pa.table({"x": [2]})}) as second:
        second.register("only_here", second.sql("SELECT x FROM t"))
        assert first.sql("FROM t").fetchall() == [(1,)]
        assert second.sql("FROM only_here").fetchall() == [(2,)]
        with pytest.raises(duckdb.CatalogException):
            first.sql("FROM only_here")
    with connect({}) as third, pytest.raises(duckdb.CatalogException):
        third.sql("FROM t")


def test_many_threads_may_ask_at_once() -> None:
    def ask(i: int) -> list[tuple[int]]:
        with connect({"t": pa.table({"x": [i] * 1000})}) as db:
            return db.sql("SELECT max(x) FROM t").fetchall()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == [[(i,)] for i in range(64)]
