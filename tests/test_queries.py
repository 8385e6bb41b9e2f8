"""Every `.sql` file in the tree is documented, and its header is true."""

from pathlib import Path

import pytest

from platform_core.queries import Query, load

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
